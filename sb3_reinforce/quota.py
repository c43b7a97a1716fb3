"""Which episodes of a vectorised environment make up a batch of m trajectories."""

from typing import Any

import numpy as np

from sb3_reinforce.infos import own_info

#: What ``EpisodeQuota.recording`` says of an environment's episode: it is of the batch, or of the next one. Greater numbers
#: are of the batches after that, and 0 is of none.
THIS_BATCH, NEXT_BATCH = 1, 2
#: Of the last info of an episode, what SB3 reads when the batch is whole.
_KEPT = ("episode", "is_success")


class EpisodeQuota:
    """The first m episodes *started* are the batch, and each is recorded to its end.

    Keeping the first m that *finish* would prefer short ones. When an episode starts, nothing of its future is known,
    so this rule drops no trajectory for its length, and the m are independent draws from P(τ;θ). Episodes that start
    in the same step are numbered by their environments, from ``first_env`` on and around.

    Episodes that start after these m may go ahead. The first m of them are the next batch, the m after those the batch after
    it. Each is recorded to its end, too.

    :param n_episodes: m, number of trajectories to record, at least 1
    :param n_envs: number of parallel environments, each at the first step of an episode
    :param max_length: number of steps after which an episode is to be cut or complained about, at least 1
    :param first_env: the environment that comes first where several start at once
    :param n_ahead: number of batches, of m trajectories each, whose episodes may go ahead, at least 0
    """

    def __init__(self, n_episodes: int, n_envs: int, max_length: int, first_env: int = 0, n_ahead: int = 0):
        self.max_length = max_length
        self.sizes = [n_episodes] * (1 + n_ahead)  # of the batch, and of those that go ahead
        self.owed = [*self.sizes]  # trajectories of each that have not yet started
        self.n_recording = 0
        self.recording = np.zeros(n_envs, dtype=np.int8)  # which batch each environment's current episode is of
        self.numbers = [0] * n_envs  # of these episodes within their batch, in order of start
        #: Last infos of each batch's episodes that have ended, by their numbers.
        self.infos: list[dict[int, dict[str, Any]]] = [{} for _ in self.sizes]
        self.deadline = max_length  # no episode has to be cut before this step
        self._started_at = np.zeros(n_envs, dtype=np.int64)
        self._priority = (np.arange(n_envs) + first_env) % n_envs
        self.start(np.ones(n_envs, dtype=bool), 0)

    @property
    def n_episodes(self) -> int:
        """Number of trajectories of the batch."""
        return self.sizes[0]

    @property
    def n_owed(self) -> int:
        """Number of trajectories of the batch that have not yet started."""
        return self.owed[0]

    def advance(
        self, dones: np.ndarray, infos: list[dict[str, Any]], n_steps: int, resetting: np.ndarray | None = None
    ) -> tuple[list[int], list[int]]:
        """End the episodes that a step has ended, begin those after them, and cut those that are too long.

        :param dones: environments whose episode has ended, bool ``[n_envs]``
        :param infos: last infos of these episodes, by environment
        :param n_steps: steps taken so far in this rollout
        :param resetting: as for ``cut``
        :return: environments whose recorded episode has ended, and those whose recorded episode was cut
        """
        ended = (self.recording * dones).nonzero()[0].tolist()
        for env in ended:
            kept = own_info({key: infos[env][key] for key in _KEPT if key in infos[env]})
            self.infos[self.recording[env] - THIS_BATCH][self.numbers[env]] = kept
        self.start(dones, n_steps)
        return ended, self.cut(n_steps, resetting)

    def start(self, fresh: np.ndarray, n_steps: int) -> None:
        """Begin new episodes, recorded as long as trajectories are owed; whatever ran there before has ended.

        :param fresh: environments that stand at the first step of an episode, bool ``[n_envs]``
        :param n_steps: steps taken so far in this rollout
        """
        self.recording[fresh] = 0
        if self.owed[-1] > 0:
            starting = self._priority[fresh[self._priority]].tolist()
            for batch, (size, owed) in enumerate(zip(self.sizes, self.owed, strict=True)):
                envs, starting = starting[:owed], starting[owed:]
                for number, env in enumerate(envs, start=size - owed):
                    self.numbers[env] = number
                self.recording[envs] = THIS_BATCH + batch
                self._started_at[envs] = n_steps
                self.owed[batch] -= len(envs)
                if not starting:
                    break
        self._count()

    def _count(self) -> None:
        self.n_recording = int(np.count_nonzero(self.recording == THIS_BATCH))

    def cut(self, n_steps: int, resetting: np.ndarray | None = None) -> list[int]:
        """Stop recording the episodes that have reached ``max_length``; to be called at ``deadline`` or before.

        :param n_steps: steps taken so far in this rollout
        :param resetting: environments whose episode has ended and which their next step resets, bool ``[n_envs]``; None: none
        :return: the environments whose episode was cut
        """
        if n_steps < self.deadline:
            return []
        outlasting = (self.recording > 0) & (n_steps - self._started_at >= self.max_length)
        if resetting is not None:
            outlasting &= ~resetting
        self.recording[outlasting] = 0
        self._count()
        self.deadline = int(self._started_at[self.recording > 0].min(initial=n_steps)) + self.max_length
        return outlasting.nonzero()[0].tolist()

    @property
    def n_fixed(self) -> int | None:
        """Number of trajectories of the next batch, once one of them has started; None: it is still open."""
        return self.sizes[1] if len(self.sizes) > 1 and self.owed[1] < self.sizes[1] else None

    def turn_to_next(self, n_episodes: int, max_length: int, n_steps: int) -> None:
        """Make the episodes that have gone ahead the first of the batch.

        A batch that has begun keeps its size. How much of it has begun depends on how long the trajectories before it were,
        its own among them, so a size that depended on that would prefer some lengths.

        :param n_episodes: m, the size of each batch of which no trajectory has started
        :param max_length: number of steps after which an episode is to be cut or complained about, at least 1
        :param n_steps: steps that were taken in the rollout that is over
        """
        n_begun = [*(size - owed for size, owed in zip(self.sizes[1:], self.owed[1:], strict=True)), 0]
        self.sizes = [size if n > 0 else n_episodes for size, n in zip([*self.sizes[1:], n_episodes], n_begun, strict=True)]
        self.owed = [size - n for size, n in zip(self.sizes, n_begun, strict=True)]
        self.infos = [*self.infos[1:], {}]
        self.recording -= self.recording > 0
        self._started_at -= n_steps
        self.max_length = max_length
        self.deadline = int(self._started_at[self.recording > 0].min(initial=0)) + max_length
        self._count()
