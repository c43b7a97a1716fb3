"""Environments at full speed: SB3's ``DummyVecEnv`` without its deep copies."""

from typing import Any

import numpy as np
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from stable_baselines3.common.vec_env.patch_gym import _patch_env
from stable_baselines3.common.vec_env.util import dict_to_obs

from sb3_reinforce.gymnasium_vec_env import GymnasiumVecEnv, is_vector_env
from sb3_reinforce.infos import own_info


class FastDummyVecEnv(DummyVecEnv):
    """SB3's ``DummyVecEnv`` with arrays copied as arrays; of an info, only what can be written to is copied deeply.

    What it returns is the caller's own, as SB3's is: no later step changes it, and writing to it changes no environment.
    In one place it does better: the info of an episode's last step is copied before the environment is reset, so
    ``terminal_observation`` is right where the environment writes all its observations into one array.
    The attributes ``buf_dones`` and ``buf_infos`` of SB3's are not written.

    :param env_fns: functions that make the environments
    """

    def step_wait(self) -> VecEnvStepReturn:
        dones = np.zeros(self.num_envs, dtype=bool)
        infos = []
        for i, env in enumerate(self.envs):
            obs, self.buf_rews[i], terminated, truncated, info = env.step(self.actions[i])
            info["TimeLimit.truncated"] = truncated and not terminated
            if terminated or truncated:
                dones[i] = True
                info["terminal_observation"] = obs
            infos.append(own_info(info))
            if terminated or truncated:
                obs, self.reset_infos[i] = env.reset()
            self._save_obs(i, obs)
        return self._obs_from_buf(), self.buf_rews.copy(), dones, infos

    def _obs_from_buf(self) -> VecEnvObs:
        if self.keys == [None]:  # neither Dict nor Tuple: spare the questions to the space, which cost more than the copy
            return self.buf_obs[None].copy()  # type: ignore[index]
        return dict_to_obs(self.observation_space, {key: obs.copy() for key, obs in self.buf_obs.items()})


def as_vec_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
    """Whatever a user may pass as ``env``, as a ``VecEnv``.

    :param env: a ``VecEnv``, which is returned as it is; a vector environment of gymnasium; or an environment
    :param verbose: 1 or more: say what it is wrapped in
    :param monitor_wrapper: whether to wrap an environment in a ``Monitor``, unless it is
    """
    if isinstance(env, VecEnv):
        return env
    if is_vector_env(env):
        wrapped: VecEnv = GymnasiumVecEnv(env)
    else:
        env = _patch_env(env)
        if monitor_wrapper and not is_wrapped(env, Monitor):
            if verbose >= 1:
                print("Wrapping the env with a `Monitor` wrapper")
            env = Monitor(env)
        wrapped = FastDummyVecEnv([lambda: env])
    if verbose >= 1:
        print(f"Wrapping the env in a {type(wrapped).__name__}.")
    return wrapped
