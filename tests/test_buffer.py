"""Storage of whole trajectories: what goes in comes out, once, in order, whatever the spaces and however often it grew."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch as th
from envs import SpacesEnv, vectorized
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_reinforce import REINFORCE, EpisodicRolloutBuffer
from sb3_reinforce import buffer as buffer_module

# Environment 0 records two episodes of 3 steps. Environment 1 is cut after 2 of 3 steps and waits, records 2 steps more,
# and begins an episode that is not in the batch.
STARTS = np.array([[1, 1], [0, 0], [0, 0], [1, 1], [0, 0], [0, 1]], dtype=bool)
RECORDED = np.array([[1, 1], [1, 1], [1, 0], [1, 1], [1, 1], [1, 0]], dtype=bool)
N_ROWS, N_ENVS = STARTS.shape
#: The batch in order, as rows and environments.
ROWS, ENVS = np.array([0, 1, 2, 3, 4, 5, 0, 1, 3, 4]), np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
LENGTHS = [3, 3, 2, 2]
REWARDS = 10.0 * np.arange(N_ROWS)[:, None] + np.arange(N_ENVS)

BOX = spaces.Box(-1, 1, (2,), np.float32)
DICT = spaces.Dict(image=spaces.Box(0, 255, (4, 4, 3), np.uint8), joints=spaces.Box(-1, 1, (2, 2), np.float64))
DISCRETE_INT32 = spaces.Discrete(5)
DISCRETE_INT32.dtype = np.dtype(np.int32)  # an argument in newer versions of Gymnasium
COUNTS = spaces.Box(0, 100, (2,), np.int32)
SPACES = {
    "box": BOX,
    "box 2-d float64": spaces.Box(-1, 1, (3, 2), np.float64),
    "image": spaces.Box(0, 255, (4, 4, 3), np.uint8),
    "discrete": spaces.Discrete(5),
    "discrete int32": DISCRETE_INT32,
    "multi-discrete": spaces.MultiDiscrete([3, 4]),
    "multi-binary": spaces.MultiBinary(3),
}


def make_buffer(
    observation_space: spaces.Space[Any] = BOX, action_space: spaces.Space[Any] = BOX, buffer_size: int = 1, **kwargs: Any
) -> EpisodicRolloutBuffer:
    buffer = EpisodicRolloutBuffer(buffer_size, observation_space, action_space, "cpu", n_envs=N_ENVS, **kwargs)
    buffer.reset()
    return buffer


def drawn(space: spaces.Space[Any]) -> np.ndarray:
    """An element for each row and environment, as a VecEnv stacks them: ``[N_ROWS, N_ENVS, ...]``."""
    space.seed(0)
    return np.stack([np.stack([np.asarray(space.sample()) for _ in range(N_ENVS)]) for _ in range(N_ROWS)])


def add(
    buffer: EpisodicRolloutBuffer, row: int, obs: Any = None, action: Any = None, reward: Any = None, recorded: Any = True
) -> None:
    """One row, of zeros where nothing else is asked for."""
    zeros = np.zeros((N_ENVS, 2), dtype=np.float32)
    buffer.add(
        zeros if obs is None else obs,
        zeros if action is None else action,
        REWARDS[row] if reward is None else reward,
        STARTS[row],
        recorded=recorded,
    )


def filled(
    buffer: EpisodicRolloutBuffer, observations: Any = None, actions: Any = None, rewards: np.ndarray = REWARDS
) -> EpisodicRolloutBuffer:
    """All rows of the tables above, then ordered."""
    for row in range(N_ROWS):
        obs = {k: v[row] for k, v in observations.items()} if isinstance(observations, dict) else None
        obs = observations[row] if isinstance(observations, np.ndarray) else obs
        add(buffer, row, obs, None if actions is None else actions[row], rewards[row], RECORDED[row])
    buffer.compute_returns_and_advantage()
    return buffer


def torch_dtype(space: spaces.Space[Any]) -> th.dtype:
    return th.from_numpy(np.empty(0, dtype=space.dtype)).dtype


@pytest.mark.parametrize("buffer_size", [1, 2, 4, 6, 100])  # grows 3, 2, 1, 0 and 0 times
def test_trajectories_are_laid_end_to_end(buffer_size: int) -> None:
    """Episode-major, environment by environment, each in order of time, without the steps that are not recorded."""
    buffer = filled(make_buffer(buffer_size=buffer_size, gamma=1.0))
    assert buffer.lengths.tolist() == LENGTHS
    assert buffer.lengths.dtype == np.int64
    assert buffer.returns.tolist() == [0 + 10 + 20, 30 + 40 + 50, 1 + 11, 31 + 41]
    assert buffer.returns.dtype == np.float64
    assert buffer.step_rewards.tolist() == [0, 10, 20, 30, 40, 50, 1, 11, 31, 41]
    assert buffer.batch().trajectories() == [slice(0, 3), slice(3, 6), slice(6, 8), slice(8, 10)]
    assert buffer.size() == 6  # rows, whatever the storage


def test_gamma_discounts() -> None:
    """γ = 1/2: R(τ) of the first is 0 + 10/2 + 20/4, of the last 31 + 41/2."""
    buffer = filled(make_buffer(gamma=0.5))
    assert buffer.returns[[0, -1]].tolist() == [10.0, 51.5]


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_observations_come_back(space: spaces.Space[Any]) -> None:
    """Through three growths, in order, with the numbers and the dtype of the space."""
    observations = drawn(space)
    (part,) = filled(make_buffer(space), observations).get()
    assert part.observations.dtype == torch_dtype(space)
    np.testing.assert_array_equal(part.observations, observations[ROWS, ENVS])


def test_dict_observations_come_back() -> None:
    """Each key by itself, with its own shape and dtype."""
    observations = {key: drawn(space) for key, space in DICT.items()}
    (part,) = filled(make_buffer(DICT), observations).get()
    assert set(part.observations) == {"image", "joints"}
    for key, space in DICT.items():
        assert part.observations[key].dtype == torch_dtype(space)
        np.testing.assert_array_equal(part.observations[key], observations[key][ROWS, ENVS])


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_actions_come_back_as_the_policy_evaluates_them(space: spaces.Space[Any]) -> None:
    """Discrete: int64 ``[B]``; all others: float32 ``[B, action_dim]``."""
    actions = drawn(space)
    (part,) = filled(make_buffer(action_space=space), actions=actions).get()
    expected = actions[ROWS, ENVS]
    if isinstance(space, spaces.Discrete):
        assert part.actions.dtype == th.int64
    else:
        assert part.actions.dtype == th.float32
        expected = expected.reshape(len(ROWS), -1).astype(np.float32)
    np.testing.assert_array_equal(part.actions, expected)


@pytest.mark.parametrize("space", [COUNTS, spaces.Dict(counts=COUNTS)], ids=["box", "dict"])
def test_integers_that_a_wrapper_has_normalized_are_stored_as_fractions(space: spaces.Space[Any]) -> None:
    """``VecNormalize`` leaves the space as it is; what is learned from has to be what the policy saw."""
    env = VecNormalize(vectorized(SpacesEnv(space, spaces.Discrete(2), length=10)))
    model = REINFORCE("MlpPolicy" if space is COUNTS else "MultiInputPolicy", env, n_episodes=1)
    seen: list[Any] = []
    model.learn(1, callback=lambda locals_, _: seen.append(locals_["self"]._last_obs) or True)
    stored: Any = model.rollout_buffer.observations
    expected = np.stack([obs if space is COUNTS else obs["counts"] for obs in seen])
    assert np.abs(expected % 1).max() > 0.1
    np.testing.assert_allclose((stored if space is COUNTS else stored["counts"])[:10], expected, rtol=1e-6)


def test_half_precision_that_a_wrapper_has_normalized_is_stored_as_it_is() -> None:
    env = VecNormalize(vectorized(SpacesEnv(spaces.Box(-1, 1, (3,), np.float16), spaces.Discrete(2), length=10)))
    model = REINFORCE("MlpPolicy", env, n_episodes=1)
    seen: list[Any] = []
    model.learn(1, callback=lambda locals_, _: seen.append(locals_["self"]._last_obs) or True)
    stored: Any = model.rollout_buffer.observations
    np.testing.assert_array_equal(stored[:10], np.stack(seen))


def test_actions_of_an_integer_box_are_stored_as_sampled() -> None:
    """The policy samples 0.25 where the environment wants whole numbers: log π is that of 0.25, not of 0."""
    actions = np.full((N_ROWS, N_ENVS, 2), 0.25, dtype=np.float32)
    (part,) = filled(make_buffer(action_space=spaces.Box(0, 9, (2,), np.int64)), actions=actions).get()
    assert part.actions.unique().tolist() == [0.25]


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [
        (None, [10]),
        (1, [1] * 10),
        (2, [2] * 5),
        (3, [3, 3, 2, 2]),
        (4, [4, 4, 2]),
        (5, [5, 5]),
        (9, [8, 2]),
        (10, [10]),
        (11, [10]),
        (1000, [10]),
    ],
)
def test_parts_cover_each_step_once_in_order(batch_size: int | None, expected: list[int]) -> None:
    """Any ``batch_size`` cuts the same M steps, no single one is left over, and ``steps`` says where they are."""
    observations, actions = drawn(BOX), drawn(BOX)
    buffer = filled(make_buffer(), observations, actions)
    parts = list(buffer.get(batch_size))
    np.testing.assert_array_equal(th.cat([part.observations for part in parts]), observations[ROWS, ENVS])
    np.testing.assert_array_equal(th.cat([part.actions for part in parts]), actions[ROWS, ENVS])
    assert np.concatenate([np.arange(10)[part.steps] for part in parts]).tolist() == list(range(10))
    sizes = [len(part.actions) for part in parts]
    assert sizes == [part.steps.stop - part.steps.start for part in parts] == expected


def test_samples_are_copies() -> None:
    """Whoever writes into a sample, a policy that normalises in place say, leaves the batch as it was."""
    observations = drawn(BOX)
    buffer = filled(make_buffer(), observations, observations)
    for part in buffer.get(4):
        part.observations.zero_()
        part.actions.zero_()
    (part,) = buffer.get()
    np.testing.assert_array_equal(part.observations, observations[ROWS, ENVS])
    np.testing.assert_array_equal(part.actions, observations[ROWS, ENVS])


def test_rows_are_copies() -> None:
    """A VecEnv may overwrite its observations and rewards at the next step."""
    buffer = make_buffer(gamma=1.0)
    obs, reward = np.ones((N_ENVS, 2), dtype=np.float32), np.ones(N_ENVS)
    add(buffer, 0, obs=obs, action=obs, reward=reward)
    obs[:], reward[:] = 7, 7
    buffer.compute_returns_and_advantage()
    (part,) = buffer.get()
    assert part.observations.unique().tolist() == part.actions.unique().tolist() == [1.0]
    assert buffer.returns.tolist() == [1.0, 1.0]


def test_all_environments_are_recorded_unless_told() -> None:
    """``recorded`` defaults to True, as SB3's positional arguments know no such column."""
    buffer = make_buffer()
    add(buffer, 0)
    buffer.compute_returns_and_advantage()
    assert buffer.lengths.tolist() == [1, 1]


def test_last_observations_are_told_by_their_steps() -> None:
    """Of environment 0 the first trajectory ends with step 2 of the batch, of environment 1 with step 7, through growth.

    What was observed where no trajectory of the batch ended is not told, nor anything after a reset.
    """
    buffer = make_buffer()
    seen = {0: {0: "not the last"}, 1: {1: "of 1"}, 2: {0: "of 0"}, 5: {1: "not recorded"}}
    for row in range(N_ROWS):
        add(buffer, row, recorded=RECORDED[row])
        buffer.add_last_observations({env: np.array(obs) for env, obs in seen.get(row, {}).items()})
    buffer.compute_returns_and_advantage()
    assert {step: str(obs) for step, obs in buffer.last_observations.items()} == {2: "of 0", 7: "of 1"}
    buffer.reset()
    assert filled(buffer).last_observations == {}


@pytest.mark.parametrize("buffer_size", [1, 100])  # through growth, and without
def test_what_else_the_policy_was_given_comes_back(buffer_size: int) -> None:
    """By name, in order, with its shape and dtype; it counts in ``nbytes``, and its storage is kept while it fits."""
    masks, hints = np.arange(N_ROWS * N_ENVS * 3).reshape(N_ROWS, N_ENVS, 3) % 5 == 0, drawn(BOX)
    buffer, storage = make_buffer(buffer_size=buffer_size), []
    for _ in range(2):
        buffer.reset()
        for row in range(N_ROWS):
            obs = np.zeros((N_ENVS, 2), dtype=np.float32)
            given = {"masks": masks[row].copy(), "hints": hints[row].copy()}
            buffer.add(obs, obs, REWARDS[row], STARTS[row], recorded=RECORDED[row], given=given)
            for each in given.values():
                each[:] = 0  # as whoever made it may write into it
        buffer.compute_returns_and_advantage()
        parts = list(buffer.get(4))
        for name, values in (("masks", masks), ("hints", hints)):
            stored = th.cat([part.given[name] for part in parts])
            np.testing.assert_array_equal(stored, values[ROWS, ENVS])
            assert stored.dtype == th.from_numpy(values).dtype
        assert buffer.nbytes == buffer.buffer_size * N_ENVS * (8 + 8 + 4 + 1 + 1 + 3 + 8)  # the last two are these
        storage.append(dict(buffer.given))
    assert all(storage[1][name] is each for name, each in storage[0].items())


def test_every_rollout_is_looked_at() -> None:
    """The one after one that was whole too, from its first step on."""
    buffer = filled(make_buffer())
    buffer.reset()
    rewards = REWARDS.copy()
    rewards[1, 0] = np.nan
    with pytest.raises(ValueError, match="Environment 0: reward at step 1 of the rollout is not finite"):
        filled(buffer, rewards=rewards)


def test_reset_keeps_the_storage_and_forgets_the_batch() -> None:
    """The next rollout writes into the grown arrays, and sees nothing of what they held."""
    buffer = filled(make_buffer(gamma=1.0))
    storage, rows, nbytes = buffer.observations, buffer.buffer_size, buffer.nbytes
    buffer.reset()
    assert not buffer.full
    new = np.full((N_ENVS, 2), 0.5, dtype=np.float32)
    add(buffer, 0, obs=new, reward=np.array([3.0, 4.0]), recorded=np.array([False, True]))
    buffer.compute_returns_and_advantage()
    (part,) = buffer.get()
    assert part.observations.tolist() == [[0.5, 0.5]]
    assert buffer.returns.tolist() == [4.0]
    assert buffer.lengths.tolist() == [1]
    assert buffer.observations is storage
    assert (buffer.buffer_size, buffer.nbytes) == (rows, nbytes)


def test_nbytes_counts_every_array() -> None:
    """Two environments: an observation of 48 + 32 bytes, an int64 action, a float32 reward and two bools each."""
    buffer = make_buffer(DICT, spaces.Discrete(3), buffer_size=1)
    assert buffer.nbytes == N_ENVS * (48 + 32 + 8 + 4 + 1 + 1)
    filled(buffer, {key: drawn(space) for key, space in DICT.items()}, np.zeros((N_ROWS, N_ENVS), dtype=np.int64))
    assert buffer.buffer_size == 8  # 6 rows, by doubling
    assert buffer.nbytes == 8 * N_ENVS * (48 + 32 + 8 + 4 + 1 + 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 3, 4, 5])  # in the first rows, the last before and the first after growth, the last
def test_a_reward_that_is_not_finite_is_named(value: float, row: int) -> None:
    """By environment and step: it would make every parameter NaN, long before anyone looked."""
    rewards = REWARDS.copy()
    rewards[row, 1] = value
    with pytest.raises(ValueError, match=f"Environment 1: reward at step {row} of the rollout is not finite: {value}"):
        filled(make_buffer(buffer_size=4), rewards=rewards)


def test_an_observation_that_is_not_finite_is_named() -> None:
    """The first of several, by environment and step."""
    buffer = make_buffer()
    observations = drawn(BOX)
    observations[2, 1, 0] = np.inf
    observations[4, 0, :] = np.nan
    with pytest.raises(ValueError, match="Environment 1: observation at step 2 of the rollout"):
        filled(buffer, observations)


def test_a_dict_observation_that_is_not_finite_is_named_by_its_key() -> None:
    """The key tells which sensor; images of whole numbers cannot be wrong in this way."""
    observations = {key: drawn(space) for key, space in DICT.items()}
    observations["joints"][3, 0, 1, 1] = np.nan
    with pytest.raises(ValueError, match="Environment 0: observation joints at step 3"):
        filled(make_buffer(DICT), observations)


@pytest.mark.parametrize(
    ("reward_row", "name", "row"),
    [
        (2, "observation", 2),  # the policy acts on it, and its action may be what made the reward NaN
        (3, "observation", 2),
        (1, "reward", 1),
    ],
)
def test_what_was_wrong_first_is_named(reward_row: int, name: str, row: int) -> None:
    """Of all that is not finite, the earliest is the cause of the rest."""
    observations, rewards = drawn(BOX), REWARDS.copy()
    observations[2, 0] = np.nan
    rewards[reward_row, 0] = np.nan
    with pytest.raises(ValueError, match=f"Environment 0: {name} at step {row} "):
        filled(make_buffer(buffer_size=N_ROWS), observations, rewards=rewards)


@pytest.mark.parametrize("row", [0, 3])
def test_growth_finds_what_is_not_finite(row: int) -> None:
    """An environment that NaN keeps from ending is stopped when storage is full, with its last row looked at as well."""
    buffer = make_buffer(buffer_size=4)
    for i in range(4):
        add(buffer, i, reward=np.full(N_ENVS, np.nan) if i == row else None)
    with pytest.raises(ValueError, match=f"Environment 0: reward at step {row} "):
        add(buffer, 4)


def test_growth_finds_what_is_not_finite_since_the_last_growth() -> None:
    """The second growth, from 4 to 8 rows, finds what came after the first, and steps still count from the first row."""
    buffer = make_buffer(buffer_size=2)
    for i in range(4):
        add(buffer, i, reward=np.full(N_ENVS, np.inf) if i == 3 else None)
    with pytest.raises(ValueError, match="step 3 of the rollout"):
        add(buffer, 4)


def test_what_an_earlier_rollout_held_is_not_looked_at() -> None:
    """After a rollout that was refused, storage still holds its NaN; the next one is clean."""
    buffer = make_buffer(buffer_size=4)
    for i in range(3):
        add(buffer, i, reward=np.full(N_ENVS, np.nan))
    with pytest.raises(ValueError, match="reward at step 0 of the rollout is not finite"):
        buffer.compute_returns_and_advantage()
    buffer.reset()
    add(buffer, 0)
    buffer.compute_returns_and_advantage()
    assert buffer.returns.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("spare", "grows"), [(0, True), (-1, False)])
def test_growth_beyond_memory_is_refused(monkeypatch: pytest.MonkeyPatch, spare: int, grows: bool) -> None:
    """Doubling needs old and new storage side by side; a refusal keeps the machine alive and names the remedies."""
    buffer = make_buffer(buffer_size=1)
    add(buffer, 0)
    memory = SimpleNamespace(available=2 * buffer.nbytes + spare)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    if grows:
        add(buffer, 1)
        assert buffer.buffer_size == 2
    else:
        with pytest.raises(ValueError, match=r"`n_episodes`.*`horizon`"):
            add(buffer, 1)


def test_without_psutil_memory_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil is optional in SB3, and so it is here."""
    monkeypatch.setattr(buffer_module, "psutil", None)
    assert filled(make_buffer()).lengths.tolist() == LENGTHS
