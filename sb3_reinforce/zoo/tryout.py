"""Environments, and algorithms on them, tried for a moment before hours are spent."""

import argparse
import contextlib
import io
import math
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from rl_zoo3.exp_manager import ExperimentManager

from sb3_reinforce.zoo.masks import sampler
from sb3_reinforce.zoo.records import rounded
from sb3_reinforce.zoo.settings import Contestant, Settings

#: Actions drawn at random are played for this many episodes, or seconds.
RANDOM_EPISODES, RANDOM_SECONDS = 50, 10.0


def random_return(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> float | None:
    """Mean return of actions drawn at random; None if the first episode does not end soon.

    :param env_kwargs: arguments of the environment
    :raises ValueError: if a reward is not finite
    """
    env = gym.make(env_id, **(env_kwargs or {}))
    env.action_space.seed(0)
    sample = sampler(env)
    returns: list[float] = []
    end = time.monotonic() + RANDOM_SECONDS
    while len(returns) < RANDOM_EPISODES:
        env.reset(seed=len(returns))
        total, done = 0.0, False
        while not done and time.monotonic() < end:
            _, reward, terminated, truncated, _ = env.step(sample())
            total += float(reward)
            done = terminated or truncated
        if not math.isfinite(total):
            raise ValueError(f"rewards must be finite, but those of an episode sum to {total}")
        if not done:
            break
        returns.append(total)
    env.close()
    return rounded(sum(returns) / len(returns)) if returns else None


def try_out(contestant: Contestant, env_id: str, taken: Settings) -> None:
    """Have RL Zoo make environments and model, and throw them away: whatever it raises, it would raise in the run."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        manager = ExperimentManager(
            argparse.Namespace(algo=contestant.algo), contestant.algo, env_id, folder,
            hyperparams=dict(taken.overrides), eval_freq=-1, config=contestant.conf_file, verbose=0, seed=0, device="cpu",
        )  # fmt: skip
        create = manager.create_envs

        def create_and_close(n_envs: int, **kwargs: Any) -> Any:
            env = create(n_envs, no_log=True)
            stack.callback(env.close)
            return env

        manager.create_envs = create_and_close  # type: ignore[method-assign, assignment]
        manager.setup_experiment()
