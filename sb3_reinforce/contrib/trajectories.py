"""Recurrent policies evaluated on whole trajectories: padded, from their first step, from a zero state."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch as th
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates

from sb3_reinforce.actors.lstm import zero_state
from sb3_reinforce.batch import Batch, EpisodicRolloutBufferSamples, mapped
from sb3_reinforce.evaluation import Evaluator
from sb3_reinforce.returns import first_steps, last_steps


class RecurrentEvaluator(Evaluator):
    """A recurrent policy and a batch. A part is whole trajectories of like length, so the gradient goes through all of each.

    :param policy: a policy of sb3-contrib, or one that derives from it
    :param batch: the trajectories
    :param batch_size: number of steps per pass, padding included, to bound memory; None: as many as fit in 64 MiB. A longer
        trajectory is a part of its own
    """

    policy: RecurrentActorCriticPolicy

    def __init__(self, policy: RecurrentActorCriticPolicy, batch: Batch, batch_size: int | None):
        self._is_first = np.zeros(batch.lengths.sum(), dtype=bool)
        self._is_first[first_steps(batch.lengths)] = True
        super().__init__(policy, batch, batch_size)  # which may evaluate the first step

    def parts(self, within: slice | None = None) -> Iterator[EpisodicRolloutBufferSamples]:
        """The batch, or the trajectory ``within`` it, in parts of whole trajectories, which may not be in order."""
        if within is not None:
            yield self.batch.part(within)
            return
        trajectories = self.batch.trajectories()
        lengths = np.array([each.stop - each.start for each in trajectories])
        for group in alike(lengths, self.batch_size):
            yield self.batch.part(np.concatenate([np.r_[trajectories[i]] for i in group]))

    def log_probs(self, part: EpisodicRolloutBufferSamples) -> tuple[th.Tensor, th.Tensor | None]:
        index, steps = padded(self._lengths(part))
        rows = th.as_tensor(index.ravel(), device=self.batch.device)
        state, starts = zero_state(self.policy, len(index)), th.zeros(index.size, device=self.batch.device)
        obs, actions = _take(part.observations, rows), part.actions[rows]
        given = {name: values[rows] for name, values in part.given.items()}
        entropy: th.Tensor | None
        with _differentiable(self.policy):
            if self._calls_evaluate_actions:
                _, log_probs, entropy = self.policy.evaluate_actions(obs, actions, RNNStates(state, state), starts, **given)
            else:
                distribution, _ = self.policy.get_distribution(obs, state, starts, **given)
                log_probs, entropy = distribution.log_prob(actions), distribution.entropy()
        real = th.as_tensor(steps, device=self.batch.device)
        return log_probs[real], None if entropy is None else entropy[real]

    def fixed_features(self, fitted: list[th.nn.Parameter]) -> None:
        """None: they are computed at each fit, since the LSTM takes the time and they do not."""

    def values(self, part: EpisodicRolloutBufferSamples, features: th.Tensor | None = None) -> th.Tensor:
        index, steps = padded(self._lengths(part))
        return self._padded_values(part.observations, index)[th.as_tensor(steps, device=self.batch.device)]

    def _own_last_values(self) -> dict[int, float]:
        """V(s_H) of each trajectory here that was cut, by the index of its last step: after all its steps."""
        found: dict[int, float] = {}
        for part in self.parts():
            lengths = self._lengths(part)
            ends = np.asarray(part.steps)[last_steps(lengths)]
            cut = [i for i, step in enumerate(ends) if step in self.batch.last_observations]
            if not cut:
                continue
            lasts = [self.policy.obs_to_tensor(self.batch.last_observations[int(ends[i])])[0] for i in cut]
            index, _ = padded(lengths, room=1)
            index[cut, lengths[cut]] = lengths.sum() + np.arange(len(cut))
            with th.no_grad():
                values = self._padded_values(_join(part.observations, lasts), index[cut]).view(len(cut), -1)
            found |= {int(ends[i]): values[k, lengths[i]].item() for k, i in enumerate(cut)}
        return found

    def _lengths(self, part: EpisodicRolloutBufferSamples) -> np.ndarray:
        """Number of steps of each trajectory in a part."""
        is_first = self._is_first[part.steps]
        return np.diff(np.flatnonzero(is_first), append=len(is_first))

    def _padded_values(self, observations: Any, index: np.ndarray) -> th.Tensor:
        """V of rows of the observations, ``[n_trajectories, n_steps]``, padding included, flat."""
        rows = th.as_tensor(index.ravel(), device=self.batch.device)
        starts = th.zeros(index.size, device=self.batch.device)
        state = zero_state(self.policy, len(index))
        return self.policy.predict_values(_take(observations, rows), state, starts).flatten()


def _differentiable(policy: RecurrentActorCriticPolicy) -> AbstractContextManager[None]:
    """Leaves out cuDNN where a gradient is wanted in evaluation mode: it differentiates an LSTM in training mode only."""
    if policy.training or not th.is_grad_enabled():
        return nullcontext()
    return th.backends.cudnn.flags(enabled=False)


def alike(lengths: np.ndarray, batch_size: int) -> list[list[int]]:
    """Group trajectories that go together: the shortest of a group is at least half as long as the longest.

    One step of an LSTM takes hardly longer for a few trajectories than for one, and padding takes time, at most as much again.

    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    :param batch_size: bound of the steps in a group, padding included, for groups of more than one trajectory
    :return: indices of the trajectories in each group, longest first
    """
    groups: list[list[int]] = []
    longest = 0
    for i in map(int, np.argsort(-lengths, kind="stable")):
        fits = bool(groups) and (len(groups[-1]) + 1) * longest <= batch_size
        if not fits or 2 * lengths[i] < longest:
            groups.append([])
            longest = int(lengths[i])
        groups[-1].append(i)
    return groups


def padded(lengths: np.ndarray, room: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Where the steps of trajectories, one after the other, go in a rectangle with a row for each trajectory, and back.

    :param lengths: number of steps of each trajectory, int ``[n]``, each at least 1
    :param room: how much longer than the longest trajectory the rows are
    :return: for each place of the rectangle the step that stands there, int ``[n, max + room]``, which in padding is the
        first of all; and where in the flat rectangle each step is, int ``[lengths.sum()]``
    """
    places = np.arange(lengths.max() + room)
    real = places < lengths[:, None]
    return np.where(real, first_steps(lengths)[:, None] + places, 0), np.flatnonzero(real)


def _take(observations: Any, rows: th.Tensor) -> Any:
    """Rows of observations, a tensor or one for each key."""
    return mapped(lambda each: each[rows], observations)


def _join(observations: Any, more: list[Any]) -> Any:
    """Observations, and more of them, each a tensor or one for each key."""
    return mapped(lambda each, *others: th.cat([each, *(other.to(each.dtype) for other in others)]), observations, *more)
