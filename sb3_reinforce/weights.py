"""ψ, what multiplies each ∇log π, for every member of the family: one pure function of a batch."""

from typing import NamedTuple

import numpy as np

from sb3_reinforce.baselines import BASELINES, Paid
from sb3_reinforce.returns import first_steps, last_steps, rewards_to_go, time_steps, trajectory_returns


class Family(NamedTuple):
    """Which member of the family of estimators; the names are those of ``REINFORCE``'s arguments."""

    gamma: float
    """Discount factor in [0, 1]."""
    return_type: str = "trajectory"
    """Either "trajectory" or "reward_to_go"."""
    exact_discounting: bool = False
    """Whether rewards-to-go are weighted with γᵗ."""
    baseline: str | None = None
    """A key of ``BASELINES``."""
    normalize_advantage: bool = False
    """Whether ψ is shifted and scaled to mean 0 and deviation 1."""


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


@np.errstate(under="ignore")  # γᵗ and likelihood ratios may be as small as they like
def weights(
    rewards: np.ndarray,
    lengths: np.ndarray,
    family: Family,
    learned: np.ndarray | float = 0.0,
    ratios: np.ndarray | None = None,
    carried: np.ndarray | None = None,
) -> np.ndarray:
    r"""ψ of each step.

    With ``ratios``, the batch is of an earlier policy. Then R(τ), less its baseline, is weighted with the ratio of the whole
    trajectory. Of rewards-to-go, each reward is weighted with the ratio up to its own step, and so is each of a baseline made
    of rewards; what else is subtracted from step t, with the ratio up to t. Where normalisation makes ψ 0 for the batch's own
    policy, it stays 0.

    With ``carried``, trajectories that an earlier policy has begun are among them. Which policy ran one depends on how long
    those before it lasted, so the rewards of others in a baseline are weighted with the others' own ratios as well.

    :param rewards: reward of each step, float ``[M]``
    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    :param family: which member of the family
    :param learned: what earlier batches say of each step, V(sₜ) or the average return, float ``[M]`` or one number; used
        where the baseline is learned, and 0 where it is not
    :param ratios: likelihood ratio of the trajectory up to each step, float ``[M]``; None: the batch is of this policy
    :param carried: the same, of the policy before this update, where an earlier policy took some steps; None: none did
    :return: float64 ``[M]``
    """
    of_batch, paid = BASELINES[family.baseline].of_batch, Paid(rewards, lengths, family.gamma)
    discount = family.gamma ** time_steps(lengths) if family.exact_discounting else 1.0
    returns = targets(rewards, lengths, family)
    psi = discount * (returns - (learned if of_batch is None else of_batch(paid)))
    shift, deviation = _moments(psi, returns, lengths) if family.normalize_advantage else (0.0, 1.0)
    if ratios is None:
        return (psi - shift) / deviation
    if family.return_type == "trajectory":
        if carried is not None and of_batch is not None:
            psi = returns - of_batch(paid._replace(carried=carried))
        return np.repeat(ratios[last_steps(lengths)], lengths) * (psi - shift) / deviation
    baseline = ratios * learned if of_batch is None else of_batch(paid._replace(ratios=ratios, carried=carried))
    psi = discount * (rewards_to_go(ratios * rewards, lengths, family.gamma) - baseline)
    return (psi - ratios * shift) / deviation


def _moments(psi: np.ndarray, returns: np.ndarray, lengths: np.ndarray) -> tuple[float, float]:
    r"""What ψ is shifted and divided by, for mean 0 and standard deviation 1: a practical step size, not unbiased.

    .. math:: (\psi - \mathrm{mean}\,\psi) / (\mathrm{std}\,\psi + 10^{-8})

    The deviation is that of the population: of one step it is 0, where the sample's would not be a number.

    A batch holds nothing to learn from where no ψ differs from another, or where no trajectory has another return than the
    others: what is left of ψ then is the error of a learned baseline, or the time. Infinity makes ψ 0, where the deviation
    would make noise as large as any signal.

    :param psi: ψ of each step, as the policy that collected the batch has it, float ``[M]``
    :param returns: what the baseline was subtracted from, float ``[M]``
    :param lengths: number of steps of each trajectory, int ``[m]``
    :return: shift and divisor
    """
    rounding = 1e-12 * np.abs(returns).max()
    deviation = psi.std()
    of_trajectories = returns[first_steps(lengths)]
    alike = len(lengths) > 1 and np.ptp(of_trajectories) <= rounding
    return psi.mean(), np.inf if alike or deviation <= rounding else deviation + 1e-8
