"""The policy itself chooses."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor
from torch import nn

from sb3_reinforce.batch import NOTHING, Given, Observations

#: Packages whose policies do no more than their layers say.
_LIBRARIES = ("stable_baselines3.", "sb3_contrib.")


class Actor(Protocol):
    """How actions are chosen."""

    def __call__(self, obs: Observations, episode_starts: np.ndarray, given: Given) -> np.ndarray:
        """One action for each environment, ``[n_envs, ...]``, as the policy samples it.

        :param obs: observations of all environments, ``[n_envs, ...]``
        :param episode_starts: environments at the first step of an episode, bool ``[n_envs]``
        :param given: what else the policy is given, by the name of its argument, ``[n_envs, ...]``
        """


def policy_actor(policy: ActorCriticPolicy) -> Actor:
    """Sample from the policy itself, without its value or log-probability where nobody could notice.

    :param policy: any actor-critic policy; one that overrides what leads to its distribution, or has hooks, acts through
        ``forward``, as in SB3
    """
    calls_forward = overrides(policy, "forward", "get_distribution", "extract_features") or is_watched(policy)

    def act(obs: Observations, episode_starts: np.ndarray | None = None, given: Given = NOTHING) -> np.ndarray:
        # Not in inference mode, whose tensors a module could not keep for the update.
        with th.no_grad():
            tensor = obs_as_tensor(obs, policy.device)
            actions = policy(tensor, **given)[0] if calls_forward else policy.get_distribution(tensor, **given).get_actions()
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
    """Whether the policy, or what ``torch.compile`` wraps, has a method of its own of any of these names.

    Its own is one that was set on the object, or one of its class that is not that of the class of SB3 or sb3-contrib from
    which it derives.
    """
    original = getattr(policy, "_orig_mod", policy)
    policy_class = type(original)
    library = next(each for each in policy_class.__mro__ if each.__module__.startswith(_LIBRARIES))
    return any(name in vars(original) or getattr(policy_class, name) is not getattr(library, name, None) for name in names)


def is_watched(policy: ActorCriticPolicy) -> bool:
    """Whether anything sees or changes a call within the policy: a hook, or a module or ``forward`` that was replaced."""
    return has_hooks(policy) or has_replaced_modules(policy) or has_other_extractor(policy)


def has_hooks(policy: ActorCriticPolicy) -> bool:
    """Whether something is called with a module of the policy, which may change outputs, compute weights, or only look."""
    of_all = nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks
    return bool(of_all) or any(
        each._forward_hooks or each._forward_pre_hooks or each._backward_hooks or each._backward_pre_hooks
        for each in policy.modules()
    )


def has_replaced_modules(policy: ActorCriticPolicy) -> bool:
    """Whether a module of the policy has a ``forward`` that is not its class's."""
    original = getattr(policy, "_orig_mod", policy)
    return any("forward" in vars(each) for each in original.modules())


def has_other_extractor(policy: ActorCriticPolicy) -> bool:
    """Whether ``policy.features_extractor`` was replaced: where it is shared, ``forward`` of SB3 asks the one under this name,
    ``get_distribution`` the one under another."""
    shared = policy.share_features_extractor
    return shared and policy.features_extractor is not policy.pi_features_extractor
