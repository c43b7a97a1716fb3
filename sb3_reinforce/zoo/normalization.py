"""Which observations the hyperparameters that come with this package have normalised: those that ``VecNormalize`` is for."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from rl_zoo3.utils import get_wrapper_class
from stable_baselines3.common.preprocessing import is_image_space


def where_possible(
    hyperparameters: Mapping[str, Any], env_id: str, env_kwargs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The hyperparameters, without ``normalize`` where observations are not a Box, or are images.

    So one entry ``default`` is for all: ``VecNormalize`` refuses discrete observations, and policies scale images themselves.

    :param hyperparameters: as a file of RL Zoo has them
    :param env_kwargs: arguments of the environment that come before those in the hyperparameters
    """
    kept = dict(hyperparameters)
    if kept.get("normalize"):
        env = gym.make(env_id, **{**(kept.get("env_kwargs") or {}), **(env_kwargs or {})})
        wrap = get_wrapper_class(dict(kept))
        space = (env if wrap is None else wrap(env)).observation_space
        env.close()
        if not isinstance(space, spaces.Box) or is_image_space(space):
            del kept["normalize"]
    return kept
