"""Collecting: the first m episodes started, each whole and of one policy; and what SB3's users expect of a rollout."""

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import BanditEnv, CoinFlipEnv, FaultyEnv, ScriptedEnv, SpacesEnv, scripted, vectorized
from gymnasium import spaces
from learned import parameters
from stable_baselines3 import A2C
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper, VecFrameStack, VecMonitor, VecNormalize

from sb3_reinforce import REINFORCE, EpisodicRolloutBuffer, rollouts
from sb3_reinforce.returns import time_steps

BOX = spaces.Box(-1, 1, (2,), np.float32)
DICT = spaces.Dict(position=BOX, mode=spaces.Discrete(3))
BOOTSTRAP = {"return_type": "reward_to_go", "baseline": "value", "bootstrap_truncated": True}
IMAGE = spaces.Box(0, 255, (36, 36, 1), np.uint8)
#: What callbacks read from the rollout's local names.
PUBLIC_LOCALS = (
    "actions",
    "callback",
    "clipped_actions",
    "dones",
    "env",
    "infos",
    "n_rollout_steps",
    "n_steps",
    "new_obs",
    "rewards",
    "rollout_buffer",
    "self",
)

Trajectory = tuple[int, int, int]


class Recorder(BaseCallback):
    """Writes down what it is told, and ends training at a given step.

    :param stop_at: index of the step at which to return False; None: never
    """

    def __init__(self, stop_at: int | None = None):
        super().__init__()
        self.stop_at = stop_at
        self.events: list[Any] = []
        self.steps: list[dict[str, Any]] = []
        self._batches: list[tuple[Any, np.ndarray]] = []
        self.unused: list[float] = []

    def _on_rollout_start(self) -> None:
        self.events.append("start")

    def _on_step(self) -> bool:
        names = ("n_steps", "actions", "clipped_actions", "new_obs", "rewards", "dones", "infos")
        self.steps.append({name: self.locals[name] for name in names})
        self.events.append((self.num_timesteps, self.locals["n_steps"], self.locals["dones"].tolist()))
        return len(self.steps) - 1 != self.stop_at

    def _on_rollout_end(self) -> None:
        self.events.append(("end", self.num_timesteps, self.locals["n_steps"]))
        buffer = self.locals["rollout_buffer"]
        if isinstance(buffer, EpisodicRolloutBuffer):
            (part,) = buffer.get()
            self._batches.append((part.observations, buffer.lengths))
            self.unused.append(self.logger.name_to_value["rollout/unused_steps_fraction"])

    @property
    def batches(self) -> list[list[Trajectory]]:
        """Environment, episode and length of each trajectory of each rollout, told by ``ScriptedEnv``'s observations."""
        return [trajectories(np.asarray(observations, dtype=int), lengths) for observations, lengths in self._batches]


def trajectories(observations: np.ndarray, lengths: np.ndarray) -> list[Trajectory]:
    env_id, episode, t = observations.T
    np.testing.assert_array_equal(t, time_steps(lengths))  # each trajectory begins at its first step
    firsts = np.flatnonzero(t == 0)
    for ids in (env_id, episode):
        np.testing.assert_array_equal(ids, np.repeat(ids[firsts], lengths))  # and is of one environment's one episode
    return list(zip(env_id[firsts].tolist(), episode[firsts].tolist(), lengths.tolist(), strict=True))


def make_model(env: DummyVecEnv, n_episodes: int, **kwargs: Any) -> REINFORCE:
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    policy_kwargs = {"net_arch": [4], **kwargs.pop("policy_kwargs", {})}
    return REINFORCE(policy, env, n_episodes=n_episodes, policy_kwargs=policy_kwargs, device="cpu", **kwargs)


def learned(model: REINFORCE, n_rollouts: int = 1) -> Recorder:
    """``learn(1)`` is one rollout and one update; more of them go on where the last one ended."""
    recorder = Recorder()
    for _ in range(n_rollouts):
        model.learn(1, recorder, reset_num_timesteps=False)
    return recorder


def counted_resets(env: DummyVecEnv, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with each reset of all environments."""
    resets: list[int] = []
    original = env.reset
    monkeypatch.setattr(env, "reset", lambda: (resets.append(1), original())[1])
    return resets


# --- the environments of these tests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "env",
    [
        ScriptedEnv([3, 5]),
        ScriptedEnv([2], truncated=True),
        ScriptedEnv(None),
        ScriptedEnv([2], action_space=BOX),
        BanditEnv(),
        CoinFlipEnv(),
        SpacesEnv(DICT, spaces.MultiDiscrete([2, 3])),
        SpacesEnv(IMAGE, spaces.MultiBinary(2)),
        FaultyEnv(ScriptedEnv([2]), at=10**6),
    ],
)
def test_environments_are_valid(env: gym.Env[Any, Any]) -> None:
    """SB3's checker has nothing to say about them, not even a warning."""
    check_env(env)
    assert env.reset()[0] is not None


# --- parity with the loop that is overridden -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:gSDE shares one noise matrix")
@pytest.mark.parametrize(
    ("observation_space", "action_space", "kwargs"),
    [
        (BOX, spaces.Discrete(3), {}),
        (BOX, spaces.MultiDiscrete([2, 3]), {}),
        (BOX, spaces.MultiBinary(2), {}),
        (BOX, BOX, {}),  # clipped
        (BOX, spaces.Box(0, 5, (2, 2), np.float32), {"use_sde": True, "policy_kwargs": {"squash_output": True}}),
        (BOX, BOX, {"use_sde": True, "sde_sample_freq": 2}),
        (spaces.Discrete(4), spaces.Discrete(3), {}),
        (DICT, BOX, {}),
    ],
)
def test_parity_with_the_inherited_loop(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    kwargs: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On episodes of one length that end by termination, SB3's loop and this one do the same, step by step.

    Where SB3 changes its loop in a way that matters here, this test tells.
    """
    length, n_envs = 5, 2
    results = []
    for inherited in (False, True):
        env = vectorized(*(Monitor(SpacesEnv(observation_space, action_space, length, seed=i)) for i in range(n_envs)))
        model = make_model(env, n_episodes=2 * n_envs, seed=1, **kwargs)
        recorder = Recorder()
        _, callback = model._setup_learn(100, recorder)
        monkeypatch.setattr(rollouts, "mlp_actor", lambda policy: None)  # so that both draw from torch's generator
        if inherited:
            buffer_class = DictRolloutBuffer if isinstance(observation_space, spaces.Dict) else RolloutBuffer
            buffer = buffer_class(2 * length, observation_space, action_space, "cpu", n_envs=n_envs)
            collect: Callable[..., bool] = OnPolicyAlgorithm.collect_rollouts
        else:
            buffer, collect = model.rollout_buffer, REINFORCE.collect_rollouts
        th.manual_seed(2)
        assert collect(model, env, callback, buffer, 2 * length)
        results.append((model, recorder, buffer))

    (ours, our_recorder, our_buffer), (theirs, their_recorder, their_buffer) = results
    rows = slice(2 * length)
    assert our_buffer.recorded[rows].all()
    for name in ("observations", "actions", "rewards", "episode_starts"):
        stored, expected = getattr(our_buffer, name), getattr(their_buffer, name)
        if not isinstance(expected, dict):
            stored, expected = {"": stored}, {"": expected}
        for key, each in expected.items():
            np.testing.assert_array_equal(stored[key][rows].reshape(each.shape), each, err_msg=name)

    assert our_recorder.events == their_recorder.events
    for step, expected in zip(our_recorder.steps, their_recorder.steps, strict=True):
        for name in ("actions", "clipped_actions", "rewards", "dones"):
            np.testing.assert_array_equal(step[name], expected[name])
    assert ours.num_timesteps == theirs.num_timesteps
    assert [(info["r"], info["l"]) for info in ours.ep_info_buffer] == [(i["r"], i["l"]) for i in theirs.ep_info_buffer]
    np.testing.assert_array_equal(ours._last_episode_starts, theirs._last_episode_starts)


def test_the_signature_is_the_inherited_one() -> None:
    """Whoever calls or overrides ``collect_rollouts`` knows SB3's."""
    ours, theirs = (inspect.signature(c.collect_rollouts).parameters for c in (REINFORCE, OnPolicyAlgorithm))
    assert list(ours) == list(theirs)


# --- which episodes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "m", "expected"),
    [
        # Does a long episode wait for short ones? The first two to finish are both of environment 0.
        ([[3], [7]], 2, [(0, 0, 3), (1, 0, 7)]),
        # Who is the third? Environment 0 starts again at step 3. First to finish would be (0, 0), (1, 0), (0, 1) as well.
        ([[3], [5]], 3, [(0, 0, 3), (0, 1, 3), (1, 0, 5)]),
        # Are all first episodes in, the long one too? First to finish would put (0, 1) in place of (2, 0).
        ([[3], [3], [7]], 3, [(0, 0, 3), (1, 0, 3), (2, 0, 7)]),
        # Does one environment fill up what another leaves? First to finish would not have (1, 0) at all.
        ([[1], [9]], 4, [(0, 0, 1), (0, 1, 1), (0, 2, 1), (1, 0, 9)]),
        # With one environment, in order.
        ([[2, 4]], 3, [(0, 0, 2), (0, 1, 4), (0, 2, 2)]),
        # Fewer than there are environments: the first by index.
        ([[6], [5], [4], [3], [2], [1], [1], [1]], 3, [(0, 0, 6), (1, 0, 5), (2, 0, 4)]),
        # Does an endless environment matter that is not in the batch?
        ([[3], None], 1, [(0, 0, 3)]),
    ],
)
def test_the_first_started_are_the_batch(lengths: list[list[int] | None], m: int, expected: list[Trajectory]) -> None:
    """Through a real VecEnv, whose observations tell what was stored; all but two cases fail under first-finished."""
    recorder = learned(make_model(scripted(*lengths), n_episodes=m))
    assert recorder.batches == [expected]


@pytest.mark.parametrize("n_envs", [1, 2, 3])
def test_no_episode_spans_two_policies(n_envs: int) -> None:
    """Each trajectory is whole within its rollout (see ``trajectories``), and belongs to no other rollout."""
    model = make_model(scripted(*([1 + env, 4, 2] for env in range(n_envs))), n_episodes=5)
    recorder = Recorder()
    model.learn(200, recorder)
    assert len(recorder.batches) > 3
    assert all(len(batch) == 5 for batch in recorder.batches)
    episodes = [(env, episode) for batch in recorder.batches for env, episode, _ in batch]
    assert len(set(episodes)) == len(episodes)


def test_coin_flip_lengths() -> None:
    """Where the length depends on the actions, the return is the length, and the last action of each is the one that ends."""
    model = make_model(vectorized(*(CoinFlipEnv() for _ in range(3))), n_episodes=50, gamma=1.0)
    learned(model)
    buffer = model.rollout_buffer
    (part,) = buffer.get()
    assert len(buffer.lengths) == 50
    assert buffer.returns.tolist() == buffer.lengths.tolist()
    last = np.cumsum(buffer.lengths) - 1
    expected = np.ones(buffer.lengths.sum())
    expected[last] = 0
    np.testing.assert_array_equal(part.actions, expected)


def test_the_return_is_what_the_environment_paid() -> None:
    """A time limit adds no value of the last observation: 1 + 2 + 3 and half the actions, for truncated episodes too."""
    for truncated in (False, True):
        model = make_model(scripted([3], [3], truncated=truncated), n_episodes=2, gamma=1.0)
        recorder = learned(model)
        (part,) = model.rollout_buffer.get()
        expected = 6 + part.actions.reshape(2, 3).sum(dim=1) / 2
        assert model.rollout_buffer.returns.tolist() == expected.tolist()
        assert recorder.steps[-1]["infos"][0]["TimeLimit.truncated"] == truncated


# --- resets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "m", "n_resets"),
    [
        ([[3]], 2, 1),  # each rollout ends with its last episode
        ([[3], [3]], 2, 1),  # both environments at once
        ([[3], [5]], 2, 4),  # environment 0 is in its next episode
        ([[2], [3]], 3, 4),  # environment 1 is in one that nobody records
    ],
)
def test_reset_once_where_an_environment_is_in_an_episode(
    monkeypatch: pytest.MonkeyPatch, lengths: list[list[int]], m: int, n_resets: int
) -> None:
    """Four rollouts: ``learn`` resets at first, a rollout does if an episode of the old policy is under way, and only then."""
    env = scripted(*lengths)
    resets = counted_resets(env, monkeypatch)
    recorder = learned(make_model(env, n_episodes=m), n_rollouts=4)
    assert len(recorder.batches) == 4
    assert len(resets) == n_resets


def test_early_resets_need_not_be_allowed() -> None:
    """With one environment nothing is ever reset within an episode, so a strict Monitor does not complain."""
    env = vectorized(Monitor(ScriptedEnv([3, 1, 4]), allow_early_resets=False))
    recorder = learned(make_model(env, n_episodes=2), n_rollouts=3)
    assert [length for batch in recorder.batches for _, _, length in batch] == [3, 1, 4, 3, 1, 4]


# --- horizon and episodes that do not end --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "m", "expected", "n_steps", "n_resets"),
    [
        # An episode of 10 steps is cut after 4, and the environment reset for the next; 2 of 3 cuts are followed by one.
        ([[10]], 3, [(0, 0, 4), (0, 1, 4), (0, 2, 4)], 12, 3),
        # Endless, and more trajectories than environments: all are reset when all were cut, and two are not needed then.
        ([None, None, None], 4, [(0, 0, 4), (0, 1, 4), (1, 0, 4), (2, 0, 4)], 8, 2),
        # Endless, fewer trajectories than environments.
        ([None, None], 1, [(0, 0, 4)], 4, 1),
        # One environment is cut and waits, the other goes on; nobody is reset.
        ([[2], None], 4, [(0, 0, 2), (0, 1, 2), (0, 2, 2), (1, 0, 4)], 6, 1),
        # One is cut at step 4, ends by itself at step 6 and starts anew, without a reset of the other.
        ([[4], [6]], 5, [(0, 0, 4), (0, 1, 4), (0, 2, 4), (1, 0, 4), (1, 1, 4)], 12, 1),
        # Ending exactly at the horizon is not being cut.
        ([[4]], 2, [(0, 0, 4), (0, 1, 4)], 8, 1),
    ],
)
def test_horizon(
    monkeypatch: pytest.MonkeyPatch,
    lengths: list[list[int] | None],
    m: int,
    expected: list[Trajectory],
    n_steps: int,
    n_resets: int,
) -> None:
    """With ``horizon=4`` a trajectory is whole after at most 4 steps, whatever its environment does then."""
    env = scripted(*lengths)
    resets = counted_resets(env, monkeypatch)
    model = make_model(env, n_episodes=m, horizon=4)
    recorder = learned(model)
    assert recorder.batches == [expected]
    assert len(resets) == n_resets
    assert model.num_timesteps == n_steps * len(lengths)


def test_a_trajectory_that_was_cut_is_not_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rollout ends with a cut, so the next one resets: its trajectory starts at step 0 (see ``trajectories``)."""
    env = scripted(None)
    resets = counted_resets(env, monkeypatch)
    recorder = learned(make_model(env, n_episodes=2, horizon=4), n_rollouts=3)
    assert recorder.batches == [[(0, 0, 4), (0, 1, 4)], [(0, 2, 4), (0, 3, 4)], [(0, 4, 4), (0, 5, 4)]]
    assert len(resets) == 6


def test_the_return_of_a_cut_trajectory_is_its_sum() -> None:
    """1 + 2 + 3 + 4 and half the actions."""
    model = make_model(scripted(None), n_episodes=1, horizon=4, gamma=1.0)
    learned(model)
    (part,) = model.rollout_buffer.get()
    assert model.rollout_buffer.returns.tolist() == [10 + part.actions.sum().item() / 2]


@pytest.mark.parametrize(
    ("lengths", "truncated", "m", "expected"),
    [
        ([[3]], True, 2, {2: [0, 0, 3], 5: [0, 1, 3]}),  # by a time limit: what came before the next episode
        ([[3]], False, 2, {}),  # by the environment: nothing follows
        ([None], False, 2, {3: [0, 0, 4], 7: [0, 1, 4]}),  # by the horizon: what came before the reset
        ([[4]], True, 1, {3: [0, 0, 4]}),  # by a time limit at the horizon: not the next episode's first
        ([[4]], False, 1, {}),  # by the environment at the horizon
        ([[2], [7]], False, 2, {5: [1, 0, 4]}),  # the horizon cut one of two, the last step of the batch
        ([[3], [7]], True, 1, {2: [0, 0, 3]}),  # environment 1 is not in the batch
    ],
)
def test_what_follows_a_trajectory_that_was_cut_is_kept(
    lengths: list[list[int] | None], truncated: bool, m: int, expected: dict[int, list[int]]
) -> None:
    """The last observation s_H, where the value of what would have followed is added; the horizon is 4."""
    env = scripted(*lengths, truncated=truncated)
    model = make_model(env, n_episodes=m, horizon=4, **BOOTSTRAP)
    learned(model)
    assert {step: obs.tolist() for step, obs in model.rollout_buffer.last_observations.items()} == expected


def test_what_follows_a_trajectory_is_kept_for_each_key() -> None:
    """Of Dict observations the one environment's part."""
    env = vectorized(SpacesEnv(DICT, BOX, length=9, seed=0), SpacesEnv(DICT, BOX, length=9, seed=1))
    model = make_model(env, n_episodes=2, horizon=4, **BOOTSTRAP)
    recorder = learned(model)
    last = recorder.steps[3]["new_obs"]
    kept = model.rollout_buffer.last_observations
    assert list(kept) == [3, 7]
    for env_id, obs in enumerate(kept.values()):
        assert set(obs) == set(DICT)
        for key in DICT:
            np.testing.assert_array_equal(obs[key], last[key][env_id])


def test_an_episode_that_does_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by its environment and with the remedy, where a loop over episodes would hang; nothing is learned from it."""
    monkeypatch.setattr(rollouts, "ENDLESS", 50)
    model = make_model(scripted([3], None), n_episodes=4)
    before = parameters(model)
    with pytest.raises(ValueError, match=r"episode of environment 1 did not end within 50 steps.*`horizon=`"):
        model.learn(20)
    assert model.num_timesteps == 100
    np.testing.assert_array_equal(parameters(model), before)


def test_an_episode_may_last_as_long_as_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a million steps may mean episodes of a million steps."""
    monkeypatch.setattr(rollouts, "ENDLESS", 5)
    model = make_model(scripted([60]), n_episodes=1)
    assert model.learn(60).num_timesteps == 60
    with pytest.raises(ValueError, match="did not end within 59 steps"):
        model.learn(59)
    model = make_model(scripted([60]), n_episodes=1).learn(60)
    with pytest.raises(ValueError, match="did not end within 59 steps"):  # and not within those of both
        model.learn(59, reset_num_timesteps=False)


# --- being interrupted ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", [0, 4, 6])  # the first step, within the first episode, at the end of the last
def test_a_callback_that_says_false_ends_at_once(monkeypatch: pytest.MonkeyPatch, stop_at: int) -> None:
    """No further step, no end of a rollout, no update; the environments are reset when training goes on."""
    env = scripted([3], [7])
    model = make_model(env, n_episodes=2)
    before = parameters(model)
    recorder = Recorder(stop_at)
    model.learn(100, recorder)
    assert len(recorder.steps) == stop_at + 1
    assert model.num_timesteps == 2 * (stop_at + 1)
    assert recorder.batches == []
    assert recorder.events[-1] != "start"
    assert model._n_updates == 0
    np.testing.assert_array_equal(parameters(model), before)

    resets = counted_resets(env, monkeypatch)
    recorder = learned(model)
    assert len(resets) == 1
    assert [(env_id, length) for env_id, _, length in recorder.batches[0]] == [(0, 3), (1, 7)]
    assert (parameters(model) != before).any()


def test_an_exception_leaves_the_model_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``env.step`` raises goes through; the episode that was under way is not continued."""
    faulty = FaultyEnv(ScriptedEnv([3]), at=4, error=ConnectionError("the simulator is gone"))
    env = vectorized(faulty)
    model = make_model(env, n_episodes=2)
    before = parameters(model)
    with pytest.raises(ConnectionError, match="the simulator is gone"):
        model.learn(100)
    np.testing.assert_array_equal(parameters(model), before)
    resets = counted_resets(env, monkeypatch)
    recorder = learned(model)
    assert recorder.batches == [[(0, 2, 3), (0, 3, 3)]]
    assert len(resets) == 1


@pytest.mark.parametrize("fault", [{"reward": np.nan}, {"reward": np.inf}, {"observation": np.nan}])
@pytest.mark.parametrize("length", [[3], None])
def test_numbers_that_are_not_finite_stop_training(fault: dict[str, float], length: list[int] | None) -> None:
    """Environment and step are named; an episode that never ends because of them is stopped when storage is full."""
    env = vectorized(ScriptedEnv(length), FaultyEnv(ScriptedEnv(length, env_id=1), at=1, **fault))
    model = make_model(env, n_episodes=2)
    before = parameters(model)
    with pytest.raises(ValueError, match=r"Environment 1: .* is not finite"):
        model.learn(100)
    np.testing.assert_array_equal(parameters(model), before)
    assert model.num_timesteps <= 2 * 129


# --- what SB3's users expect of a rollout --------------------------------------------------------------------------------


def test_locals_are_complete() -> None:
    """Callbacks of users and of RL Zoo read these names, at each step and when the rollout ends."""
    seen: list[set[str]] = []

    class Reader(BaseCallback):
        def _on_step(self) -> bool:
            seen.append(set(self.locals))
            return True

        def _on_rollout_end(self) -> None:
            seen.append(set(self.locals))

    make_model(scripted([2]), n_episodes=1).learn(1, Reader())
    assert len(seen) == 3
    assert all(names >= set(PUBLIC_LOCALS) for names in seen)


def test_steps_are_counted_as_in_sb3() -> None:
    """One call a vectorised step; ``num_timesteps`` counts environments, ``n_steps`` the steps before this one."""
    recorder = learned(make_model(scripted([2], [3]), n_episodes=2), n_rollouts=2)
    one, two, three = ([False, False], [True, False], [False, True])
    assert recorder.events == [
        "start",
        (2, 0, one),
        (4, 1, two),
        (6, 2, three),
        ("end", 6, 3),
        "start",
        (8, 0, one),
        (10, 1, two),
        (12, 2, three),
        ("end", 12, 3),
    ]


def test_locals_belong_to_the_step() -> None:
    """What a callback sees is of the step that was just taken: its actions, and the observations they led to."""
    recorder = learned(make_model(scripted([4], [4]), n_episodes=2))
    for t, step in enumerate(recorder.steps):
        np.testing.assert_allclose(step["rewards"], 1 + t + step["actions"] / 2)
        assert step["new_obs"][:, 2].tolist() == [(t + 1) % 4] * 2
        assert len(step["infos"]) == 2


def test_the_policy_is_in_evaluation_mode() -> None:
    """Dropout and batch norm act as in SB3's rollouts, whatever mode training left the policy in."""
    modes: list[bool] = []

    class Mode(BaseCallback):
        def _on_step(self) -> bool:
            modes.append(self.model.policy.training)
            return True

    make_model(scripted([2]), n_episodes=1).learn(4, Mode())
    assert modes == [False] * 4


def test_success_rate() -> None:
    """Only the last step of an episode tells of success; both of environment 0 succeed, that of environment 1 does not."""

    class Success(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            obs, reward, terminated, truncated, info = self.env.step(action)
            return obs, reward, terminated, truncated, {**info, "is_success": terminated and self.env.env_id == 0}

    env = vectorized(Success(ScriptedEnv([2], 0)), Success(ScriptedEnv([4], 1)))
    model = make_model(env, n_episodes=3)
    learned(model)
    assert list(model.ep_success_buffer) == [True, False, True]  # in order of start


def test_episodes_are_logged() -> None:
    """Monitor's returns and lengths arrive where SB3's ``rollout/ep_rew_mean`` takes them from: those of the batch, since
    of the others only the short ones end in time."""
    env = vectorized(*(Monitor(ScriptedEnv([length], i)) for i, length in enumerate([2, 4])))
    model = make_model(env, n_episodes=2)
    recorder = learned(model)
    assert [info["l"] for info in model.ep_info_buffer] == [2, 4]  # a second of environment 0 was not used
    rewards = np.array([step["rewards"] for step in recorder.steps])
    expected = [rewards[:2, 0].sum(), rewards[:, 1].sum()]
    np.testing.assert_allclose([info["r"] for info in model.ep_info_buffer], expected, atol=1e-6)  # Monitor rounds so


@pytest.mark.parametrize(
    ("lengths", "m", "unused"),
    [
        ([[3]], 2, 0.0),  # one environment never waits
        ([[4], [4]], 4, 0.0),
        ([[3], [7]], 2, 4 / 14),  # environment 0 waits for 4 of 7 steps
        ([[3], [3]], 3, 3 / 12),  # one waits during the third
    ],
)
def test_unused_steps(lengths: list[list[int]], m: int, unused: float) -> None:
    """The share of steps that were taken while an environment waited, which count in ``num_timesteps``."""
    recorder = learned(make_model(scripted(*lengths), n_episodes=m))
    assert recorder.unused == pytest.approx([unused], abs=1e-12)


ENVIRONMENT_ACTIONS: dict[str, tuple[spaces.Space[Any], dict[str, Any], Callable[[np.ndarray], np.ndarray]]] = {
    "clipped": (spaces.Box(-1, 2, (2,), np.float32), {"policy_kwargs": {"log_std_init": 2.0}}, lambda a: np.clip(a, -1, 2)),
    "unscaled": (
        spaces.Box(-1, 2, (2,), np.float32),
        {"use_sde": True, "sde_sample_freq": 1, "policy_kwargs": {"squash_output": True}},
        lambda a: 1.5 * a + 0.5,
    ),
    "shifted": (spaces.Discrete(3, start=5), {}, lambda a: a + 5),
    "shifted each": (spaces.MultiDiscrete([2, 3], start=[1, -4]), {}, lambda a: a + np.array([1, -4])),
    "the same": (spaces.Discrete(3), {}, lambda a: a),
}


@pytest.mark.parametrize(("space", "kwargs", "as_taken"), ENVIRONMENT_ACTIONS.values(), ids=ENVIRONMENT_ACTIONS)
def test_stored_actions_are_the_sampled_ones(
    space: spaces.Space[Any], kwargs: dict[str, Any], as_taken: Callable[[np.ndarray], np.ndarray]
) -> None:
    """The policy is differentiated at what it sampled; the environment gets what its space allows."""
    env = SpacesEnv(BOX, space, length=20)
    model = make_model(vectorized(env), n_episodes=1, **kwargs)
    recorder = learned(model)
    sampled = np.concatenate([step["actions"] for step in recorder.steps])
    (part,) = model.rollout_buffer.get()
    np.testing.assert_array_equal(part.actions, sampled)
    np.testing.assert_allclose(env.actions, as_taken(sampled), rtol=1e-6)
    np.testing.assert_array_equal(env.actions, np.concatenate([step["clipped_actions"] for step in recorder.steps]))
    assert all(space.contains(action) for action in np.asarray(env.actions, dtype=space.dtype))
    if as_taken(sampled) is not sampled:
        assert (np.asarray(env.actions) != sampled).any()


def test_the_buffer_may_be_of_a_class_of_ones_own() -> None:
    """``rollout_buffer_class`` and ``rollout_buffer_kwargs`` work as in SB3, and the rollout fills that buffer."""

    class Named(EpisodicRolloutBuffer):
        def __init__(self, *args: Any, name: str, **kwargs: Any):
            super().__init__(*args, **kwargs)
            self.name = name

    model = make_model(scripted([3]), n_episodes=2, rollout_buffer_class=Named, rollout_buffer_kwargs={"name": "mine"})
    learned(model)
    assert isinstance(model.rollout_buffer, Named)
    assert model.rollout_buffer.name == "mine"
    assert model.rollout_buffer.lengths.tolist() == [3, 3]


def test_loading_with_other_arguments_takes_effect(tmp_path: Path) -> None:
    """``load(path, n_episodes=3)``, as RL Zoo writes a YAML file's values; and the batch is not saved."""
    env = scripted(None)
    model = make_model(env, n_episodes=2, horizon=4)
    learned(model)
    model.save(tmp_path / "model")
    loaded = REINFORCE.load(tmp_path / "model", env=env, n_episodes=3, horizon=2, learning_rate=lambda progress: 0.5)
    assert loaded.rollout_buffer.pos == 0
    recorder = learned(loaded)
    assert [length for _, _, length in recorder.batches[0]] == [2, 2, 2]
    assert loaded.policy.optimizer.param_groups[0]["lr"] == 0.5


def test_a_schedule_never_sees_progress_below_zero() -> None:
    """Whole episodes overshoot ``total_timesteps``: a linear learning rate would turn negative and climb the wrong way."""
    seen: list[float] = []

    def schedule(progress: float) -> float:
        seen.append(progress)
        return progress

    make_model(scripted([30]), n_episodes=1, learning_rate=schedule).learn(40)
    assert sorted(set(seen)) == [0.25, 1.0]


def test_the_last_batch_is_learned_from() -> None:
    """A linear schedule is asked when a batch begins; when the last one is whole, it would say 0, and move nothing."""
    env = scripted([10])
    model = make_model(env, n_episodes=1, learning_rate=lambda progress: 0.1 * progress)
    rates = []
    train = model.train
    model.train = lambda: (train(), rates.append(model.policy.optimizer.param_groups[0]["lr"]))
    model.learn(40)
    np.testing.assert_allclose(rates, [0.1, 0.075, 0.05, 0.025])


def test_an_environment_that_seeds_numpy_does_not_fix_the_actions() -> None:
    """As older ones do in ``reset``: the actor draws from a generator of its own."""

    class SeedsNumpy(BanditEnv):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            np.random.seed(0)
            return super().reset(seed=seed)

    model = REINFORCE("MlpPolicy", vectorized(SeedsNumpy()), n_episodes=32)
    model.learn(1)
    assert len(set(model.rollout_buffer.actions[:32].flatten())) > 1  # all equal by chance once in 2³¹


# --- what belongs to somebody else ---------------------------------------------------------------------------------------


class Reusing(VecEnvWrapper):
    """Returns the same arrays, dicts and list at every step, as native vector environments do."""

    def __init__(self, venv: Any):
        super().__init__(venv)
        self.kept: dict[str, Any] = {}

    def _written(self, name: str, values: Any) -> Any:
        if isinstance(values, dict):
            kept = self.kept.setdefault(name, {})
            kept.update({key: self._written(f"{name} {key}", each) for key, each in values.items()})
            return kept
        kept = self.kept.setdefault(name, np.empty_like(values))
        kept[...] = values
        return kept

    def reset(self) -> Any:
        return self._written("obs", self.venv.reset())

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = self.venv.step_wait()
        kept = self.kept.setdefault("infos", [{} for _ in infos])
        for i, (each, info) in enumerate(zip(kept, infos, strict=True)):
            each.clear()
            each.update(info)
            if dones[i]:
                each["terminal_observation"] = self._written(f"last {i}", info["terminal_observation"])
        return self._written("obs", obs), self._written("rewards", rewards), self._written("dones", dones), kept


def collected(env: Any) -> tuple[Any, ...]:
    """Everything that is learned from, and the episodes that are logged."""
    options = {"return_type": "reward_to_go", "baseline": "value", "bootstrap_truncated": True, "gamma": 1.0, "seed": 0}
    model = make_model(env, n_episodes=5, **options)
    learned(model, n_rollouts=2)
    buffer = model.rollout_buffer
    (part,) = buffer.get()
    observations = part.observations if isinstance(part.observations, dict) else {"": part.observations}
    observations = {key: each.tolist() for key, each in observations.items()}
    lasts = [np.hstack(list(each.values()) if isinstance(each, dict) else each) for each in buffer.last_observations.values()]
    episodes = [episode["l"] for episode in model.ep_info_buffer]
    return (
        observations,
        part.actions.tolist(),
        buffer.lengths.tolist(),
        buffer.step_rewards.tolist(),
        np.array(lasts),
        episodes,
    )


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "alone": lambda env: env,
    "normalized": VecNormalize,
    "stacked": lambda env: VecFrameStack(env, 2),
    "monitored": VecMonitor,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("space", [None, spaces.Dict(a=BOX, b=spaces.Box(-9, 9, (1,)))], ids=["box", "dict"])
def test_arrays_that_the_environment_writes_again_are_what_they_were(space: Any, wrap: Callable[[Any], Any]) -> None:
    """Observations of a Dict and the last ones too, rewards, dones, and infos: nothing differs from an environment's own."""

    def make() -> Any:
        if space is None:
            return VecMonitor(scripted([4, 2], [7], truncated=True))
        return VecMonitor(vectorized(*(Truncated(SpacesEnv(space, spaces.Discrete(2), 3 + i, seed=i)) for i in range(2))))

    ours, theirs = collected(wrap(Reusing(make()))), collected(wrap(make()))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_equal(one, other)


class Truncated(gym.Wrapper[Any, Any, Any, Any]):
    """Its episodes are truncated where they would be terminated."""

    def step(self, action: Any) -> Any:
        obs, reward, terminated, _, info = self.env.step(action)
        return obs, reward, False, terminated, info


@pytest.mark.parametrize(
    "action_space", [spaces.MultiBinary(3), spaces.MultiDiscrete([3, 3], start=[1, 1]), BOX, spaces.Discrete(3)], ids=str
)
def test_actions_that_the_environment_edits_are_stored_as_sampled(action_space: spaces.Space[Any]) -> None:
    class Edits(ScriptedEnv):
        given: list[Any] = []  # noqa: RUF012

        def step(self, action: Any) -> Any:
            self.given.append(np.array(action))
            if np.ndim(action) > 0:
                action[...] = 0
            return super().step(action)

    env = Edits([8], action_space=action_space)
    model = make_model(vectorized(env), n_episodes=4, seed=0, policy_kwargs={"log_std_init": -3})  # never clipped
    learned(model)
    start = getattr(action_space, "start", 0)
    shape = action_space.shape or ()
    stored = model.rollout_buffer.actions[:32, 0].reshape(-1, *shape) + start
    assert np.any(env.given)
    np.testing.assert_array_equal(stored, np.array(env.given))


def test_a_batch_that_lacks_a_trajectory_is_refused() -> None:
    """Whatever a buffer or a callback has done to it, what is learned from is m trajectories."""

    class Loses(EpisodicRolloutBuffer):
        def compute_returns_and_advantage(self, *args: Any) -> None:
            self.episode_starts[3] = False
            super().compute_returns_and_advantage(*args)

    model = make_model(scripted([3]), n_episodes=4, rollout_buffer_class=Loses)
    before = parameters(model)
    with pytest.raises(RuntimeError, match="3 trajectories, but 4 were wanted"):
        model.learn(1)
    np.testing.assert_array_equal(parameters(model), before)


def test_episodes_are_logged_in_order_of_start() -> None:
    """The first to start is the last to end; a window of three lacks the first, and not the longest."""
    model = make_model(VecMonitor(scripted([9], [2, 3])), n_episodes=4, stats_window_size=3)
    learned(model)
    assert [episode["l"] for episode in model.ep_info_buffer] == [2, 3, 2]
    assert model.rollout_buffer.lengths.tolist() == [9, 2, 3, 2]


# --- many environments ---------------------------------------------------------------------------------------------------


def test_more_environments_than_trajectories_take_turns() -> None:
    """8 environments and m = 3: after eight rollouts, each has been used three times."""
    model = make_model(scripted(*[[2]] * 8), n_episodes=3)
    used = [env for batch in learned(model, n_rollouts=8).batches for env, _, _ in batch]
    assert np.bincount(used).tolist() == [3] * 8
    assert used[:9] == [0, 1, 2, 3, 4, 5, 0, 6, 7]  # in the third rollout 6, 7 and 0, laid out by environment


@pytest.mark.parametrize(("n_envs", "n_episodes", "n_warnings"), [(5, 4, 1), (4, 4, 0), (1, 4, 0)])
def test_idle_environments_are_warned_of_once(n_envs: int, n_episodes: int, n_warnings: int) -> None:
    """By both numbers and the remedy, at the user's own line."""
    model = make_model(scripted(*[[2]] * n_envs), n_episodes=n_episodes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            model.learn(20, reset_num_timesteps=False)
    assert [warning.filename for warning in caught] == [__file__] * n_warnings
    assert all("`n_envs` is 5, but `n_episodes` only 4" in str(warning.message) for warning in caught)


@pytest.mark.parametrize(("n_envs", "warns"), [(6, False), (7, True)])
def test_environments_whose_episodes_are_carried_over_are_not_idle(n_envs: int, warns: bool) -> None:
    """They begin the next batches. More than half as many again as trajectories wait, too, where lengths differ."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_model(scripted(*[[2]] * n_envs), n_episodes=4, carry_over=True).learn(20)
    assert len(caught) == warns


def test_code_without_a_module_is_warned_too() -> None:
    """As consoles of simulators run it."""
    with pytest.warns(UserWarning, match="`n_envs` is 5"):
        exec("model.learn(1)", {"model": make_model(scripted(*[[2]] * 5), n_episodes=4)})


class Halves(FlattenExtractor):
    """Features made in place, in the memory that observations are in."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations).mul_(0.5)


def test_what_a_policy_writes_into_its_observations_is_not_stored() -> None:
    model = make_model(scripted([3]), policy_kwargs={"features_extractor_class": Halves}, n_episodes=2)
    assert [length for *_, length in learned(model).batches[0]] == [3, 3]


class OneInfo(VecEnvWrapper):
    """Gives the statistics of each episode in the same dict."""

    episode: dict[str, float]

    def reset(self) -> Any:
        self.episode = {}
        return self.venv.reset()

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = self.venv.step_wait()
        if dones[0]:
            self.episode.update(infos[0]["episode"])
            infos[0]["episode"] = self.episode
        return obs, rewards, dones, infos


def test_statistics_that_the_environment_writes_again_are_what_they_were() -> None:
    model = make_model(OneInfo(vectorized(Monitor(ScriptedEnv([2, 5])))), n_episodes=2).learn(1)
    assert [info["l"] for info in model.ep_info_buffer] == [2, 5]


# --- callbacks that use the training environment ----------------------------------------------------------------------------


class Evaluates(BaseCallback):
    """Evaluates on the training environment, at one of its events.

    :param event: which
    :param how: from the model and the environment to whatever
    """

    def __init__(self, event: str, how: Callable[[REINFORCE, Any], Any]):
        super().__init__()
        self.event, self.how = event, how

    def _on(self, event: str) -> bool:
        if event == self.event and self.num_timesteps != 0:
            self.how(self.model, self.training_env)
        return True

    def _on_rollout_start(self) -> None:
        self._on("rollout start")

    def _on_step(self) -> bool:
        return self._on("step")

    def _on_rollout_end(self) -> None:
        self._on("rollout end")


EVALUATIONS: dict[str, Callable[[REINFORCE, Any], Any]] = {
    "evaluate_policy": lambda model, env: evaluate_policy(model, env, n_eval_episodes=1, warn=False),
    "reset": lambda model, env: env.reset(),
    "reset below wrappers": lambda model, env: env.unwrapped.reset(),
}


@pytest.mark.parametrize("how", EVALUATIONS.values(), ids=EVALUATIONS)
@pytest.mark.parametrize("lengths", [[[3]], [[3], [5]]], ids=["1 env", "2 envs"])
def test_the_training_environment_must_not_be_reset_in_a_rollout(lengths: list[list[int]], how: Callable[..., Any]) -> None:
    """Half of one episode and half of another would be a trajectory of neither; nothing is learned, and the model goes on."""
    model = make_model(VecMonitor(scripted(*lengths)), n_episodes=2)
    before = parameters(model)
    with pytest.raises(RuntimeError, match=r"reset during a rollout.*Evaluate on another environment"):
        model.learn(1, Evaluates("step", how))
    np.testing.assert_array_equal(parameters(model), before)
    assert [length for _, _, length in learned(model).batches[0]] == [each[0] for each in lengths] * (2 // len(lengths))


@pytest.mark.parametrize("how", EVALUATIONS.values(), ids=EVALUATIONS)
@pytest.mark.parametrize("event", ["rollout start", "rollout end", "between"])
@pytest.mark.parametrize("lengths", [[[3]], [[3], [5]]], ids=["1 env", "2 envs"])
def test_between_rollouts_the_training_environment_is_begun_anew(
    lengths: list[list[int]], event: str, how: Callable[..., Any]
) -> None:
    """Wherever an evaluation has left it, trajectories begin with first steps: ``Recorder`` checks each."""
    model = make_model(VecMonitor(scripted(*lengths)), n_episodes=2)
    recorder = Recorder()
    for _ in range(3):
        model.learn(12, [Evaluates(event, how), recorder], reset_num_timesteps=False)
        if event == "between":
            how(model, model.get_env())
    assert len(recorder.batches) > 3


class ResetsItself(VecEnvWrapper):
    """Begins anew with all environments when all have ended, as where they are given a new task together."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        obs, rewards, dones, infos = self.venv.step_wait()
        return (self.venv.reset() if dones.all() else obs), rewards, dones, infos


def test_an_environment_may_reset_itself() -> None:
    """Within a step, which says so by ``dones``: no episode is broken off."""
    recorder = learned(make_model(ResetsItself(scripted([3], [3])), n_episodes=4), n_rollouts=2)
    # Each end is followed by two resets: DummyVecEnv's, and the one of all.
    assert [sorted(batch) for batch in recorder.batches] == [
        [(env, episode, 3) for env in range(2) for episode in episodes] for episodes in ((0, 2), (4, 6))
    ]


def test_a_callback_may_seed_the_environment() -> None:
    """For its next reset; episodes go on."""
    model = make_model(scripted([3]), n_episodes=2)
    assert model.learn(1, Evaluates("step", lambda _, env: env.seed(3))).num_timesteps == 6
    assert model.get_env().envs[0].unwrapped.episode == 2


class Starts(BaseCallback):
    """Writes down at each step where SB3 says that episodes start."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[bool]] = []

    def _on_step(self) -> bool:
        self.seen.append(self.model._last_episode_starts.astype(bool).tolist())
        return True


@pytest.mark.parametrize("algorithm", [REINFORCE, A2C])
def test_a_callback_sees_where_episodes_start(algorithm: Any) -> None:
    """As one does that forgets there what it has remembered of an episode."""
    starts = Starts()
    algorithm("MlpPolicy", scripted([3], [4])).learn(10, starts)
    assert starts.seen[:5] == [[True, True], [False, False], [False, False], [True, False], [False, True]]


# --- callbacks that change what is learned from --------------------------------------------------------------------------


class Bonus(BaseCallback):
    """Adds 10 to each reward.

    :param how: "in place" at each step, as an array "in their place", or at the "rollout end"
    """

    def __init__(self, how: str):
        super().__init__()
        self.how = how

    def _on_step(self) -> bool:
        if self.how == "in place":
            rewards = self.locals["rewards"]
            rewards += 10
        if self.how == "in their place":
            self.locals["rewards"] = self.locals["rewards"] + 10
        return True

    def _on_rollout_end(self) -> None:
        if self.how == "rollout end":
            self.model.rollout_buffer.rewards += 10


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("how", ["in place", "in their place", "rollout end"])
@pytest.mark.parametrize("return_type", ["trajectory", "reward_to_go"])
def test_rewards_that_a_callback_adds_are_learned_from(how: str, nested: bool, return_type: str) -> None:
    """As curiosity does: the same parameters as where the environment itself pays so much more."""

    class Pays(ScriptedEnv):
        bonus = 0.0

        def step(self, action: Any) -> Any:
            obs, reward, *rest = super().step(action)
            return obs, reward + self.bonus, *rest

    results = []
    for bonus, callback in ((10.0, None), (0.0, CallbackList([CallbackList([Bonus(how)])]) if nested else Bonus(how))):
        env = Pays([3, 5])
        env.bonus = bonus
        model = make_model(vectorized(env), n_episodes=2, return_type=return_type, baseline="value", seed=0)
        model.learn(20, callback)
        results.append((parameters(model), model.rollout_buffer.returns))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_half_a_reward_can_be_added_to_whole_numbers() -> None:
    """As ``SubprocVecEnv`` returns them from an environment that pays in Python's."""

    class Whole(VecEnvWrapper):
        def reset(self) -> Any:
            return self.venv.reset()

        def step_wait(self) -> Any:
            obs, rewards, dones, infos = self.venv.step_wait()
            return obs, np.ones_like(rewards, dtype=np.int64), dones, infos

    class Half(BaseCallback):
        def _on_step(self) -> bool:
            self.locals["rewards"] += 0.5
            return True

    model = make_model(Whole(scripted([3])), n_episodes=2).learn(6, Half())
    assert model.rollout_buffer.step_rewards.tolist() == [1.5] * 6


@pytest.mark.parametrize("options", [{}, {"baseline": "value", "normalize_advantage": True}])
def test_a_bonus_that_is_not_finite_is_named(options: dict[str, Any]) -> None:
    """By environment and step, as a reward of the environment's own is; nothing is learned from it."""

    class Spoils(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            self.model.rollout_buffer.rewards[2, 1] = np.nan

    model = make_model(scripted([3], [4]), n_episodes=2, **options)
    before = parameters(model)
    with pytest.raises(ValueError, match="Environment 1: reward at step 2 of the rollout is not finite: nan"):
        model.learn(1, Spoils())
    np.testing.assert_array_equal(parameters(model), before)


@pytest.mark.parametrize("when", ["_on_rollout_start", "_on_rollout_end"])
def test_gamma_that_a_callback_sets_is_that_of_all_numbers(when: str) -> None:
    """Of what is learned from, of what is logged, of the average for later batches, and of the buffer's returns."""

    class Sets(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _set(self) -> None:
            self.model.gamma = 0.5

    setattr(Sets, when, Sets._set)
    model = make_model(scripted([3]), n_episodes=1, gamma=1.0, baseline="moving_average")
    model.learn(1, Sets(), log_interval=None)
    rewards = model.rollout_buffer.step_rewards
    discounted = rewards[0] + rewards[1] / 2 + rewards[2] / 4
    assert model.logger.name_to_value["train/return_mean"] == pytest.approx(discounted)
    assert model._average_return == pytest.approx(discounted)
    if when == "_on_rollout_start":  # at its end the buffer is whole already
        np.testing.assert_allclose(model.rollout_buffer.returns, discounted)
