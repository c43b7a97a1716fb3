"""Mistakes that are told before any work is lost, and what is said of them."""

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.vec_env import VecEnv

from sb3_reinforce.arguments import require
from sb3_reinforce.buffer import EpisodicRolloutBuffer
from sb3_reinforce.gymnasium_vec_env import GymnasiumVecEnv


def warn(message: str) -> None:
    """Warn at the line of the user that led here, through however many methods of SB3 and of this package."""
    frame, level, inside = sys._getframe(1), 2, ("sb3_reinforce.", "stable_baselines3.")
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(inside):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def check_policy_class(policy_class: type) -> None:
    """Refuse policies that need something else at each step, or that are not an actor and a critic.

    :raises ValueError: naming the class
    """
    families = {"MaskableActorCriticPolicy": "MaskableREINFORCE", "RecurrentActorCriticPolicy": "RecurrentREINFORCE"}
    for each in getattr(policy_class, "__mro__", ()):
        if each.__name__ in families and each.__module__.startswith("sb3_contrib"):
            raise ValueError(
                f"`policy` must not be a {each.__name__}, but it is {policy_class.__name__}: REINFORCE passes it neither "
                f"action masks nor hidden states. Use `sb3_reinforce.{families[each.__name__]}`."
            )
    rule = "`policy` must be a name or a subclass of ActorCriticPolicy"
    require(isinstance(policy_class, type) and issubclass(policy_class, ActorCriticPolicy), rule, policy_class)


def check_observation_space(space: spaces.Space[Any], key: str = "") -> None:
    """Refuse Discrete and MultiDiscrete observations whose ``start`` is not 0: SB3 encodes them as if it were.

    :raises ValueError: naming the space, and its key in a dict
    """
    if isinstance(space, spaces.Dict):
        for name, each in space.items():
            check_observation_space(each, f"['{name}']")
    rule = f"`observation_space{key}` must begin at 0, since SB3's policies take no other `start`: subtract it in a wrapper"
    require(not np.any(getattr(space, "start", 0)), rule, space)


def check_rollout_buffer_class(buffer_class: object) -> None:
    """Refuse what is no rollout buffer at all. Those of A2C and PPO pass, so that their saved agents can be loaded to act.

    :raises ValueError: naming what it is
    """
    is_one = isinstance(buffer_class, type) and issubclass(buffer_class, RolloutBuffer)
    require(is_one, "`rollout_buffer_class` must be None or a subclass of EpisodicRolloutBuffer", buffer_class)


def check_episodic_buffer_class(buffer_class: object) -> None:
    """Refuse a buffer that does not hold whole trajectories, such as a saved A2C or PPO brings along.

    :raises ValueError: naming the class and what else to look at
    """
    episodic = isinstance(buffer_class, type) and issubclass(buffer_class, EpisodicRolloutBuffer)
    rule = (
        "`rollout_buffer_class` must be None or a subclass of EpisodicRolloutBuffer, which holds whole trajectories. To load "
        "what A2C or PPO has saved, pass `rollout_buffer_class=None` to `load`, and with it the arguments that are theirs or "
        "mean another thing there: `learning_rate`, `max_grad_norm`, `n_epochs`, `batch_size`, `normalize_advantage`"
    )
    require(episodic, rule, buffer_class)


def check_observation(obs: Any, space: spaces.Space[Any], n_envs: int) -> None:
    """Refuse what a vectorised environment must not return as observations.

    :raises ValueError: naming what it is and what it should be
    """
    if isinstance(obs, tuple):
        raise ValueError(
            "The environment's observations must be an array or a dict of arrays, but they are a tuple. `reset()` of a VecEnv "
            "returns observations alone, and not `(observations, infos)` as that of a gymnasium environment does."
        )
    if isinstance(space, spaces.Dict):
        require(isinstance(obs, dict), "The environment's observations must be a dict of arrays", type(obs))
        for key, each in space.items():
            require(key in obs, f"The environment's observations must have the key {key!r}", list(obs))
            _check_array(obs[key], each, n_envs, f" {key!r}")
    else:
        _check_array(obs, space, n_envs, "")


def _check_array(obs: Any, space: spaces.Space[Any], n_envs: int, key: str) -> None:
    rule = f"The environment's observations{key} must be a numpy array"
    require(isinstance(obs, np.ndarray), f"{rule} (`.cpu().numpy()` of a tensor)", type(obs))
    shape = (n_envs, *(space.shape or ()))
    require(obs.shape == shape, f"{rule} of shape {shape}", obs.shape)


def check_step(obs: Any, rewards: Any, dones: Any, space: spaces.Space[Any], n_envs: int) -> None:
    """Refuse what a vectorised environment must not return from a step.

    :raises ValueError: naming what it is and what it should be
    """
    check_observation(obs, space, n_envs)
    for name, values in (("rewards", rewards), ("dones", dones)):
        require(np.shape(values) == (n_envs,), f"The environment's {name} must have the shape {(n_envs,)}", np.shape(values))


def last_reset(env: VecEnv) -> object:
    """A token of the last reset: the list of seeds, which SB3's environments replace at each.

    Two calls return the same object unless there was a reset between them. A ``VecEnv`` that keeps no such list, or never
    replaces it, always gives the same object, so that its resets are not noticed.
    """
    return make_last_reset(env)()


def make_last_reset(env: VecEnv) -> Callable[[], object]:
    """``last_reset`` of an environment, for each step of a rollout: without a call in Python."""
    return partial(getattr, _unwrapped(env), "_seeds", None)


def check_still_in_episode(seeds: object, reset: object) -> None:
    """Refuse to go on with episodes that somebody else has ended.

    :param seeds: the last reset
    :param reset: the reset that the rollout knows of
    :raises RuntimeError: naming who may have done it, and the remedy
    """
    # `env.seed(...)` replaces the list as well; only a reset leaves nothing but None in it.
    if seeds is not reset and not (isinstance(seeds, list) and None not in seeds):
        raise RuntimeError(
            "The training environment was reset during a rollout, as by a callback that evaluates on it: two "
            "episodes would be taken for one. Evaluate on another environment, or at the end of a rollout."
        )


def check_own_environment(callback: BaseCallback, env: VecEnv) -> None:
    """Refuse an evaluation on the training environment, whose episodes it would break off.

    :raises ValueError: naming the callback
    """
    training = set(map(id, _environments(env)))
    for each in callbacks_within(callback):
        if isinstance(each, EvalCallback):
            shared = any(id(e) in training for e in _environments(each.eval_env))
            rule = (
                f"`eval_env` of {type(each).__name__} must not be the training environment, whose episodes it would break off"
            )
            require(not shared, rule, each.eval_env)


def _environments(env: VecEnv) -> list[object]:
    """What is stepped in the end."""
    base = _unwrapped(env)
    vector_env = [_unwrapped(base.env)] if isinstance(base, GymnasiumVecEnv) else []
    several = [getattr(owner, "envs", None) for owner in (base, *vector_env)]
    single = [_unwrapped(each) for envs in several if isinstance(envs, list | tuple) for each in envs]
    return [base, *vector_env, *single]


def _unwrapped(env: Any) -> Any:
    """An environment without its wrappers, as far as it knows of any."""
    return getattr(env, "unwrapped", env)


def callbacks_within(callback: BaseCallback) -> list[BaseCallback]:
    """A callback, those in it, and those in these, each once: they may know each other."""
    found = [callback]
    for known in found:
        for value in vars(known).values():
            each = value if isinstance(value, list | tuple) else [value]
            found += [other for other in each if isinstance(other, BaseCallback) and other not in found]
    return found


def warn_of_long_batch(n_steps: int, total_timesteps: int, n_episodes: int) -> None:
    """Say why training has not ended, while it still goes on."""
    warn(
        f"The batch has taken {n_steps:,} steps so far, and `total_timesteps` is {total_timesteps:,}: its {n_episodes} "
        "trajectories are completed, however long they are. `horizon=` or `gymnasium.wrappers.TimeLimit` cuts long ones, and "
        "a smaller `n_episodes` makes smaller batches."
    )


def warn_of_idle_environments(n_envs: int, n_episodes: int, n_here: int) -> None:
    """Say that some environments have nothing to do.

    :param n_envs: environments of this process
    :param n_episodes: m, number of trajectories of the batch
    :param n_here: how many of them are this process's
    """
    here = "" if n_here == n_episodes else f", of which this process has {n_here}"
    warn(
        f"`n_envs` is {n_envs}, but `n_episodes` only {n_episodes}{here}: the steps of environments that have no "
        "trajectory to run are not used. Choose `n_episodes` of two to four times the number of environments, or fewer "
        "environments."
    )


def refuse_endless_episode(env: int, n_steps: int) -> NoReturn:
    """Stop an episode that nothing ends.

    :raises ValueError: naming the environment and the remedy
    """
    raise ValueError(
        f"An episode of environment {env} did not end within {n_steps} steps. REINFORCE needs whole episodes: pass "
        "`horizon=` or wrap the environment in `gymnasium.wrappers.TimeLimit`."
    )


def check_prediction(observation: object) -> None:
    """Refuse what gymnasium's ``reset`` returns, and tensors that numpy cannot read.

    :raises ValueError: naming what it is and the remedy
    """
    rule = "`observation` must be a numpy array or a dict of them"
    pair = isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict)
    require(not pair, f"{rule}, as in `obs, info = env.reset()` of gymnasium", type(observation))
    for each in observation.values() if isinstance(observation, dict) else [observation]:
        readable = not isinstance(each, th.Tensor) or (each.device.type == "cpu" and not each.requires_grad)
        require(readable, f"{rule}: pass `.detach().cpu().numpy()` of a tensor", type(each))


def n_observations(policy: BasePolicy, observation: np.ndarray | dict[str, np.ndarray]) -> int:
    """Number of environments that an observation, as ``predict`` takes it, is of.

    :raises ValueError: if it is no observation that ``predict`` takes
    """
    check_prediction(observation)
    tensor, _ = policy.obs_to_tensor(observation)
    return len(next(iter(tensor.values())) if isinstance(tensor, dict) else tensor)


class NotComputed:
    """Stands for what A2C computes in a rollout and REINFORCE does not; whoever uses it is told so."""

    _name = ""  # a copy is asked for attributes before it has any

    def __init__(self, name: str):
        self._name = name

    def _refuse(self, *args: object) -> NoReturn:
        raise AttributeError(
            f"REINFORCE computes no `{self._name}` during a rollout. Ask the policy, at `locals['new_obs']` say: "
            "`model.policy.predict_values(...)`, `model.policy.get_distribution(...)`."
        )

    def __getattr__(self, name: str) -> NoReturn:
        self._refuse()

    @classmethod
    def __torch_function__(cls, *args: object) -> NoReturn:
        cls("values`, `log_probs` or `obs_tensor")._refuse()

    __getitem__ = __iter__ = __len__ = __array__ = __float__ = __bool__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse
