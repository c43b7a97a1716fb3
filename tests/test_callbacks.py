"""SB3's callbacks and logger around REINFORCE: each does what it documents, and every key of docs/logging.md is there."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import BanditEnv, ScriptedEnv, SpacesEnv, scripted, vectorized
from gymnasium import spaces
from stable_baselines3.common import callbacks as sb3_callbacks
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    ConvertCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.logger import KVWriter, Logger, configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize

from sb3_reinforce import REINFORCE

LOGGING = Path(__file__).parent.parent / "docs/logging.md"
BOX = spaces.Box(-1, 1, (2,), np.float32)
#: Keys that not every model logs, and what makes it do so.
OPTIONAL_KEYS = {
    "train/value_loss": {"baseline": "value"},
    "train/explained_variance": {"baseline": "value"},
    "train/effective_sample_size": {"n_epochs": 2},
    "train/carried_effective_sample_size": {"carry_over": True},
}


def make_model(env: VecEnv, n_episodes: int = 2, **kwargs: Any) -> REINFORCE:
    return REINFORCE("MlpPolicy", env, n_episodes=n_episodes, policy_kwargs={"net_arch": [4]}, seed=0, **kwargs)


def monitored(*lengths: list[int], **kwargs: Any) -> VecEnv:
    return VecMonitor(scripted(*lengths, **kwargs))


class Calls(BaseCallback):
    """Remembers ``num_timesteps`` at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[int] = []

    def _on_step(self) -> bool:
        self.at.append(self.num_timesteps)
        return True


class Dumps(KVWriter):
    """A logger's output that keeps what it is told, in place of a file."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        self.told.append(dict(key_values))

    def close(self) -> None:
        pass


def with_dumps(model: REINFORCE) -> list[dict[str, Any]]:
    dumps = Dumps()
    model.set_logger(Logger(folder=None, output_formats=[dumps]))
    return dumps.told


# --- callbacks that evaluate and save ------------------------------------------------------------------------------------


def test_evaluation_finds_and_keeps_the_best(tmp_path: Path) -> None:
    """``EvalCallback`` in the midst of rollouts: every 5 calls, logged and written, with the best model to load again."""
    callback = EvalCallback(
        scripted([4]), eval_freq=5, n_eval_episodes=2, log_path=str(tmp_path), best_model_save_path=str(tmp_path), warn=False
    )
    model = make_model(scripted([3], [4]), n_episodes=4)
    dumps = with_dumps(model)
    model.learn(30, callback)
    timesteps = list(range(10, model.num_timesteps + 1, 10))
    assert len(timesteps) > 2
    evaluations = np.load(tmp_path / "evaluations.npz")
    assert evaluations["timesteps"].tolist() == timesteps
    assert evaluations["ep_lengths"].tolist() == [[4, 4]] * len(timesteps)
    logged = [dump["eval/mean_reward"] for dump in dumps if "eval/mean_reward" in dump]
    np.testing.assert_allclose(logged, evaluations["results"].mean(axis=1))
    assert callback.best_mean_reward == max(logged)
    best = REINFORCE.load(tmp_path / "best_model", env=scripted([3]))
    best.learn(1)


def test_evaluation_does_not_change_training() -> None:
    """Deterministic evaluations draw no random numbers, and leave the policy in the mode that rollouts need."""
    results = []
    for callback in (None, EvalCallback(scripted([4]), eval_freq=1, n_eval_episodes=1, warn=False)):
        model = make_model(scripted([3], [4]), n_episodes=4, baseline="value").learn(40, callback)
        results.append(model.policy.parameters_to_vector())
    np.testing.assert_array_equal(*results)


def test_evaluation_shares_the_normalization() -> None:
    """``EvalCallback`` copies the training environment's statistics to its own, as it does for A2C."""
    env, eval_env = VecNormalize(scripted([3])), VecNormalize(scripted([3]), training=False, norm_reward=False)
    make_model(env).learn(6, EvalCallback(eval_env, eval_freq=6, n_eval_episodes=1, warn=False))
    np.testing.assert_array_equal(eval_env.obs_rms.mean, env.obs_rms.mean)
    assert eval_env.obs_rms.mean[2] > 0


@pytest.mark.parametrize("threshold", [0.5, 2.0])
def test_training_ends_at_a_reward_threshold(threshold: float) -> None:
    """At once if the first evaluation pays as much, else not before ``total_timesteps``; every action pays 1 here."""
    stop = StopTrainingOnRewardThreshold(threshold)
    env = vectorized(BanditEnv((1.0, 1.0)))
    callback = EvalCallback(env, callback_on_new_best=stop, eval_freq=3, n_eval_episodes=2, warn=False)
    model = make_model(vectorized(BanditEnv()), n_episodes=4).learn(12, callback)
    assert model.num_timesteps == (3 if threshold < 1 else 12)
    assert model._n_updates == (0 if threshold < 1 else 3)


def test_training_ends_without_improvement() -> None:
    """The first evaluation is the best, as all are equal; two more may be no better, the third ends training."""
    stop = StopTrainingOnNoModelImprovement(max_no_improvement_evals=2, min_evals=0)
    env = vectorized(BanditEnv((1.0, 1.0)))
    callback = EvalCallback(env, callback_after_eval=stop, eval_freq=3, n_eval_episodes=1, warn=False)
    model = make_model(vectorized(BanditEnv()), n_episodes=4).learn(100, callback)
    assert model.num_timesteps == 3 * 4


def test_training_ends_after_so_many_episodes() -> None:
    """3 for each of 2 environments, used or not: the sixth ends at step 9 of these lengths."""
    model = make_model(scripted([2], [4]), n_episodes=50).learn(1000, StopTrainingOnMaxEpisodes(3))
    assert model.num_timesteps == 2 * 8
    assert model._n_updates == 0


@pytest.mark.filterwarnings("ignore:rich is experimental")
@pytest.mark.parametrize("progress_bar", [False, True])
def test_the_end_can_be_left_to_a_callback(progress_bar: bool) -> None:
    if progress_bar:
        pytest.importorskip("tqdm")
        pytest.importorskip("rich")
    steps: Any = float("inf")
    model = make_model(scripted([2]), n_episodes=2).learn(steps, StopTrainingOnMaxEpisodes(7), progress_bar=progress_bar)
    assert model.num_timesteps == 7 * 2
    assert model._n_updates == 3


def test_checkpoints_are_whole_models(tmp_path: Path) -> None:
    """Saved within rollouts too, with the normalisation beside them."""
    env = VecNormalize(scripted([3], [5]))
    callback = CheckpointCallback(4, str(tmp_path), "agent", save_vecnormalize=True)
    model = make_model(env, n_episodes=3, learning_rate=0.1).learn(40, callback)
    steps = list(range(8, model.num_timesteps + 1, 8))
    assert len(steps) > 3
    for n_steps in steps:
        statistics = VecNormalize.load(str(tmp_path / f"agent_vecnormalize_{n_steps}_steps.pkl"), scripted([3], [5]))
        loaded = REINFORCE.load(tmp_path / f"agent_{n_steps}_steps", env=statistics)
        assert loaded.num_timesteps == n_steps
        loaded.learn(1, reset_num_timesteps=False)
        assert loaded.num_timesteps > n_steps


# --- callbacks of other kinds --------------------------------------------------------------------------------------------


def test_events_come_every_so_many_steps() -> None:
    """``EveryNTimesteps`` counts the steps of all environments, across rollouts."""
    calls = Calls()
    make_model(scripted([3], [4]), n_episodes=2).learn(40, EveryNTimesteps(6, calls))
    assert calls.at == list(range(6, 41, 6))


def test_logs_can_be_written_every_so_many_steps() -> None:
    """``LogEveryNTimesteps`` with ``log_interval=None``, in the midst of rollouts: what was recorded until then."""
    model = make_model(monitored([3], [4]), n_episodes=2)
    dumps = with_dumps(model)
    model.learn(40, LogEveryNTimesteps(10), log_interval=None)
    assert [dump["time/total_timesteps"] for dump in dumps] == [10, 20, 30, 40]
    # Four steps a rollout, in which episodes of 3 and 4 end; they count once their batch is whole.
    assert [dump["rollout/ep_len_mean"] for dump in dumps] == [3.5, 3.5, 3.5, 3.5]
    assert sum("train/grad_norm" in dump for dump in dumps) == 4  # one update or more between any two


class Changes(BaseCallback):
    """Less noise, and another number of trajectories, from the second rollout on."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.model._n_updates == 1:
            self.model.policy.log_std.data.fill_(-8.0)
            self.model.n_episodes = 3


def test_what_a_callback_changes_at_the_start_of_a_rollout_holds_in_it() -> None:
    model = make_model(scripted([5], action_space=spaces.Box(-1, 1, (1,), np.float32)), learning_rate=0.0)
    model.learn(11, Changes())
    buffer = model.rollout_buffer
    assert len(buffer.lengths) == 3
    actions = th.cat([part.actions for part in buffer.get()])
    with th.no_grad():
        means = th.cat([model.policy.get_distribution(part.observations).distribution.mean for part in buffer.get()])
    assert (actions - means).abs().max() < 0.01


def stop_at(n_steps: int) -> Callable[[dict[str, Any], dict[str, Any]], bool]:
    return lambda locals_, globals_: locals_["self"].num_timesteps < n_steps


@pytest.mark.parametrize(
    ("callback", "expected"),
    [
        (None, 24),
        (stop_at(10), 10),  # a function
        ([ConvertCallback(stop_at(100)), ConvertCallback(stop_at(14))], 14),
        ([Calls(), ConvertCallback(stop_at(6))], 6),
        (CallbackList([Calls(), Calls()]), 24),
    ],
)
@pytest.mark.parametrize("progress_bar", [False, True])
@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_any_form_of_callback(callback: Any, expected: int, progress_bar: bool) -> None:
    """Functions, lists and objects, with and without a progress bar; one that says False ends training at that step."""
    if progress_bar:
        pytest.importorskip("tqdm")
        pytest.importorskip("rich")
    model = make_model(scripted([3], [4]), n_episodes=2)
    model.learn(24, callback, progress_bar=progress_bar)
    assert model.num_timesteps == expected
    if isinstance(callback, CallbackList):
        assert all(each.at[-3:] == [20, 22, 24] for each in callback.callbacks)


@pytest.mark.filterwarnings("ignore:rich is experimental")
@pytest.mark.parametrize("given", [None, list, CallbackList])
@pytest.mark.parametrize("callback", [None, Calls(), [Calls(), Calls()], lambda locals_, globals_: True])
def test_the_progress_bar_ends_at_its_end(callback: Any, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole episodes overshoot ``total_timesteps``; the bar stays at 100 %, and once more when learning goes on.

    So does a bar that is given as a callback, as RL Zoo gives it.
    """
    pytest.importorskip("rich")
    tqdm = pytest.importorskip("tqdm.rich").tqdm
    bars = []

    class Seen(tqdm):
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.counts: list[int] = []
            bars.append(self)

        def update(self, n: int = 1) -> Any:
            answer = super().update(n)
            self.counts.append(self.n)
            return answer

    monkeypatch.setattr(sb3_callbacks, "tqdm", Seen)
    model = make_model(scripted([7], [7]), n_episodes=2)
    others = callback if isinstance(callback, list) else [callback] if isinstance(callback, BaseCallback) else []
    for n_steps in (9, 20):
        callbacks = given([*others, sb3_callbacks.ProgressBarCallback()]) if given else callback
        model.learn(n_steps, callbacks, progress_bar=not given, reset_num_timesteps=False)
    first, second = bars
    assert first.counts == [2, 4, 6, 8, 9, 9, 9]
    assert second.counts == [*range(2, 20, 2), 20, 20, 20, 20, 20]
    assert (first.total, second.total) == (9, 20)


def test_raw_statistics_of_rl_zoo(tmp_path: Path) -> None:
    """Each episode is one point in TensorBoard, at the count of steps of the episodes until then."""
    zoo_callbacks = pytest.importorskip("rl_zoo3.callbacks")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    model = make_model(monitored([3, 1], [6]), n_episodes=3, tensorboard_log=str(tmp_path))
    model.learn(1, zoo_callbacks.RawStatisticsCallback())
    events = accumulator.EventAccumulator(str(tmp_path / "REINFORCE_1"))
    events.Reload()
    points = [(point.step, point.value) for point in events.Scalars("raw/rollouts/episodic_length")]
    # Environment 0 ends episodes at steps 3 and 4, environment 1 and the next of environment 0 (not used) at step 6 and 7.
    assert points == [(3, 3), (4, 1), (10, 6)]


# --- what is logged ------------------------------------------------------------------------------------------------------


class Success(gym.Wrapper[Any, Any, Any, Any]):
    """Says of its first episode that it succeeded, of others that they did not."""

    n_episodes = 0

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.n_episodes += terminated
        return obs, reward, terminated, truncated, {**info, "is_success": self.n_episodes <= 1}


def promised() -> set[str]:
    """The keys in the table of docs/logging.md, but ``time/*``."""
    table = LOGGING.read_text().partition("\n## ")[0]
    return set(re.findall(r"`((?:rollout|train)/\w+)`", table))


def success_env() -> VecEnv:
    """Box actions and successes, so that there is nothing that would not be logged."""
    return vectorized(Monitor(Success(ScriptedEnv([3], action_space=BOX))))


@pytest.mark.parametrize("options", [{}, {"baseline": "value"}, {"n_epochs": 2}, {"baseline": "value", "n_epochs": 2}])
def test_every_format_has_every_key(options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The list is what is logged, no less and no more, where the options are those that it names."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert promised() > set(OPTIONAL_KEYS)
    expected = {key for key in promised() if OPTIONAL_KEYS.get(key, {}).items() <= options.items()}
    model = make_model(success_env(), **options)
    model.set_logger(configure(str(tmp_path), ["csv", "json", "tensorboard", "stdout"]))
    model.learn(24, log_interval=1)
    model.logger.close()

    def ours(keys: Any) -> set[str]:
        return {key for key in keys if not key.startswith("time/")}

    with (tmp_path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert ours(rows[-1]) == expected
    assert all(rows[-1][key] for key in expected)
    last = json.loads((tmp_path / "progress.json").read_text().splitlines()[-1])
    assert ours(last) == expected
    assert all(isinstance(last[key], int | float) for key in expected)
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert ours(events.Tags()["scalars"]) == expected - {"train/n_updates"}  # as in A2C
    printed = capsys.readouterr().out
    assert all(f" {key.partition('/')[2]} " in printed for key in expected)
    assert {"time/fps", "time/iterations", "time/time_elapsed", "time/total_timesteps"} <= set(last)


def test_logged_numbers_are_those_of_the_batch(tmp_path: Path) -> None:
    """What a key says is what its line says, against the batch and the policy."""
    seen: list[dict[str, float]] = []

    class Batches(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            buffer = self.locals["rollout_buffer"]
            numbers = {"return_mean": buffer.returns.mean(), "return_std": buffer.returns.std(), "n_episodes": 2}
            seen.append({f"train/{key}": value for key, value in numbers.items()})

    model = make_model(success_env(), gamma=0.5, learning_rate=0.01)
    dumps = with_dumps(model)
    model.learn(24, Batches(), log_interval=1)
    assert len(dumps) == 4
    for i, dump in enumerate(dumps[1:]):  # updates are logged with the rollout after them
        assert {key: dump[key] for key in seen[i]} == pytest.approx(seen[i])
        assert dump["train/n_updates"] == i + 1
        assert dump["train/learning_rate"] == 0.01
        assert dump["rollout/success_rate"] == pytest.approx(1 / (2 * (i + 2)))
        assert dump["rollout/unused_steps_fraction"] == 0
        assert dump["rollout/buffer_mb"] == pytest.approx(model.rollout_buffer.nbytes / 1e6)
    std = model.policy.log_std.exp().mean().item()
    assert model.logger.name_to_value["train/std"] == pytest.approx(std)
    entropy = np.log(std) * 2 + np.log(2 * np.pi * np.e)  # of two independent Gaussians
    assert model.logger.name_to_value["train/entropy_loss"] == pytest.approx(-entropy, rel=0.01)  # before the update


@pytest.mark.parametrize(("log_interval", "n_dumps"), [(None, 0), (1, 23), (3, 7), ("default", 23)])
def test_log_interval_counts_updates(log_interval: Any, n_dumps: int) -> None:
    """23 of them; by default each is logged, as by PPO."""
    model = make_model(monitored([3]))
    dumps = with_dumps(model)
    model.learn(23 * 6, **({} if log_interval == "default" else {"log_interval": log_interval}))
    assert model._n_updates == 23
    assert len(dumps) == n_dumps


def test_the_statistics_window() -> None:
    """``stats_window_size`` episodes are averaged: the last 3, of lengths 1 to 4."""
    model = make_model(monitored([1, 2, 3, 4]), n_episodes=4, stats_window_size=3)
    dumps = with_dumps(model)
    model.learn(10, log_interval=1)
    assert dumps[0]["rollout/ep_len_mean"] == 3.0


def test_rollouts_of_images_tell_their_size() -> None:
    """``rollout/buffer_mb`` is what the batch costs in memory: 128 rows of 3888 bytes, an action, a reward, two flags."""
    env = vectorized(SpacesEnv(spaces.Box(0, 255, (3, 36, 36), np.uint8), spaces.Discrete(2)))
    model = REINFORCE("CnnPolicy", env, n_episodes=1).learn(1, log_interval=None)
    assert model.logger.name_to_value["rollout/buffer_mb"] == pytest.approx(128 * (3888 + 8 + 4 + 1 + 1) / 1e6)


def test_no_schedule_is_asked_for_less_than_nothing() -> None:
    """Progress goes from 1 towards 0 in each ``learn``, however far episodes overshoot and however often it goes on."""

    def linear(progress: float) -> float:
        assert 0 <= progress <= 1
        return 0.1 * progress

    model = make_model(monitored([30]), n_episodes=1, learning_rate=linear)
    for _ in range(3):
        dumps = with_dumps(model)
        model.learn(40, log_interval=1, reset_num_timesteps=False)
        rates = [*(dump["train/learning_rate"] for dump in dumps[1:]), model.logger.name_to_value["train/learning_rate"]]
        assert min(rates) > 0
