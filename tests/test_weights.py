"""ψ of every member of the family, against its definition as plain loops, and against numbers worked by hand."""

import itertools
from typing import Any

import numpy as np
import pytest

from sb3_reinforce.arguments import RETURN_TYPES
from sb3_reinforce.baselines import BASELINES
from sb3_reinforce.weights import Family, targets, weights

#: Three trajectories, of lengths that differ, so that at t = 2 there is one only.
EPISODES = [[1.0, 2.0, 4.0], [-3.0], [0.5, 8.0]]
REWARDS, LENGTHS = np.concatenate(EPISODES), np.array([3, 1, 2])
#: What earlier batches say of each step; no step's is another's.
LEARNED = np.array([0.3, -1.0, 2.0, 5.0, 0.7, -0.2])


def discounted(rewards: list[float], gamma: float) -> float:
    return sum(gamma**k * reward for k, reward in enumerate(rewards))


def baseline_by_definition(name: str | None, i: int, t: int, gamma: float) -> float:
    returns = [discounted(episode, gamma) for episode in EPISODES]
    if name == "mean":
        return sum(returns) / len(returns)
    if name == "leave_one_out":
        return sum(returns[:i] + returns[i + 1 :]) / (len(returns) - 1)
    if name == "time_leave_one_out":
        others = [discounted(each[t:], gamma) for j, each in enumerate(EPISODES) if j != i and len(each) > t]
        return sum(others) / len(others) if others else 0.0
    steps_before = sum(map(len, EPISODES[:i]))
    return LEARNED[steps_before + t] if name in ("value", "moving_average") else 0.0


def by_definition(family: Family) -> np.ndarray:
    """ψ of each step, one after the other: γᵗ multiplies what is left once the baseline is subtracted."""
    psi = []
    for i, episode in enumerate(EPISODES):
        for t in range(len(episode)):
            target = discounted(episode[t:] if family.return_type == "reward_to_go" else episode, family.gamma)
            advantage = target - baseline_by_definition(family.baseline, i, t, family.gamma)
            psi.append(family.gamma**t * advantage if family.exact_discounting else advantage)
    shift, scale = (np.mean(psi), np.std(psi) + 1e-8) if family.normalize_advantage else (0.0, 1.0)
    return (np.array(psi) - shift) / scale


MEMBERS = [
    Family(*options)
    for options in itertools.product((1.0, 0.7), RETURN_TYPES, (False, True), BASELINES, (False, True))
    if options[1] == "reward_to_go" or not (options[2] or BASELINES[options[3]].to_go_only)
]


@pytest.mark.parametrize("family", MEMBERS, ids=lambda family: "-".join(map(str, family)))
def test_every_member_agrees_with_its_definition(family: Family) -> None:
    """Every combination of return, discount, baseline and normalisation that is defined."""
    learned = LEARNED if family.baseline in ("value", "moving_average") else 0.0
    np.testing.assert_allclose(weights(REWARDS, LENGTHS, family, learned), by_definition(family), rtol=1e-12, atol=1e-12)


def test_every_combination_is_there() -> None:
    """The test above leaves out what is undefined, and no more: 6 baselines of R(τ) and 7 of Gₜ, the latter two ways."""
    assert len(MEMBERS) == 2 * 2 * (6 + 2 * 7)


def test_discount_and_baseline_by_hand() -> None:
    """γ = 1/2: of 4, 8 the rewards-to-go are 8 and 8; less 2 and 4, they are 6 and 4; times γᵗ, 6 and 2."""
    family = Family(0.5, "reward_to_go", exact_discounting=True, baseline="value")
    psi = weights(np.array([4.0, 8.0]), np.array([2]), family, np.array([2.0, 4.0]))
    assert psi.tolist() == [6.0, 2.0]


def test_one_average_is_every_steps_baseline() -> None:
    """The moving average is one number for all steps."""
    assert weights(np.array([4.0, 8.0, 1.0]), np.array([2, 1]), Family(1.0, baseline="moving_average"), 3.0).tolist() == [
        9,
        9,
        -2,
    ]


@pytest.mark.parametrize("return_type", RETURN_TYPES)
def test_what_is_predicted_is_the_return_without_a_baseline(return_type: str) -> None:
    """``targets`` is what ψ is made of, and not discounted or shifted."""
    family = Family(0.7, return_type, baseline="value", normalize_advantage=True)
    expected = by_definition(Family(0.7, return_type))
    np.testing.assert_allclose(targets(REWARDS, LENGTHS, family), expected, rtol=1e-12)


def test_a_trajectorys_ratio_weighs_return_and_baseline() -> None:
    """Ratios of R(τ) are those at the last step, P(τ;θ)/P(τ;θ_old): 3 of the first trajectory, 1/2 of the second."""
    rewards, lengths = np.array([4.0, 6.0, 2.0]), np.array([2, 1])
    ratios = np.array([100.0, 3.0, 0.5])
    plain = Family(1.0)
    assert weights(rewards, lengths, plain, ratios=ratios).tolist() == [30.0, 30.0, 1.0]
    compared = Family(1.0, baseline="leave_one_out")  # 10 and 2 are compared with 2 and 10
    assert weights(rewards, lengths, compared, ratios=ratios).tolist() == [24.0, 24.0, -4.0]
    learned = Family(1.0, baseline="value")
    assert weights(rewards, lengths, learned, np.array([1.0, 2.0, 4.0]), ratios).tolist() == [27.0, 24.0, -1.0]


def test_a_rewards_ratio_is_that_up_to_it() -> None:
    """Ratios 2 and 3 up to the first and second step: G₀ = 2·4 + 3·6/2 and G₁ = 3·6, less V·ratio."""
    family = Family(0.5, "reward_to_go", baseline="value")
    psi = weights(np.array([4.0, 6.0]), np.array([2]), family, np.array([1.0, 5.0]), np.array([2.0, 3.0]))
    assert psi.tolist() == [8 + 9 - 2, 18 - 15]


@pytest.mark.parametrize("family", [Family(1.0), Family(0.7, "reward_to_go", True, "value", True)])
def test_nothing_that_is_given_is_written_to(family: Family) -> None:
    """The buffer's rewards and the values are used again by the next epoch and by the fit."""
    rewards, learned, ratios = REWARDS.copy(), LEARNED.copy(), np.linspace(0.5, 2.0, 6)
    weights(rewards, LENGTHS, family, learned, ratios)
    np.testing.assert_array_equal(rewards, REWARDS)
    np.testing.assert_array_equal(learned, LEARNED)
    np.testing.assert_array_equal(ratios, np.linspace(0.5, 2.0, 6))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_psi_is_float64(dtype: Any) -> None:
    """Small differences of large returns survive: 10⁸ + 1 less 10⁸ is 1."""
    psi = weights(np.array([1e8, 1.0], dtype=dtype), np.array([2]), Family(1.0, baseline="moving_average"), 1e8)
    assert psi.dtype == np.float64
    assert psi.tolist() == [1.0, 1.0]


def test_normalized_by_hand() -> None:
    """Of 1, 2 and 6 the mean is 3 and the population's deviation √(14/3); equal weights, and one alone, become 0."""
    family = Family(1.0, normalize_advantage=True)
    one_step = np.ones(3, dtype=np.int64)
    psi = weights(np.array([1.0, 2.0, 6.0]), one_step, family)
    np.testing.assert_allclose(psi, np.array([-2, -1, 3]) / np.sqrt(14 / 3), rtol=1e-7)
    assert weights(np.array([5.0, 5.0, 5.0]), one_step, family).tolist() == [0.0] * 3
    assert weights(np.array([3.0]), one_step[:1], family).tolist() == [0.0]


def test_where_no_trajectory_was_better_its_baseline_s_error_is_not_normalized() -> None:
    """Two trajectories with the same return, 0.5: V's error says nothing, be it ever so small. One alone has no other."""
    lengths = np.array([3, 2])
    rewards, learned = np.array([0.0, 0.0, 0.5, 0.25, 0.25]), np.array([1e-3, 2e-3, 3e-3, 1e-3, 5e-3])
    family = Family(1.0, "reward_to_go", baseline="value", normalize_advantage=True)
    for ratios in (None, np.array([0.5, 2.0, 1.0, 3.0, 0.1])):
        assert weights(rewards, lengths, family, learned, ratios).tolist() == [0.0] * 5
    assert np.abs(weights(rewards, lengths, family._replace(normalize_advantage=False), learned)).min() > 0
    rewards[2] += 1e-6
    assert weights(rewards, lengths, family, learned).std() == pytest.approx(1.0, rel=1e-4)
    assert weights(rewards[:3], lengths[:1], family, learned[:3]).std() == pytest.approx(1.0, rel=1e-4)
