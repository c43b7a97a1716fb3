"""Returns of whole trajectories, from rewards laid end to end.

Everywhere in the package, m trajectories with M steps in all are *flat* and *episode-major*: ``rewards`` is
``[M]``, one trajectory after the other, and ``lengths`` is ``[m]`` with ``lengths.sum() == M``. Sums run in
float64, since a return of a long trajectory is the small difference of large sums once a baseline is subtracted.
"""

import numpy as np


def time_steps(lengths: np.ndarray) -> np.ndarray:
    """Step t of each transition within its own trajectory, counted from 0.

    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    :return: int64 ``[M]``
    """
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) - np.repeat(starts, lengths)


def trajectory_returns(rewards: np.ndarray, lengths: np.ndarray, gamma: float) -> np.ndarray:
    r"""Return of each whole trajectory, the R(τ) of (8) of the derivation in the README.

    .. math:: R(\tau) = \sum_{t} \gamma^t r_t

    :param rewards: reward of each step, float ``[M]``
    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    :param gamma: discount factor in (0, 1]; 1 is the plain sum
    :return: float64 ``[m]``
    """
    discounted = rewards.astype(np.float64)
    if gamma != 1.0:
        discounted *= gamma ** time_steps(lengths)
    return np.add.reduceat(discounted, np.cumsum(lengths) - lengths)


def rewards_to_go(rewards: np.ndarray, lengths: np.ndarray, gamma: float) -> np.ndarray:
    r"""Discounted sum of the rewards from each step to the end of its trajectory.

    .. math:: G_t = \sum_{k \ge t} \gamma^{k-t} r_k

    Computed by doubling: once every entry holds the sum over the next ``span`` steps, adding the entry ``span``
    steps later, discounted, makes it the sum over the next ``2 * span``. That takes log2(longest trajectory)
    passes over the array, where the recursion :math:`G_t = r_t + \gamma G_{t+1}` would take a Python loop over steps.

    :param rewards: reward of each step, float ``[M]``
    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    :param gamma: discount factor in (0, 1]; 1 is the plain sum
    :return: float64 ``[M]``
    """
    sums = rewards.astype(np.float64)
    steps_left = np.repeat(lengths, lengths) - time_steps(lengths)
    span = 1
    while span < lengths.max():
        sums[:-span] += np.where(steps_left[:-span] > span, gamma**span * sums[span:], 0.0)
        span *= 2
    return sums


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
    before = np.concatenate([[0.0], sums[np.cumsum(lengths)[:-1] - 1]])
    return np.exp(sums - np.repeat(before, lengths))


def effective_sample_size(log_ratios: np.ndarray, lengths: np.ndarray) -> float:
    r"""Number of trajectories that those weighted with their likelihood ratio w are worth, from 0 to m.

    .. math:: \min\Big( \frac{(\sum_i w_i)^2}{\sum_i w_i^2}, \; m \bar w, \; \frac{m}{\bar w} \Big)

    The first is Kish's, which a factor common to all weights leaves as it is; their mean, 1 in expectation, tells of that.

    :param log_ratios: log π_θ - log π_old of each action taken, float ``[M]``
    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    :return: the number; NaN if a sum of log-ratios is not finite
    """
    sums = np.add.reduceat(log_ratios.astype(np.float64), np.cumsum(lengths) - lengths)
    ratios = np.exp(sums - sums.max())  # relative to the largest, so that none overflows
    log_mean = sums.max() + np.log(ratios.mean())
    return float(np.minimum(ratios.sum() ** 2 / (ratios**2).sum(), len(lengths) * np.exp(-abs(log_mean))))
