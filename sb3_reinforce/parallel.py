"""What processes that train one model have in common: where they start, what they have collected, what a batch is.

Each process has a model and environments of its own, and collects its share of the m trajectories. What is one
number a step is gathered, so that every process weighs the whole batch and takes its part of ψ. Gradients are summed.
Observations and actions stay where they were collected.
"""

import inspect
import io
import pathlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EventCallback,
    ProgressBarCallback,
)
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecNormalize

from sb3_reinforce import distributed, guards
from sb3_reinforce.arguments import check_arguments, require
from sb3_reinforce.batch import Batch
from sb3_reinforce.progress import as_callbacks

#: Arguments that may differ from process to process.
_OF_EACH_PROCESS = ("self", "env", "policy", "seed", "verbose", "device", "tensorboard_log")
#: What else of a model goes on from where process 0 stands.
_GOES_ON = ("num_timesteps", "_n_updates", "_average_return")
#: What decides what a ``VecNormalize`` makes of what it has seen.
_OF_NORMALISATION = ("training", "norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon")
#: Callbacks of RL Zoo that write files.
_WRITERS = ("SaveVecNormalizeCallback", "RawStatisticsCallback")


class Moments(NamedTuple):
    """What a ``RunningMeanStd`` knows: mean and variance, float64, and the number of what they are of."""

    mean: np.ndarray
    var: np.ndarray
    n: float


class Collected(NamedTuple):
    """What a rollout tells besides its batch."""

    infos: list[dict[str, Any]]
    """Last infos of the trajectories, in order of start."""
    n_taken: int
    """Number of steps."""
    n_used: int
    """How many of them are of this batch or a later one."""


class _Report(NamedTuple):
    """What a process tells the others at the end of a rollout."""

    collected: Collected | None
    n_steps: int
    moments: list[Moments]
    settings: dict[str, Any]


class ParallelAlgorithm(OnPolicyAlgorithm):
    """An on-policy algorithm that several processes may train together, each with a model and environments of its own."""

    _shared_moments: list[Moments] | None = None  # of VecNormalize, where the processes have last shared them

    def _begin_together(self, total_timesteps: int) -> None:
        """Start from where process 0 stands. The others log nothing.

        :raises ValueError: if the processes do not train the same model, or the group cannot carry its gradients
        """
        if distributed.n_processes() == 1:
            return
        distributed.check_backend(self.device)
        check_alike(distributed.all_gather(lambda: {"total_timesteps": total_timesteps, **_settings(self)}))
        state: dict[str, Any] = {
            "policy": self.policy.state_dict(),
            "optimizer": self.policy.optimizer.state_dict(),
            "moments": _moments(self),
            "model": {name: getattr(self, name) for name in _GOES_ON if hasattr(self, name)},
        }
        self._seed_apart()
        state = distributed.broadcast(state)
        self.policy.load_state_dict(state["policy"])
        self.policy.optimizer.load_state_dict(state["optimizer"])
        vars(self).update(state["model"])
        self._shared_moments = state["moments"]
        _set_moments(self, state["moments"])
        if distributed.rank() > 0:
            self.set_logger(Logger(folder=None, output_formats=[]))

    def _seed_apart(self) -> None:
        """Seed all processes anew if any two have the same state of torch's generator or the same seeds of environments.

        That happens where the model was seeded before the script initialised the group, and where all processes called
        ``set_random_seed`` or seeded their environments alike.
        """

        def random_state() -> tuple[bytes, object]:
            seeds = guards.last_reset(self.env) if self.env is not None else None  # SB3's list of seeds, if it has one
            seeded = isinstance(seeds, list) and any(seed is not None for seed in seeds)
            return th.get_rng_state().numpy().tobytes(), tuple(seeds) if seeded else distributed.rank()  # type: ignore[arg-type]

        several = distributed.all_gather(random_state)
        if any(len(set(each)) < len(several) for each in zip(*several, strict=True)):
            self.set_random_seed(th.initial_seed() % 2**32 if self.seed is None else self.seed)

    def _collected_together(self, collect: Callable[[], Collected | None]) -> Collected | None:
        """What all processes have collected. They count each other's steps, and share what ``VecNormalize`` has seen.

        :param collect: a rollout of this process, None if a callback has stopped it
        :return: None if any was stopped
        :raises ValueError: on all if it is raised in one, and if arguments have come to differ
        """
        if distributed.n_processes() == 1:
            return collect()
        n_before = self.num_timesteps

        def report() -> _Report:
            return _Report(collect(), self.num_timesteps - n_before, _moments(self), _settings(self))

        reports = distributed.all_gather(report)
        check_alike([each.settings for each in reports])
        self.num_timesteps = n_before + sum(each.n_steps for each in reports)
        seen = zip(self._shared_moments or [], *(each.moments for each in reports), strict=True)
        self._shared_moments = [merged(base, list(each)) for base, *each in seen]
        _set_moments(self, self._shared_moments)
        parts = [each.collected for each in reports if each.collected is not None]
        if len(parts) < len(reports):
            return None
        infos = [info for each in parts for info in each.infos]
        return Collected(infos, sum(each.n_taken for each in parts), sum(each.n_used for each in parts))

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        if distributed.n_processes() == 1 or distributed.rank() == 0:
            return super()._init_callback(callback, progress_bar)
        return super()._init_callback(for_others(CallbackList(as_callbacks(callback))))

    def set_random_seed(self, seed: int | None = None) -> None:
        """As in SB3, with another seed in each of the processes that train together."""
        super().set_random_seed(distributed.seed_here(seed))

    def save(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """As in SB3. Of processes that train together only the first writes a file, since all would write the same."""
        if distributed.rank() == 0 or not isinstance(path, str | pathlib.Path):
            super().save(path, exclude, include)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_shared_moments"]


def check_alike(settings: list[dict[str, Any]]) -> None:
    """Refuse processes that do not train the same model.

    :param settings: for each process, what has to be the same, by name
    :raises ValueError: naming the first difference and the process
    """
    for number, each in enumerate(settings):
        for name, value in settings[0].items():
            if each.get(name) != value:
                raise ValueError(
                    f"`{name}` must be the same in all processes, but it is {value!r} in process 0 and {each.get(name)!r} in "
                    f"process {number}."
                )
    n_episodes = settings[0]["n_episodes"]
    rule = f"`n_episodes` must be at least the number of processes, {len(settings)}"
    require(n_episodes >= len(settings), rule, n_episodes)


def _settings(model: OnPolicyAlgorithm) -> dict[str, Any]:
    """What has to be the same in all processes, by name.

    :raises ValueError: if an argument is out of range or undefined
    """
    check_arguments(vars(model))
    names = {name for each in type(model).__mro__ if "__init__" in vars(each) for name in inspect.signature(each).parameters}
    names = names.difference(_OF_EACH_PROCESS)
    arguments = {name: vars(model)[name] for name in sorted(names) if name in vars(model)}
    normalize = model.get_vec_normalize_env()
    return {
        **{name: _described(each) for name, each in arguments.items()},
        "observation_space": repr(model.observation_space),
        "action_space": repr(model.action_space),
        "policy": type(model.policy).__name__,
        "parameters": {name: (tuple(each.shape), each.requires_grad) for name, each in model.policy.named_parameters()},
        "VecNormalize": normalize and {name: getattr(normalize, name) for name in _OF_NORMALISATION},
    }


def _described(value: Any) -> Any:
    """A value, in which classes and functions are told by their names, and other objects by those of their classes."""
    if isinstance(value, dict):
        return {name: _described(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_described(each) for each in value]
    plain = value is None or isinstance(value, bool | int | float | str | np.generic)
    return value if plain else getattr(value, "__qualname__", type(value).__name__)


def merged(base: Moments, each: list[Moments]) -> Moments:
    """Moments of what all processes have seen: of each, what came after ``base`` is added once.

    :param base: what all have in common, itself the moments of something
    :param each: the moments of each process, ``base`` included
    :return: ``base`` itself where nothing came after it
    """
    n = base.n + sum(own.n - base.n for own in each)
    if n == base.n:  # nothing, so that nothing is rounded
        return base
    # Sums of differences from the common mean, which are of the size of the data's spread and cancel little.
    total = sum(own.n * (own.mean - base.mean) for own in each)
    squares = sum(own.n * (own.var + (own.mean - base.mean) ** 2) - base.n * base.var for own in each)
    shift = total / n
    return Moments(base.mean + shift, (base.n * base.var + squares) / n - shift**2, n)


def _running(model: OnPolicyAlgorithm) -> list[RunningMeanStd]:
    """What ``VecNormalize`` keeps count of, if the environments have one."""
    normalize = model.get_vec_normalize_env()
    if not isinstance(normalize, VecNormalize):
        return []
    of_obs = getattr(normalize, "obs_rms", None)
    several = list(of_obs.values()) if isinstance(of_obs, dict) else [of_obs]
    return [each for each in [*several, normalize.ret_rms] if each is not None]


def _moments(model: OnPolicyAlgorithm) -> list[Moments]:
    return [Moments(each.mean, each.var, each.count) for each in _running(model)]


def _set_moments(model: OnPolicyAlgorithm, moments: list[Moments]) -> None:
    for running, each in zip(_running(model), moments, strict=True):
        running.mean, running.var, running.count = each


def joined(model: OnPolicyAlgorithm, make: Callable[[], Batch]) -> Batch:
    """The batch of all processes, whose numbers are here and whose observations are this process's own.

    :param make: this process's batch
    :raises ValueError: if arguments have come to differ, as by a callback at the end of the rollout
    """
    if distributed.n_processes() == 1:
        return make()
    batches: list[Batch] = []

    def numbers() -> tuple[dict[str, Any], tuple[np.ndarray, ...]]:
        batches.append(make())
        return _settings(model), (batches[0].lengths, batches[0].rewards, batches[0].earlier_log_probs)

    told = distributed.all_gather(numbers)
    check_alike([settings for settings, _ in told])
    parts, own = [part for _, part in told], batches[0]
    lengths, rewards, earlier_log_probs = (np.concatenate(each) for each in zip(*parts, strict=True))
    first = sum(len(each[0]) for each in parts[: distributed.rank()])
    first_step = sum(len(each[1]) for each in parts[: distributed.rank()])
    order = np.full(len(rewards), -1)
    order[first_step : first_step + len(own.order)] = own.order
    return replace(
        own,
        lengths=lengths,
        rewards=rewards,
        last_observations={first_step + step: obs for step, obs in own.last_observations.items()},
        order=order,
        earlier_log_probs=earlier_log_probs,
        own=slice(first, first + len(own.lengths)),
    )


def share_buffers(policy: ActorCriticPolicy) -> None:
    """Make the policy's statistics, such as those of batch normalisation, those of process 0, since all act alike."""
    _share(list(policy.buffers()))


def share_parameters(policy: ActorCriticPolicy) -> None:
    """Make the policy's parameters those of process 0. In another, a callback may have changed them or the learning rate."""
    _share([parameter.data for parameter in policy.parameters()])


def _share(tensors: list[th.Tensor]) -> None:
    if distributed.n_processes() > 1 and tensors:
        for tensor, first in zip(tensors, distributed.broadcast(tensors), strict=True):
            tensor.copy_(first)


def for_others(callback: BaseCallback) -> BaseCallback | None:
    """The callback without its parts that evaluate, save or show, which only process 0 does; None if nothing is left."""
    writes = any(each.__name__ in _WRITERS for each in type(callback).__mro__)
    if writes or isinstance(callback, EvalCallback | CheckpointCallback | ProgressBarCallback):
        return None
    if isinstance(callback, CallbackList):
        callback.callbacks = [kept for each in callback.callbacks if (kept := for_others(each)) is not None]
    if isinstance(callback, EventCallback) and callback.callback is not None:
        callback.callback = for_others(callback.callback)
    return callback
