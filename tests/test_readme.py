"""What the README shows is what the package does."""

import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from sb3_reinforce import REINFORCE

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_runs(capsys, monkeypatch):
    """As it stands, with a smaller budget; its evaluation is printed."""
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    learn = REINFORCE.learn
    monkeypatch.setattr(REINFORCE, "learn", lambda model, total_timesteps: learn(model, 500))
    exec(example.replace("n_eval_episodes=20", "n_eval_episodes=1"), {})
    assert float(re.match(r"\((?:np\.float64\()?([\d.]+)", capsys.readouterr().out).group(1)) > 0


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
