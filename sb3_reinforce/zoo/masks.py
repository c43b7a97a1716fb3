"""Action masks, and a limit on the length of an episode, where SB3's evaluation and RL Zoo's programs have neither."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import rl_zoo3
from rl_zoo3 import utils
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked_policy
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common import callbacks, evaluation
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_reinforce.contrib import MaskableREINFORCE
from sb3_reinforce.rollouts import ENDLESS


def sampler(env: gym.Env[Any, Any]) -> Callable[[], Any]:
    """What draws an action at random; of a Discrete space, from those that the environment offers."""
    space = env.action_space
    if isinstance(space, gym.spaces.Discrete) and is_masking_supported(env):
        return lambda: space.sample(np.asarray(get_action_masks(env), dtype=np.int8))
    return space.sample


def evaluate_policy(model: Any, env: Any, *args: Any, **kwargs: Any) -> Any:
    """SB3's function of this name or, for a model that takes masks where the environment has them, sb3-contrib's."""
    masked = isinstance(model, MaskableREINFORCE) and is_masking_supported(env)
    return (evaluate_masked_policy if masked else evaluation.evaluate_policy)(model, env, *args, **kwargs)


def evaluate_in_training(model: BaseAlgorithm, env: VecEnv, *, callback: Any = None, **kwargs: Any) -> Any:
    """``evaluate_policy`` that refuses episodes which nothing ends, as REINFORCE's training does.

    :raises ValueError: if an episode is longer than 100,000 steps and than training is
    """
    longest = max(model._total_timesteps - model._num_timesteps_at_start, ENDLESS)

    def check(evaluation_locals: dict[str, Any], evaluation_globals: dict[str, Any]) -> None:
        # An environment that has played its episodes goes on until all have, and so does its length. ``i`` has not.
        if evaluation_locals["current_lengths"][evaluation_locals["i"]] > longest:
            raise ValueError(
                f"An episode of an evaluation did not end within {longest} steps: register the environment with a time limit "
                "of at most as many (`max_episode_steps`), or leave evaluations out (`--eval-freq -1`)."
            )
        if callback is not None:
            callback(evaluation_locals, evaluation_globals)

    return evaluate_policy(model, env, callback=check, **kwargs)


def mend_evaluations() -> None:
    """Have SB3's ``EvalCallback``, and with it RL Zoo's, call ``evaluate_in_training``, which it looks up in its module."""
    vars(callbacks)["evaluate_policy"] = evaluate_in_training


class Player(MaskableREINFORCE):
    """A trained agent in a program that knows no masks: it asks for them where it is played."""

    played: ClassVar[VecEnv | None] = None

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        if self.played is not None and is_masking_supported(self.played):
            kwargs.setdefault("action_masks", get_action_masks(self.played))
        return super().predict(*args, **kwargs)


@contextmanager
def given_to_players() -> Iterator[None]:
    """While this lasts, RL Zoo's programs load a ``Player``, which asks the environment that they have made last."""
    create = utils.create_test_env

    def create_test_env(*args: Any, **kwargs: Any) -> VecEnv:
        Player.played = create(*args, **kwargs)
        return Player.played

    algorithm, utils.ALGOS["reinforce_mask"] = utils.ALGOS["reinforce_mask"], Player
    rl_zoo3.create_test_env = utils.create_test_env = create_test_env
    try:
        yield
    finally:
        rl_zoo3.create_test_env = utils.create_test_env = create
        utils.ALGOS["reinforce_mask"] = algorithm
        Player.played = None
