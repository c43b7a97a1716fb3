"""Masks and memory in RL Zoo's programs: passed in training, evaluation, enjoy and films."""

from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from command import run
from envs import ScriptedEnv, vectorized
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor

pytest.importorskip("rl_zoo3")
from rl_zoo3 import utils

from sb3_reinforce import REINFORCE, MaskableREINFORCE, RecurrentREINFORCE
from sb3_reinforce.zoo import masks, runs

QUICK = ("--n-timesteps", 60, "--seed", 1, "--verbose", 0, "--num-threads", 1, "--eval-freq", 20, "--eval-episodes", 1)


class OneOffered(gym.Env[np.ndarray, int]):
    """One of five actions is offered, another one at each step, and no other one is taken."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 30}
    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(5)
    n_taken = 0

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def action_masks(self) -> np.ndarray:
        return np.arange(5) == self.t

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert action == self.t, f"{action} was not offered"
        OneOffered.n_taken += 1
        self.t += 1
        return np.zeros(1, dtype=np.float32), 1.0, self.t == 5, False, {}

    def render(self) -> np.ndarray:
        return np.zeros((32, 32, 3), dtype=np.uint8)


gym.register("OneOffered-v0", OneOffered, max_episode_steps=100)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Agents with masks and with memory, trained and evaluated meanwhile."""
    folder = tmp_path_factory.mktemp("logs")
    run("train", "--algo", "reinforce_mask", "--env", "OneOffered-v0", *QUICK, "-f", folder)
    run("train", "--algo", "reinforce_lstm", "--env", "CartPoleNoVel-v1", *QUICK, "-f", folder)
    return folder


def test_evaluations_of_training_pass_masks(logs: Path) -> None:
    evaluations = np.load(logs / "reinforce_mask/OneOffered-v0_1/evaluations.npz")
    assert len(evaluations["results"]) >= 3
    assert (evaluations["ep_lengths"] == 5).all()


class Stands(gym.Env[np.ndarray, int]):
    """Ends for an agent that does not always do the same, as one in training does not."""

    observation_space, action_space = spaces.Box(-1, 1, (1,), np.float32), spaces.Discrete(2)

    def action_masks(self) -> np.ndarray:
        return np.ones(2, dtype=bool)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.seen: set[int] = set()
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.seen.add(int(action))
        return np.zeros(1, dtype=np.float32), 1.0, len(self.seen) == 2, False, {}


gym.register("Stands-v0", Stands)


@pytest.mark.parametrize("algo", ["reinforce", "reinforce_mask", "a2c"])
def test_an_evaluation_without_an_end_is_refused(algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where RL Zoo's own would go on for ever."""
    monkeypatch.setattr(masks, "ENDLESS", 70)
    with pytest.raises(ValueError, match=r"An episode of an evaluation did not end within 70 steps.*`--eval-freq -1`"):
        run("train", "--algo", algo, "--env", "Stands-v0", *QUICK, "-f", tmp_path)


@pytest.mark.parametrize("longest", [40, 39])
def test_an_evaluation_may_be_longer_than_its_episodes(longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two environments has short episodes. It goes on while the other plays, without an end that anybody counts."""
    monkeypatch.setattr(masks, "ENDLESS", longest)
    env = vectorized(*[Monitor(ScriptedEnv([length], i)) for i, length in enumerate((2, 40))])
    model = REINFORCE("MlpPolicy", env)
    model._total_timesteps = 0
    if longest < 40:
        with pytest.raises(ValueError, match="did not end within 39 steps"):
            masks.evaluate_in_training(model, env, n_eval_episodes=6)
    else:
        assert masks.evaluate_in_training(model, env, n_eval_episodes=6, return_episode_rewards=True)[1] == [2] * 3 + [40] * 3


def test_enjoy_passes_masks(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = OneOffered.n_taken
    arguments = ("--env", "OneOffered-v0", "-f", logs, "--no-render", "-n", 23)
    run("enjoy", "--algo", "reinforce_mask", *arguments)
    assert OneOffered.n_taken - before == 23
    assert "Mean episode length: 5.00" in capsys.readouterr().out
    assert utils.ALGOS["reinforce_mask"] is MaskableREINFORCE
    assert masks.Player.played is None


def test_films_pass_masks(logs: Path) -> None:
    pytest.importorskip("moviepy")
    before = OneOffered.n_taken
    run("record_video", "--algo", "reinforce_mask", "--env", "OneOffered-v0", "-f", logs, "-n", 12, "--no-render")
    assert OneOffered.n_taken - before >= 12


def test_the_last_model_is_evaluated_with_masks(logs: Path) -> None:
    folder = runs.latest_run(str(logs), "reinforce_mask", "OneOffered-v0")
    assert runs.evaluate_last_model(folder, "reinforce_mask", "OneOffered-v0", n_episodes=2).tolist() == [5.0, 5.0]


def test_enjoy_carries_states(logs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []
    predict = RecurrentREINFORCE.predict

    def noted(self: RecurrentREINFORCE, observation: Any, state: Any = None, episode_start: Any = None, **kwargs: Any) -> Any:
        seen.append((state is None, bool(episode_start[0])))
        return predict(self, observation, state, episode_start, **kwargs)

    monkeypatch.setattr(RecurrentREINFORCE, "predict", noted)
    run("enjoy", "--algo", "reinforce_lstm", "--env", "CartPoleNoVel-v1", "-f", logs, "--no-render", "-n", 50)
    assert seen[0] == (True, True)
    assert not any(is_none for is_none, _ in seen[1:])
    assert 1 < sum(starts for _, starts in seen) < 20
