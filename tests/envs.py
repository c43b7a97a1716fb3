"""Tiny environments of known answers. Each passes SB3's ``check_env`` (see test_collect.py)."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

#: One of each kind of observation space that a multilayer perceptron takes.
FLAT_SPACES: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-1, 1, (3,), np.float32),
    "box 2-d float64": spaces.Box(-1, 1, (2, 3), np.float64),
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(3),
}
Step = tuple[Any, float, bool, bool, dict[str, Any]]


class ScriptedEnv(gym.Env[np.ndarray, Any]):
    """Episodes of given lengths, whose observations ``[env_id, episode, t]`` tell where each stored step comes from.

    The reward of step t is ``1 + t + action / 2`` (the sum over the action's components): known, and never constant.

    :param lengths: length of each episode, from the beginning again after the last; None: no episode ends
    :param env_id: what tells this environment from its neighbours
    :param truncated: whether episodes end by truncation; False: by termination
    :param action_space: None: two actions
    """

    def __init__(
        self,
        lengths: Sequence[int] | None,
        env_id: int = 0,
        truncated: bool = False,
        action_space: spaces.Space[Any] | None = None,
    ):
        self.observation_space = spaces.Box(0, np.inf, (3,), np.float32)
        self.action_space = action_space or spaces.Discrete(2)
        self.lengths = lengths
        self.env_id = env_id
        self.truncated = truncated
        self.episode = -1  # so that episode + 1 is the number of resets
        self.t = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode += 1
        self.t = 0
        return self._observation(), {}

    def step(self, action: Any) -> Step:
        reward = 1.0 + self.t + float(np.sum(action)) / 2
        self.t += 1
        done = self.lengths is not None and self.t == self.lengths[self.episode % len(self.lengths)]
        return self._observation(), reward, done and not self.truncated, done and self.truncated, {}

    def _observation(self) -> np.ndarray:
        return np.array([self.env_id, self.episode, self.t], dtype=np.float32)


class BanditEnv(gym.Env[np.ndarray, int]):
    """One step, one constant observation, and a payoff for each action.

    :param payoffs: reward of each action
    """

    def __init__(self, payoffs: Sequence[float] = (0.0, 1.0)):
        self.observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(len(payoffs))
        self.payoffs = payoffs

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.ones(1, dtype=np.float32), {}

    def step(self, action: int) -> Step:
        return np.ones(1, dtype=np.float32), float(self.payoffs[action]), True, False, {}


class CoinFlipEnv(gym.Env[np.ndarray, int]):
    """An episode goes on as long as action 1 is chosen, and each step pays 1: its return is its length.

    Under a policy that chooses 1 with probability p the length is geometric, of mean 1 / (1 - p).
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 1, (1,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.ones(1, dtype=np.float32), {}

    def step(self, action: int) -> Step:
        return np.ones(1, dtype=np.float32), 1.0, bool(action == 0), False, {}


class SpacesEnv(gym.Env[Any, Any]):
    """Any spaces: observations are drawn at random, a step pays the sum of its action, actions are remembered.

    :param observation_space: observation space
    :param action_space: action space
    :param length: number of steps of every episode
    :param seed: where the observations start from, unless ``reset`` is given a seed
    """

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], length: int = 3, seed: int = 0):
        self.observation_space = deepcopy(observation_space)  # it holds the generator, not to be shared with neighbours
        self.observation_space.seed(seed)
        self.action_space = action_space
        self.length = length
        self.actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Step:
        self.actions.append(action)
        self.t += 1
        return self.observation_space.sample(), float(np.sum(action)), self.t == self.length, False, {}


class FaultyEnv(gym.Wrapper[Any, Any, Any, Any]):
    """At one step of its life, an environment returns a wrong number or raises.

    :param env: an environment without faults
    :param at: the step, counted from 0 over all episodes
    :param reward: what to return as reward there
    :param observation: what to fill the observation with there
    :param error: what to raise there
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        at: int,
        reward: float | None = None,
        observation: float | None = None,
        error: Exception | None = None,
    ):
        super().__init__(env)
        self.at = at
        self.n_steps = 0
        self.reward = reward
        self.observation = observation
        self.error = error

    def step(self, action: Any) -> Step:
        obs, reward, terminated, truncated, info = self.env.step(action)
        faulty = self.n_steps == self.at
        self.n_steps += 1
        if faulty and self.error is not None:
            raise self.error
        if faulty and self.reward is not None:
            reward = self.reward
        if faulty and self.observation is not None:
            obs = np.full_like(obs, self.observation)
        return obs, float(reward), terminated, truncated, info


def vectorized(*envs: gym.Env[Any, Any]) -> DummyVecEnv:
    """These environments, stepped together."""
    return DummyVecEnv([lambda env=env: env for env in envs])


def scripted(*lengths: Sequence[int] | None, **kwargs: Any) -> DummyVecEnv:
    """A ``ScriptedEnv`` for each sequence of lengths, numbered by their places."""
    return vectorized(*(ScriptedEnv(each, env_id, **kwargs) for env_id, each in enumerate(lengths)))
