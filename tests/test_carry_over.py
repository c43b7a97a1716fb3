"""Trajectories that are carried over to the next batch: exact, in order of start, none lost, none kept in error."""

import gc
import itertools
import weakref
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import ScriptedEnv, scripted, vectorized
from oracle import (
    PARTLY_OBSERVED,
    PLAIN,
    TabularMDP,
    Trajectory,
    exact_gradient,
    log_probs,
    make_model,
    put,
    trajectories,
    update,
)
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from sb3_reinforce import REINFORCE, GradientStatsCallback
from sb3_reinforce import reinforce as reinforce_module
from sb3_reinforce.contrib import RecurrentREINFORCE
from sb3_reinforce.quota import THIS_BATCH, EpisodeQuota
from sb3_reinforce.weights import weights

# --- the estimate ------------------------------------------------------------------------------------------------------

#: Those of the family that are unbiased with two trajectories, one of which may be carried.
UNBIASED: list[dict[str, Any]] = [
    {"gamma": 0.7},
    {"gamma": 0.7, "baseline": "leave_one_out"},
    {"gamma": 0.7, "baseline": "moving_average"},
    {"gamma": 0.7, "baseline": "value", "batch_size": 2},
    {"gamma": 1.0, "return_type": "reward_to_go"},
    {"gamma": 0.7, "return_type": "reward_to_go", "exact_discounting": True, "baseline": "value"},
    {"gamma": 0.7, "return_type": "reward_to_go", "exact_discounting": True, "baseline": "leave_one_out"},
    {"gamma": 1.0, "return_type": "reward_to_go", "baseline": "time_leave_one_out"},
]


def policies(model: REINFORCE, n: int = 2) -> list[list[th.Tensor]]:
    """Parameters of policies, the earliest first, of which each is not near to the one before."""
    found = [[parameter.detach().clone() for parameter in model.policy.parameters()]]
    while len(found) < n:
        found.append([0.2 - 0.5 * parameter for parameter in found[-1]])
    return found


def expected_carried_estimate(model: REINFORCE, *n_carried: int, horizon: int = 3, mdp: Any = PLAIN) -> th.Tensor:
    """E[ĝ] of trajectories that run one after the other, of whose steps earlier policies took the first.

    So the policy that runs the second depends on how long the first one lasts. The model is left with the latest policy.

    :param n_carried: number of steps that each of the earlier policies took, the earliest first
    """
    every = trajectories(horizon, mdp)
    by_policy = []
    for parameters in policies(model, len(n_carried) + 1):
        put(model, parameters)
        by_policy.append({trajectory: log_probs(model, trajectory).detach() for trajectory in every})
    ends = [*itertools.accumulate(n_carried), None]
    expected = th.zeros_like(exact_gradient(model, horizon, mdp))
    for batch in itertools.product(every, repeat=model.n_episodes):
        steps = [(each, t) for each in batch for t in range(len(each.actions))]
        of_all, taken, begin = [th.cat([by[each] for each in batch]) for by in by_policy], [], 0
        model.rollout_buffer.reset()
        for left, (by, end) in enumerate(zip(of_all, ends, strict=True), start=-len(n_carried)):
            store(model, steps[begin:end], THIS_BATCH - left)
            taken.append(by[begin:end])
            if left < 0:  # what the buffer holds is of the batch ``-left`` after this one
                held = [np.empty(0)] * (-left - 1) + [by[:end].numpy()]
                model.rollout_buffer.turn_to_next(held)
            begin = end
        model.rollout_buffer.compute_returns_and_advantage()
        probability = th.cat(taken).double().sum().exp() * np.prod([each.dynamics for each in batch])
        expected += probability * update(model)
    return expected


def store(model: REINFORCE, steps: list[tuple[Trajectory, int]], batch: int) -> None:
    for each, t in steps:
        columns = ([each.observations[t]], [each.actions[t]], [each.rewards[t]], [t == 0])
        model.rollout_buffer.add(*map(np.array, columns), recorded=np.array([batch]))


def error(model: REINFORCE, *n_carried: int, **mdp: Any) -> float:
    """How far the expectation is from ∇U at the latest policy, relative to that."""
    expected = expected_carried_estimate(model, *n_carried, **mdp)
    exact = exact_gradient(model, mdp.get("horizon", 3), mdp.get("mdp", PLAIN))
    return ((expected - exact).norm() / exact.norm()).item()


#: Each option with one step and with three of an earlier policy, by turns in the suite and all where there is time.
CARRIED = [
    pytest.param(options, n_carried, id=f"{options}-{n_carried}", marks=[pytest.mark.slow] * ((i + n_carried // 2) % 2))
    for i, options in enumerate(UNBIASED)
    for n_carried in (1, 3)
]


@pytest.mark.parametrize(("options", "n_carried"), CARRIED)
def test_the_estimate_is_unbiased(options: dict[str, Any], n_carried: int) -> None:
    assert error(make_model(n_episodes=2, carry_over=True, **options), n_carried, horizon=2) < 1e-5


def test_the_estimate_is_unbiased_over_three_steps() -> None:
    options = {"return_type": "reward_to_go", "exact_discounting": True, "baseline": "leave_one_out"}
    assert error(make_model(n_episodes=2, gamma=0.7, carry_over=True, **options), 4) < 1e-5


@pytest.mark.parametrize("options", [UNBIASED[1], UNBIASED[5]], ids=str)
def test_the_estimate_is_unbiased_two_batches_later(options: dict[str, Any]) -> None:
    assert error(make_model(n_episodes=2, carry_over=True, **options), 1, 2, horizon=2) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("baseline", "least", "most"), [("leave_one_out", 0.0, 1e-5), ("time_leave_one_out", 1e-4, 1e-3)], ids=str
)
def test_of_three_only_the_number_alive_is_not_exact(baseline: str, least: float, most: float) -> None:
    """How many others are alive, by which ``time_leave_one_out`` divides, depends a little on who ran them."""
    model = make_model(n_episodes=3, gamma=1.0, carry_over=True, return_type="reward_to_go", baseline=baseline)
    assert least <= error(model, 5) < most


@pytest.mark.parametrize("options", [{"gamma": 0.7}, {"gamma": 0.7, "baseline": "leave_one_out"}], ids=str)
def test_the_estimate_is_unbiased_with_memory(options: dict[str, Any]) -> None:
    model = make_model(
        TabularMDP(mdp=PARTLY_OBSERVED),
        RecurrentREINFORCE,
        "MlpLstmPolicy",
        {"lstm_hidden_size": 3, "enable_critic_lstm": False},
        n_episodes=2,
        carry_over=True,
        **options,
    )
    assert error(model, 2, mdp=PARTLY_OBSERVED, horizon=2) < 1e-5


@pytest.mark.parametrize("options", [{}, {"return_type": "reward_to_go"}], ids=str)
def test_the_mean_is_a_share_of_leave_one_out(options: dict[str, Any]) -> None:
    by_mean, by_others = (
        expected_carried_estimate(make_model(n_episodes=2, gamma=1.0, baseline=baseline, **options), 1, horizon=2)
        for baseline in ("mean", "leave_one_out")
    )
    th.testing.assert_close(2 * by_mean, by_others)


def test_without_the_ratio_the_estimate_is_biased(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REINFORCE, "_carried_log_ratios", lambda *_: None)
    assert error(make_model(n_episodes=2, gamma=0.7), 2) > 0.05


@pytest.mark.parametrize("options", [UNBIASED[1], UNBIASED[-1]], ids=str)
def test_with_others_that_are_not_weighted_the_estimate_is_biased(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reinforce_module, "weights", lambda *args: weights(*args[:5]))
    assert error(make_model(n_episodes=2, **options), 2) > 0.003


#: Environments, episodes of a batch, and batches.
WAYS = [
    (8, 4, 80),
    pytest.param(1, 2, 600, marks=pytest.mark.slow),
    pytest.param(4, 2, 600, marks=pytest.mark.slow),
    pytest.param(4, 4, 600, marks=pytest.mark.slow),
    pytest.param(8, 2, 600, marks=pytest.mark.slow),
]
SAMPLED = [
    {},
    {"baseline": "leave_one_out"},
    {"return_type": "reward_to_go", "horizon": 2},
    {"return_type": "reward_to_go", "baseline": "time_leave_one_out"},
    {"return_type": "reward_to_go", "baseline": "value"},
]


@pytest.mark.parametrize(("n_envs", "n_episodes", "n_batches"), WAYS)
def test_sampled_gradients_are_exact_at_the_second_of_two_policies(n_envs: int, n_episodes: int, n_batches: int) -> None:
    """Through real environments and both rollouts; a horizon is of the sampled environment too."""
    for horizon in (8, 2):
        options = [each for each in SAMPLED if each.get("horizon", 8) == horizon]
        env = DummyVecEnv([lambda: TabularMDP(8)] * n_envs)
        env.seed(3)
        models = [make_model(env, n_episodes=n_episodes, gamma=1.0, carry_over=True, **each) for each in options]
        collecting = models[0]
        for model in models:
            _, callback = model._setup_learn(1)
            model.rollout_buffer = collecting.rollout_buffer
        earlier, _ = policies(collecting)
        later = [0.1 + 0.5 * parameter for parameter in earlier]  # nearer: ratios of 8 steps spread far
        updates: list[list[np.ndarray]] = [[] for _ in models]
        n_carried = 0
        for _ in range(n_batches):
            collecting._ahead = None  # begin anew
            collecting._last_episode_starts = np.zeros(n_envs, dtype=bool)
            for parameters in (earlier, later):
                put(collecting, parameters)
                assert collecting.collect_rollouts(env, callback, collecting.rollout_buffer, 0)
            n_carried += collecting.rollout_buffer.n_carried
            for each, model in zip(updates, models, strict=True):
                put(model, later)
                each.append(update(model).numpy())
        assert (n_carried > n_batches / 2) == (n_envs > 1)
        exact = exact_gradient(collecting, horizon).numpy()
        for each in map(np.array, updates):
            z = (each.mean(axis=0) - exact) / (each.std(axis=0, ddof=1) / np.sqrt(len(each)))
            assert np.abs(z).max() < 4


def test_environments_that_were_replaced_are_let_go() -> None:
    old = scripted([2], [3], [7])
    model, gone = carrying(old, 4).learn(1), weakref.ref(old)
    assert model._ahead is not None
    model.set_env(model.env)
    assert model._ahead is not None
    model.set_env(scripted([2], [3], [7]))
    del old
    gc.collect()
    assert gone() is None
    model.learn(20, reset_num_timesteps=False)
    assert len(model.rollout_buffer.lengths) == 4


def test_one_trajectory_that_has_gone_ahead_is_not_compared_with_itself() -> None:
    """Batches were of one trajectory, and now of more: what has begun would be a batch of one."""
    model = carrying(scripted([2], [3], [4]), 1).learn(1)
    assert model._ahead is not None
    model.n_episodes, model.baseline = 4, "leave_one_out"
    model.learn(1, reset_num_timesteps=False)
    assert len(model.rollout_buffer.lengths) == 4


def test_carry_over_may_be_switched_within_a_rollout() -> None:
    """From the next rollout on."""

    class Switch(BaseCallback):
        def _on_step(self) -> bool:
            self.model.carry_over = True
            return True

        def _on_rollout_end(self) -> None:
            carried.append(self.model.rollout_buffer.n_carried)

    carried: list[int] = []
    REINFORCE("MlpPolicy", scripted([2], [7]), n_episodes=4).learn(60, Switch())
    assert carried[:2] == [0, 0]
    assert carried[2] > 0


# --- what is carried ---------------------------------------------------------------------------------------------------


class Batches(BaseCallback):
    """Writes down the (environment, episode, length) of the trajectories of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[tuple[int, int, int]]] = []
        self.unused: list[float] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        (part,) = buffer.get()
        obs, batch = part.observations.numpy().astype(int), []
        for steps in buffer.batch().trajectories():
            assert (obs[steps, 2] == np.arange(steps.stop - steps.start)).all()  # each step once, from the first to the last
            assert (obs[steps, :2] == obs[steps.start, :2]).all()
            batch.append((*obs[steps.start, :2].tolist(), steps.stop - steps.start))
        expected = 1 + obs[:, 2] + part.actions.numpy().reshape(-1) / 2
        np.testing.assert_allclose(buffer.step_rewards, expected)
        self.seen.append(batch)
        self.unused.append(self.logger.name_to_value["rollout/unused_steps_fraction"])


def carrying(env: Any, n_episodes: int = 2, **options: Any) -> REINFORCE:
    return REINFORCE("MlpPolicy", env, n_episodes=n_episodes, carry_over=True, seed=0, device="cpu", **options)


def test_no_episode_is_lost_and_each_is_of_one_batch() -> None:
    """Environments whose episodes last 2, 3 and 7 steps: the batches are the episodes in order of start."""
    env, callback = scripted([2], [3], [7]), Batches()
    carrying(env, 4, learning_rate=0.0).learn(80, callback)
    assert [sorted(batch) for batch in callback.seen[:3]] == [
        [(0, 0, 2), (0, 1, 2), (1, 0, 3), (2, 0, 7)],  # begun at 0, 2, 0, 0; the last ends at 7
        [(0, 2, 2), (0, 3, 2), (1, 1, 3), (1, 2, 3)],  # at 4, 6, 3, 6; the last ends at 9
        [(0, 4, 2), (0, 5, 2), (1, 3, 3), (2, 1, 7)],  # at 8, 10, 9, 7
    ]
    every = [each for batch in callback.seen for each in batch]
    assert len(every) == len(set(every))
    assert callback.unused[:3] == [0.0] * 3


@pytest.mark.skipif(not hasattr(gym.vector, "AutoresetMode"), reason="gymnasium below 1.1")
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_steps_that_reset_an_environment_are_of_no_batch(mode: str) -> None:
    """A rollout may end between the last step of an episode that went ahead and the step that resets its environment."""
    lengths = (2, 3, 7)
    make = [lambda i=i, n=n: ScriptedEnv([n], i) for i, n in enumerate(lengths)]
    env, callback = gym.vector.SyncVectorEnv(make, autoreset_mode=gym.vector.AutoresetMode(mode)), Batches()
    carrying(env, 4, learning_rate=0.0).learn(150, callback)
    every = [each for batch in callback.seen for each in batch]
    assert len(every) == len(set(every)) == 4 * len(callback.seen)
    assert all(length == lengths[i] for i, _, length in every)
    assert len(callback.seen) > 8


def test_nothing_is_carried_unless_asked() -> None:
    env, callback = scripted([2], [3], [7]), Batches()
    REINFORCE("MlpPolicy", env, n_episodes=4, seed=0).learn(40, callback)
    assert [episode for _, episode, _ in callback.seen[1]] != [2, 3, 1, 2]


def test_environments_are_never_reset_within_an_episode() -> None:
    """Neither between rollouts nor between calls of ``learn``, so ``Monitor`` may forbid it, and what it writes is whole."""
    envs = [Monitor(ScriptedEnv([n], i), allow_early_resets=False) for i, n in enumerate((2, 5))]
    model = carrying(vectorized(*envs), 3)
    model.learn(60)
    model.learn(60, reset_num_timesteps=False)
    assert model.num_timesteps >= 120
    for env in envs:
        assert set(env.episode_lengths) == {env.env.lengths[0]}
    with pytest.raises(RuntimeError, match="early resets"):
        REINFORCE("MlpPolicy", vectorized(*envs), n_episodes=3).learn(60)


def test_information_is_of_the_batch_in_order_of_start() -> None:
    """Of the episodes that went ahead, too."""
    envs = [Monitor(ScriptedEnv([n], i)) for i, n in enumerate((2, 7))]
    model = carrying(vectorized(*envs), 3, learning_rate=0.0)
    model.learn(1)
    assert [info["l"] for info in model.ep_info_buffer] == [2, 7, 2]
    model.learn(1, reset_num_timesteps=False)
    assert [info["l"] for info in model.ep_info_buffer] == [2, 7, 2, 2, 2, 7]


def test_a_batch_may_be_whole_before_its_rollout_begins() -> None:
    """One environment of short episodes fills the next batch while the other's is waited for."""
    callback = Batches()
    model = carrying(scripted([9], [1]), 2)
    model.learn(30, callback)
    assert callback.unused.count(0.0) >= 1
    assert callback.seen[1] == [(1, 1, 1), (1, 2, 1)]
    assert model._n_updates == len(callback.seen)


class Stops(BaseCallback):
    def __init__(self, at: int):
        super().__init__()
        self.at = at

    def _on_step(self) -> bool:
        return self.num_timesteps < self.at


@pytest.mark.parametrize("what", ["callback", "error"])
def test_what_was_interrupted_begins_anew(what: str) -> None:
    """In all environments: an episode in flight may be broken anywhere."""
    env = scripted([2], [3], [7])
    model = carrying(env, 4, learning_rate=0.0).learn(20)
    assert model._ahead is not None
    if what == "callback":
        model.learn(100, Stops(model.num_timesteps + 6), reset_num_timesteps=False)
    else:

        def fail(*_: Any) -> bool:
            raise ConnectionError

        with pytest.raises(ConnectionError):
            model.learn(100, fail, reset_num_timesteps=False)
    assert model._ahead is None
    resets = [each.episode for each in env.envs]
    callback = Batches()
    model.learn(1, callback, reset_num_timesteps=False)
    assert {(i, resets[i] + 1) for i in range(3)} <= {(i, episode) for i, episode, _ in callback.seen[0]}


def test_episodes_are_carried_from_one_call_of_learn_to_the_next_unless_it_resets() -> None:
    env = scripted([2], [7])
    model = carrying(env, 3)
    callback = Batches()
    model.learn(1).learn(1, callback, reset_num_timesteps=False)
    assert (0, 2, 2) in callback.seen[0]
    callback = Batches()
    resets = [each.episode for each in env.envs]
    model.learn(1, callback)
    assert min(episode for i, episode, _ in callback.seen[0] if i == 1) == resets[1] + 1


def test_other_environments_begin_anew(tmp_path: Path) -> None:
    """``set_env``, and a model that was saved and loaded: what was begun is not saved."""
    model = carrying(scripted([2], [7]), 3).learn(1)
    model.save(tmp_path / "model")
    loaded = REINFORCE.load(tmp_path / "model", env=scripted([2], [7]))
    assert loaded.carry_over
    other = scripted([4], [3])
    model.set_env(other)
    for each in (model, loaded):
        callback = Batches()
        each.learn(1, callback, reset_num_timesteps=False)
        assert sorted(callback.seen[0])[0][1] == 0
        assert each._ahead is not None


@pytest.mark.parametrize("length", [7, 2])
def test_it_may_be_turned_off(length: int) -> None:
    """While episodes run, and where all have just ended."""
    model = carrying(scripted([2], [length]), 3).learn(1)
    assert model._ahead is not None
    assert model._last_episode_starts.all() == (length == 2)
    model.carry_over = False
    callback = Batches()
    model.learn(1, callback, reset_num_timesteps=False)
    assert model._ahead is None
    assert model.rollout_buffer.n_carried == 0


def test_a_carried_reward_that_is_not_finite_is_named() -> None:
    """Its step is of no rollout that could be counted from here."""
    model = carrying(scripted([2], [7]), 3).learn(1)
    model.rollout_buffer.rewards[: model.rollout_buffer.pos] = np.nan
    with pytest.raises(ValueError, match="reward at a step carried from an earlier rollout is not finite: nan"):
        model.learn(1, reset_num_timesteps=False)


class SetsEpisodes(BaseCallback):
    def __init__(self, *numbers: int):
        super().__init__()
        self.numbers = [*numbers]
        self.lengths: list[int] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.numbers:
            self.model.n_episodes = self.numbers.pop(0)

    def _on_rollout_end(self) -> None:
        self.lengths.append(len(self.model.rollout_buffer.lengths))


@pytest.mark.parametrize("length", [7, 3])
def test_the_number_of_trajectories_may_change(length: int) -> None:
    """It counts from the first batch of which none has begun."""
    callback = SetsEpisodes(4, 6, 2, 2, 2, 2)
    carrying(scripted([2], [length], [7]), 4).learn(120, callback)
    assert callback.lengths[:2] == [4, 4]
    assert set(callback.lengths[2:4]) <= {4, 6, 2}
    assert callback.lengths[4:] == [2] * len(callback.lengths[4:]) != []


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 4), (8, 2)])
def test_no_length_is_preferred_where_the_number_of_trajectories_changes(before: int, after: int) -> None:
    """Half the episodes have 1 step, the others 20: so have those of the second batch, in the mean of its own size."""
    rng, shares = np.random.default_rng(0), []
    for _ in range(1500):
        quota, batch = EpisodeQuota(before, 2, 100, n_ahead=2), 0
        left = lengths = rng.choice([1, 20], 2)
        ended: dict[int, list[bool]] = {0: [], 1: [], 2: [], 3: []}
        while batch < 2:
            n_steps, fresh = 0, np.zeros(2, dtype=bool)
            while quota.n_recording > 0 or quota.n_owed > 0:
                n_steps, left = n_steps + 1, left - 1
                fresh = left == 0
                for env in fresh.nonzero()[0]:
                    if quota.recording[env]:
                        ended[batch + quota.recording[env] - 1].append(lengths[env] == 20)
                lengths = np.where(fresh, rng.choice([1, 20], 2), lengths)
                left = np.where(fresh, lengths, left)
                quota.start(fresh, n_steps)
            batch += 1
            quota.turn_to_next(after, 100, n_steps)
            quota.start(fresh & (quota.recording == 0), 0)
        shares.append(np.mean(ended[1]))
    standard_error = np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) == pytest.approx(0.5, abs=4 * standard_error)


def test_a_horizon_cuts_what_goes_ahead() -> None:
    callback = Batches()
    carrying(scripted([2], [7], None), 4, horizon=5).learn(120, callback)
    assert {length for batch in callback.seen for _, _, length in batch} == {2, 5}
    assert all(len(batch) == 4 for batch in callback.seen)


def test_a_shorter_horizon_cuts_what_has_gone_on_too_long() -> None:
    model = carrying(scripted([2], [20]), 2, horizon=12).learn(1)
    model.horizon = 3
    callback = Batches()
    model.learn(60, callback, reset_num_timesteps=False)
    assert max(length for batch in callback.seen[1:] for _, _, length in batch) == 3


def test_s_h_of_what_was_carried_is_kept() -> None:
    """A trajectory that a time limit cut while it went ahead is completed with V of its own last observation."""
    env = vectorized(ScriptedEnv([2], 0, truncated=True), ScriptedEnv([9], 1, truncated=True))
    model = carrying(env, 2, learning_rate=0.0, return_type="reward_to_go", baseline="value", bootstrap_truncated=True)
    model.learn(1).learn(1, reset_num_timesteps=False)
    batch = model.rollout_buffer.batch()
    assert len(batch.last_observations) == 2
    firsts = np.cumsum(batch.lengths) - batch.lengths
    obs = model.rollout_buffer.batch().part(slice(0, len(batch.rewards))).observations.numpy()
    for first, (_, last) in zip(firsts, sorted(batch.last_observations.items()), strict=True):
        assert last[:2].tolist() == obs[first, :2].tolist()
        assert last[2] == env.envs[int(last[0])].lengths[0]


def make_cartpole() -> Any:
    return Monitor(gym.make("CartPole-v1"))


def learned(env: VecEnv, **options: Any) -> tuple[np.ndarray, REINFORCE]:
    model = carrying(env, 6, **options)
    model.learn(1500)
    env.close()
    return th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().numpy(), model


def test_processes_learn_what_one_process_does() -> None:
    one, _ = learned(DummyVecEnv([make_cartpole] * 2))
    other, _ = learned(SubprocVecEnv([make_cartpole] * 2, start_method="fork"))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "options",
    [
        {"n_epochs": 3, "return_type": "reward_to_go", "baseline": "time_leave_one_out", "normalize_advantage": True},
        {"n_epochs": 2, "baseline": "leave_one_out"},
    ],
    ids=str,
)
def test_a_batch_may_be_used_again(options: dict[str, Any]) -> None:
    _, model = learned(DummyVecEnv([make_cartpole] * 3), **options)
    assert model._n_updates > 3


class KeepsLog(BaseCallback):
    def __init__(self) -> None:
        super().__init__()
        self.logged: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.logged.append(dict(self.logger.name_to_value))


def test_the_effective_sample_size_is_logged() -> None:
    """That of the first use, where something was carried; m with one policy throughout."""
    for rate in (0.0, 0.02):
        callback = KeepsLog()
        carrying(scripted([2], [7], [3]), 4, learning_rate=rate).learn(60, callback, log_interval=1000)
        sizes = [each["train/carried_effective_sample_size"] for each in callback.logged if "carried" in str(each)]
        assert len(sizes) >= 2
        assert max(sizes) <= 4 + 1e-6
        assert (min(sizes) < 3.9999) == (rate > 0)


def test_a_memory_goes_on_with_the_episode() -> None:
    """The state of an episode that goes on is the present policy's, from its first step."""
    env = DummyVecEnv([lambda n=n, i=i: ScriptedEnv([n], i) for i, n in enumerate((2, 9, 5))])
    model = RecurrentREINFORCE("MlpLstmPolicy", env, n_episodes=3, carry_over=True, seed=0, learning_rate=0.01)
    model.learn(40)
    assert model._ahead is not None
    buffer = model.rollout_buffer
    buffer.turn_to_next(model._ahead.log_probs)
    act = model._make_actor()
    obs = model._last_obs
    running = [i for i in range(3) if model._ahead.quota.recording[i] and not model._last_episode_starts[i]]
    assert running
    given = act.outputs(obs, model._last_episode_starts)
    for i in running:
        rows = np.flatnonzero(buffer.recorded[: buffer.pos, i])
        rows = rows[np.flatnonzero(buffer.episode_starts[rows, i])[-1] :]
        sequence = th.as_tensor(np.concatenate([buffer.observations[rows, i], obs[i : i + 1]]))
        starts = th.zeros(len(sequence))
        zero = tuple(th.zeros(model.policy.lstm_hidden_state_shape) for _ in range(2))
        distribution, _ = model.policy.get_distribution(sequence, zero, starts)
        logits = th.as_tensor(given[i]) - th.logsumexp(th.as_tensor(given[i]), 0)
        th.testing.assert_close(logits, distribution.distribution.logits[-1], rtol=1e-4, atol=1e-5)


def test_gradient_statistics_are_of_the_weighted_estimate() -> None:
    model = carrying(DummyVecEnv([make_cartpole] * 4), 6, learning_rate=0.05)
    compared = []

    class Compares(GradientStatsCallback):
        def _on_rollout_end(self) -> None:
            super()._on_rollout_end()
            estimates, _ = self.model.trajectory_estimates()
            compared.append((self.model.rollout_buffer.n_carried, estimates.mean(0)))

        def _on_rollout_start(self) -> None:
            if compared:
                gradients = [p.grad for p in self.model.policy.parameters() if p.requires_grad]
                flat = th.cat(
                    [
                        th.zeros_like(p).flatten() if g is None else g.flatten()
                        for p, g in zip(self.model.policy.parameters(), gradients, strict=True)
                    ]
                )
                _, estimate = compared[-1]
                th.testing.assert_close(-flat, estimate, rtol=1e-3, atol=1e-4)

    model.learn(1500, Compares())
    assert max(n_carried for n_carried, _ in compared) > 0


# --- which episodes ----------------------------------------------------------------------------------------------------


def test_the_next_batches_are_those_that_start_after_this_one() -> None:
    quota = EpisodeQuota(3, 2, 100, n_ahead=2)
    assert quota.recording.tolist() == [1, 1]
    for n_steps in (4, 6, 7, 8):
        quota.start(np.array([True, False]), n_steps)
    assert quota.recording.tolist() == [2, 1]
    assert (quota.owed, quota.n_recording, quota.numbers[0]) == ([0, 0, 3], 1, 2)
    quota.start(np.array([True, True]), 9)
    assert quota.recording.tolist() == [3, 3]
    assert (quota.numbers, quota.n_recording) == ([0, 1], 0)
    quota.turn_to_next(5, 100, 10)  # no trajectory of which is missing
    assert quota.recording.tolist() == [2, 2]
    assert (quota.sizes, quota.owed, quota.n_recording, quota.deadline) == ([3, 3, 5], [0, 1, 5], 0, 99)
    quota.turn_to_next(1, 100, 0)
    assert (quota.sizes, quota.owed, quota.n_recording) == ([3, 1, 1], [1, 1, 1], 2)
    quota.start(np.array([False, True]), 1)
    assert (quota.recording.tolist(), quota.numbers) == ([1, 1], [0, 2])
    quota.start(np.array([True, False]), 2)
    assert (quota.recording.tolist(), quota.numbers) == ([2, 1], [0, 2])


# --- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "optimal"}, "`baseline` must not be \"optimal\" with `carry_over=True`.*'optimal'"),
        ({"use_sde": True}, "`sde_sample_freq` must be 1 with `use_sde=True` and `carry_over=True`.* -1"),
    ],
)
def test_what_cannot_be_carried_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        carrying("Pendulum-v1", **options)
