"""Which vectorised environment RL Zoo's ``train`` steps: ``--vec-env fast``, ``dummy``, ``subproc`` or ``vector``.

RL Zoo knows ``dummy`` and ``subproc``. ``fast`` is ``FastDummyVecEnv``, and the default here. ``vector`` is the vector
environment that gymnasium has for an environment, or its ``SyncVectorEnv``.
"""

import argparse
import random
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gymnasium as gym
from rl_zoo3 import exp_manager
from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.monitor import ResultsWriter
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from sb3_reinforce.gymnasium_vec_env import GymnasiumVecEnv
from sb3_reinforce.vec_env import FastDummyVecEnv


class EpisodesWritten(GymnasiumVecEnv):
    """Writes ``monitor.csv`` as ``Monitor`` does.

    No wrapper: SB3 copies the statistics of ``VecNormalize`` only between environments that are wrapped alike, and those of
    evaluations write nothing.

    :param env: a vector environment of gymnasium
    :param folder: where the file goes
    """

    def __init__(self, env: "gym.vector.VectorEnv[Any, Any, Any]", folder: str):
        super().__init__(env)
        self._writer = ResultsWriter(folder, {"t_start": time.time(), "env_id": "None"})

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, dones, infos = super().step_wait()
        for info in infos:
            if "episode" in info:
                self._writer.write_row(info["episode"])
        return obs, rewards, dones, infos

    def close(self) -> None:
        self._writer.close()
        super().close()


@contextmanager
def chosen(arguments: list[str]) -> Iterator[list[str]]:
    """Have RL Zoo make the environments that ``--vec-env`` asks for, while this lasts.

    :param arguments: flags of ``train``
    :return: those that RL Zoo knows
    """
    parser = argparse.ArgumentParser(prog="sb3-reinforce train", add_help=False)
    parser.add_argument("--vec-env", default="fast", choices=["fast", "dummy", "subproc", "vector"])
    kind, rest = parser.parse_known_args(arguments)
    default, create_envs = ExperimentManager.default_vec_env_cls, ExperimentManager.create_envs
    if kind.vec_env == "fast":
        # Unless RL Zoo was told of another class, as for simulators that are vectorised themselves.
        ExperimentManager.default_vec_env_cls = default or FastDummyVecEnv
    elif kind.vec_env == "vector":
        # RL Zoo would draw one of 32 bits, but vector environments in C++ take 31. The user's --seed comes later, and counts.
        rest = ["--seed", str(random.randrange(2**30)), *rest]
        ExperimentManager.create_envs = _create_vector_envs(create_envs)  # type: ignore[method-assign]
    else:
        rest += ["--vec-env", kind.vec_env]
    try:
        with warnings.catch_warnings():
            # Evaluations stay on single environments, which one program shows and another can repeat.
            warnings.filterwarnings("ignore", "Training and eval env are not of the same type", UserWarning)
            yield rest
    finally:
        ExperimentManager.default_vec_env_cls = default
        ExperimentManager.create_envs = create_envs  # type: ignore[method-assign]


def _create_vector_envs(create_envs: Any) -> Any:
    """RL Zoo's method, with a vector environment to train on."""
    module: Any = exp_manager

    def create(manager: Any, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        make_vec_env = module.make_vec_env
        if not eval_env:
            evaluated = manager.eval_freq > 0 or manager.optimize_hyperparameters
            module.make_vec_env = partial(_make_vector_env, evaluated)
        try:
            env: VecEnv = create_envs(manager, n_envs, eval_env, no_log)
        finally:
            module.make_vec_env = make_vec_env
        return env

    return create


def _make_vector_env(evaluated: bool, make_env: Any, n_envs: int, **settings: Any) -> VecEnv:
    """What SB3's ``make_vec_env`` does, with a vector environment of gymnasium.

    :param evaluated: whether agents are evaluated, on single environments
    :raises ValueError: if single environments are to be wrapped, or are to be evaluated on but have other observations
    """
    wrapper = settings["wrapper_class"]
    if wrapper is not None:
        raise ValueError(
            "`--vec-env vector` has no single environments that `env_wrapper` could wrap: leave out one or the other "
            "(`-params env_wrapper:None`)"
        )
    single = make_env(**(settings["env_kwargs"] or {}))
    spec = single.spec
    single.close()
    vector_env, folder = gym.make_vec(spec, num_envs=n_envs), settings["monitor_dir"]
    shape, trained = single.observation_space.shape, vector_env.single_observation_space.shape
    if evaluated and shape != trained:
        raise ValueError(
            f"`--vec-env vector` trains on observations of shape {trained} here, but evaluations are on single environments, "
            f"whose observations have shape {shape}: `--eval-freq -1` leaves them out"
        )
    env = GymnasiumVecEnv(vector_env) if folder is None else EpisodesWritten(vector_env, folder)
    if settings["seed"] is not None:
        env.seed(settings["seed"])
        env.action_space.seed(settings["seed"])
    return env
