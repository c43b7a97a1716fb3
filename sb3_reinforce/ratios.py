"""Likelihood ratios of two policies, for trajectories that one collected and the other learns from.

The layout is that of ``returns.py``: flat and episode-major.
"""

import numpy as np

from sb3_reinforce.returns import first_steps, last_steps


@np.errstate(under="ignore")  # what is too small to count is 0
def likelihood_ratios(log_ratios: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    r"""Likelihood ratio of each trajectory up to and including each of its steps; the dynamics cancel.

    .. math:: \rho_{0:t} = \prod_{k \le t} \pi_\theta(a_k \mid s_k) / \pi_{old}(a_k \mid s_k)

    At its last step it is the ratio P(τ;θ)/P(τ;θ_old) of the whole trajectory.
    Source: Jie & Abbeel (2010); Precup et al. (2000) for the ratio up to each step.

    :param log_ratios: log π_θ - log π_old of each action taken, float ``[M]``
    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    :return: float64 ``[M]``
    """
    sums = np.cumsum(log_ratios, dtype=np.float64)
    before = np.concatenate([[0.0], sums[last_steps(lengths)[:-1]]])
    return np.exp(sums - np.repeat(before, lengths))


@np.errstate(under="ignore")  # what is too small to count is 0
def effective_sample_size(log_ratios: np.ndarray, lengths: np.ndarray) -> float:
    r"""Number of trajectories that those weighted with their likelihood ratio w are worth, from 0 to m.

    .. math:: \min\Big( \frac{(\sum_i w_i)^2}{\sum_i w_i^2}, \; m \bar w, \; \frac{m}{\bar w} \Big)

    The first is Kish's. It does not change if all weights are multiplied by one factor. The other two fall when the mean
    weight, which is 1 in expectation, is far from 1.

    :param log_ratios: log π_θ - log π_old of each action taken, float ``[M]``
    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    :return: the number; NaN if a sum of log-ratios is not finite
    """
    sums = np.add.reduceat(log_ratios.astype(np.float64), first_steps(lengths))
    ratios = np.exp(sums - sums.max())  # relative to the largest, so that none overflows
    log_mean = sums.max() + np.log(ratios.mean())
    return float(np.minimum(ratios.sum() ** 2 / (ratios**2).sum(), len(lengths) * np.exp(-abs(log_mean))))
