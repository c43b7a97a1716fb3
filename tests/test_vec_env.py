"""Environments at full speed: what SB3's ``DummyVecEnv`` returns, without its deep copies and from vector environments."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
from envs import ScriptedEnv, SpacesEnv, scripted
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecMonitor, VecNormalize

from sb3_reinforce import REINFORCE
from sb3_reinforce.gymnasium_vec_env import GymnasiumVecEnv
from sb3_reinforce.infos import infos_of_each
from sb3_reinforce.vec_env import FastDummyVecEnv, as_vec_env

#: Each environment's lengths of episodes, in turn.
LENGTHS = ([2, 1, 3], [3, 1, 1], [5])
MODES = ("NextStep", "SameStep", "Disabled")
has_modes = pytest.mark.skipif(not hasattr(gym.vector, "AutoresetMode"), reason="gymnasium below 1.1")


class MutatingEnv(gym.Env[Any, int]):
    """Writes to the observations and to the one info that it has returned, for ever the same objects.

    :param observation_space: of what the observations are
    :param resets_in_place: whether the first observation of an episode is written over the last one before
    """

    def __init__(self, observation_space: spaces.Space[Any], resets_in_place: bool = False):
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(2)
        self.resets_in_place = resets_in_place
        self.info: dict[str, Any] = {
            "number": 0,
            "text": "a",
            "list": [0],
            "nested": {"array": np.zeros(2), "deep": {"x": [0]}},
        }
        self.clock = 0
        self.obs: Any = None

    def _write(self, obs: Any) -> None:
        arrays = obs.values() if isinstance(obs, dict) else obs if isinstance(obs, tuple) else [obs]
        for array in arrays:
            array[...] = self.clock

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        if self.obs is None or not self.resets_in_place:
            self.obs = deepcopy(self.observation_space.sample())
        self.clock += 1
        self._write(self.obs)
        return self.obs, {"seed": seed, "options": options}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        self.clock += 1
        self._write(self.obs)
        self.info["number"] += 1
        self.info["list"].append(self.clock)
        self.info["nested"]["array"] += 1
        self.info["nested"]["deep"]["x"][0] += 1
        return self.obs, self.clock / 7, self.t == 3 and action == 0, self.t == 3, self.info


class ScriptedVectorEnv(VectorEnv):
    """Two episodes' lengths for each of some environments, in turn, reset at the next step, in arrays that are used again.

    Observations and rewards are those of ``ScriptedEnv``.
    """

    def __init__(self, *lengths: list[int], truncated: bool = False):
        self.metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP, "name": "scripted"}
        self.num_envs = len(lengths)
        single = ScriptedEnv(lengths[0])
        self.single_observation_space, self.single_action_space = single.observation_space, single.action_space
        self.observation_space = gym.vector.utils.batch_space(single.observation_space, self.num_envs)
        self.action_space = gym.vector.utils.batch_space(single.action_space, self.num_envs)
        self.lengths = lengths
        self.truncated = truncated
        self.seeds: list[int | None] = []
        self.paid_at_reset = 0.0
        self.n_closed = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.seeds.append(seed)
        self.obs = np.zeros((self.num_envs, 3), dtype=np.float32)
        self.obs[:, 0] = range(self.num_envs)
        self.rewards = np.zeros(self.num_envs)
        self.ended = np.zeros(self.num_envs, dtype=bool)
        return self.obs, {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        assert self.action_space.contains(actions)
        for i in range(self.num_envs):
            if self.ended[i]:
                self.obs[i, 1:] = self.obs[i, 1] + 1, 0
                self.rewards[i], self.ended[i] = self.paid_at_reset, False
            else:
                self.rewards[i] = 1 + self.obs[i, 2] + actions[i] / 2
                self.obs[i, 2] += 1
                lengths = self.lengths[i]
                self.ended[i] = self.obs[i, 2] == lengths[int(self.obs[i, 1]) % len(lengths)]
        nobody = np.zeros(self.num_envs, dtype=bool)
        terminated, truncated = (nobody, self.ended) if self.truncated else (self.ended, nobody)
        return self.obs, self.rewards, terminated.copy(), truncated.copy(), {}

    def double(self, number: int) -> int:
        return 2 * number

    def places(self) -> np.ndarray:
        return np.arange(self.num_envs)

    def close_extras(self) -> None:
        self.n_closed += 1


def sync(mode: str, *envs: gym.Env[Any, Any], **kwargs: Any) -> GymnasiumVecEnv:
    """These environments, as gymnasium steps them together."""
    return GymnasiumVecEnv(SyncVectorEnv([lambda env=env: env for env in envs], autoreset_mode=mode, **kwargs))


def sync_scripted(mode: str, *lengths: list[int], **kwargs: Any) -> GymnasiumVecEnv:
    return sync(mode, *(ScriptedEnv(each, i, **kwargs) for i, each in enumerate(lengths)))


@has_modes
@pytest.mark.parametrize("mode", MODES)
def test_last_observations_are_stacked_once(mode: str) -> None:
    """Where the next step only resets, wrappers see s_H a second time."""
    env = VecFrameStack(sync_scripted(mode, [3], truncated=True), 2)
    options = {"return_type": "reward_to_go", "baseline": "value", "bootstrap_truncated": True}
    model = REINFORCE("MlpPolicy", env, n_episodes=1, **options).learn(1)
    assert {step: obs.tolist() for step, obs in model.rollout_buffer.last_observations.items()} == {2: [0, 0, 2, 0, 0, 3]}


@has_modes
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wrapper", ["RecordEpisodeStatistics", "DictInfoToList"])
def test_episodes_are_counted_right_within_wrappers_of_their_infos(mode: str, wrapper: str) -> None:
    """Gymnasium's statistics forget all episodes when some environments are reset."""
    inner = SyncVectorEnv([lambda n=n: ScriptedEnv([n]) for n in (2, 3)], autoreset_mode=mode)
    env = GymnasiumVecEnv(getattr(gym.wrappers.vector, wrapper)(inner))
    model = REINFORCE("MlpPolicy", env, n_episodes=4).learn(1)
    assert [info["l"] for info in model.ep_info_buffer] == [2, 3, 2, 3]


@has_modes
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_statistics_within_a_wrapper_of_rewards_are_of_what_was_paid(mode: str) -> None:
    """CleanRL's order: statistics of what the environments pay, and around them what the algorithm is to learn from."""
    inner = SyncVectorEnv([lambda: ScriptedEnv([3])] * 2, autoreset_mode=mode)
    counted = gym.wrappers.vector.RecordEpisodeStatistics(inner)
    model = REINFORCE("MlpPolicy", gym.wrappers.vector.ClipReward(counted, -0.1, 0.1), n_episodes=2).learn(1)
    assert model.rollout_buffer.batch().rewards.tolist() == pytest.approx([0.1] * 6)
    assert all(info["r"] > 1 and info["l"] == 3 for info in model.ep_info_buffer)


def action_of(obs: np.ndarray) -> np.ndarray:
    """An action that depends on the observation alone, whichever step of the vector environment it comes at."""
    return (obs[:, 0] + obs[:, 1] + obs[:, 2]).astype(np.int64) % 2


class Trajectory(NamedTuple):
    observations: list[list[float]]
    rewards: list[float]
    last_observation: list[float]
    truncated: bool
    episode: tuple[float, int]


def trajectories(env: VecEnv, n_steps: int) -> list[list[Trajectory]]:
    """Of each environment, the episodes that end within some steps, resetting steps left out."""
    resetting = getattr(env, "resetting", np.zeros(env.num_envs, dtype=bool))
    ended: list[list[Trajectory]] = [[] for _ in range(env.num_envs)]
    running: list[list[Any]] = [[] for _ in range(env.num_envs)]
    obs = env.reset()
    assert isinstance(obs, np.ndarray)
    for _ in range(n_steps):
        acts = ~resetting
        new_obs, rewards, dones, infos = env.step(action_of(obs))
        assert isinstance(new_obs, np.ndarray)
        for i in range(env.num_envs):
            if acts[i]:
                running[i].append((obs[i].tolist(), float(rewards[i])))
            else:
                assert rewards[i] == 0
                assert dones[i]
            if dones[i]:
                observations, paid = zip(*running[i], strict=True)
                info = infos[i]
                episode = (info["episode"]["r"], info["episode"]["l"])
                last = info["terminal_observation"].tolist()
                truncated = info["TimeLimit.truncated"]
                ended[i].append(Trajectory(list(observations), list(paid), last, truncated, episode))
                running[i] = []
        obs = new_obs
    return ended


def monitored(*lengths: list[int], **kwargs: Any) -> DummyVecEnv:
    """Scripted environments in SB3's ``DummyVecEnv``, each in a ``Monitor``."""
    return DummyVecEnv([lambda i=i, each=each: Monitor(ScriptedEnv(each, i, **kwargs)) for i, each in enumerate(lengths)])


# SB3's DummyVecEnv without its deep copies

OBSERVATION_SPACES: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-1, 1, (2, 3), np.float64),
    "image": spaces.Box(0, 255, (4, 4, 3), np.uint8),
    "multi-binary": spaces.MultiBinary(3),
    "dict": spaces.Dict(b=spaces.Box(-1, 1, (2,)), a=spaces.MultiDiscrete([2, 3])),
    "tuple": spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.MultiBinary(2))),
}


def run(env: DummyVecEnv, n_steps: int = 8) -> list[Any]:
    """Everything that is returned, as it is after the last step."""
    env.seed(3)
    env.set_options([{"a": [1]}, {}])
    returned: list[Any] = [env.reset(), deepcopy(env.reset_infos)]
    for t in range(n_steps):
        returned += [*env.step(np.array([t % 2, 1])), deepcopy(env.reset_infos)]
    return [*returned, env.reset(), deepcopy(env.reset_infos)]


def assert_same(actual: Any, expected: Any) -> None:
    """The same values in the same types of arrays."""
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key, value in expected.items():
            assert_same(actual[key], value)
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            assert_same(a, e)
    else:
        assert type(actual) is type(expected)
        assert getattr(actual, "dtype", None) == getattr(expected, "dtype", None)
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("space", OBSERVATION_SPACES.values(), ids=OBSERVATION_SPACES)
def test_returns_what_dummy_vec_env_returns(space: spaces.Space[Any]) -> None:
    """Environments that write to all they have returned, with nested infos, seeds and options."""
    returned = [run(cls([lambda: Monitor(MutatingEnv(space))] * 2)) for cls in (FastDummyVecEnv, DummyVecEnv)]
    for step in (*returned[0], *returned[1]):
        for info in step if isinstance(step, list) else []:
            info.get("episode", {}).pop("t", None)  # the time
    assert_same(*returned)


def overwrite(value: Any) -> None:
    """Write to everything within that can be written to."""
    if isinstance(value, np.ndarray):
        value[...] = 1 if value.dtype == bool else 77
    elif isinstance(value, dict):
        for part in value.values():
            overwrite(part)
        value["written"] = True
    elif isinstance(value, list | tuple):
        for part in value:
            overwrite(part)
        if isinstance(value, list):
            value.append(77)


@pytest.mark.parametrize("space", OBSERVATION_SPACES.values(), ids=OBSERVATION_SPACES)
def test_what_is_returned_can_be_written_to(space: spaces.Space[Any]) -> None:
    """And no later step is changed by it."""
    written, plain = (FastDummyVecEnv([lambda: MutatingEnv(space)] * 2) for _ in range(2))
    overwrite(written.reset())
    plain.reset()
    for t in range(8):
        actual, expected = (env.step(np.array([t % 2, 1])) for env in (written, plain))
        assert_same(actual, expected)
        overwrite(actual)


def test_terminal_observation_is_copied_before_the_reset() -> None:
    """SB3's is the first observation of the next episode, where all are written into one array."""
    env = FastDummyVecEnv([lambda: MutatingEnv(spaces.Box(0, 99, (1,)), resets_in_place=True)])
    env.reset()
    for _ in range(3):
        obs, _, dones, infos = env.step(np.array([1]))
    assert dones[0]
    assert (infos[0]["terminal_observation"], obs[0]) == (4, 5)


def test_is_a_dummy_vec_env() -> None:
    """For ``isinstance`` and ``make_vec_env``."""
    env = make_vec_env("CartPole-v1", n_envs=2, seed=1, vec_env_cls=FastDummyVecEnv)
    assert isinstance(env, DummyVecEnv)
    expected = make_vec_env("CartPole-v1", n_envs=2, seed=1)
    np.testing.assert_array_equal(env.reset(), expected.reset())


# gymnasium's vector environments


@has_modes
@pytest.mark.parametrize("truncated", [False, True])
@pytest.mark.parametrize("mode", [*MODES, "native"])
def test_trajectories_are_those_of_dummy_vec_env(mode: str, truncated: bool) -> None:
    """Observations, rewards, last observations, and the return and length that a ``Monitor`` gives, in each mode."""
    expected = trajectories(monitored(*LENGTHS, truncated=truncated), 20)
    if mode == "native":
        env = GymnasiumVecEnv(ScriptedVectorEnv(*LENGTHS, truncated=truncated))
    else:
        env = sync_scripted(mode, *LENGTHS, truncated=truncated)
    actual = trajectories(env, 40)
    assert [len(each) for each in expected] == [10, 12, 4]
    for i in range(3):
        assert len(actual[i]) >= len(expected[i])
        assert actual[i][: len(expected[i])] == expected[i]


@has_modes
@pytest.mark.parametrize("mode", ["SameStep", "Disabled"])
def test_steps_are_those_of_dummy_vec_env(mode: str) -> None:
    """Where an episode ends and the next starts at one step, every step is the same, and the seeds are."""
    one, other = make_vec_env("CartPole-v1", n_envs=3), sync(mode, *(gym.make("CartPole-v1") for _ in range(3)))
    for env in (one, other):
        env.seed(5)
    for _ in range(2):  # the second reset takes no seed
        np.testing.assert_array_equal(one.reset(), other.reset())
        for t in range(40):
            (obs, rewards, dones, infos), actual = (env.step(np.array([1, t % 2, t % 3 // 2])) for env in (one, other))
            for a, e in zip(actual, (obs, rewards, dones), strict=False):
                assert_same(a, e)
            for i in np.flatnonzero(dones):
                del infos[i]["episode"]["t"], actual[3][i]["episode"]["t"]
                assert_same(actual[3][i], {key: infos[i][key] for key in actual[3][i]})
                assert set(actual[3][i]) == {"terminal_observation", "TimeLimit.truncated", "episode"}
        assert not other.resetting.any()


@has_modes
def test_resetting_steps() -> None:
    """The last step returns the last observation, the resetting one ``done``, its info and the next first observation."""
    env = GymnasiumVecEnv(ScriptedVectorEnv([1], [3]))
    resetting = env.resetting
    assert env.reset().tolist() == [[0, 0, 0], [1, 0, 0]]
    seen = []
    for _ in range(5):
        obs, rewards, dones, infos = env.step(np.array([0, 1]))
        seen.append((obs.tolist(), rewards.tolist(), dones.tolist(), resetting.tolist(), [set(info) for info in infos]))
    end = {"terminal_observation", "TimeLimit.truncated", "episode"}
    assert seen == [
        ([[0, 0, 1], [1, 0, 1]], [1, 1.5], [False, False], [True, False], [set(), set()]),
        ([[0, 1, 0], [1, 0, 2]], [0, 2.5], [True, False], [False, False], [end, set()]),
        ([[0, 1, 1], [1, 0, 3]], [1, 3.5], [False, False], [True, True], [set(), set()]),
        ([[0, 2, 0], [1, 1, 0]], [0, 0], [True, True], [False, False], [end, end]),
        ([[0, 2, 1], [1, 1, 1]], [1, 1.5], [False, False], [True, False], [set(), set()]),
    ]
    assert infos[1] == {}
    env.reset()
    assert env.resetting is resetting, "a caller may have looked it up once"
    assert not resetting.any()
    _, _, dones, infos = env.step(np.array([0, 1]))
    assert not dones.any()
    assert infos == [{}, {}], "the episode that was left had its end still to come"


@has_modes
def test_resetting_through_wrappers() -> None:
    """SB3's wrappers hand on the attribute, and what they do is right."""
    inner = GymnasiumVecEnv(ScriptedVectorEnv([2], [5]))
    with pytest.warns(UserWarning, match="already wrapped with a `Monitor`"):
        env = VecNormalize(VecFrameStack(VecMonitor(inner), n_stack=2), norm_obs=False, clip_reward=100)
    assert env.resetting is inner.resetting
    obs = env.reset()
    for _ in range(3):
        obs, rewards, dones, infos = env.step(np.zeros(2, dtype=np.int64))
    assert dones.tolist() == [True, False]
    assert rewards[0] == 0
    assert env.returns[0] == 0
    assert infos[0]["episode"]["r"] == 3
    assert infos[0]["episode"]["l"] == 3, "of which one resets: only this class's own episodes leave it out"
    assert obs[0].tolist() == [0, 0, 0, 0, 1, 0], "no frame of the episode before"
    assert infos[0]["terminal_observation"].tolist()[3:] == [0, 0, 2]


@has_modes
def test_no_value_is_bootstrapped_over_the_end_of_an_episode() -> None:
    """With gae_lambda=1, A2C's return of each step is what its own episode has paid after it."""
    env = GymnasiumVecEnv(ScriptedVectorEnv([2], [1]))
    model = A2C("MlpPolicy", env, n_steps=6, gamma=1.0, gae_lambda=1.0, learning_rate=0.0)
    model.learn(12)
    buffer = model.rollout_buffer
    assert buffer.episode_starts[:, 0].tolist() == [1, 0, 0, 1, 0, 0]
    assert buffer.episode_starts[:, 1].tolist() == [1, 0, 1, 0, 1, 0]
    rewards = buffer.rewards.astype(np.float64)
    to_go = [rewards[:3, 0].sum(), rewards[1:3, 0].sum(), 0, rewards[3:, 0].sum(), rewards[4:, 0].sum(), 0]
    returns = buffer.returns.reshape(2, 6)  # train() has left them environment by environment
    np.testing.assert_allclose(returns[0], to_go, atol=1e-6)
    np.testing.assert_allclose(returns[1], rewards[:, 1], atol=1e-6)


@has_modes
@pytest.mark.parametrize(("algorithm", "mode"), [*((A2C, mode) for mode in MODES), (A2C, "native"), (PPO, "native")])
def test_a2c_and_ppo_train(algorithm: Any, mode: str) -> None:
    """And log the episodes: on CartPole-v1 the return of each is its length."""
    if mode == "native":
        env = GymnasiumVecEnv(gym.make_vec("CartPole-v1", num_envs=4))
    else:
        env = sync(mode, *(gym.make("CartPole-v1") for _ in range(4)))
    model = algorithm("MlpPolicy", env, n_steps=32, seed=0, **({"batch_size": 64} if algorithm is PPO else {}))
    before = deepcopy(model.policy.state_dict())
    model.learn(512)
    assert model.num_timesteps == 512
    assert any((before[name] != value).any() for name, value in model.policy.state_dict().items())
    assert len(model.ep_info_buffer) > 5
    assert all(8 <= info["l"] == info["r"] for info in model.ep_info_buffer)
    returns, lengths = evaluate_policy(model, env, n_eval_episodes=6, return_episode_rewards=True)
    assert returns == lengths


DICT = spaces.Dict(position=spaces.Box(-1, 1, (2,)), mode=spaces.Discrete(3), bits=spaces.MultiBinary(2))
ACTION_SPACES: dict[str, tuple[spaces.Space[Any], np.ndarray]] = {
    "discrete from 3": (spaces.Discrete(2, start=3), np.array([3, 4])),
    "multi-discrete": (spaces.MultiDiscrete([2, 3]), np.array([[0, 2], [1, 0]])),
    "multi-binary": (spaces.MultiBinary(2), np.array([[0.0, 1.0], [1.0, 1.0]], dtype=np.float32)),  # as SB3 samples them
    "box": (spaces.Box(-1, 1, (2,), np.float32), np.array([[0.5, -1.0], [0.25, 1.0]], dtype=np.float32)),
}


@has_modes
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("action_space", ACTION_SPACES)
def test_spaces(action_space: str, mode: str) -> None:
    """Dict observations are the caller's own, and each environment gets its action, one of its space."""
    space, actions = ACTION_SPACES[action_space]
    envs = [SpacesEnv(DICT, space, length=2, seed=i) for i in range(2)]
    env = sync(mode, *envs, copy=False)
    obs = env.reset()
    kept = [deepcopy(obs)]
    returned = [obs]
    for _ in range(3):
        obs, _, dones, infos = env.step(actions)
        returned.append(obs)
        kept.append(deepcopy(obs))
    assert_same(returned, kept)
    for key, part in DICT.spaces.items():
        assert obs[key].dtype == part.dtype
        assert obs[key].shape == (2, *part.shape)
    for i in range(2):
        assert all(space.contains(action) for action in envs[i].actions)
        assert envs[i].actions[0].dtype == space.dtype
        np.testing.assert_array_equal(envs[i].actions[0], actions[i])
    if mode == "NextStep":
        assert dones.all()
        for key in DICT.spaces:
            np.testing.assert_array_equal(infos[1]["terminal_observation"][key], kept[2][key][1])
    else:
        _, _, dones, infos = env.step(actions)
        assert dones.all()
        assert DICT.contains(infos[1]["terminal_observation"])


@has_modes
def test_a_policy_of_bits_acts_in_a_vector_environment() -> None:
    """SB3 samples bits as floats, which gymnasium takes for no element of the space."""
    env = sync("NextStep", *(SpacesEnv(DICT, spaces.MultiBinary(3), seed=i) for i in range(2)))
    A2C("MultiInputPolicy", env, n_steps=8).learn(16)


@has_modes
def test_arrays_that_a_vector_environment_uses_again() -> None:
    """What is returned stays, and may be written to."""
    written, plain = (GymnasiumVecEnv(ScriptedVectorEnv(*LENGTHS)) for _ in range(2))
    overwrite(written.reset())
    plain.reset()
    returned = []
    for _ in range(12):
        actual, expected = (env.step(np.array([0, 1, 1])) for env in (written, plain))
        for env_infos in (actual[3], expected[3]):
            for info in env_infos:
                info.get("episode", {}).pop("t", None)
        assert_same(actual, expected)
        overwrite(actual)
        returned.append((expected, deepcopy(expected)))
    for as_it_is, as_it_was in returned:
        assert_same(as_it_is, as_it_was)


def test_infos_of_each_environment() -> None:
    """Masks say whose values count; rows, dicts and objects are each environment's own."""
    shared = [1]
    array = np.arange(4.0).reshape(2, 2)
    objects = np.array([None, shared], dtype=object)
    infos = infos_of_each(
        {
            "number": np.array([1, 2]),
            "some": np.array([0.5, 0.0]),
            "_some": np.array([True, False]),
            "row": array,
            "objects": objects,
            "_objects": np.array([False, True]),
            "nested": {"x": np.array([3, 4]), "_x": np.array([False, True])},
            "_nested": np.array([False, True]),
            "of all": shared,
            "text": "as it is",
            "_private": 5,
            "of any length": ([5], [6, 7]),
        },
        n_envs=2,
    )
    array[:] = 77
    assert [info.pop("of any length") for info in infos] == [[5], [6, 7]]
    both = {"of all": [1], "text": "as it is", "_private": 5}
    assert_same(infos[0], {"number": 1, "some": 0.5, "row": np.array([0.0, 1.0])} | both)
    expected = {"number": 2, "row": np.array([2.0, 3.0]), "objects": [1], "nested": {"x": 4}} | both
    assert_same(infos[1], expected)
    for info in infos:
        info["of all"].append(2)
        info.get("objects", []).append(3)
    assert infos[1]["of all"] == [1, 2]
    assert shared == [1]


@has_modes
@pytest.mark.parametrize("mode", MODES)
def test_truncated_and_terminated(mode: str) -> None:
    """An episode that ends both ways was not cut: its last state is worth nothing."""
    env = sync(mode, *(MutatingEnv(spaces.Box(0, 99, (1,))) for _ in range(2)))
    env.reset()
    for _ in range(4 if mode == "NextStep" else 3):
        _, _, dones, infos = env.step(np.array([0, 1]))
    assert dones.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [False, True]


@has_modes
@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (2,)), DICT], ids=["box", "dict"])
def test_observations_have_the_dtypes_of_their_space(space: spaces.Space[Any]) -> None:
    """Whatever the vector environment makes of them."""

    def widened(obs: Any) -> Any:
        return (
            {key: value.astype(np.float64) for key, value in obs.items()} if isinstance(obs, dict) else obs.astype(np.float64)
        )

    base = SyncVectorEnv([lambda: SpacesEnv(space, spaces.Discrete(2))])
    env = GymnasiumVecEnv(gym.wrappers.vector.TransformObservation(base, widened))
    assert_same(env.reset(), base._observations)


class TellingEnv(ScriptedEnv):
    """Says the time in each info, and that an episode was a success in the last."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        obs, _ = super().reset(seed=seed)
        return obs, {"started": self.episode, "options": options}

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, _ = super().step(action)
        info: dict[str, Any] = {"t": self.t}
        if terminated or truncated:
            info["is_success"] = True
        return obs, reward, terminated, truncated, info


@has_modes
@pytest.mark.parametrize("mode", MODES)
def test_infos_of_environments(mode: str) -> None:
    """The last step's comes with ``done``, the reset's is kept apart, and a ``Monitor``'s own episode is handed on once."""
    env = sync(mode, *(Monitor(TellingEnv([2], i)) for i in range(2)))
    env.set_options({"a": [1]})
    env.reset()
    assert env.reset_infos == [{"started": 0, "options": {"a": [1]}}] * 2
    times, episodes = [], []
    for _ in range(6):
        _, _, dones, infos = env.step(np.zeros(2))
        times.append(infos[0]["t"])
        episodes += [info["episode"] for info in infos if "episode" in info]
        assert [info.get("is_success") for info in infos if "terminal_observation" in info] == [True] * dones.sum()
    assert times == ([1, 2, 2] * 2 if mode == "NextStep" else [1, 2] * 3)
    assert env.reset_infos[1]["started"] == (2 if mode == "NextStep" else 3)
    assert set(env.reset_infos[1]) == {"started", "options"}
    assert len(episodes) == (4 if mode == "NextStep" else 6)
    own = env.env.unwrapped.envs[0]
    assert [episode["t"] for episode in episodes[::2]] == pytest.approx(own.get_episode_times(), abs=1e-3)
    env.reset()
    assert not env.reset_infos[1]["options"], "they are of one reset only"


@has_modes
def test_wrappers_of_vector_environments() -> None:
    """A wrapper that shifts rewards does not pay for resetting; one that observes is observed."""
    base = ScriptedVectorEnv([2], [3])
    shifted = gym.wrappers.vector.TransformReward(base, lambda rewards: rewards - 1)
    env = GymnasiumVecEnv(gym.wrappers.vector.TransformObservation(shifted, lambda obs: obs + 10))
    (first, *_), _ = trajectories(env, 9)
    assert first.observations == [[10, 10, 10], [10, 10, 11]]
    assert first.rewards == [0.0, 1.5]
    assert first.last_observation == [10, 10, 12]
    assert env.get_attr("lengths") == [([2], [3])] * 2


@has_modes
def test_seeds_and_options() -> None:
    """A seed is of the next reset only. Options are the same for all environments."""
    base = ScriptedVectorEnv([2], [3])
    env = GymnasiumVecEnv(base)
    assert env.seed(7) == [7, 8]
    env.reset()
    env.reset()
    assert base.seeds == [7, None]
    with pytest.raises(ValueError, match=r"`options` must be one dict.*got \[\{\}, \{\}\]"):
        env.set_options([{}, {}])
    env.set_options(None)


class ToolEnv(ScriptedEnv):
    """An attribute, a method and an image."""

    metadata = {"render_modes": ["rgb_array"], "made": "of tools"}  # noqa: RUF012

    def __init__(self, i: int, render_mode: str | None = "rgb_array"):
        super().__init__([2], i)
        self.size = i
        self.render_mode = render_mode

    def add(self, number: int, to: int = 0) -> int:
        return self.size + number + to

    def render(self) -> Any:
        return np.full((2, 2, 3), self.size, dtype=np.uint8)


@has_modes
def test_attributes_of_environments() -> None:
    """As in a ``DummyVecEnv``, those of some too."""
    env = sync("SameStep", gym.wrappers.TimeLimit(ToolEnv(0), 5), ToolEnv(1), ToolEnv(2))
    assert env.get_attr("size") == [0, 1, 2]
    assert env.get_attr("size", indices=[2, 0]) == [2, 0]
    env.set_attr("size", 5, indices=[0, 1])
    assert env.get_attr("size") == [5, 5, 2]
    assert env.env_method("add", 1, to=2) == [8, 8, 5]
    assert env.env_method("add", 1, indices=2) == [3]
    assert env.env_is_wrapped(gym.wrappers.TimeLimit) == [True, False, False]
    assert env.env_is_wrapped(Monitor, indices=[0]) == [True]
    assert env.has_attr("add")
    assert not env.has_attr("missing")
    assert env.metadata["made"] == "of tools"
    assert env.spec is None


@has_modes
def test_attributes_of_a_native_vector_environment() -> None:
    """Are its own, for all environments at once."""
    base = ScriptedVectorEnv([2], [3])
    env = GymnasiumVecEnv(base)
    env.set_attr("size", 4)
    assert base.size == 4
    assert env.get_attr("size", indices=1) == [4]
    assert env.env_method("double", 3, indices=[1, 0]) == [6, 6]
    assert env.env_method("places") == [0, 1], "of each its own, where there are as many"
    assert env.env_is_wrapped(gym.wrappers.TimeLimit) == [False, False]
    for call in (lambda: env.set_attr("size", 1, indices=[0]), lambda: env.env_method("double", 3, indices=0)):
        with pytest.raises(ValueError, match="`indices` must be all"):
            call()
    with pytest.raises(AttributeError, match="missing"):
        env.get_attr("missing")
    with pytest.warns(UserWarning, match="The render mode is None"):
        assert env.get_images() == [None, None]
    env.close()
    assert base.n_closed == 1
    assert GymnasiumVecEnv(gym.make_vec("CartPole-v1", num_envs=2)).spec.id == "CartPole-v1"


@has_modes
def test_environments_in_processes() -> None:
    """``AsyncVectorEnv``: the same trajectories, and attributes of all environments."""
    env = GymnasiumVecEnv(AsyncVectorEnv([lambda: ToolEnv(0), lambda: ToolEnv(1)]))
    expected = trajectories(DummyVecEnv([lambda: Monitor(ToolEnv(0)), lambda: Monitor(ToolEnv(1))]), 4)
    assert trajectories(env, 6) == expected
    env.set_attr("size", 3)
    assert env.get_attr("size", indices=[1]) == [3]
    assert env.env_method("add", 1) == [4, 4]
    with pytest.raises(ValueError, match="`indices` must be all"):
        env.set_attr("size", 1, indices=[0])
    env.close()


@has_modes
def test_rendering() -> None:
    """The images of all environments, side by side."""
    env = sync("NextStep", ToolEnv(1), ToolEnv(2))
    assert [image.max() for image in env.get_images()] == [1, 2]
    assert env.render().shape == (4, 2, 3)


@pytest.mark.parametrize("verbose", [0, 1])
def test_as_vec_env(verbose: int, capsys: pytest.CaptureFixture[str]) -> None:
    """An environment is monitored, once; a ``VecEnv`` is left alone."""
    env = as_vec_env(ScriptedEnv([2]), verbose)
    assert isinstance(env, FastDummyVecEnv)
    said = "Wrapping the env with a `Monitor` wrapper\nWrapping the env in a FastDummyVecEnv.\n"
    assert capsys.readouterr().out == said * verbose
    assert as_vec_env(env) is env
    once = as_vec_env(Monitor(ScriptedEnv([2])))
    assert isinstance(once, FastDummyVecEnv)
    assert isinstance(once.envs[0].env, ScriptedEnv)
    bare = as_vec_env(ScriptedEnv([2]), monitor_wrapper=False)
    assert isinstance(bare, FastDummyVecEnv)
    assert isinstance(bare.envs[0], ScriptedEnv)


@has_modes
def test_as_vec_env_of_a_vector_environment(capsys: pytest.CaptureFixture[str]) -> None:
    base = ScriptedVectorEnv([2])
    env = as_vec_env(base, verbose=1)
    assert isinstance(env, GymnasiumVecEnv)
    assert env.env is base
    assert capsys.readouterr().out == "Wrapping the env in a GymnasiumVecEnv.\n"


def with_attributes(**attributes: Any) -> Callable[[], Any]:
    """A vector environment with something wrong."""

    def make() -> Any:
        env = ScriptedVectorEnv([2], [3])
        for name, value in attributes.items():
            setattr(env, name, value)
        return env

    return make


@has_modes
@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: scripted([2]), "pass DummyVecEnv, one of SB3, as it is"),
        (lambda: ScriptedEnv([2]), "must be a vector environment of gymnasium, as `gymnasium.make_vec` makes"),
        (with_attributes(metadata={}), "'autoreset_mode'.*got None"),
        (with_attributes(metadata={"autoreset_mode": "Sometimes"}), "'autoreset_mode'.*got Sometimes"),
        (
            with_attributes(single_observation_space=spaces.Tuple((spaces.Discrete(2),))),
            "single_observation_space.*FlattenObservation.*got Tuple",
        ),
        (with_attributes(single_observation_space=spaces.Dict(a=spaces.Dict())), "single_observation_space.*got Dict"),
        (with_attributes(single_action_space=spaces.Tuple((spaces.Discrete(2),))), "single_action_space.*got Tuple"),
    ],
)
def test_refused(make: Callable[[], Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        GymnasiumVecEnv(make())


class LyingEnv(gym.vector.VectorWrapper if hasattr(gym.vector, "VectorWrapper") else gym.Wrapper):
    """Says of a vector environment that it resets at another time than it does."""

    def __init__(self, env: Any, mode: str):
        super().__init__(env)
        self.metadata = {"autoreset_mode": mode}

    @property
    def unwrapped(self) -> Any:
        return self  # as if it were none


@has_modes
@pytest.mark.parametrize(
    ("does", "says", "seen"),
    [
        # At the step that should only reset, the next episode is on its way.
        ("native", "NextStep", "the step after environment 0 ended returned reward 1.0 and done False"),
        ("SameStep", "NextStep", "the info of environment 0, which ended, holds `final_obs`"),
        ("SameStep", "Disabled", "the info of environment 0, which ended, holds `final_obs`"),
        ("NextStep", "SameStep", "the info of environment 0, which ended, holds no `final_obs`"),
        ("Disabled", "SameStep", "the info of environment 0, which ended, holds no `final_obs`"),
    ],
)
def test_an_environment_that_does_not_reset_when_it_says(does: str, says: str, seen: str) -> None:
    """Is found out when an episode has ended."""
    if does == "native":
        base: Any = ScriptedVectorEnv([2], [3])
        base.paid_at_reset = 1.0
    else:
        base = sync_scripted(does, [2], [3]).env
    env = GymnasiumVecEnv(LyingEnv(base, says))
    env.reset()
    actions = np.zeros(2, dtype=np.int64)
    env.step(actions)
    if does == "native":  # where the end is told truly
        env.step(actions)
    with pytest.raises(ValueError, match=f"it says {says}, but {seen}. Correct it"):
        env.step(actions)


@has_modes
def test_an_episode_that_ends_at_its_reset() -> None:
    """Is no resetting step either, whatever it pays and whatever wraps it."""
    base = ScriptedVectorEnv([2])
    step = base.step
    base.step = lambda actions: (*step(actions)[:2], np.array([True]), np.array([False]), {})
    env = GymnasiumVecEnv(gym.wrappers.vector.TransformReward(base, lambda rewards: rewards))
    env.reset()
    env.step(np.zeros(1, dtype=np.int64))
    with pytest.raises(ValueError, match=r"the step after environment 0 ended returned reward 2.0 and done True"):
        env.step(np.zeros(1, dtype=np.int64))
