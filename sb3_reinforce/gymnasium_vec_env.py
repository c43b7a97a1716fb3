"""Gymnasium's vector environments for SB3."""

import time
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from sb3_reinforce.batch import Observations, arrays, copied, indexed
from sb3_reinforce.infos import infos_of_each, is_one_each, own_info

#: What a policy of SB3 takes, alone or (observations only) in a Dict.
_ARRAY_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
# The values of gymnasium.vector.AutoresetMode, which gymnasium below 1.1 does not have.
_NEXT_STEP, _SAME_STEP, _DISABLED = "NextStep", "SameStep", "Disabled"


class GymnasiumVecEnv(VecEnv):
    """A vector environment of gymnasium as a ``VecEnv`` of SB3, for any algorithm of SB3.

    Works with what speaks the interface of ``gymnasium.vector.VectorEnv`` (gymnasium 1.1 or newer), EnvPool for example.
    What happens when an episode ends depends on ``env.metadata["autoreset_mode"]``:

    - SAME_STEP: as SB3 has it. The step that ends an episode returns the first observation of the next.
    - DISABLED: the same; this class resets the environments that ended, with ``reset(options={"reset_mask": ...})``.
    - NEXT_STEP: gymnasium's default. After the last step of an episode the environment takes one more, which only resets it:
      the action has no effect and the reward is 0. This resetting step returns ``done`` and the info of the end; the last
      step returns the last observation without ``done``. So SB3 sees episodes one step longer, by a step that neither acts
      nor pays. An episode has one ``done``, with the first observation of the next; no value is bootstrapped between the two.
      An algorithm that bootstraps a truncated episode discounts the value of the last state once more. ``resetting`` marks
      environments whose next step only resets, for algorithms that can leave it out.

    The info of a step that returns ``done`` holds ``terminal_observation``, ``TimeLimit.truncated`` (whether the episode was
    truncated and not terminated as well) and ``episode``, with the return, length and time that a ``Monitor`` gives: without
    resetting steps, and not where the environment gives its own. With DISABLED, gymnasium's ``RecordEpisodeStatistics`` of a
    vector environment has none to give: at the reset of some environments, it forgets the episodes of all. Other infos hold
    what the vector environment says of that environment, mostly nothing. Everything that is returned is the caller's own.

    :param env: the vector environment. Its spaces are Box, Discrete, MultiDiscrete or MultiBinary; observations may also be a
        Dict of these
    :raises ValueError: if ``env`` is not a vector environment, does not say how it resets, or has other spaces; at a step, if
        it does not reset as it says
    """

    resetting: np.ndarray
    """Environments whose next step only resets them, bool ``[n_envs]``. All False unless the mode is NEXT_STEP.

    It is always the same array, written in place at each step. Look it up once, also through wrappers. Copy it to keep it.
    """

    def __init__(self, env: "gym.vector.VectorEnv[Any, Any, Any]"):
        _check_vector_env(env)
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self.metadata = env.metadata
        spec = getattr(env, "spec", None)
        self.spec = spec if isinstance(spec, EnvSpec) else None
        self.resetting = np.zeros(self.num_envs, dtype=bool)
        self._mode = _autoreset_mode(env)
        self._counts_anew = self._mode == _DISABLED and _has_statistics(env)
        self._final_infos: dict[int, dict[str, Any]] = {}  # of the environments that are resetting
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._t_start = time.time()

    def reset(self) -> Observations:
        # The vector environment gives its i-th environment seed + i, as SB3 does.
        obs, infos = self.env.reset(seed=self._seeds[0], options=self._options[0] or None)
        self.reset_infos = infos_of_each(infos, self.num_envs)
        self.resetting[:] = False
        self._final_infos = {}
        self._returns[:] = 0
        self._lengths[:] = 0
        self._reset_seeds()
        self._reset_options()
        return self._copied(obs)

    def step_async(self, actions: np.ndarray) -> None:
        # Policies sample the bits of a MultiBinary space as floats.
        self._actions = np.asarray(actions, dtype=self.action_space.dtype)

    def step_wait(self) -> VecEnvStepReturn:
        vector_obs, vector_rewards, terminated, truncated, vector_infos = self.env.step(self._actions)
        obs = self._copied(vector_obs)
        rewards = np.array(vector_rewards, dtype=np.float64)
        infos = infos_of_each(vector_infos, self.num_envs)
        ended = np.logical_or(terminated, truncated)
        if self._final_infos:
            self._check_resetting_step(rewards, ended)
            rewards[self.resetting] = 0  # which a wrapper of rewards may have shifted

        self._returns += rewards
        self._lengths += ~self.resetting
        final_infos = {}
        if np.count_nonzero(ended):
            final_infos = self._end_episodes(ended, np.logical_and(truncated, ~np.asarray(terminated)), obs, infos)

        dones = ended
        if self._mode == _NEXT_STEP:
            dones, final_infos, self._final_infos = self.resetting.copy(), self._final_infos, final_infos
            self.resetting[:] = ended
        elif self._mode == _DISABLED and final_infos:
            self._reset_ended(ended, obs, infos)
        for i, info in final_infos.items():
            self.reset_infos[i], infos[i] = infos[i], info
        return obs, rewards.astype(np.float32), dones, infos

    def _end_episodes(
        self, ended: np.ndarray, cut: np.ndarray, obs: Observations, infos: list[dict[str, Any]]
    ) -> dict[int, dict[str, Any]]:
        """The last infos of the episodes that have ended, by environment. What stays in ``infos`` is of the next episode.

        :param ended: environments whose episode this step has ended, bool ``[n_envs]``
        :param cut: those whose episode was truncated and not terminated, bool ``[n_envs]``
        :param obs: what this step has returned
        :param infos: what this step said of each environment
        """
        seconds = round(time.time() - self._t_start, 6)
        final_infos = {}
        at = np.flatnonzero(ended)
        columns = (at, self._returns[at], self._lengths[at], cut[at])
        for i, episode_return, length, was_cut in zip(*(column.tolist() for column in columns), strict=True):
            if ("final_obs" in infos[i]) != (self._mode == _SAME_STEP):
                said = "holds no" if self._mode == _SAME_STEP else "holds"
                self._raise_wrong_mode(f"the info of environment {i}, which ended, {said} `final_obs`")
            if self._mode == _SAME_STEP:
                last_obs, info = infos[i].pop("final_obs"), infos[i].pop("final_info", {})
                if "episode" in infos[i]:  # of the wrapper of a vector environment, which puts it here
                    info.setdefault("episode", infos[i].pop("episode"))
            else:
                last_obs, info, infos[i] = copied(indexed(obs, i)), infos[i], own_info(infos[i])
                infos[i].pop("episode", None)  # SB3 would count it now and again with `done`
            info["terminal_observation"] = last_obs
            info["TimeLimit.truncated"] = was_cut
            if self._counts_anew:
                info.pop("episode", None)
            info.setdefault("episode", {"r": round(episode_return, 6), "l": length, "t": seconds})
            final_infos[i] = info
        self._returns[ended] = 0
        self._lengths[ended] = 0
        return final_infos

    def _reset_ended(self, ended: np.ndarray, obs: Observations, infos: list[dict[str, Any]]) -> None:
        """Reset some environments, and put their first observations and infos in the place of their last."""
        vector_obs, vector_infos = self.env.reset(options={"reset_mask": ended.copy()})
        for values, first_values in zip(arrays(obs), arrays(self._copied(vector_obs)), strict=True):
            values[ended] = first_values[ended]
        for i, info in enumerate(infos_of_each(vector_infos, self.num_envs)):
            if ended[i]:
                infos[i] = info

    def _check_resetting_step(self, rewards: np.ndarray, ended: np.ndarray) -> None:
        """Raise if a step that should only reset an environment has ended an episode, or has paid.

        Rewards are looked at only where there is no wrapper, since one may shift the reward of 0.
        """
        bare = self.env.unwrapped is self.env
        acted = self.resetting & (ended | (rewards != 0) if bare else ended)
        if np.count_nonzero(acted):
            i = int(acted.argmax())
            self._raise_wrong_mode(f"the step after environment {i} ended returned reward {rewards[i]} and done {ended[i]}")

    def _raise_wrong_mode(self, seen: str) -> NoReturn:
        raise ValueError(
            f"`env.metadata['autoreset_mode']` must say when the vector environment resets: it says {self._mode}, but {seen}. "
            "Correct it, or let the environment reset once: at the same step, at the next, or not at all."
        )

    def _copied(self, obs: Any) -> Observations:
        """A batch of observations, in the dtypes of the space, that the vector environment does not write to."""
        if isinstance(self.observation_space, spaces.Dict):
            return {key: np.array(obs[key], dtype=space.dtype) for key, space in self.observation_space.spaces.items()}
        return np.array(obs, dtype=self.observation_space.dtype)

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """Options for the next reset, the same for all environments.

        :raises ValueError: if they are a list
        """
        if isinstance(options, list):
            raise ValueError(f"`options` must be one dict: a vector environment has the same for all, got {options}")
        super().set_options(options)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Attribute of each environment; of a vector environment that is not made of environments, its own for each."""
        base = self.env.unwrapped
        chosen = list(self._get_indices(indices))
        if isinstance(base, SyncVectorEnv):
            return [base.envs[i].get_wrapper_attr(attr_name) for i in chosen]
        if isinstance(base, AsyncVectorEnv):
            values = base.get_attr(attr_name)
            return [values[i] for i in chosen]
        return [getattr(self._owner(attr_name), attr_name)] * len(chosen)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of each environment, or of a vector environment that is not made of environments.

        :raises ValueError: if not all are chosen, unless the vector environment is a ``SyncVectorEnv``
        """
        base = self.env.unwrapped
        if isinstance(base, SyncVectorEnv):
            for i in self._get_indices(indices):
                base.envs[i].set_wrapper_attr(attr_name, value)
            return
        self._require_all(indices)
        if isinstance(base, AsyncVectorEnv):
            base.set_attr(attr_name, [value] * self.num_envs)
        else:
            setattr(self._owner(attr_name), attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of each environment, or once of a vector environment that is not made of environments. What it returns
        is then said of each, or one value of each if there are as many.

        The masks of ``action_masks()`` offer everything where the next step only resets: a game that is over offers nothing,
        and its action has no effect.

        :raises ValueError: if not all are chosen, unless the vector environment is a ``SyncVectorEnv``
        """
        chosen = list(self._get_indices(indices))
        found = self._call(method_name, chosen, *method_args, **method_kwargs)
        if method_name == "action_masks":
            return [self._all_offered if self.resetting[i] else mask for i, mask in zip(chosen, found, strict=True)]
        return found

    def _call(self, method_name: str, chosen: list[int], *method_args: Any, **method_kwargs: Any) -> list[Any]:
        base = self.env.unwrapped
        if isinstance(base, SyncVectorEnv):
            return [base.envs[i].get_wrapper_attr(method_name)(*method_args, **method_kwargs) for i in chosen]
        self._require_all(chosen)
        if isinstance(base, AsyncVectorEnv):
            values: Any = base.call(method_name, *method_args, **method_kwargs)
        else:
            found = getattr(self._owner(method_name), method_name)(*method_args, **method_kwargs)
            values = found if is_one_each(found, self.num_envs) else [found] * self.num_envs
        return [values[i] for i in chosen]

    @property
    def _all_offered(self) -> np.ndarray:
        """The mask that offers every action, bool ``[n_choices]``."""
        n_choices = spaces.flatdim(self.action_space) * (2 if isinstance(self.action_space, spaces.MultiBinary) else 1)
        return np.ones(n_choices, dtype=bool)

    def _owner(self, name: str) -> Any:
        """The vector environment or, where its wrappers do not have the attribute, what they wrap."""
        return self.env if hasattr(self.env, name) else self.env.unwrapped

    def _require_all(self, indices: VecEnvIndices) -> None:
        if indices is not None and set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise ValueError(f"`indices` must be all: {self.env} does not give access to single environments, got {indices}")

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Whether each environment is wrapped. With a ``Monitor`` all are: episodes are monitored here."""
        chosen = self._get_indices(indices)
        base = self.env.unwrapped
        if wrapper_class is not Monitor and isinstance(base, SyncVectorEnv):
            return [is_wrapped(base.envs[i], wrapper_class) for i in chosen]
        return [wrapper_class is Monitor for _ in chosen]

    def get_images(self) -> Sequence[np.ndarray | None]:
        if self.render_mode != "rgb_array":
            warnings.warn(f"The render mode is {self.render_mode}; there are images only with `rgb_array`.", stacklevel=2)
            return [None] * self.num_envs
        return list(self.env.render())  # type: ignore[arg-type]

    def close(self) -> None:
        self.env.close()


def resetting_of(env: VecEnv) -> np.ndarray | None:
    """``GymnasiumVecEnv.resetting``, of environments that have it, through wrappers too; None: every step acts."""
    found = getattr(env, "resetting", None)
    is_one = isinstance(found, np.ndarray) and found.dtype == bool and found.shape == (env.num_envs,)
    return found if is_one else None


def is_vector_env(env: Any) -> bool:
    """Whether this is a vector environment of gymnasium, or speaks its interface."""
    return not isinstance(env, VecEnv) and all(hasattr(env, f"single_{kind}_space") for kind in ("observation", "action"))


def _has_statistics(env: Any) -> bool:
    """Whether gymnasium's statistics of episodes are around a vector environment. When some environments are reset, they
    forget the episodes of all."""
    from gymnasium.wrappers.vector import RecordEpisodeStatistics  # gymnasium below 1.0 has it elsewhere

    while env is not env.unwrapped and not isinstance(env, RecordEpisodeStatistics):
        env = env.env
    return isinstance(env, RecordEpisodeStatistics)


def _autoreset_mode(env: Any) -> Any:
    mode = getattr(env, "metadata", {}).get("autoreset_mode")
    return getattr(mode, "value", mode)


def _check_vector_env(env: Any) -> None:
    """Raise a ``ValueError`` that says what to do with what is no vector environment, or not one that SB3 can use."""
    if isinstance(env, VecEnv):
        raise ValueError(f"`env` must be a vector environment of gymnasium: pass {type(env).__name__}, one of SB3, as it is")
    if not is_vector_env(env):
        raise ValueError(f"`env` must be a vector environment of gymnasium, as `gymnasium.make_vec` makes, got {env}")
    if _autoreset_mode(env) not in (_NEXT_STEP, _SAME_STEP, _DISABLED):
        raise ValueError(
            "`env.metadata['autoreset_mode']` must be a `gymnasium.vector.AutoresetMode`: when the vector environment resets "
            f"(with gymnasium below 1.1 none says so; install a newer one), got {_autoreset_mode(env)}"
        )
    observation_space = env.single_observation_space
    parts: Iterable[Any] = (
        observation_space.spaces.values() if isinstance(observation_space, spaces.Dict) else [observation_space]
    )
    if not all(isinstance(space, _ARRAY_SPACES) for space in parts):
        raise ValueError(
            "`env.single_observation_space` must be Box, Discrete, MultiDiscrete, MultiBinary or a Dict of these; others can "
            f"be flattened, with `gymnasium.wrappers.FlattenObservation` for example, got {observation_space}"
        )
    if not isinstance(env.single_action_space, _ARRAY_SPACES):
        raise ValueError(
            "`env.single_action_space` must be Box, Discrete, MultiDiscrete or MultiBinary; others can be changed with "
            f"`gymnasium.wrappers.TransformAction`, got {env.single_action_space}"
        )
