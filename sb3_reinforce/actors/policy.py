"""The policy itself chooses."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor

from sb3_reinforce.batch import Observations


class Actor(Protocol):
    """How actions are chosen."""

    def __call__(self, obs: Observations, episode_starts: np.ndarray, **given: np.ndarray) -> np.ndarray:
        """One action for each environment, ``[n_envs, ...]``, as the policy samples it.

        :param obs: observations of all environments, ``[n_envs, ...]``
        :param episode_starts: environments at the first step of an episode, bool ``[n_envs]``
        :param given: what else the policy is given, by the name of its argument, ``[n_envs, ...]``
        """


def policy_actor(policy: ActorCriticPolicy) -> Actor:
    """Sample from the policy itself, without its value or log-probability where its class allows that.

    :param policy: any actor-critic policy; one that overrides what leads to its distribution acts through ``forward``,
        as in SB3
    """
    overridden = overrides(policy, "forward", "get_distribution", "extract_features")

    def act(obs: Observations, episode_starts: np.ndarray | None = None, **given: np.ndarray) -> np.ndarray:
        # Not in inference mode, whose tensors a module could not keep for the update.
        with th.no_grad():
            tensor = obs_as_tensor(obs, policy.device)
            actions = policy(tensor, **given)[0] if overridden else policy.get_distribution(tensor, **given).get_actions()
        return actions.cpu().numpy().reshape(-1, *policy.action_space.shape)  # type: ignore[misc]

    return act


def environment_actions(policy: ActorCriticPolicy) -> Callable[[np.ndarray], np.ndarray]:
    """From actions as the policy samples them to actions as the environment takes them.

    Box: scaled to the bounds where the policy squashes its output, clipped to them elsewhere. Discrete spaces that
    do not start at 0: shifted.
    """
    space = policy.action_space
    if isinstance(space, spaces.Box):
        if policy.squash_output:
            return policy.unscale_action
        low, high = space.low, space.high
        return lambda actions: actions.clip(low, high)  # in half the time of np.clip
    start = getattr(space, "start", 0)
    if np.any(start):
        return lambda actions: actions + start
    return lambda actions: actions


def overrides(policy: ActorCriticPolicy, *names: str) -> bool:
    """Whether the policy's class, or that of what ``torch.compile`` wraps, has its own method of any of these names."""
    policy_class = type(getattr(policy, "_orig_mod", policy))
    return any(getattr(policy_class, name) is not getattr(ActorCriticPolicy, name) for name in names)
