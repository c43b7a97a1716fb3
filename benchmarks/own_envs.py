"""Environments that no file of hyperparameters knows: is the advice for one's own good?

sb3-reinforce compare --gym-packages own_envs --env Corridor-v0 ...    # in this folder; the whole command is in README.md
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation


class Corridor(gym.Env[np.int64, np.int64]):
    """Sparse: 1 for the end of eight cells, in each of which another one of three actions leads on. One in ten slips."""

    observation_space = spaces.Discrete(8)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.int64, dict[str, Any]]:
        super().reset(seed=seed)
        self.cell = 0
        return np.int64(0), {}

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        if self.np_random.random() < 0.1:
            action = self.np_random.integers(3)
        leads_on = action == self.cell * 5 % 3
        self.cell = self.cell + 1 if leads_on else max(self.cell - 1, 0)
        end = self.cell == 8
        return np.int64(min(self.cell, 7)), float(end), end, False, {}


class Choice(gym.Env[np.ndarray, np.int64]):
    """Dense and noisy, as a bandit: what an action pays is seen before it is chosen, and noise of deviation 1 comes on top."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def _draw(self) -> np.ndarray:
        self.pays = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self.pays

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._draw(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = float(self.pays[action]) + self.np_random.normal()
        return self._draw(), reward, False, False, {}


class Reach(gym.Env[np.ndarray, np.ndarray]):
    """A point that is pushed towards a place in the plane: minus the distance, at each step."""

    observation_space = spaces.Box(-10, 10, (4,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.point, self.place = self.np_random.uniform(-3, 3, (2, 2))
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.point = np.clip(self.point + 0.5 * action, -5, 5)
        return self._seen(), -float(np.linalg.norm(self.point - self.place)), False, False, {}

    def _seen(self) -> np.ndarray:
        return np.concatenate([self.point, self.place]).astype(np.float32)


def blackjack() -> gym.Env[Any, Any]:
    """Its observations, a tuple, as one vector."""
    return FlattenObservation(gym.make("Blackjack-v1"))


gym.register("Corridor-v0", Corridor, max_episode_steps=50)
gym.register("Choice-v0", Choice, max_episode_steps=10)
gym.register("Reach-v0", Reach, max_episode_steps=30)
gym.register("FlatBlackjack-v0", blackjack)
