"""What README and the pages beside it show is what the package does."""

import importlib
import re
import runpy
import shlex
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import ScriptedEnv
from stable_baselines3.common.callbacks import BaseCallback

from sb3_reinforce import REINFORCE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "benchmarks/README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


EXAMPLES = [(page, block) for page in PAGES for block in blocks(page, "python")]
COMMANDS = [line for block in blocks(ROOT / "README.md", "bash") for line in block.splitlines()]
#: The module that registers the reader's own environment.
(OWN,) = (block for _, block in EXAMPLES if "gym.register(" in block)


@pytest.fixture(autouse=True)
def _reader(tmp_path, monkeypatch):
    """The reader is in a folder with that module."""
    (tmp_path / "my_envs.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("my_envs", None)
    gym.registry.pop("Walk-v0", None)


def named(example):
    page, block = example
    calls = [call for call in re.findall(r"(\w+)\(", block) if call[0].isupper() and call not in ("BaseCallback", "Env")]
    return f"{page.parent.name if page.name == 'README.md' else page.stem}-{(calls or ['other'])[0]}"


@pytest.mark.parametrize(("page", "example"), EXAMPLES, ids=map(named, EXAMPLES))
def test_the_examples_run(page, example, capsys):
    """As they stand, with smaller budgets; what an evaluation prints is a mean and a deviation."""
    if "Maskable" in example or "Recurrent" in example:
        pytest.importorskip("sb3_contrib")
    if "zoo" in example:
        pytest.importorskip("rl_zoo3")
    if "make_vec(" in example and not hasattr(gym.vector, "AutoresetMode"):
        pytest.skip("needs gymnasium 1.1")
    smaller = re.sub(r"learn\((total_timesteps=)?[\d_]+", r"learn(\g<1>100", example)
    exec(smaller.replace("n_eval_episodes=20", "n_eval_episodes=1"), {"__name__": "example"})
    if "evaluate_policy" in example:
        assert float(re.match(r"\((?:np\.float64\()?([\d.]+)", capsys.readouterr().out).group(1)) > 0


def test_the_reader_s_environment_is_one_of_gymnasium_s():
    """And can be learned: holding to the right ends an episode, and earns more than standing still."""
    env_checker = importlib.import_module("stable_baselines3.common.env_checker")
    importlib.import_module("my_envs")
    env = gym.make("Walk-v0")
    env_checker.check_env(env.unwrapped)
    returns = {}
    for action in (0.0, 1.0):
        env.reset(seed=0)
        rewards, done = [], False
        while not done:
            _, reward, terminated, truncated, _ = env.step(np.array([action], np.float32))
            rewards.append(reward)
            done = terminated or truncated
        returns[action] = sum(rewards)
        assert terminated == (action > 0)
    assert returns[1.0] > returns[0.0]


def test_the_commands_run(monkeypatch, capsys):
    """One after the other in one folder, with smaller budgets; ``compare`` tries out what it would run, and stops there."""
    for module in ("rl_zoo3", "rliable", "sb3_contrib"):
        pytest.importorskip(module)
    from sb3_reinforce.zoo import cli, sweep, tryout

    monkeypatch.setattr(tryout, "RANDOM_EPISODES", 2)
    planned = []
    monkeypatch.setattr(sweep.Sweep, "work", lambda self, jobs, at_a_time: planned.extend(jobs) or {})
    smaller = {"train": ["-n", "60", "--eval-freq", "-1", "--num-threads", "1"], "enjoy": ["-n", "60"], "compare": []}
    run = set()
    for line in COMMANDS:
        program, *words = shlex.split(line, comments=True)
        if program == "sb3-reinforce":
            with monkeypatch.context() as patch:
                patch.setattr(sys, "argv", [program, *words, *smaller[words[0]]])
                cli.main()
            run.add(words[0])
        else:
            assert (program, words[0]) == ("pip", "install")
    assert run == {"compare", "train", "enjoy"}
    assert len(planned) == 9
    saved = {path.name for path in Path("logs").glob("reinforce/*/*.zip")}
    assert {"CartPole-v1.zip", "Walk-v0.zip"} <= saved
    assert Path("logs/reinforce/Walk-v0_1/Walk-v0/vecnormalize.pkl").is_file()
    assert "Mean reward" in capsys.readouterr().out


def test_the_extras_exist():
    """Each that README lists or installs, and no other but that of those who develop it."""
    declared = re.search(r"\[project.optional-dependencies\]\n(.*?)\n\[", (ROOT / "pyproject.toml").read_text(), re.DOTALL)[1]
    extras = set(re.findall(r"^(\w+) = \[", declared, re.MULTILINE))
    listed = set(re.findall(r"^\| `(\w+)` \|", README.partition("## Install")[2].partition("\n## ")[0], re.MULTILINE))
    assert listed == extras - {"dev"}
    for page in PAGES:
        for installed in re.findall(r"pip install '[.\w]+\[([\w,]+)\]'", page.read_text()):
            assert set(installed.split(",")) <= extras


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """To a file, and to a heading of it; commands name files that exist."""
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text):
        file, _, heading = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), target
        headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE) if heading else []
        assert not heading or heading in {title.lower().replace(",", "").replace(" ", "-") for title in headings}, target
    for script in re.findall(r"`python ([\w/]+\.py)", text):
        assert (ROOT / script).is_file(), script


def test_each_line_of_the_derivation_is_where_the_map_says():
    lines = re.findall(r"\| `([\w/]+\.py)` \| `([\w.]+)` \|$", (ROOT / "docs/derivation.md").read_text(), re.MULTILINE)
    assert len(lines) >= 8
    for file, name in lines:
        if file.startswith("sb3_reinforce/"):
            found = importlib.import_module(file.removesuffix(".py").replace("/", "."))
            for part in name.split("."):
                found = getattr(found, part)
            assert callable(found)
        else:
            assert f"def {name}(" in (ROOT / file).read_text()


def test_the_textbook_page_has_the_gradient_of_the_package():
    """The same step of plain gradient ascent, on the same trajectories, of unlike lengths and rewards that differ."""
    textbook, rate = runpy.run_path(str(ROOT / "docs/textbook.py")), 1.0
    policy_kwargs = {"net_arch": [4], "optimizer_class": th.optim.SGD}
    arguments = {"n_episodes": 3, "gamma": 0.9, "learning_rate": rate, "policy_kwargs": policy_kwargs, "seed": 0}
    model = REINFORCE("MlpPolicy", ScriptedEnv([2, 5, 3]), **arguments)
    policy = th.nn.Sequential(model.policy.mlp_extractor.policy_net, model.policy.action_net)
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    model.learn(1)
    after = [parameter.detach().clone() for parameter in policy.parameters()]

    (part,), lengths = model.rollout_buffer.get(), model.rollout_buffer.lengths.tolist()
    rewards = th.as_tensor(model.rollout_buffer.step_rewards.copy())
    columns = (part.observations, part.actions.flatten(), rewards)
    trajectories = zip(*(column.split(lengths) for column in columns), strict=True)
    with th.no_grad():
        for parameter, value in zip(policy.parameters(), before, strict=True):
            parameter.copy_(value)
    gradients = th.autograd.grad(textbook["loss"](policy, list(trajectories), gamma=0.9), list(policy.parameters()))
    assert max(gradient.abs().max() for gradient in gradients) > 0.1
    for gradient, start, end in zip(gradients, before, after, strict=True):
        th.testing.assert_close((start - end) / rate, gradient, rtol=1e-4, atol=1e-5)


def test_the_textbook_page_runs(capsys):
    runpy.run_path(str(ROOT / "docs/textbook.py"))["main"](m=2, n_updates=2)
    assert len(re.findall(r"mean return \d+\.\d", capsys.readouterr().out)) == 2


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
    explained = set(re.findall(r"`((?:rollout|train)/\w+)`", (ROOT / "docs/logging.md").read_text()))
    assert keys - explained == {key for key in keys if key.startswith("time/")}
