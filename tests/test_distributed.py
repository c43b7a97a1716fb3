"""Processes that train one model together: what one process would learn of the same trajectories, in all of them alike."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import FaultyEnv, SpacesEnv, vectorized
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize
from torch import distributed as dist
from torch import nn

from sb3_reinforce import REINFORCE, AdaptiveEpisodesCallback, GradientStatsCallback, baselines, distributed, parallel
from sb3_reinforce.batch import Batch
from sb3_reinforce.buffer import EpisodicRolloutBuffer
from sb3_reinforce.contrib import MaskableREINFORCE, RecurrentREINFORCE
from sb3_reinforce.evaluation import Evaluator
from sb3_reinforce.zoo import launch

pytestmark = pytest.mark.skipif(not dist.is_available() or sys.platform == "win32", reason="processes are forked")

#: Seconds that a process waits for another one in these tests, and that a test waits for its processes.
PATIENCE = 30


def in_processes(act: Callable[[int], Any], folder: Path, n: int = 2) -> list[Any]:
    """What a function of the process's number returns or raises in each of n processes that are one group."""
    context = multiprocessing.get_context("fork")
    store = folder / f"store-{time.monotonic_ns()}"
    pipes = [context.Pipe(duplex=False) for _ in range(n)]
    processes = [context.Process(target=_child, args=(act, i, n, store, there)) for i, (_, there) in enumerate(pipes)]
    for process, (_, there) in zip(processes, pipes, strict=True):
        process.start()
        there.close()
    try:
        assert all(here.poll(PATIENCE) for here, _ in pipes), "a process does not answer"
        return [_received(here) for here, _ in pipes]
    finally:
        for process in processes:
            process.join(1)
            process.kill()


def _received(pipe: Any) -> Any:
    try:
        return pickle.loads(pipe.recv_bytes())
    except EOFError as error:  # the process has died
        return error


def _child(act: Callable[[int], Any], number: int, n: int, store: Path, there: Any) -> None:
    timeout = timedelta(seconds=PATIENCE)
    dist.init_process_group("gloo", store=dist.FileStore(str(store), n), rank=number, world_size=n, timeout=timeout)
    try:
        result = act(number)
    except Exception as error:
        result = error
    there.send_bytes(pickle.dumps(result))
    dist.destroy_process_group()


@pytest.fixture(autouse=True, scope="module")
def _imported() -> None:
    """What torch imports at the first optimizer takes seconds, and each process would import it anew."""
    make()


class DriftEnv(gym.Env[np.ndarray, int]):
    """Episodes of random length, whose rewards depend on what is seen and done.

    :param end: probability that a step is the last
    """

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def __init__(self, end: float = 0.2):
        self.end = end

    def _observe(self):
        return (3.0 + 2.0 * self.np_random.normal(size=2)).astype(np.float32)

    def action_masks(self):
        return np.array([True, self.t % 2 == 0, True])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.obs = 0, self._observe()
        return self.obs, {}

    def step(self, action):
        reward = float(self.obs[0] * (action - 1) + 0.3 * self.t)
        self.t, self.obs = self.t + 1, self._observe()
        return self.obs, reward, bool(self.np_random.random() < self.end), self.t == 9, {}


def make(env: Any = None, model_class: type[REINFORCE] = REINFORCE, policy: str = "MlpPolicy", **options: Any) -> REINFORCE:
    """A small policy whose optimizer has a state and adds no noise to what is rounded."""
    policy_kwargs = {"net_arch": [8], "optimizer_class": th.optim.SGD, "optimizer_kwargs": {"momentum": 0.5}}
    policy_kwargs |= options.pop("policy_kwargs", {})
    options = {"learning_rate": 0.005, "n_episodes": 5, "seed": 3, "device": "cpu", **options}
    env = env or vectorized(Monitor(DriftEnv()))
    return model_class(policy, env, policy_kwargs=policy_kwargs, **options)


def state(model: REINFORCE) -> dict[str, np.ndarray]:
    """What training has changed."""
    tensors = dict(model.policy.state_dict())
    for i, each in enumerate(model.policy.optimizer.state_dict()["state"].values()):
        tensors |= {f"optimizer {i} {name}": value for name, value in each.items()}
    numbers = {name: np.array(getattr(model, name)) for name in ("num_timesteps", "_n_updates", "_average_return")}
    return {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()} | numbers


def keep_batches(model: REINFORCE) -> list[Batch]:
    """The batches that a model will have learned from, in arrays of their own."""
    batches: list[Batch] = []
    train = model.train

    def keep_and_train() -> None:
        batch = model.rollout_buffer.batch()
        batches.append(
            replace(
                batch,
                observations=batch.observations[batch.order],  # type: ignore[call-overload]
                actions=batch.actions[batch.order],
                given={name: each[batch.order] for name, each in batch.given.items()},
                order=np.arange(len(batch.order)),
            )
        )
        train()

    model.train = keep_and_train  # type: ignore[method-assign]
    return batches


def of_all(batches: list[Batch]) -> Batch:
    """One batch of all trajectories, which one process has."""
    first_steps = np.cumsum([0, *(len(each.order) for each in batches)])
    last = {
        int(n) + i: obs for n, each in zip(first_steps, batches, strict=False) for i, obs in each.last_observations.items()
    }
    columns = ("lengths", "rewards", "observations", "actions", "earlier_log_probs")
    joined = {name: np.concatenate([getattr(each, name) for each in batches]) for name in columns}
    given = {name: np.concatenate([each.given[name] for each in batches]) for name in batches[0].given}
    return replace(batches[0], **joined, given=given, last_observations=last, order=np.arange(first_steps[-1]))


def learn_from(model: REINFORCE, batches: list[Batch]) -> None:
    """Update a model with given batches."""
    model.learn(0)
    for batch in batches:
        model.rollout_buffer.batch = lambda batch=batch: batch  # type: ignore[method-assign,misc]
        model.train()


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


TO_GO: dict[str, Any] = {"return_type": "reward_to_go"}
CASES: dict[str, dict[str, Any]] = {
    "trajectory": {},
    "mean": {"baseline": "mean"},
    "leave one out": {"baseline": "leave_one_out"},
    "moving average": {"baseline": "moving_average"},
    "value": {"baseline": "value"},
    "optimal": {"baseline": "optimal"},
    "normalised": {"normalize_advantage": True},
    "to go": {**TO_GO},
    "to go, mean": {**TO_GO, "baseline": "mean", "exact_discounting": True},
    "to go, leave one out": {**TO_GO, "baseline": "leave_one_out", "normalize_advantage": True},
    "to go, time leave one out": {**TO_GO, "baseline": "time_leave_one_out"},
    "to go, moving average": {**TO_GO, "baseline": "moving_average"},
    "to go, value": {**TO_GO, "baseline": "value", "bootstrap_truncated": True, "horizon": 4, "max_grad_norm": 0.1},
    "to go, optimal": {**TO_GO, "baseline": "optimal", "batch_size": 3},
    "reused": {"n_epochs": 4, "min_effective_share": 0.0, "baseline": "leave_one_out"},
    "reused, to go": {**TO_GO, "n_epochs": 4, "min_effective_share": 0.0, "baseline": "mean", "normalize_advantage": True},
    # Some batches once and others up to seven times.
    "reused while it is worth it": {
        "n_epochs": 20,
        "min_effective_share": 0.9,
        "learning_rate": 0.001,
        "baseline": "leave_one_out",
        "total_timesteps": 150,
    },
    "clipped": {"max_grad_norm": 0.5, "baseline": "mean"},
    "entropy": {"ent_coef": 0.1, "batch_size": 4},
    "three a process": {"n_episodes": 6, "baseline": "leave_one_out"},
    "one each": {"n_episodes": 2, "baseline": "leave_one_out"},
    "carried over": {"carry_over": True, "baseline": "leave_one_out", "n_envs": 2},
    "carried over, reused": {"carry_over": True, "n_epochs": 2, "min_effective_share": 0.0, "n_envs": 3, **TO_GO},
    "observations and rewards normalised": {"VecNormalize": True, "baseline": "leave_one_out", "learning_rate": 0.1},
    "masks": {"model_class": MaskableREINFORCE, "baseline": "leave_one_out"},
    "memory": {
        "model_class": RecurrentREINFORCE,
        "policy": "MlpLstmPolicy",
        "policy_kwargs": {"lstm_hidden_size": 4},
        "return_type": "reward_to_go",
        "baseline": "value",
        "bootstrap_truncated": True,
        "horizon": 5,
    },
}


#: Each takes half a second, and the path through the processes is that of another case.
MORE = {"mean", "to go", "to go, mean", "to go, moving average", "to go, optimal", "reused", "entropy", "one each"}
MORE |= {"to go, leave one out", "three a process", "carried over", "leave one out", "normalised", "clipped"}
MORE |= {"value", "reused, to go", "reused while it is worth it"}


@pytest.mark.parametrize(
    "options", [pytest.param(each, id=name, marks=[pytest.mark.slow] * (name in MORE)) for name, each in CASES.items()]
)
def test_two_processes_learn_what_one_does_of_the_same_trajectories(options: dict[str, Any], tmp_path: Path) -> None:
    options = dict(options)
    n_envs, normalize = options.pop("n_envs", 1), options.pop("VecNormalize", False)
    total_timesteps = options.pop("total_timesteps", 60)

    def learn(number: int) -> tuple[dict[str, np.ndarray], list[Batch]]:
        env = vectorized(*(Monitor(DriftEnv()) for _ in range(n_envs)))
        model = make(VecNormalize(env) if normalize else env, **options)
        batches = keep_batches(model)
        model.learn(total_timesteps)
        return state(model), batches

    (first, first_batches), (second, second_batches) = in_processes(learn, tmp_path)

    assert equal(first, second)
    assert len(first_batches) == len(second_batches) > 1
    if not options.get("carry_over"):  # which may begin more than the share
        shares = {(len(one.lengths), len(two.lengths)) for one, two in zip(first_batches, second_batches, strict=True)}
        n_episodes = options.get("n_episodes", 5)
        assert shares == {(n_episodes - n_episodes // 2, n_episodes // 2)}
    assert not np.array_equal(first_batches[0].observations[0], second_batches[0].observations[0])
    alone = make(**options)
    before = state(alone)
    learn_from(alone, [of_all(list(each)) for each in zip(first_batches, second_batches, strict=True)])
    after = state(alone)
    after["num_timesteps"] = first["num_timesteps"]
    for name in first:
        rounding = 1e-5 * np.abs(after[name]).max(initial=1e-3)  # of sums, whose terms may be larger
        np.testing.assert_allclose(first[name], after[name], rtol=0, atol=rounding, err_msg=name)
    assert not np.allclose(before["action_net.weight"], after["action_net.weight"], atol=2e-4)


def test_the_value_fit_takes_features_that_the_policy_has_learned(tmp_path: Path) -> None:
    """Each process computes those of its own steps once a batch. The fit is the same as with none that are kept."""
    image = gym.spaces.Box(0, 255, (1, 36, 36), np.uint8)

    def learn(keeps: bool) -> dict[str, np.ndarray]:
        options = {"baseline": "value", "return_type": "reward_to_go", "learning_rate": 1e-3, "n_episodes": 4}
        model = make(SpacesEnv(image, gym.spaces.Discrete(2)), policy="CnnPolicy", **options)
        with pytest.MonkeyPatch.context() as patch:
            if not keeps:
                patch.setattr(Evaluator, "fixed_features", lambda *_: None)
            model.learn(1)
        return state(model)

    kept, same = in_processes(lambda number: learn(True), tmp_path)
    computed, _ = in_processes(lambda number: learn(False), tmp_path)
    assert equal(kept, same)
    for name, each in kept.items():
        np.testing.assert_allclose(each, computed[name], rtol=0, atol=1e-5, err_msg=name)


# --- where they start ----------------------------------------------------------------------------------------------------


def test_all_start_from_where_process_0_stands(tmp_path: Path) -> None:
    def learn(number: int) -> Any:
        model = make(learning_rate=0.0)
        for parameter in model.policy.parameters():
            parameter.grad = th.full_like(parameter, number + 1.0)
        model.policy.optimizer.step()  # which makes momentum
        model.num_timesteps, model._n_updates, model._average_return = 10 + number, 20 + number, 30.0 + number
        before = state(model)
        model.learn(0, reset_num_timesteps=False)
        return before, state(model)

    (first, first_after), (second, second_after) = in_processes(learn, tmp_path)
    assert not equal(first, second)
    assert equal(first, first_after)
    assert equal(first, second_after)


@pytest.mark.parametrize("seed", [None, 3])
def test_processes_that_stand_at_the_same_random_numbers_are_set_apart(seed: int | None, tmp_path: Path) -> None:
    """The script has seeded all alike, or made the model before the group."""

    def learn(number: int) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distributed, "rank", lambda: 0)
            th.manual_seed(0)
            model = make(seed=seed)
        env = model.get_env()
        env.seed(0)
        batches = keep_batches(model)
        model.learn(1)
        return batches[0].observations, batches[0].actions

    (obs, actions), (other_obs, other_actions) = in_processes(learn, tmp_path)
    assert not np.isin(other_obs, obs).any()
    assert len(actions) != len(other_actions) or (actions != other_actions).any()


def test_environments_that_are_seeded_alike_are_set_apart(tmp_path: Path) -> None:
    """As by ``make_vec_env(..., seed=0)``, beside a model without a seed."""

    def learn(number: int) -> Any:
        th.manual_seed(number)
        model = make(seed=None)
        model.get_env().seed(0)
        batches = keep_batches(model)
        model.learn(1)
        return batches[0].observations

    one, other = in_processes(learn, tmp_path)
    assert not np.isin(other, one).any()


class Noise(BaseCallback):
    """Adds to the parameters at the beginning of a rollout, and later changes the learning rate, in each process its own."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def _on_rollout_start(self) -> None:
        with th.no_grad():
            for parameter in self.model.policy.parameters():
                parameter.add_(0.1 * (self.number + 1))

    def _on_rollout_end(self) -> None:
        self.model.lr_schedule = lambda _: 0.01 * (self.number + 1)

    def _on_step(self) -> bool:
        return True


def test_parameters_that_callbacks_move_apart_are_those_of_process_0(tmp_path: Path) -> None:
    """At each rollout, and in the end."""

    def learn(number: int) -> Any:
        model = make()
        model.learn(60, Noise(number))
        return model.policy.parameters_to_vector()

    np.testing.assert_array_equal(*in_processes(learn, tmp_path))


def test_a_callback_that_asks_all_must_be_in_all(tmp_path: Path) -> None:
    """Else an answer would be taken for that to another question."""
    for error in in_processes(lambda number: make().learn(60, [GradientStatsCallback()][number:]), tmp_path):
        assert isinstance(error, RuntimeError)
        assert "Process 0 is in " in str(error)
        assert "have to be in all of them" in str(error)


def test_each_process_has_a_seed_of_its_own_and_the_whole_is_repeatable(tmp_path: Path) -> None:
    def learn(number: int) -> Any:
        model = make()
        batches = keep_batches(model)
        model.learn(1)
        return batches[0].observations, batches[0].actions, state(model)

    (obs, actions, one), (other_obs, _, _) = in_processes(learn, tmp_path)
    (again_obs, again_actions, again), _ = in_processes(learn, tmp_path)
    assert not np.isin(other_obs, obs).any()
    np.testing.assert_array_equal(obs, again_obs)
    np.testing.assert_array_equal(actions, again_actions)
    assert equal(one, again)


def test_seeds_of_runs_do_not_meet() -> None:
    def seeds(number: int) -> list[int | None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distributed, "rank", lambda: number)
            return [distributed.seed_here(seed) for seed in (0, 1, 2**32 - 1, None)]

    assert seeds(0) == [0, 1, 2**32 - 1, None]
    assert seeds(2) == [20_000, 20_001, 19_999, None]


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_numpy_does_not_take_is_refused(seed: int) -> None:
    """And not that of another run instead."""
    with pytest.raises(ValueError, match="Seed must be between"):
        make(seed=seed)


def test_shares_differ_by_one_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "n_processes", lambda: 3)
    shares = []
    for number in range(3):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        shares.append([distributed.share(n) for n in (3, 7, 8, 9)])
    assert np.transpose(shares).tolist() == [[1, 1, 1], [3, 2, 2], [3, 3, 2], [3, 3, 3]]


def test_a_process_alone_gets_back_what_it_passes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    parameter = th.nn.Parameter(th.ones(2))
    parameter.grad = grad = th.ones(2)
    distributed.sum_gradients([parameter])
    passed = object()
    assert parameter.grad is grad
    assert distributed.all_gather(lambda: passed) == [passed]
    assert distributed.broadcast(passed) is passed
    assert distributed.share(7) == 7
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "29999")):
        monkeypatch.setenv(name, value)
    make().learn(1)  # torchrun with one process
    assert not dist.is_initialized()


def test_what_torchrun_sets_is_the_same_for_rl_zoo() -> None:
    assert launch._LAUNCHED == distributed._LAUNCHED


def test_making_and_loading_a_model_joins_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "29999")):
        monkeypatch.setenv(name, value)
    make().save(tmp_path / "model")
    REINFORCE.load(tmp_path / "model")
    assert not dist.is_initialized()


def test_the_timeout_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "29999")):
        monkeypatch.setenv(name, value)
    for text in ("soon", "0", "nan", "inf"):
        monkeypatch.setenv(distributed.TIMEOUT_VARIABLE, text)
        with pytest.raises(ValueError, match=f"must be a number of seconds above 0, but it is {text!r}"):
            distributed.join()


class Normalised(FlattenExtractor):
    """A policy whose statistics move in training."""

    def __init__(self, observation_space: gym.Space[Any]):
        super().__init__(observation_space)
        self.flatten = th.nn.BatchNorm1d(2)


def test_statistics_of_the_policy_are_those_of_process_0(tmp_path: Path) -> None:
    def learn(number: int) -> Any:
        model = make(policy_kwargs={"features_extractor_class": Normalised})
        before = state(model)
        model.learn(60)
        return before, state(model)

    (before, first), (_, second) = in_processes(learn, tmp_path)
    name = "features_extractor.flatten.running_mean"
    assert not np.array_equal(before[name], first[name])
    assert equal(first, second)


# --- VecNormalize --------------------------------------------------------------------------------------------------------


def test_what_each_process_has_seen_counts_once() -> None:
    rng = np.random.default_rng(0)
    common, *each = (rng.normal(1e3, scale, size=(n, 2)) for n, scale in ((50, 1.0), (7, 2.0), (0, 1.0), (30, 5.0)))
    base = RunningMeanStd(shape=(2,))
    base.update(common)
    everywhere = base.copy()
    everywhere.update(np.concatenate(each))
    own = [base.copy() for _ in each]
    for running, seen in zip(own, each, strict=True):
        if len(seen) > 0:
            running.update(seen)

    def moments(running: RunningMeanStd) -> parallel.Moments:
        return parallel.Moments(running.mean, running.var, running.count)

    merged = parallel.merged(moments(base), [moments(running) for running in own])
    for found, expected in zip(merged, moments(everywhere), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11)
    assert parallel.merged(moments(base), [moments(base)] * 3) == moments(base)


def test_moments_are_those_of_all_that_was_seen(tmp_path: Path) -> None:
    def learn(number: int) -> Any:
        env = VecNormalize(vectorized(Monitor(DriftEnv())))
        seen, update = [], env.obs_rms.update
        env.obs_rms.update = lambda obs: (seen.append(obs.copy()), update(obs))
        make(env).learn(100)
        return np.concatenate(seen), [env.obs_rms.mean, env.obs_rms.var, env.obs_rms.count, env.ret_rms.var, env.ret_rms.count]

    (one, moments), (two, others) = in_processes(learn, tmp_path)
    for mine, of_other in zip(moments, others, strict=True):
        np.testing.assert_array_equal(mine, of_other)
    everything = RunningMeanStd(shape=(2,))
    everything.update(np.concatenate([one, two]).astype(np.float64))
    for found, expected in zip(moments, (everything.mean, everything.var, everything.count), strict=False):
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_moments_that_are_not_trained_stay_as_they_are(tmp_path: Path) -> None:
    def learn(number: int) -> Any:
        env = VecNormalize(vectorized(Monitor(DriftEnv())), training=False)
        env.obs_rms.update(np.random.default_rng(number).normal(size=(7, 2)))
        variances = [env.obs_rms.var.copy()]
        model = make(env)
        for total_timesteps in (0, 20):
            model.learn(total_timesteps)
            variances.append(env.obs_rms.var.copy())
        return variances

    (first, *first_after), (second, *second_after) = in_processes(learn, tmp_path)
    assert not np.array_equal(first, second)
    for after in (*first_after, *second_after):
        np.testing.assert_array_equal(first, after)


# --- together or not at all ------------------------------------------------------------------------------------------------


class At(BaseCallback):
    """Does something at a step."""

    def __init__(self, step: int, act: Callable[[BaseCallback], Any]):
        super().__init__()
        self.step, self.act = step, act

    def _on_step(self) -> bool:
        return self.n_calls != self.step or self.act(self) is not False


class AtEnd(BaseCallback):
    """Does something at the end of a rollout."""

    def __init__(self, act: Callable[[BaseCallback], Any]):
        super().__init__()
        self.act = act

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.act(self)


def test_a_callback_that_stops_one_process_stops_all(tmp_path: Path) -> None:
    def learn(number: int) -> Any:
        model = make()
        batches = keep_batches(model)
        model.learn(10_000, At(30, lambda callback: number != 1))
        return len(batches), state(model)

    (n, one), (m, two) = in_processes(learn, tmp_path)
    assert n == m > 0
    assert equal(one, two)


def learn_with(**of_process_1: Any) -> Callable[[int], Any]:
    """Learning, in process 1 with other arguments, an other environment or another number of steps."""

    def learn(number: int) -> Any:
        options = of_process_1 if number == 1 else {}
        options = {name: value(number) if name == "env" else value for name, value in options.items()}
        total_timesteps = options.pop("total_timesteps", 60)
        make(**options).learn(total_timesteps)

    return learn


def faulty(**fault: Any) -> Callable[[int], Any]:
    return lambda number: vectorized(FaultyEnv(Monitor(DriftEnv()), at=20, **fault))


def overflowing(number: int) -> None:
    """Learning, where in process 1 the backward pass of one update fails."""
    model = make()

    def overflow(module: Any, inputs: Any, output: th.Tensor) -> th.Tensor:
        return output * np.nan if th.is_grad_enabled() and model._n_updates == 1 and number == 1 else output

    model.policy.action_net.register_forward_hook(overflow)
    model.learn(60)


class OtherBuffer(EpisodicRolloutBuffer):
    """As its parent, under another name."""


SAME = "must be the same in all processes, but it is"
FAULTS: dict[str, tuple[Callable[[int], Any], str]] = {
    "NaN": (learn_with(env=faulty(reward=np.nan)), "Environment 0: reward at step .* is not finite: nan"),
    "infinity": (learn_with(env=faulty(observation=np.inf)), "Environment 0: observation at step .* is not finite"),
    "error": (learn_with(env=faulty(error=ValueError("out of paint"))), "out of paint"),
    "update": (overflowing, "of distribution Categorical"),
    "steps": (learn_with(total_timesteps=61), f"`total_timesteps` {SAME} 60 in process 0 and 61 in process 1"),
    "argument": (learn_with(gamma=0.5), f"`gamma` {SAME} 0.99 in process 0 and 0.5 in process 1"),
    "policy": (learn_with(policy_kwargs={"net_arch": [4]}), f"`policy_kwargs` {SAME}"),
    "activation": (learn_with(policy_kwargs={"activation_fn": nn.ReLU}), f"`policy_kwargs` {SAME}.*'ReLU'"),
    "buffer": (learn_with(rollout_buffer_class=OtherBuffer), f"`rollout_buffer_class` {SAME}.*'OtherBuffer' in process 1"),
    "VecNormalize": (learn_with(env=lambda number: VecNormalize(vectorized(DriftEnv()))), f"`VecNormalize` {SAME} None in"),
    "clipping": (
        lambda number: make(VecNormalize(vectorized(DriftEnv()), clip_obs=5.0 + number)).learn(60),
        f"`VecNormalize` {SAME}.*'clip_obs': 6.0",
    ),
    "end of a rollout": (
        lambda number: make().learn(1, AtEnd(lambda callback: number and setattr(callback.model, "gamma", 0.5))),
        f"`gamma` {SAME} 0.99 in process 0 and 0.5 in process 1",
    ),
    "shares": (lambda number: make(n_episodes=1).learn(1), "`n_episodes` must be at least the number of processes, 2, but"),
    "range": (
        lambda number: make().learn(200, At(10, lambda callback: number and setattr(callback.model, "gamma", 5))),
        r"`gamma` must be in \[0, 1\], but it is 5",
    ),
    "rewards": (
        lambda number: make().learn(60, At(9, lambda call: number and call.model.rollout_buffer.rewards.fill(np.nan))),
        "reward at step .* is not finite",
    ),
    "n_episodes": (
        lambda number: make().learn(200, At(30, lambda callback: setattr(callback.model, "n_episodes", 5 + number))),
        f"`n_episodes` {SAME} 5 in process 0 and 6 in process 1",
    ),
    "gradient": (
        learn_with(env=lambda number: vectorized(FaultyEnv(DriftEnv(), 5, reward=3e38)), learning_rate=0.005),
        "The gradient is not finite",
    ),
}


@pytest.mark.parametrize(("learn", "message"), FAULTS.values(), ids=FAULTS)
def test_what_one_process_meets_all_raise(learn: Callable[[int], Any], message: str, tmp_path: Path) -> None:
    start = time.monotonic()
    for error in in_processes(learn, tmp_path):
        assert isinstance(error, ValueError)
        with pytest.raises(ValueError, match=message):
            raise error
    assert time.monotonic() - start < PATIENCE / 2


def test_idle_environments_are_those_of_a_process(tmp_path: Path) -> None:
    def warned(number: int) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            make(vectorized(*[DriftEnv() for _ in range(4)]), n_episodes=6).learn(1)
        return [str(warning.message) for warning in caught]

    for messages in in_processes(warned, tmp_path):
        assert len(messages) == 1
        assert "`n_envs` is 4, but `n_episodes` only 6, of which this process has 3:" in messages[0]


def no_room(*args: Any, **kwargs: Any) -> None:
    raise MemoryError("no room")


def assert_all_have_no_room(learn: Callable[[int], Any], folder: Path) -> None:
    """And say so soon, though it is one process that has none."""
    start = time.monotonic()
    for error in in_processes(learn, folder):
        assert isinstance(error, MemoryError)
        assert "no room" in str(error)
    assert time.monotonic() - start < PATIENCE / 2


class Full(Evaluator):
    """Finds no memory for the value network, in process 1."""

    def values(self, *args: Any) -> th.Tensor:
        if th.is_grad_enabled() and distributed.rank() == 1:
            no_room()
        return super().values(*args)


def test_what_one_process_meets_in_the_value_fit_all_raise(tmp_path: Path) -> None:
    def learn(number: int) -> None:
        model = make(baseline="value")
        model._evaluator = lambda batch: Full(model.policy, batch, None)  # type: ignore[method-assign]
        model.learn(1)

    assert_all_have_no_room(learn, tmp_path)


@pytest.mark.parametrize("where", [(baselines, "optimal"), (th.optim.SGD, "step")])
def test_what_one_process_meets_between_the_others_messages_all_raise(where: tuple[Any, str], tmp_path: Path) -> None:
    """Where the others go on to what needs all."""

    def learn(number: int) -> None:
        model = make(baseline="optimal")
        model.policy.register_buffer("seen", th.zeros(1))  # which is shared after the step
        owner, name = where
        with pytest.MonkeyPatch.context() as patch:
            if number == 1:
                patch.setattr(owner, name, no_room)
            model.learn(1)

    assert_all_have_no_room(learn, tmp_path)


def test_an_error_that_a_text_does_not_make_is_told_as_another(tmp_path: Path) -> None:
    def fail(number: int) -> None:
        if number == 1:
            b"\xff".decode()

    here, there = in_processes(lambda number: distributed.together(lambda: fail(number)), tmp_path)
    assert isinstance(there, UnicodeDecodeError)
    assert isinstance(here, RuntimeError)
    assert "Process 1: 'utf-8' codec can't decode byte 0xff" in str(here)


def test_an_error_is_said_also_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others have ended, or wait in another call."""

    def lost(*_: Any) -> None:
        raise RuntimeError("Connection closed by peer")

    def fail() -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(distributed, "n_processes", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", lost)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    with pytest.raises(MemoryError, match="no room"):
        distributed.all_gather(fail)


class FailsAt(BaseCallback):
    """Fails in process 1 at an event of training."""

    def __init__(self, event: str, number: int):
        super().__init__()
        if number == 1:
            setattr(self, event, self._fail)

    def _fail(self) -> None:
        raise ValueError("out of paint")

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize("event", ["_on_training_start", "_on_rollout_start", "_on_rollout_end", "_on_training_end"])
def test_a_callback_that_fails_in_one_process_ends_all_at_once(event: str, tmp_path: Path) -> None:
    """Where another callback has the processes talk, and the script goes on after the error."""

    def learn(number: int) -> Any:
        model = make()
        with pytest.raises(ValueError, match="out of paint") as caught:
            model.learn(200, [FailsAt(event, number), GradientStatsCallback()])
        dist.barrier()
        make().learn(1)
        return str(caught.value)

    start = time.monotonic()
    assert in_processes(learn, tmp_path) == ["Process 1: out of paint", "out of paint"]
    assert time.monotonic() - start < PATIENCE / 2


def test_a_process_that_dies_is_missed(tmp_path: Path) -> None:
    def learn(number: int) -> Any:
        make().learn(10_000, At(30, lambda callback: os._exit(1) if number == 1 else None))

    start = time.monotonic()
    error, _ = in_processes(learn, tmp_path)
    with pytest.raises(RuntimeError, match="Process 0 of 2 has lost the others: one has ended"):
        raise error
    assert time.monotonic() - start < PATIENCE / 2


# --- process 0 alone -------------------------------------------------------------------------------------------------------


def test_process_0_alone_evaluates_saves_and_logs(tmp_path: Path) -> None:
    def learn(number: int) -> Any:
        folder = tmp_path / str(number)
        model = make()
        model.set_logger(configure(str(folder), ["csv"]))
        threshold = StopTrainingOnRewardThreshold(-1e9)  # at the first evaluation
        evaluation = EvalCallback(vectorized(Monitor(DriftEnv())), threshold, eval_freq=50, log_path=str(folder), verbose=0)
        checkpoint = EveryNTimesteps(20, CheckpointCallback(1, str(folder / "checkpoints"), "a"))
        early = EvalCallback(vectorized(Monitor(DriftEnv())), eval_freq=3, log_path=str(folder / "early"), verbose=0)
        steps = At(1, lambda callback: None)
        model.learn(10_000, [CallbackList([checkpoint, evaluation, early]), steps])
        model.save(folder / "model")
        return sorted(path.name for path in folder.iterdir()), model.num_timesteps, steps.n_calls, folder

    (written, n, calls, _), (others, m, other_calls, folder) = in_processes(learn, tmp_path)
    assert n == m < 1000
    assert {"evaluations.npz", "early", "checkpoints", "model.zip"} < set(written)
    assert others == ["progress.csv"]  # which the script has made
    assert (folder / "progress.csv").read_text() == ""
    assert 0 < calls < n
    assert 0 < other_calls < n


def test_the_log_is_of_the_trajectories_of_all(tmp_path: Path) -> None:
    def learn(number: int) -> Any:
        model = make()
        batches = keep_batches(model)
        model.learn(1)
        of_log = {name: model.logger.name_to_value[name] for name in ("rollout/unused_steps_fraction", "train/return_mean")}
        return [each["l"] for each in model.ep_info_buffer], batches[0].lengths.tolist(), model.num_timesteps, of_log

    (lengths, own, n_steps, log), (other_lengths, others, _, other_log) = in_processes(learn, tmp_path)
    assert lengths == other_lengths == own + others
    assert n_steps == sum(lengths)
    assert log == other_log


def test_gradient_statistics_are_of_all_trajectories_and_choose_their_number(tmp_path: Path) -> None:
    def learn(number: int) -> Any:
        model = make(baseline="leave_one_out")
        batches = keep_batches(model)
        callback = AdaptiveEpisodesCallback(max_episodes=20)
        model.learn(100, callback)
        return batches, callback.noise_scale, model.n_episodes, [len(each.lengths) for each in batches]

    one, two = in_processes(learn, tmp_path)
    assert one[1:3] == two[1:3]
    alone = make(baseline="leave_one_out")
    callback = GradientStatsCallback()
    alone.learn(0, callback)
    for each in zip(one[0], two[0], strict=True):
        alone.rollout_buffer.batch = lambda each=each: of_all(list(each))  # type: ignore[method-assign,misc]
        callback.on_rollout_end()
        alone.train()
    assert one[1] == pytest.approx(callback.noise_scale, rel=1e-4)
    assert len({*one[3], *two[3]}) > 2


@pytest.mark.parametrize("n", [1, 3])
def test_a_checkpoint_goes_on_with_any_number_of_processes(n: int, tmp_path: Path) -> None:
    def learn(number: int) -> Any:
        model = make()
        model.learn(60)
        model.save(tmp_path / "model")
        return model.num_timesteps

    def go_on(number: int) -> Any:
        model = REINFORCE.load(tmp_path / "model", env=vectorized(Monitor(DriftEnv())))
        before = model.num_timesteps
        model.learn(60, reset_num_timesteps=False)
        return before, state(model)

    n_steps, _ = in_processes(learn, tmp_path)
    (before, first), *others = in_processes(go_on, tmp_path, n)
    assert before == n_steps
    assert first["num_timesteps"] >= n_steps + 60
    assert all(equal(first, other) for _, other in others)


# --- launched by torchrun --------------------------------------------------------------------------------------------------

_SCRIPT = """
import sys
from sb3_reinforce import REINFORCE
model = REINFORCE("MlpPolicy", "CartPole-v1", n_episodes=1, seed=0, verbose=1)
try:
    model.learn(1000)
except ValueError:
    model.n_episodes = 8
model.learn(1000)
sys.stdout.write(f"{model.num_timesteps} {sum(p.sum().item() for p in model.policy.parameters())!r} end\\n")
model.save(sys.argv[1])
"""


def torchrun(folder: Path, script: str, *arguments: str) -> str:
    """What ``torchrun`` prints that launches a script in processes of its own."""
    (folder / "script.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", *arguments]
    environ = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
def test_torchrun_trains_with_a_script_as_it_is(tmp_path: Path) -> None:
    output = torchrun(tmp_path, _SCRIPT, "--nproc-per-node=2", "script.py", "model")
    ends = [line for line in output.splitlines() if line.endswith(" end")]
    assert len(ends) == 2
    assert len(set(ends)) == 1
    assert output.count("Using cpu device") == 1
    assert REINFORCE.load(tmp_path / "model").num_timesteps == int(ends[0].split()[0])


def test_of_the_commands_only_training_is_for_several_processes() -> None:
    for arguments in (["-optimize"], ["--env", "CartPole-v1", "--optimize-hyperparameters"]):
        assert "-optimize is not for torchrun" in (launch.refusal("train", arguments) or "")
    assert "compare is for one process" in (launch.refusal("compare", []) or "")
    assert launch.refusal("train", ["--optimization-log-path", "a", "--env", "CartPole-v1"]) is None


def test_other_processes_of_train_write_and_print_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--algo", "reinforce", "-f", "logs", "-P", "--track"]
    monkeypatch.setenv("RANK", "0")
    with launch.in_one_voice(flags) as own:
        assert own == flags
    monkeypatch.setenv("RANK", "1")
    with launch.in_one_voice(flags) as own:
        print("heard")
        assert own[:5] == ["--algo", "reinforce", "-f", "logs", "-f"]
        folder = Path(own[5])
        assert folder.is_dir()
    assert not folder.exists()
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_torchrun_of_rl_zoo_makes_one_run_folder(tmp_path: Path) -> None:
    pytest.importorskip("rl_zoo3")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "sb3_reinforce.zoo", "train"]
    flags = ["--env", "CartPole-v1", "-f", "logs", "--n-timesteps", "600", "--eval-freq", "200", "--seed", "1"]
    environ = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([*launcher, *flags], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert [path.name for path in (tmp_path / "logs" / "reinforce").iterdir()] == ["CartPole-v1_1"]
    folder = tmp_path / "logs" / "reinforce" / "CartPole-v1_1"
    assert {"best_model.zip", "evaluations.npz", "CartPole-v1.zip"} < {path.name for path in folder.iterdir()}
    assert run.stdout.count("Saving to logs") == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "logs"]


_RESTARTED = """
import glob, os, sys
import gymnasium as gym
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from sb3_reinforce import REINFORCE
newest = max(glob.glob("checkpoints/*.zip"), key=os.path.getmtime, default=None)
if newest is None:
    model = REINFORCE("MlpPolicy", "CartPole-v1", n_episodes=8, seed=0)
else:
    model = REINFORCE.load(newest, env=gym.make("CartPole-v1"))

class Die(BaseCallback):
    def _on_step(self):
        if newest is None and os.environ["RANK"] == "1" and model.num_timesteps > 1500:
            os._exit(9)
        return True

model.learn(3000 - model.num_timesteps, [Die(), CheckpointCallback(200, "checkpoints")], reset_num_timesteps=False)
sys.stdout.write(f"{newest} {model.num_timesteps} end\\n")
"""


@pytest.mark.slow
def test_torchrun_restarts_from_the_newest_checkpoint_where_a_process_has_died(tmp_path: Path) -> None:
    output = torchrun(tmp_path, _RESTARTED, "--nproc-per-node=2", "--max-restarts=1", "script.py")
    one, two = (line for line in output.splitlines() if line.endswith(" end"))
    assert one == two
    checkpoint, n_steps, _ = one.split()
    assert int(checkpoint.split("_")[-2]) >= 1000
    assert int(n_steps) >= 3000
