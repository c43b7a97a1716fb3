"""Storage for a batch of whole trajectories."""

from collections.abc import Generator, Iterable, Iterator
from typing import Any, NoReturn

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from sb3_reinforce.batch import (
    NOTHING,
    Batch,
    EpisodicRolloutBufferSamples,
    Given,
    Observations,
    arrays,
    copied,
    indexed,
    mapped,
)
from sb3_reinforce.quota import NEXT_BATCH, THIS_BATCH
from sb3_reinforce.returns import last_steps, trajectory_returns

try:
    import psutil
except ImportError:  # as in SB3: without it, memory is not checked
    psutil = None  # type: ignore[assignment]


class _NotHeld:
    """Stands for what SB3's rollout buffers hold and this one does not; whoever reads or sets it is told so."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, buffer: object, owner: type) -> NoReturn:
        raise AttributeError(
            f"EpisodicRolloutBuffer has no `{self._name}`: REINFORCE computes what it needs in `train()`, from `rewards`. To "
            "change what is learned, add to `rewards` before."
        )

    def __set__(self, buffer: object, value: object) -> None:
        self.__get__(buffer, type(buffer))


class EpisodicRolloutBuffer(RolloutBuffer):
    """Whole trajectories, and their returns.

    While collecting, storage is ``[n_rows, n_envs, ...]`` as in SB3, with a mask of the steps that belong to the
    batch; it grows as needed and is reused by the next rollout. ``compute_returns_and_advantage`` then orders the m
    trajectories of M steps one after the other (flat, episode-major), without copying the observations.

    :param buffer_size: number of rows (steps of the vectorised environment) to allocate at first
    :param observation_space: observation space, Dict included
    :param action_space: action space
    :param device: device of the tensors that ``get`` yields
    :param gae_lambda: not used; SB3 passes it to every rollout buffer
    :param gamma: discount factor of the returns, in [0, 1]
    :param n_envs: number of parallel environments
    """

    observations: Observations  # type: ignore[assignment]
    rewards: np.ndarray
    """Reward of each step, float32 ``[n_rows, n_envs]``. What is added to them before ``train()`` counts."""
    given: dict[str, np.ndarray]
    """What else the policy was given at each step, by the name of its argument, ``[n_rows, n_envs, ...]``."""
    recorded: np.ndarray
    """Which batch each step is of, int8 ``[n_rows, n_envs]``: 1 this one, 2 the next, 3 the one after it; 0 none."""
    n_carried: int
    """Number of rows that an earlier rollout collected; they come first."""
    lengths: np.ndarray
    """Number of steps of each trajectory, int64 ``[m]``."""
    advantages = _NotHeld()
    values = _NotHeld()
    log_probs = _NotHeld()
    last_observations: dict[int, Observations]
    """s_H of trajectories that were cut, by their last step's index in the batch of M steps."""

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: th.device | str = "auto",
        gae_lambda: float = 1,
        gamma: float = 0.99,
        n_envs: int = 1,
    ):
        self._allocated = False
        super().__init__(buffer_size, observation_space, action_space, device, gae_lambda, gamma, n_envs)

    def reset(self) -> None:
        """Forget the batch and keep the storage."""
        if not self._allocated:
            self._allocate()
        self.pos = 0
        self.full = False
        self.n_carried = 0
        self._n_checked = 0
        self._cut_at: dict[int, Observations] = {}
        self._earlier_log_probs = np.empty(0, dtype=np.float32)  # one for each step of the rows carried, as stored

    def turn_to_next(self, log_probs: Iterable[np.ndarray]) -> None:
        """Drop this batch; the next one takes its place. The steps of batches that go ahead are moved to the first rows.

        :param log_probs: for each batch that goes ahead, log π of each of its actions, by the policy of the rollout that is
            over, float32 ``[M]``
        """
        earlier_log_probs = np.full(self.pos * self.n_envs, np.nan, dtype=np.float32)
        for number, each in enumerate(log_probs, start=NEXT_BATCH):
            earlier_log_probs[self._ordered(number)[0]] = each
        # The steps that were carried already were taken by policies that were earlier still.
        earlier_log_probs[: len(self._earlier_log_probs)] = self._earlier_log_probs
        rows = np.flatnonzero((self.recorded[: self.pos] >= NEXT_BATCH).any(axis=1))
        cut_at = {divmod(at, self.n_envs): obs for at, obs in self._cut_at.items()}
        for column in self._columns():
            column[: len(rows)] = column[rows]
        self.recorded[: len(rows)] -= self.recorded[: len(rows)] > 0

        self.reset()
        self.pos = self.n_carried = self._n_checked = len(rows)
        self._earlier_log_probs = earlier_log_probs.reshape(-1, self.n_envs)[rows].reshape(-1)
        new_rows = {int(row): new for new, row in enumerate(rows)}
        self._cut_at = {new_rows[row] * self.n_envs + env: obs for (row, env), obs in cut_at.items() if row in new_rows}

    def _allocate(self) -> None:
        rows = (self.buffer_size, self.n_envs)
        if isinstance(self.observation_space, spaces.Dict):
            self.observations = {
                key: np.zeros((*rows, *_shape(space)), dtype=space.dtype) for key, space in self.observation_space.items()
            }
        else:
            self.observations = np.zeros((*rows, *_shape(self.observation_space)), dtype=self.observation_space.dtype)
        # A Box action is stored as the policy sampled it, in float32, even where the environment wants integers.
        action_dtype = np.float32 if isinstance(self.action_space, spaces.Box) else self.action_space.dtype
        self.actions = np.zeros((*rows, *_shape(self.action_space)), dtype=action_dtype)
        self.rewards = np.zeros(rows, dtype=np.float32)
        self.episode_starts = np.zeros(rows, dtype=bool)
        self.recorded = np.zeros(rows, dtype=np.int8)
        self.given = {}
        self._allocated = True

    def add(
        self,
        obs: Observations,
        action: np.ndarray,
        reward: np.ndarray,
        episode_start: np.ndarray,
        value: th.Tensor | None = None,
        log_prob: th.Tensor | None = None,
        recorded: np.ndarray | bool = True,
        given: Given = NOTHING,
    ) -> None:
        """Store one step of all environments.

        :param obs: what the policy saw, ``[n_envs, ...]``
        :param action: what the policy sampled, before any clipping or scaling, ``[n_envs, ...]``
        :param reward: float ``[n_envs]``
        :param episode_start: whether this is the first step of an episode, bool ``[n_envs]``
        :param value: not stored; ``REINFORCE`` evaluates what it needs once, in ``train()``
        :param log_prob: not stored, likewise
        :param recorded: which environments' steps are of the batch (1, True), the next (2) and so on, ``[n_envs]``; True: all
        :param given: what else the policy was given, by the name of its argument, ``[n_envs, ...]``
        :raises ValueError: if a stored reward or observation is not finite, or the machine's memory is exceeded;
            both are looked at only when storage has to grow
        """
        if self.pos == 0:
            # A wrapper such as ``VecNormalize`` returns floats where the space is of integers or of float16.
            self.observations = mapped(_like, self.observations, obs)
            self.given = {name: self._column(self.given.get(name), values) for name, values in given.items()}
        if self.pos == self.buffer_size:
            self._grow()
        row = self.pos
        if isinstance(self.observations, dict):
            for key, stored in self.observations.items():
                stored[row] = obs[key]
        else:
            self.observations[row] = obs
        stored_actions = self.actions[row]
        stored_actions[...] = action if action.shape == stored_actions.shape else action.reshape(stored_actions.shape)
        self.rewards[row] = reward
        self.episode_starts[row] = episode_start
        self.recorded[row] = recorded
        for name, values in given.items():
            self.given[name][row] = values
        self.pos += 1

    def _column(self, stored: np.ndarray | None, values: np.ndarray) -> np.ndarray:
        """Storage for such values at each step: what there is, if they fit."""
        shape = (self.buffer_size, *values.shape)
        fits = stored is not None and (stored.shape, stored.dtype) == (shape, values.dtype)
        return stored if fits else np.zeros(shape, values.dtype)  # type: ignore[return-value]

    def add_last_observations(self, observations: dict[int, Observations], acted: np.ndarray | None = None) -> None:
        """Keep copies of what was observed after the step just added, where that was the last of a trajectory cut there.

        :param observations: s_H, by the index of the environment
        :param acted: environments that the step just added was a step of, bool ``[n_envs]``; where it only reset one, the
            trajectory's last step is the one before. None: all
        """
        for env, obs in observations.items():
            row = self.pos - 1 if acted is None or acted[env] else self.pos - 2
            self._cut_at[row * self.n_envs + env] = copied(obs)

    def _grow(self) -> None:
        """Double the number of rows."""
        self._check_finite()
        if psutil is not None and (available := psutil.virtual_memory().available) < 2 * self.nbytes:
            raise ValueError(
                f"The rollout has filled its {self.nbytes / 1e9:.2f} GB, and to grow it needs twice as much, but only "
                f"{available / 1e9:.2f} GB of memory are free. Choose a smaller `n_episodes`, a shorter `horizon` or fewer "
                "environments."
            )
        self.observations = mapped(_doubled, self.observations)
        self.actions = _doubled(self.actions)
        self.rewards = _doubled(self.rewards)
        self.episode_starts = _doubled(self.episode_starts)
        self.recorded = _doubled(self.recorded)
        self.given = {name: _doubled(stored) for name, stored in self.given.items()}
        self.buffer_size *= 2

    @property
    def nbytes(self) -> int:
        """Size of the storage in bytes."""
        return sum(column.nbytes for column in self._columns())

    def _columns(self) -> list[np.ndarray]:
        """All storage."""
        observations = arrays(self.observations)
        return [*observations, *self.given.values(), self.actions, self.rewards, self.episode_starts, self.recorded]

    def _check_finite(self) -> None:
        """Raise if an environment has returned NaN or infinity since the last time this was asked.

        Asked when storage grows and when the batch is whole: that is often enough to stop an environment that NaN
        keeps from ending, and costs nothing at each step.
        """
        rows = slice(self._n_checked, self.pos)
        columns = {name: stored[rows] for name, stored in _named(self.observations).items()}
        raise_if_not_finite({**columns, "reward": self.rewards[rows]}, self._n_checked - self.n_carried)
        self._n_checked = self.pos

    def check_next_observation(self, obs: Observations) -> None:
        """Raise if an observation that is not stored yet, because no action could be found for it, is not finite.

        :param obs: what the policy saw, ``[n_envs, ...]``
        """
        raise_if_not_finite({name: values[None] for name, values in _named(obs).items()}, self.pos - self.n_carried)

    def compute_returns_and_advantage(self, last_values: th.Tensor | None = None, dones: np.ndarray | None = None) -> None:
        """Order the batch by trajectory: sets ``lengths`` and ``last_observations``, and with them ``returns``.

        :param last_values: not used; a whole trajectory needs no value to stand for its rest
        :param dones: not used, likewise
        :raises ValueError: if a stored reward or observation is not finite
        """
        self._check_finite()
        self._order, self.lengths = self._ordered(THIS_BATCH)
        self.last_observations = {
            int(step): self._cut_at[at] for step in last_steps(self.lengths) if (at := self._order[step]) in self._cut_at
        }
        self.full = True

    def _ordered(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the steps of a batch are stored, trajectory by trajectory, int64 ``[M]``, and the length of each."""
        recorded = np.equal(self.recorded[: self.pos].T, number)
        envs, rows = np.nonzero(recorded)  # environment by environment, each in order of time
        starts = np.flatnonzero(self.episode_starts[: self.pos].T[recorded])
        return rows * self.n_envs + envs, np.diff(starts, append=len(rows))

    @property
    def step_rewards(self) -> np.ndarray:
        """Reward of each step of the batch, flat and episode-major as ``returns.py`` takes it, float32 ``[M]``, read-only."""
        return _read_only(_rows(self.rewards)[self._order])

    @property
    def returns(self) -> np.ndarray:
        """R(τ) of each trajectory, float64 ``[m]``, read-only: add to ``rewards`` instead."""
        return _read_only(trajectory_returns(self.step_rewards, self.lengths, self.gamma))

    @returns.setter
    def returns(self, value: np.ndarray) -> None:
        raise AttributeError("`returns` are the sums of `rewards`: add to those, before `train()`.")

    def rows(self) -> Iterator[tuple[Observations, np.ndarray]]:
        """What was seen at each step, ``[n_envs, ...]``, and whether that was the first of an episode, bool ``[n_envs]``."""
        for i in range(self.pos):
            yield indexed(self.observations, i), self.episode_starts[i]

    def size(self) -> int:
        """Number of rows that were collected."""
        return self.pos

    def batch(self, number: int = THIS_BATCH) -> Batch:
        """The batch as it stands, for an update, or what there is of the next one.

        :param number: ``THIS_BATCH``, ``NEXT_BATCH`` or that of one after it
        :raises ValueError: if a reward is not finite, as it may have become since the batch was ordered
        """
        raise_if_not_finite({"reward": self.rewards[: self.pos]}, -self.n_carried)
        order, lengths = (self._order, self.lengths) if number == THIS_BATCH else self._ordered(number)
        earlier_log_probs = np.full(len(order), np.nan, dtype=np.float32)
        carried = order < len(self._earlier_log_probs)
        earlier_log_probs[carried] = self._earlier_log_probs[order[carried]]
        return Batch(
            lengths=lengths,
            rewards=_rows(self.rewards)[order],
            last_observations=self.last_observations if number == THIS_BATCH else {},
            observations=mapped(_rows, self.observations),
            actions=_rows(self.actions),
            given={name: _rows(values) for name, values in self.given.items()},
            order=order,
            earlier_log_probs=earlier_log_probs,
            discrete=isinstance(self.action_space, spaces.Discrete),
            device=self.device,
        )

    def get(  # type: ignore[override]
        self, batch_size: int | None = None
    ) -> Generator[EpisodicRolloutBufferSamples, None, None]:
        """Yield the batch in parts, in order, each step once.

        :param batch_size: at most this many steps in each part, at least 1; None: all in one
        """
        yield from self.batch().parts(batch_size)


def _named(obs: Observations) -> dict[str, np.ndarray]:
    """Observations by the names that an error gives them."""
    return {f"observation {key}": each for key, each in obs.items()} if isinstance(obs, dict) else {"observation": obs}


def raise_if_not_finite(columns: dict[str, np.ndarray], first_row: int) -> None:
    """Raise a ``ValueError`` that names the first NaN or infinity, if there is one.

    :param columns: what to look at, by name, each ``[n_rows, n_envs, ...]``
    :param first_row: the step that the first row is of
    """
    found = []
    for name, values in columns.items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            row, env = np.argwhere(~np.isfinite(values))[0][:2]
            found.append((row, env, name, values[row, env]))
    if found:
        row, env, name, value = min(found, key=lambda first: first[0])
        step = f"step {first_row + row} of the rollout" if first_row + row >= 0 else "a step carried from an earlier rollout"
        raise ValueError(f"Environment {env}: {name} at {step} is not finite: {value}. Nothing was learned from this rollout.")


def _shape(space: spaces.Space[Any]) -> tuple[int, ...]:
    """Shape of one element as a ``VecEnv`` stacks it."""
    assert space.shape is not None, f"{space} has no shape"
    return space.shape


def _like(stored: np.ndarray, obs: np.ndarray) -> np.ndarray:
    """Storage that observations fit in: itself, unless it is of integers or half precision and they are not."""
    if not np.issubdtype(obs.dtype, np.floating):
        return stored
    fits = np.issubdtype(stored.dtype, np.floating) and stored.dtype.itemsize >= min(obs.dtype.itemsize, 4)
    return stored if fits else stored.astype(np.float32)


def _doubled(array: np.ndarray) -> np.ndarray:
    """The same rows, and as many again of zeros."""
    grown = np.zeros((2 * len(array), *array.shape[1:]), dtype=array.dtype)
    grown[: len(array)] = array
    return grown


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _rows(array: np.ndarray) -> np.ndarray:
    """View of ``[n_rows, n_envs, ...]`` as ``[n_rows * n_envs, ...]``."""
    return array.reshape(-1, *array.shape[2:])
