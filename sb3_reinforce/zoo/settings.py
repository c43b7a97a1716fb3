"""Which hyperparameters a run takes: of which file, which entry, with which wrappers of the environment."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
import rl_zoo3
import yaml
from gymnasium.envs.registration import get_env_id, parse_env_id
from rl_zoo3.utils import ALGOS, get_wrapper_class
from stable_baselines3.common.monitor import Monitor

from sb3_reinforce.zoo import normalization
from sb3_reinforce.zoo.masks import sampler
from sb3_reinforce.zoo.registration import folders, hyperparams_file, is_ours, register

Hyperparameters = dict[str, Any]
Wrappers = Literal["own", "reinforce", "none"]
#: Eight times as fast as PyYAML's loader in Python, where it was built with its C library.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: What changes the environment an algorithm sees. VecNormalize is not among them: it is a matter of the algorithm.
WRAPPERS = ("env_wrapper", "vec_env_wrapper", "frame_stack")
#: What RL Zoo asks every entry for.
_REQUIRED = ("n_timesteps", "policy")


class Contestant(NamedTuple):
    """One side of a comparison."""

    algo: str  # RL Zoo's name
    conf_file: str | None = None  # a YAML file, or the name of one of ours; None: the algorithm's own
    wrappers: Wrappers = "own"  # as its hyperparameters say, as REINFORCE's say, or none
    reinforce_file: str | None = None  # where REINFORCE's are; None: in the file that comes with this package
    changes: tuple[tuple[str, Any], ...] = ()  # hyperparameters that are not as in the file


class Settings(NamedTuple):
    """What a contestant does on an environment."""

    entry: str  # name of the entry of the file
    hyperparameters: Hyperparameters  # as a file of RL Zoo has them
    overrides: Hyperparameters  # those among them that RL Zoo would not take by itself
    held: int  # steps of the environment that one action of the agent can take
    flags: list[str]  # of `sb3-reinforce train`

    @property
    def digest(self) -> str:
        return digest(self.hyperparameters)


def digest(hyperparameters: Mapping[str, Any]) -> str:
    """Eight digits that tell settings apart."""
    return hashlib.sha256(json.dumps(hyperparameters, sort_keys=True, default=_name).encode()).hexdigest()[:8]


def _name(value: Any) -> str:
    return str(getattr(value, "__qualname__", None) or repr(value))


def entries(algo: str, conf_file: str | None = None) -> dict[str, Hyperparameters]:
    """All entries of a file of hyperparameters.

    :param conf_file: None: the file that comes with this package or with RL Zoo
    :raises ValueError: if there is no such file, or it is no YAML file with an entry for each environment
    """
    path = _file(algo, conf_file)
    if path.suffix not in (".yml", ".yaml"):
        raise ValueError(f"{path} is no YAML file: its name must end in .yml or .yaml")
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file: {error}") from error
    if not isinstance(loaded, dict) or not all(isinstance(entry, dict) for entry in loaded.values()):
        raise ValueError(f"{path} has no entries of hyperparameters, each under the name of an environment")
    return loaded


def _file(algo: str, conf_file: str | None) -> Path:
    if conf_file is not None and Path(conf_file).is_file():
        return Path(conf_file)
    name = conf_file or f"{algo}.yml"
    theirs = [] if conf_file else [folder / name for folder in folders(Path(rl_zoo3.__path__[0]))]
    try:
        return hyperparams_file(name)
    except FileNotFoundError as error:
        for path in theirs:
            if path.is_file():
                return path
        raise ValueError(f"there is no file {name!r} of hyperparameters for {algo}") from error


def entry_for(env_id: str, names: Mapping[str, Any]) -> str:
    """The name that an environment's hyperparameters have: its own, ``atari``, that of its newest older version, or
    ``default``.

    :raises ValueError: if there is none of these
    """
    namespace, name, version = parse_env_id(env_id)
    older = [get_env_id(namespace, name, number) for number in reversed(range(version or 0))]
    atari = ["atari"] if "AtariEnv" in str(gym.spec(env_id).entry_point) else []
    for candidate in (env_id, *atari, *older, "default"):
        if candidate in names:
            return candidate
    raise ValueError(f"the hyperparameters have no entry for {env_id}, and no `default`")


def settings(contestant: Contestant, env_id: str, n_steps: int = 0) -> Settings:
    """What a contestant does on an environment.

    :param n_steps: steps of the environment, however many of them an action is held; 0: as many as the hyperparameters say
    :raises ValueError: if there are no such hyperparameters
    """
    loaded = entries(contestant.algo, contestant.conf_file)
    entry = entry_for(env_id, loaded)
    own = loaded[entry]
    if is_ours(_file(contestant.algo, contestant.conf_file)):
        own = normalization.where_possible(own, env_id)
    _check_numbers(entry, own)
    taken, held = _with_wrappers({**own, **dict(contestant.changes)}, contestant, env_id)
    # RL Zoo itself knows nothing of older versions, and would take `default`.
    by_itself = own if entry in (env_id, "default", "atari") else loaded.get("default", {})
    overrides = {name: value for name, value in taken.items() if name not in by_itself or by_itself[name] != value}
    overrides |= {name: _unset(contestant.algo, name) for name in by_itself if name not in taken and name not in _REQUIRED}
    flags = ["--conf-file", contestant.conf_file] if contestant.conf_file else []
    if n_steps:
        flags = ["-n", str(math.ceil(n_steps / held)), *flags]
    if overrides:
        flags += ["-params", *(f"{name}:{value!r}" for name, value in overrides.items())]
    return Settings(entry, taken, overrides, held, flags)


def _unset(algo: str, name: str) -> Any:
    """What a hyperparameter is where nobody has set it."""
    if name == "n_envs":
        return 1
    register()
    parameter = inspect.signature(ALGOS[algo]).parameters.get(name)
    return None if parameter is None else parameter.default


def _check_numbers(entry: str, hyperparameters: Hyperparameters) -> None:
    """Refuse an entry without what RL Zoo needs, and 1e5, which YAML reads as text: RL Zoo's errors would not say where.

    :raises ValueError: naming the hyperparameter and what to write
    """
    for name in _REQUIRED:
        if name not in hyperparameters:
            raise ValueError(f"{entry} must have `{name}`, as RL Zoo requires")
    for name, value in hyperparameters.items():
        if isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+[eE][-+]?\d+", value):
            raise ValueError(f"`{name}` of {entry} must be a number, but it is the text {value!r}: write !!float {value}")


def _with_wrappers(own: Hyperparameters, contestant: Contestant, env_id: str) -> tuple[Hyperparameters, int]:
    """The hyperparameters with the contestant's wrappers and as many steps of the environment as before, and how many of
    these an action takes."""
    held = steps_per_action(env_id, own)
    if contestant.wrappers == "own":
        return own, held
    theirs: Hyperparameters = {}
    if contestant.wrappers == "reinforce":
        loaded = entries("reinforce", contestant.reinforce_file)
        theirs = loaded[entry_for(env_id, loaded)]
    taken = {name: value for name, value in own.items() if name not in WRAPPERS}
    taken |= {name: theirs[name] for name in WRAPPERS if name in theirs}
    if taken == own:
        return own, held
    held_now = steps_per_action(env_id, taken)
    if "n_timesteps" in own and held_now != held:
        taken["n_timesteps"] = float(own["n_timesteps"]) * held / held_now
    return taken, held_now


def steps_per_action(env_id: str, hyperparameters: Hyperparameters, n_actions: int = 100) -> int:
    """How many steps of the environment one action can take, as its wrappers hold it: the most that were seen.

    :raises ValueError: if a wrapper limits the time
    """
    if not hyperparameters.get("env_wrapper"):
        return 1
    wrap = get_wrapper_class(dict(hyperparameters))
    assert wrap is not None
    inner: Monitor[Any, Any] = Monitor(gym.make(env_id, **(hyperparameters.get("env_kwargs") or {})))
    env = wrap(inner)
    _check_time_limits(env, inner)
    env.action_space.seed(0)
    sample = sampler(env)
    env.reset(seed=0)
    most = 1
    for _ in range(n_actions):
        before = inner.total_steps
        _, _, terminated, truncated, _ = env.step(sample())
        most = max(most, inner.total_steps - before)
        if terminated or truncated:
            env.reset()
    env.close()
    return most


def _check_time_limits(env: gym.Env[Any, Any], inner: gym.Env[Any, Any]) -> None:
    """Refuse a time limit outside of ``Monitor``: the episodes that it cuts, often the best, would be in no result.

    :raises ValueError: if there is one
    """
    while env is not inner and isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            raise ValueError(
                "`env_wrapper` must not have a TimeLimit: RL Zoo's Monitor is inside of it, and does not see what it cuts. "
                "Register the environment with `max_episode_steps`"
            )
        env = env.env


def resolved(algo: type, taken: Settings, n_steps: int = 0) -> Hyperparameters:
    """All arguments of a run, those that the class decides too, in a form that JSON has.

    :param algo: class of the algorithm
    """
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(algo).parameters.items()
        if parameter.default is not parameter.empty and name not in ("verbose", "tensorboard_log", "seed", "device")
        if not name.startswith("_")
    }
    everything = {**defaults, **taken.hyperparameters}
    if n_steps:
        everything["n_timesteps"] = math.ceil(n_steps / taken.held)
    return dict(json.loads(json.dumps(everything, sort_keys=True, default=_name)))


def threshold(env_id: str) -> float:
    """The return that the environment calls solved; NaN if it names none."""
    named = gym.spec(env_id).reward_threshold
    return np.nan if named is None else named
