"""Baselines, which lower the variance of the estimate.

A baseline b is subtracted from a step's return before it multiplies ∇log π. It leaves the estimate unbiased when
it does not depend on the step's action. Which ones do is in the README's table of estimators.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch as th

from sb3_reinforce.returns import first_steps, last_steps, rewards_to_go, time_steps, trajectory_returns

#: Weight of the earlier batches in the moving average; Williams (1992) leaves the number open.
MOVING_AVERAGE_DECAY = 0.9


def mean(returns: np.ndarray) -> np.ndarray:
    r"""Mean of all m returns, the trajectory's own included: its estimate is (m-1)/m of the leave-one-out one.

    .. math:: b_i = \frac{1}{m} \sum_{j} R(\tau_j)

    :param returns: return of each trajectory, float ``[m]``
    :return: float64 ``[m]``
    """
    return np.full(len(returns), np.mean(returns, dtype=np.float64))


def leave_one_out(returns: np.ndarray) -> np.ndarray:
    r"""Mean of the other m-1 returns (Kool et al. 2019; Ahmadian et al. 2024): unbiased.

    .. math:: b_i = \frac{1}{m-1} \sum_{j \ne i} R(\tau_j)

    :param returns: return of each trajectory, float ``[m]``, m at least 2
    :return: float64 ``[m]``
    """
    returns = returns.astype(np.float64)
    return (returns.sum() - returns) / (len(returns) - 1)


def time_leave_one_out(to_go: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    r"""Mean of Gₜ over the other trajectories that are still alive at t; 0 where none is. Unbiased.

    .. math:: b_{i,t} = \frac{1}{n_t - 1} \sum_{j \ne i,\, H_j > t} G_{j,t}, \quad n_t = |\{j : H_j > t\}|

    :param to_go: Gₜ of each step, float ``[M]``
    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    :return: float64 ``[M]``
    """
    t = time_steps(lengths)
    others = np.bincount(t)[t] - 1
    sums = np.bincount(t, weights=to_go)[t] - to_go
    return np.divide(sums, others, out=np.zeros(len(t)), where=others > 0)


def moving_average(average: float | None, returns: np.ndarray) -> float:
    r"""Average of the returns of all batches so far, for the batches to come, which is why it leaves them unbiased.

    .. math:: \bar R \leftarrow 0.9\, \bar R + 0.1\, \frac{1}{m} \sum_i R(\tau_i)

    Source: Williams (1992), reinforcement comparison.

    :param average: the average before this batch; None: there was none
    :param returns: return of each trajectory of this batch, float ``[m]``
    :return: the average with this batch
    """
    mean_return = float(returns.mean())
    if average is None:
        return mean_return
    return MOVING_AVERAGE_DECAY * average + (1 - MOVING_AVERAGE_DECAY) * mean_return


def optimal(gradients: th.Tensor, scores: th.Tensor) -> th.Tensor:
    r"""The baseline of least variance, one for each parameter p, from the other m-1 trajectories: unbiased.

    .. math:: b_{i,p} = \frac{\sum_{j \ne i} \hat g_{j,p}\, s_{j,p}}{\sum_{j \ne i} s_{j,p}^2}

    with :math:`s_j = \sum_t \nabla \log \pi_\theta(a_{j,t} \mid s_{j,t})` and :math:`\hat g_j` its weighted sum. For
    full-trajectory returns, :math:`\hat g_j = s_j R(\tau_j)`, that is :math:`E[s_p^2 R] / E[s_p^2]` (Greensmith et al. 2004;
    Peters & Schaal 2008, doi:10.1016/j.neunet.2008.02.003, equation 13).

    :param gradients: estimate of each trajectory alone, without a baseline, float ``[m, P]``, m at least 2
    :param scores: gradient of each trajectory's log-probability, float ``[m, P]``
    :return: ``[m, P]``; 0 where the other trajectories say nothing about a parameter
    """
    # In double precision: a sum less one of its terms leaves rounding where it should leave 0.
    products, squares = gradients.double() * scores, scores.double() ** 2
    numerators = products.sum(0) - products
    denominators = squares.sum(0) - squares
    informed = denominators > 1e-12 * squares.sum(0)
    return th.where(informed, numerators / denominators.where(informed, th.ones_like(denominators)), 0.0).to(gradients)


def _others_to_go(others: np.ndarray, totals: np.ndarray, lengths: np.ndarray, gamma: float, ratios: np.ndarray) -> np.ndarray:
    r"""What the rewards of others sum to from each step of trajectory i on, each weighted with i's ratio up to it.

    .. math:: \sum_{k \ge t} \gamma^{k-t} \rho^i_{0:\min(k, H_i - 1)} o_{i,k}

    The others may outlast i. Their later rewards count, too, with i's last ratio: i's actions decide how long i lasts, and a
    sum that ended with i would depend on them.

    :param others: :math:`o_{i,k}`, sum of the others' rewards at each step of i, float ``[M]``
    :param totals: sum of all rewards at each time, float ``[H]``: what :math:`o_{i,k}` is once i has ended
    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    :param gamma: discount factor in [0, 1]
    :param ratios: likelihood ratio up to each step, float ``[M]``
    :return: float64 ``[M]``
    """
    lasts = last_steps(lengths)
    beyond = np.append(rewards_to_go(totals, np.array([len(totals)]), gamma), 0.0)[lengths]
    weighted = ratios * others
    weighted[lasts] += gamma * ratios[lasts] * beyond
    return rewards_to_go(weighted, lengths, gamma)


def _others_in_all(
    others: np.ndarray, totals: np.ndarray, lengths: np.ndarray, gamma: float, ratios: np.ndarray
) -> np.ndarray:
    r"""What all rewards of others sum to, each weighted with i's ratio up to it or to the present step, whichever is later.

    .. math:: \sum_k \gamma^k \rho^i_{0:\min(\max(k, t), H_i - 1)} o_{i,k}

    Parameters and return as for ``_others_to_go``.
    """
    discounts = gamma ** time_steps(lengths)
    so_far = np.cumsum(discounts * others)
    starts = first_steps(lengths)
    so_far -= np.repeat(so_far[starts] - others[starts], lengths)
    return ratios * so_far + discounts * (_others_to_go(others, totals, lengths, gamma, ratios) - ratios * others)


class Paid(NamedTuple):
    """What a batch has paid, and how a baseline weighs it."""

    rewards: np.ndarray
    """Reward of each step, float ``[M]``."""
    lengths: np.ndarray
    """Number of steps of each trajectory, int ``[m]``, each at least 1."""
    gamma: float
    """Discount factor in [0, 1]."""
    ratios: np.ndarray | None = None
    """Likelihood ratio up to each step, float ``[M]``, by which each reward of the baseline is weighted, for rewards-to-go
    that are weighted likewise; None: no weights."""
    carried: np.ndarray | None = None
    """Likelihood ratio up to each step of what an earlier policy has begun, float ``[M]``, by which the rewards of others are
    weighted; None: nothing is carried."""

    def to_others(self) -> np.ndarray:
        """The rewards as the baselines of other trajectories have them, float ``[M]``."""
        return self.rewards if self.carried is None else self.carried * self.rewards


def _mean(paid: Paid) -> np.ndarray:
    rewards, lengths, gamma, ratios, carried = paid
    if ratios is None and carried is None:
        return np.repeat(mean(trajectory_returns(rewards, lengths, gamma)), lengths)
    # A trajectory's own rewards are weighted with `ratios`, and not with `carried` as well, so that the estimate stays (m-1)/m
    # of the leave-one-out one.
    m, own = len(lengths), np.repeat(trajectory_returns(rewards, lengths, gamma), lengths)
    if ratios is not None:
        own = _others_in_all(rewards, np.zeros(lengths.max()), lengths, gamma, ratios)
    return (own + (m - 1) * _leave_one_out(paid)) / m


def _leave_one_out(paid: Paid) -> np.ndarray:
    _, lengths, gamma, ratios, _ = paid
    of_others = paid.to_others()
    if ratios is None:
        return np.repeat(leave_one_out(trajectory_returns(of_others, lengths, gamma)), lengths)
    t = time_steps(lengths)
    totals = np.bincount(t, weights=of_others)
    return _others_in_all(totals[t] - of_others, totals, lengths, gamma, ratios) / (len(lengths) - 1)


def _time_leave_one_out(paid: Paid) -> np.ndarray:
    rewards, lengths, gamma, ratios, _ = paid
    if ratios is None:
        return time_leave_one_out(rewards_to_go(rewards, lengths, gamma), lengths)
    # How many others are alive is not weighted. With episodes carried over and three or more trajectories it depends a little
    # on which policy ran them, which biases the estimate slightly (docs/supported.md).
    t, of_others = time_steps(lengths), paid.to_others()
    totals, n_others = np.bincount(t, weights=of_others), np.bincount(t)[t] - 1
    to_go = _others_to_go(totals[t] - of_others, totals, lengths, gamma, ratios)
    return np.divide(to_go, n_others, out=np.zeros(len(t)), where=n_others > 0)


class Baseline(NamedTuple):
    """What a name of ``REINFORCE(baseline=...)`` stands for."""

    of_batch: Callable[[Paid], np.ndarray] | None = None
    """How the batch's rewards make that of each step, float64 ``[M]``. None: they do not (``None`` is 0, "moving_average" and
    "value" are of earlier batches, and "optimal" is no number but a vector)."""
    compares: bool = False
    """Whether a trajectory is compared with the others of its batch, so that there must be others."""
    to_go_only: bool = False
    """Whether it is for rewards-to-go only."""


BASELINES = {
    None: Baseline(),
    "mean": Baseline(_mean, compares=True),
    "leave_one_out": Baseline(_leave_one_out, compares=True),
    "time_leave_one_out": Baseline(_time_leave_one_out, compares=True, to_go_only=True),
    "moving_average": Baseline(),
    "optimal": Baseline(compares=True),
    "value": Baseline(),
}
