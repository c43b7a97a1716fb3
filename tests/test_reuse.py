"""ψ of batches that an earlier policy has collected: as good as fresh ones, and 0 where nothing is to be learned."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from oracle import Trajectory, trajectories

from sb3_reinforce.arguments import RETURN_TYPES
from sb3_reinforce.baselines import BASELINES
from sb3_reinforce.ratios import likelihood_ratios
from sb3_reinforce.weights import Family, weights

#: Logits by state and action: the policy that collected, and the one that learns.
OLD = np.array([[0.3, -0.2], [-0.4, 0.5]])
NEW = np.array([[-0.3, 0.4], [0.3, 0.1]])


def log_policy(logits: np.ndarray) -> np.ndarray:
    """log π by state and action."""
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def probability(trajectory: Trajectory, logits: np.ndarray) -> float:
    """P(τ;θ)."""
    return trajectory.dynamics * np.exp(log_policy(logits)[list(trajectory.states), list(trajectory.actions)].sum())


def estimate(batch: tuple[Trajectory, ...], collected: np.ndarray, learns: np.ndarray, family: Family) -> np.ndarray:
    """ĝ at the logits ``learns`` of trajectories that the logits ``collected`` have drawn, ``[4]``."""
    lengths = np.array([len(each.actions) for each in batch])
    states, actions = (np.concatenate([each[k] for each in batch]) for k in (0, 1))
    rewards = np.concatenate([each.rewards for each in batch])
    values = np.array([2.0, 0.5])[states] if family.baseline == "value" else 0.0
    log_ratios = (log_policy(learns) - log_policy(collected))[states, actions]
    ratios = None if collected is learns else likelihood_ratios(log_ratios, lengths)
    psi = weights(rewards, lengths, family, values, ratios)
    gradient = np.zeros((2, 2))
    np.add.at(gradient, states, psi[:, None] * (np.eye(2)[actions] - np.exp(log_policy(learns))[states]))
    return gradient.ravel() / len(batch)


def expected_gradient(collected: np.ndarray, learns: np.ndarray, family: Family) -> np.ndarray:
    """E[ĝ] at the logits ``learns`` over all pairs of trajectories that the logits ``collected`` draw, ``[4]``."""
    pairs = itertools.product(trajectories(3), repeat=2)
    return sum(
        probability(one, collected) * probability(other, collected) * estimate((one, other), collected, learns, family)
        for one, other in pairs
    )


def families(gamma: float) -> Iterator[Family]:
    """Every combination of return, baseline and normalisation that is defined."""
    for return_type, baseline, normalize in itertools.product(RETURN_TYPES, BASELINES, (False, True)):
        undefined = (BASELINES[baseline].to_go_only and return_type == "trajectory") or (baseline == "optimal" and normalize)
        if not undefined:
            yield Family(gamma, return_type, False, baseline, normalize)


@pytest.mark.parametrize("family", [each for each in families(0.7) if not each.normalize_advantage], ids=str)
def test_reuse_has_the_expectation_of_fresh_trajectories(family: Family) -> None:
    """Whatever the baseline's own bias is, and with trajectories of one, two and three steps."""
    fresh = expected_gradient(NEW, NEW, family)
    np.testing.assert_allclose(expected_gradient(OLD, NEW, family), fresh, atol=1e-12)
    assert np.abs(fresh - expected_gradient(OLD, OLD, family)).max() > 0.03  # far indeed


#: Policies of probabilities so round that a batch can hold each trajectory as often as it is to be expected.
ROUND_OLD, ROUND_NEW = np.log([[0.5, 0.5], [0.5, 0.5]]), np.log([[0.25, 0.75], [0.75, 0.25]])


@pytest.mark.parametrize("baseline", [None, "leave_one_out", "value"])
def test_normalisation_keeps_the_direction(baseline: str | None) -> None:
    """ψ is normalised before it is weighted, so that a large batch of an earlier policy points where one of this would.

    Shifted after it was weighted, the cosine is 0.73 to 0.98.
    """
    family = Family(1.0, "reward_to_go", baseline=baseline, normalize_advantage=True)
    gradients = []
    for collected in (ROUND_NEW, ROUND_OLD):
        counts = {each: round(25_600 * probability(each, collected)) for each in trajectories(3)}
        assert all(count == pytest.approx(25_600 * probability(each, collected)) for each, count in counts.items())
        batch = tuple(each for each, count in counts.items() for _ in range(count))
        gradients.append(estimate(batch, collected, ROUND_NEW, family))
    fresh, again = gradients
    assert fresh @ again / np.linalg.norm(fresh) / np.linalg.norm(again) > 0.99999


# --- where nothing is to be learned --------------------------------------------------------------------------------------

#: Rewards and γ of trajectories whose returns are all equal.
EQUAL_RETURNS: dict[str, tuple[list[float], float]] = {
    "one step": ([0.1], 0.9),
    "equal rewards": ([0.1, 0.1, 0.1], 0.9),
    "a reward at the end": ([0.0, 0.0, 0.1], 1.0),
}


def is_silent(family: Family, rewards: list[float]) -> bool:
    """Whether ψ is 0 at each step of trajectories with these rewards, by what the options say."""
    to_go = np.cumsum(np.multiply(rewards, family.gamma ** np.arange(len(rewards)))[::-1])
    same = family.return_type == "trajectory" or bool(np.all(to_go == to_go[0]))  # one number for all steps
    if family.baseline == "time_leave_one_out" or family.normalize_advantage:
        return True
    return same and family.baseline not in (None, "optimal", "value")  # which leave that number


@pytest.mark.parametrize(("rewards", "gamma"), EQUAL_RETURNS.values(), ids=EQUAL_RETURNS)
def test_equal_returns_leave_no_weight(rewards: list[float], gamma: float) -> None:
    """On policy, and at ratios far from 1, as later epochs have; and what the options do not say is 0 is not."""
    m, n = 5, len(rewards)
    lengths, flat = np.full(m, n), np.tile(np.array(rewards, dtype=np.float32), m)
    log_ratios = np.random.default_rng(0).normal(size=m * n)
    for family in families(gamma):
        average = float(gamma ** (n - 1) * flat[-1]) if rewards[0] == 0 else float(flat[0] * np.sum(gamma ** np.arange(n)))
        learned = average if family.baseline == "moving_average" else 0.0
        for ratios in (None, likelihood_ratios(log_ratios, lengths)):
            psi = weights(flat, lengths, family, learned, ratios)
            to_go_later = family.return_type == "reward_to_go" and ratios is not None and n > 1
            # One number for all steps is weighted up to the step, a reward up to its own: their ratios differ.
            if family.baseline == "moving_average" and to_go_later and not family.normalize_advantage:
                continue
            if is_silent(family, rewards):
                np.testing.assert_allclose(psi, 0.0, atol=1e-12, err_msg=str(family))
            else:
                assert np.abs(psi).max() > 1e-3, family


def test_without_deviation_nothing_is_left() -> None:
    """Where all ψ are one number, normalisation divides by 0: what is left is 0, whatever the ratios."""
    ratios: Any
    for ratios in (None, np.array([0.5, 2.0, 1e-30, 1e30])):
        for return_type in RETURN_TYPES:
            family = Family(1.0, return_type, normalize_advantage=True)
            psi = weights(np.full(4, 0.1, np.float32), np.ones(4, dtype=int), family, 0.0, ratios)
            assert psi.tolist() == [0.0] * 4


def test_normalised_weights_have_mean_zero_and_deviation_one() -> None:
    """On policy; of the population, so that one step gives 0 and not NaN."""
    psi = weights(np.array([1.0, 2.0, 6.0]), np.ones(3, dtype=int), Family(1.0, normalize_advantage=True))
    assert psi.mean() == pytest.approx(0.0)
    assert psi.std() == pytest.approx(1.0)
    assert weights(np.array([3.0]), np.array([1]), Family(1.0, normalize_advantage=True)).tolist() == [0.0]
