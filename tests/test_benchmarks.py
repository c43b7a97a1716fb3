"""Programs whose rows are seldom measured anew do what they did when they were."""

import importlib
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium.envs.classic_control import CartPoleEnv
from stable_baselines3.common.callbacks import ConvertCallback

from sb3_reinforce import REINFORCE
from sb3_reinforce.actors import MlpActor
from sb3_reinforce.buffer import EpisodicRolloutBuffer
from sb3_reinforce.quota import EpisodeQuota


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))


def test_a_stack_is_in_a_part_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stacks of a run, as a profiler sees them: names of functions, the outermost first."""
    part_of = importlib.import_module("profile_steps").part_of
    found: dict[str, str] = {}

    def watch(owner: type, name: str, label: str) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            functions = [frame.name for frame in traceback.extract_stack()]
            if "learn" in functions:
                found[label] = part_of(functions)
            return original(*args, **kwargs)

        watched.__code__ = watched.__code__.replace(co_name=name)
        monkeypatch.setattr(owner, name, watched)

    watch(CartPoleEnv, "step", "environment")
    watch(MlpActor, "outputs", "network")
    watch(th.optim.Adam, "step", "optimizer")
    watch(EpisodicRolloutBuffer, "add", "buffer")
    watch(EpisodicRolloutBuffer, "compute_returns_and_advantage", "order of the batch")
    watch(ConvertCallback, "_on_step", "callback")
    watch(EpisodeQuota, "start", "end of an episode")
    REINFORCE("MlpPolicy", "CartPole-v1", n_episodes=1).learn(1, lambda *_: True)
    assert found == {
        "environment": "environments",
        "network": "choosing actions",
        "optimizer": "update",
        "buffer": "storing",
        "order of the batch": "storing",
        "callback": "callback",
        "end of an episode": "the rest",
    }


@pytest.mark.slow
def test_the_variance_of_every_estimator_can_be_measured() -> None:
    """Of two batches of two trajectories each, which say little; but all are numbers, one for each parameter."""
    program = importlib.import_module("variance")
    measured = program.gradients(program.fixed_policy("Chain", None), (2,), 2)
    assert len(measured) == len(program.ESTIMATORS)
    assert len({values.shape for values in measured.values()}) == 1
    assert all(np.isfinite(values).all() for values in measured.values())
