"""Rewards-to-go and trajectory returns, against numbers worked by hand and against plain loops."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sb3_reinforce.returns import rewards_to_go, time_steps, trajectory_returns

LARGEST, LONGEST = 100.0, 20
ROUNDING = 1e-12  # of float64, over the few operations that each number takes: a sum of 20 numbers, and powers of γ

GAMMAS = st.floats(0.01, 1.0)


def discounted_sum(rewards: list[float], gamma: float) -> float:
    """The definition, as a loop."""
    total = 0.0
    for t, reward in enumerate(rewards):
        total += gamma**t * reward
    return total


@st.composite
def batches(draw: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Rewards ``[M]`` and lengths ``[m]`` of up to five trajectories."""
    lengths = draw(st.lists(st.integers(1, LONGEST), min_size=1, max_size=5))
    rewards = draw(arrays(np.float64, sum(lengths), elements=st.floats(-LARGEST, LARGEST)))
    return rewards, np.array(lengths)


def trajectories(flat: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """What is laid end to end, as one array each."""
    return np.split(flat, np.cumsum(lengths)[:-1])


def assert_equal(actual: np.ndarray, expected: np.ndarray | list[float]) -> None:
    np.testing.assert_allclose(actual, expected, rtol=ROUNDING, atol=LONGEST * LARGEST * ROUNDING)


def test_time_steps_count_from_zero_in_each_trajectory() -> None:
    """t starts again with each trajectory, also where trajectories have one step only."""
    assert time_steps(np.array([3, 1, 1, 2])).tolist() == [0, 1, 2, 0, 0, 0, 1]


def test_trajectory_returns_by_hand() -> None:
    """R(τ) = 1 + 2/2 + 4/4 = 3 and 8 + 16/2 = 16."""
    returns = trajectory_returns(np.array([1.0, 2.0, 4.0, 8.0, 16.0]), np.array([3, 2]), gamma=0.5)
    assert returns.tolist() == [3.0, 16.0]
    assert returns.dtype == np.float64


def test_rewards_to_go_by_hand() -> None:
    """G₂ = 4, G₁ = 2 + 4/2 = 4, G₀ = 1 + 4/2 = 3; and in the neighbour G₁ = 16, G₀ = 8 + 16/2 = 16."""
    sums = rewards_to_go(np.array([1.0, 2.0, 4.0, 8.0, 16.0]), np.array([3, 2]), gamma=0.5)
    assert sums.tolist() == [3.0, 4.0, 4.0, 16.0, 16.0]
    assert sums.dtype == np.float64


@pytest.mark.parametrize("function", [trajectory_returns, rewards_to_go])
@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_one_step_trajectories_return_their_rewards(function: Callable, gamma: float) -> None:
    """A trajectory of one step has nothing to discount, so both returns are its reward."""
    rewards = np.array([5.0, -1.0, 0.0])
    assert function(rewards, np.array([1, 1, 1]), gamma).tolist() == rewards.tolist()
    assert function(rewards[:1], np.array([1]), gamma).tolist() == [5.0]


@pytest.mark.parametrize("function", [trajectory_returns, rewards_to_go])
@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_the_rewards_are_not_written_to(function: Callable, gamma: float) -> None:
    """The buffer's rewards are what the environment paid, before and after; float64 ones could be summed in place."""
    rewards = np.array([1.0, 2.0, 3.0])
    function(rewards, np.array([3]), gamma)
    assert rewards.tolist() == [1.0, 2.0, 3.0]


def test_sums_run_in_float64() -> None:
    """10⁸ + 1 - 10⁸ is 1, where float32, in which the rewards are stored, makes it 0."""
    rewards = np.array([1e8, 1.0, -1e8], dtype=np.float32)
    assert trajectory_returns(rewards, np.array([3]), gamma=1.0).tolist() == [1.0]
    assert rewards_to_go(rewards, np.array([3]), gamma=1.0)[0] == 1.0


@given(batches(), GAMMAS)
def test_both_agree_with_the_definition(batch: tuple[np.ndarray, np.ndarray], gamma: float) -> None:
    """Every number is the discounted sum that a plain loop computes; so neighbours never leak into one another."""
    rewards, lengths = batch
    each = [episode.tolist() for episode in trajectories(rewards, lengths)]
    assert_equal(trajectory_returns(rewards, lengths, gamma), [discounted_sum(episode, gamma) for episode in each])
    to_go = [discounted_sum(episode[t:], gamma) for episode in each for t in range(len(episode))]
    assert_equal(rewards_to_go(rewards, lengths, gamma), to_go)


@given(batches(), GAMMAS)
def test_reward_to_go_of_the_first_step_is_the_return(batch: tuple[np.ndarray, np.ndarray], gamma: float) -> None:
    """G₀ = R(τ): two roads to one number."""
    rewards, lengths = batch
    first = [sums[0] for sums in trajectories(rewards_to_go(rewards, lengths, gamma), lengths)]
    assert_equal(trajectory_returns(rewards, lengths, gamma), first)


@given(batches(), GAMMAS, st.floats(-3, 3))
def test_both_are_linear_in_the_rewards(batch: tuple[np.ndarray, np.ndarray], gamma: float, scale: float) -> None:
    """f(scale · r + 1) = scale · f(r) + f(1)."""
    rewards, lengths = batch
    for function in (trajectory_returns, rewards_to_go):
        ones = function(np.ones_like(rewards), lengths, gamma)
        assert_equal(function(scale * rewards + 1, lengths, gamma), scale * function(rewards, lengths, gamma) + ones)


@given(batches())
def test_at_gamma_one_returns_are_plain_sums(batch: tuple[np.ndarray, np.ndarray]) -> None:
    """γ = 1 leaves the sum of the rewards, and what remains of it at each step."""
    rewards, lengths = batch
    each = trajectories(rewards, lengths)
    assert_equal(trajectory_returns(rewards, lengths, 1.0), [episode.sum() for episode in each])
    assert_equal(rewards_to_go(rewards, lengths, 1.0), np.concatenate([episode[::-1].cumsum()[::-1] for episode in each]))


@given(batches())
def test_towards_gamma_zero_only_the_next_reward_counts(batch: tuple[np.ndarray, np.ndarray]) -> None:
    """As γ -> 0, G_t -> r_t and R(τ) -> r_0; at γ = 10⁻³⁰⁰ the difference is below rounding."""
    rewards, lengths = batch
    assert_equal(rewards_to_go(rewards, lengths, 1e-300), rewards)
    assert_equal(trajectory_returns(rewards, lengths, 1e-300), [episode[0] for episode in trajectories(rewards, lengths)])


@given(batches(), GAMMAS)
def test_a_trajectory_does_not_depend_on_its_neighbours(batch: tuple[np.ndarray, np.ndarray], gamma: float) -> None:
    """Each trajectory has, alone, the same numbers as within the batch, to the last bit."""
    rewards, lengths = batch
    together = trajectories(rewards_to_go(rewards, lengths, gamma), lengths)
    returns = trajectory_returns(rewards, lengths, gamma)
    for i, episode in enumerate(trajectories(rewards, lengths)):
        alone = lengths[i : i + 1]
        np.testing.assert_array_equal(rewards_to_go(episode, alone, gamma), together[i])
        assert_equal(trajectory_returns(episode, alone, gamma), returns[i : i + 1])


def test_long_trajectories_stay_exact() -> None:
    """Doubling over 2¹⁷ steps: with rewards of 1, G_t = (1 - γ^(T-t)) / (1 - γ)."""
    gamma, length = 0.999, 2**17 + 1
    expected = (1 - gamma ** np.arange(length, 0, -1)) / (1 - gamma)
    np.testing.assert_allclose(rewards_to_go(np.ones(length), np.array([length]), gamma), expected, rtol=ROUNDING)
