"""``Batch``: what a rollout hands to an update."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

#: What a policy is given at a step besides observations, by the name of its argument, ``[n_envs, ...]``: action masks, say.
Given = Mapping[str, np.ndarray]
NOTHING: Given = {}
#: An observation of all environments, or their storage: an array, or one for each key of a Dict space.
Observations = np.ndarray | dict[str, np.ndarray]


def copied(obs: Observations) -> Observations:
    """The same observations in arrays of their own."""
    if type(obs) is np.ndarray:  # at each step, where half a microsecond counts
        return obs.copy()
    return mapped(np.array, obs)


def mapped(function: Callable[..., Any], first: Any, *others: Any) -> Any:
    """What a function makes of observations: of the arrays or tensors themselves, or of those under each key.

    :param first: observations; its keys count
    :param others: further arguments of the function, of the same form
    """
    if isinstance(first, dict):
        return {key: function(value, *(other[key] for other in others)) for key, value in first.items()}
    return function(first, *others)


def arrays(obs: Observations) -> list[np.ndarray]:
    """The arrays of observations: one, or one for each key."""
    return list(obs.values()) if isinstance(obs, dict) else [obs]


def indexed(obs: Observations, index: int) -> Observations:
    """What observations have at an index of their first dimension, as a view."""
    return mapped(lambda values: values[index], obs)


class EpisodicRolloutBufferSamples(NamedTuple):
    """Some steps of the flat, episode-major batch."""

    observations: PyTorchObs
    """float or as the space has it, ``[B, ...]``, or one tensor for each key."""
    actions: th.Tensor
    """As ``policy.evaluate_actions`` takes them: int64 ``[B]`` for Discrete, else float32 ``[B, action_dim]``."""
    steps: slice | np.ndarray
    """Where in the batch of M steps these B are, to index what has one number a step."""
    given: dict[str, th.Tensor]
    """What else the policy was given at each step, by the name of its argument, ``[B, ...]``."""


@dataclass(frozen=True)
class Batch:
    """m whole trajectories of M steps, flat and episode-major as ``returns.py`` has it.

    Observations and actions stay where the rollout has stored them, and are brought into this order part by part. Where
    several processes have collected the batch, each has all its numbers, but observations and actions only of its own part.
    """

    lengths: np.ndarray
    """Number of steps of each trajectory, int64 ``[m]``."""
    rewards: np.ndarray
    """Reward of each step, float32 ``[M]``."""
    last_observations: dict[int, Observations]
    """s_H of this process's trajectories that were cut, by their last step's index in the batch."""
    observations: Observations
    """What the policy saw, as stored, ``[n_rows * n_envs, ...]``."""
    actions: np.ndarray
    """What the policy sampled, as stored, ``[n_rows * n_envs, ...]``."""
    given: dict[str, np.ndarray]
    """What else the policy was given, as stored, by the name of its argument, ``[n_rows * n_envs, ...]``."""
    order: np.ndarray
    """Where each step of the batch is stored, int64 ``[M]``; -1: in another process."""
    earlier_log_probs: np.ndarray
    """log π of each action by the earlier policy that took it, and NaN where the batch's own did, float32 ``[M]``."""
    discrete: bool
    """Whether actions are of a Discrete space, one integer each."""
    device: th.device
    """Where the tensors go."""
    own: slice | None = None
    """Which of the m trajectories this process has collected. None: all, and there is no other process."""

    def parts(self, batch_size: int | None = None, within: slice | None = None) -> Iterator[EpisodicRolloutBufferSamples]:
        """Yield the batch in parts, in order, each step once.

        :param batch_size: number of steps in each part but the last, at least 1; None: all in one. Where one step would be
            left over, which batch normalisation refuses, the last part takes another from the part before
        :param within: consecutive steps to yield, those of one trajectory say; None: all that this process has
        """
        first, last, _ = (within or self.own_steps).indices(len(self.order))
        batch_size = batch_size or last - first
        bounds = [*range(first, last, batch_size), last]
        if batch_size > 2 and len(bounds) > 2 and bounds[-1] - bounds[-2] == 1:
            bounds[-2] -= 1
        for start, stop in pairwise(bounds):
            yield self.part(slice(start, stop))

    def trajectories(self) -> list[slice]:
        """Where in the batch of M steps each trajectory is that this process has: all m, unless there are others."""
        own, lasts = self.own or slice(None), np.cumsum(self.lengths)
        return [slice(int(last - length), int(last)) for last, length in zip(lasts[own], self.lengths[own], strict=True)]

    @property
    def own_steps(self) -> slice:
        """Where in the batch of M steps those are that this process has."""
        if self.own is None:
            return slice(0, len(self.order))
        return slice(int(self.lengths[: self.own.start].sum()), int(self.lengths[: self.own.stop].sum()))

    @property
    def observation_nbytes(self) -> int:
        """Size of one observation as float32, in bytes."""
        return 4 * sum(math.prod(stored.shape[1:]) for stored in arrays(self.observations))

    def to_torch(self, values: np.ndarray) -> th.Tensor:
        """One number a step, ``[M]``, as float32 on the device."""
        return th.as_tensor(values.astype(np.float32), device=self.device)

    def part(self, steps: slice | np.ndarray) -> EpisodicRolloutBufferSamples:
        """Some steps of the batch.

        :param steps: their indices in the batch of M steps, all of this process, in the order that is wanted
        """
        indices = self.order[steps]
        observations = mapped(lambda stored: self._tensor(stored[indices]), self.observations)
        actions = self._tensor(self.actions[indices])
        actions = actions.long() if self.discrete else actions.float().reshape(len(indices), -1)
        given = {name: self._tensor(stored[indices]) for name, stored in self.given.items()}
        return EpisodicRolloutBufferSamples(observations, actions, steps, given)

    def _tensor(self, array: np.ndarray) -> th.Tensor:
        return th.as_tensor(array, device=self.device)
