"""Which episodes of a vectorised environment make up a batch of m trajectories."""

import numpy as np


class EpisodeQuota:
    """The first m episodes *started* are the batch, and each is recorded to its end.

    Keeping the first m that *finish* would prefer short ones. When an episode starts, nothing of its future is known,
    so this rule drops no trajectory for its length, and the m are independent draws from P(τ;θ). Episodes that start
    in the same step are numbered by their environments, from ``first_env`` on and around.

    :param n_episodes: m, number of trajectories to record, at least 1
    :param n_envs: number of parallel environments, each at the first step of an episode
    :param max_length: number of steps after which an episode is to be cut or complained about, at least 1
    :param first_env: the environment that comes first where several start at once
    """

    def __init__(self, n_episodes: int, n_envs: int, max_length: int, first_env: int = 0):
        self.n_episodes = n_episodes
        self.max_length = max_length
        self.n_owed = n_episodes  # trajectories not yet started
        self.n_recording = 0
        self.recording = np.zeros(n_envs, dtype=bool)  # the environments whose current episode is in the batch
        self.numbers = [0] * n_envs  # of these episodes, in order of start
        self.deadline = max_length  # no episode has to be cut before this step
        self._started_at = np.zeros(n_envs, dtype=np.int64)
        self._priority = (np.arange(n_envs) + first_env) % n_envs
        self.start(np.ones(n_envs, dtype=bool), 0)

    def start(self, fresh: np.ndarray, n_steps: int) -> None:
        """Begin new episodes, recorded as long as trajectories are owed; whatever ran there before has ended.

        :param fresh: environments that stand at the first step of an episode, bool ``[n_envs]``
        :param n_steps: steps taken so far in this rollout
        """
        self.recording[fresh] = False
        if self.n_owed > 0:
            recorded = self._priority[fresh[self._priority]][: self.n_owed]
            for number, env in enumerate(recorded.tolist(), start=self.n_episodes - self.n_owed):
                self.numbers[env] = number
            self.n_owed -= len(recorded)
            self.recording[recorded] = True
            self._started_at[recorded] = n_steps
        self.n_recording = int(np.count_nonzero(self.recording))

    def cut(self, n_steps: int, ended: np.ndarray | bool = False) -> list[int]:
        """Stop recording the episodes that have reached ``max_length``; to be called at ``deadline`` or before.

        :param n_steps: steps taken so far in this rollout
        :param ended: environments whose episode has ended and which are reset by their next step, bool ``[n_envs]``
        :return: the environments whose episode was cut
        """
        if n_steps < self.deadline:
            return []
        outlasting = self.recording & ~np.asarray(ended) & (n_steps - self._started_at >= self.max_length)
        self.recording &= ~outlasting
        self.n_recording = int(np.count_nonzero(self.recording))
        self.deadline = int(self._started_at[self.recording].min(initial=n_steps)) + self.max_length
        return outlasting.nonzero()[0].tolist()
