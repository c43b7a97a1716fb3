"""Baselines that need no more than the returns of the batch, by the name that ``REINFORCE(baseline=...)`` takes.

A baseline b is subtracted from a step's return before it multiplies ∇log π. It leaves the estimate unbiased when
it does not depend on the step's action. Which ones qualify, and why, is the table of estimators in the README.
"""

from collections.abc import Callable

import numpy as np


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


#: Baselines of the batch's returns: each maps float ``[m]`` to float64 ``[m]``.
BASELINES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"mean": mean, "leave_one_out": leave_one_out}
