"""ψ, what multiplies each ∇log π, for every member of the family: one pure function of a batch."""

from typing import NamedTuple

import numpy as np

from sb3_reinforce.baselines import BASELINES
from sb3_reinforce.returns import rewards_to_go, time_steps, trajectory_returns


class Family(NamedTuple):
    """Which member of the family of estimators; the names are those of ``REINFORCE``'s arguments."""

    gamma: float
    return_type: str = "trajectory"
    exact_discounting: bool = False
    baseline: str | None = None
    normalize_advantage: bool = False


def targets(rewards: np.ndarray, lengths: np.ndarray, family: Family) -> np.ndarray:
    """R(τ) or Gₜ, whichever ``return_type`` says, for each step.

    :param rewards: reward of each step, float ``[M]``
    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    :param family: ``gamma`` and ``return_type`` of it
    :return: float64 ``[M]``
    """
    if family.return_type == "reward_to_go":
        return rewards_to_go(rewards, lengths, family.gamma)
    return np.repeat(trajectory_returns(rewards, lengths, family.gamma), lengths)


def weights(
    rewards: np.ndarray,
    lengths: np.ndarray,
    family: Family,
    learned: np.ndarray | float = 0.0,
    ratios: np.ndarray | None = None,
) -> np.ndarray:
    r"""ψ of each step.

    :param rewards: reward of each step, float ``[M]``
    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    :param family: which member of the family
    :param learned: what earlier batches say of each step, V(sₜ) or the average return, float ``[M]`` or one number; used
        where the baseline is learned, and 0 where it is not
    :param ratios: likelihood ratio of the trajectory up to each step, float ``[M]``; None: the batch is of this policy
    :return: float64 ``[M]``
    """
    of_batch = BASELINES[family.baseline].of_batch
    baseline = learned if of_batch is None else of_batch(rewards, lengths, family.gamma)
    if ratios is not None:
        if family.return_type == "trajectory":
            ratios = np.repeat(ratios[np.cumsum(lengths) - 1], lengths)
        rewards, baseline = ratios * rewards, ratios * baseline
    psi = targets(rewards, lengths, family) - baseline
    if family.exact_discounting:
        psi *= family.gamma ** time_steps(lengths)
    return normalized(psi) if family.normalize_advantage else psi


def normalized(weights: np.ndarray) -> np.ndarray:
    r"""Weights shifted to mean 0 and scaled to standard deviation 1: a practical step size, not unbiased.

    .. math:: (\psi - \mathrm{mean}\,\psi) / (\mathrm{std}\,\psi + 10^{-8})

    The deviation is that of the population: of one step it is 0, where the sample's would not be a number.

    :param weights: ψ of each step, float ``[M]``
    :return: float64 ``[M]``
    """
    return (weights - weights.mean()) / (weights.std() + 1e-8)
