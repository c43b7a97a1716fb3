"""Returns of whole trajectories, from rewards laid end to end.

Everywhere in the package, m trajectories with M steps in all are *flat* and *episode-major*: ``rewards`` is
``[M]``, one trajectory after the other, and ``lengths`` is ``[m]`` with ``lengths.sum() == M``. Sums run in
float64, since a return of a long trajectory is the small difference of large sums once a baseline is subtracted.
"""

import numpy as np


def first_steps(lengths: np.ndarray) -> np.ndarray:
    """Index in the batch of the first step of each trajectory, int64 ``[m]``.

    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    """
    return np.cumsum(lengths) - lengths


def last_steps(lengths: np.ndarray) -> np.ndarray:
    """Index in the batch of the last step of each trajectory, int64 ``[m]``.

    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    """
    return np.cumsum(lengths) - 1


def time_steps(lengths: np.ndarray) -> np.ndarray:
    """Step t of each transition within its own trajectory, counted from 0.

    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    :return: int64 ``[M]``
    """
    return np.arange(lengths.sum()) - np.repeat(first_steps(lengths), lengths)


@np.errstate(under="ignore")  # what is too small to count is 0
def trajectory_returns(rewards: np.ndarray, lengths: np.ndarray, gamma: float) -> np.ndarray:
    r"""Return of each whole trajectory, the R(τ) of (8) of docs/derivation.md.

    .. math:: R(\tau) = \sum_{t} \gamma^t r_t

    :param rewards: reward of each step, float ``[M]``
    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    :param gamma: discount factor in [0, 1]; 1 is the plain sum
    :return: float64 ``[m]``
    """
    discounted = rewards.astype(np.float64)
    if gamma != 1.0:
        discounted *= gamma ** time_steps(lengths)
    return np.add.reduceat(discounted, first_steps(lengths))


@np.errstate(under="ignore")  # what is too small to count is 0
def rewards_to_go(rewards: np.ndarray, lengths: np.ndarray, gamma: float) -> np.ndarray:
    r"""Discounted sum of the rewards from each step to the end of its trajectory.

    .. math:: G_t = \sum_{k \ge t} \gamma^{k-t} r_k

    Computed by doubling: once every entry holds the sum over the next ``span`` steps, adding the entry ``span``
    steps later, discounted, makes it the sum over the next ``2 * span``. That takes log2(longest trajectory)
    passes over the array, where the recursion :math:`G_t = r_t + \gamma G_{t+1}` would take a Python loop over steps.

    :param rewards: reward of each step, float ``[M]``
    :param lengths: number of steps of each trajectory, int ``[m]``, each at least 1
    :param gamma: discount factor in [0, 1]; 1 is the plain sum
    :return: float64 ``[M]``
    """
    sums = rewards.astype(np.float64)
    steps_left = np.repeat(lengths, lengths) - time_steps(lengths)
    span = 1
    while span < lengths.max():
        sums[:-span] += np.where(steps_left[:-span] > span, gamma**span * sums[span:], 0.0)
        span *= 2
    return sums
