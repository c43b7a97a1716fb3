"""What the README shows is what the package does."""

import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback

from sb3_reinforce import REINFORCE

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_runs(capsys, monkeypatch):
    """As it stands, with a smaller budget; its evaluation is printed."""
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    learn = REINFORCE.learn
    monkeypatch.setattr(REINFORCE, "learn", lambda model, total_timesteps: learn(model, 500))
    exec(example.replace("n_eval_episodes=20", "n_eval_episodes=1"), {})
    assert float(re.match(r"\((?:np\.float64\()?([\d.]+)", capsys.readouterr().out).group(1)) > 0


OTHERS = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1:] if "import" in block]


@pytest.mark.parametrize("example", OTHERS, ids=[re.search(r"\w+\(", block).group()[:-1] for block in OTHERS])
def test_the_other_examples_run(example, capsys):
    """As they stand, with smaller budgets; what is left out needs an environment of the reader's own."""
    if "Maskable" in example or "Recurrent" in example:
        pytest.importorskip("sb3_contrib")
    if "make_vec" in example and not hasattr(gym.vector, "AutoresetMode"):
        pytest.skip("needs gymnasium 1.1")
    exec(re.sub(r"learn\([\d_]+", "learn(100", example), {})


def test_what_a_callback_adds_to_rewards_is_learned_from():
    """At each step in place, or to the buffer when the rollout has ended: each doubles the returns."""

    class Adds(BaseCallback):
        def __init__(self, at_the_end):
            super().__init__()
            self.at_the_end = at_the_end

        def _on_step(self):
            if not self.at_the_end:
                self.locals["rewards"] += 1
            return True

        def _on_rollout_end(self):
            if self.at_the_end:
                self.model.rollout_buffer.rewards += 1

    for at_the_end in (False, True):
        model = REINFORCE("MlpPolicy", "CartPole-v1", n_episodes=2, gamma=1.0, seed=0).learn(1, callback=Adds(at_the_end))
        assert model.rollout_buffer.returns.tolist() == (2 * model.rollout_buffer.lengths).tolist()
        assert model.logger.name_to_value["train/return_mean"] == 2 * model.rollout_buffer.lengths.mean()


@pytest.mark.parametrize("options", [{}, {"baseline": "value"}])
def test_every_key_that_is_logged_is_explained(options):
    """CartPole logs all but `std`, which Box actions add, and the success rate, which some environments report."""
    model = REINFORCE("MlpPolicy", gym.make("Pendulum-v1", max_episode_steps=5), n_episodes=2, **options)
    keys = set()
    record = lambda locals_, globals_: keys.update(model.logger.name_to_value) or True  # noqa: E731
    model.learn(40, log_interval=2, callback=record)
    assert {"train/grad_norm", "train/std", "rollout/unused_steps_fraction"} <= keys
    explained = set(re.findall(r"`((?:rollout|train)/\w+)`", README))
    assert keys - explained == {key for key in keys if key.startswith("time/")}


def test_the_textbook_results_are_those_of_the_csv():
    """The figures that no table holds; the tables' are tested with the report."""
    rows = np.genfromtxt(
        Path(__file__).parent.parent / "benchmarks/results/learning.csv", delimiter=",", names=True, dtype=None, encoding=None
    )
    textbook = rows[(rows["algo"] == "reinforce_textbook") & (rows["budget"] == 0)]["return_mean"]
    assert len(textbook) == 5
    figures = ", ".join(f"{value:.0f}" for value in sorted(textbook, reverse=True))
    assert f"a mean of {textbook.mean():.0f} over 5 seeds ({figures})" in " ".join(README.split())
