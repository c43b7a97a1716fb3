"""Baselines from the returns of the batch: what they may and may not use, and the two identities that relate them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sb3_reinforce.baselines import BASELINES, leave_one_out, mean

RETURNS = arrays(np.float64, st.integers(2, 20), elements=st.floats(-1000, 1000))
ROUNDING = 1e-11  # 20 float64 numbers of at most 1000, each addition rounded by 1e-16 of the sum


def test_mean_by_hand() -> None:
    """The mean of 1, 2 and 6 is 3 for each."""
    assert mean(np.array([1.0, 2.0, 6.0])).tolist() == [3.0, 3.0, 3.0]


def test_leave_one_out_by_hand() -> None:
    """Of 1, 2 and 6 the others' means are (2+6)/2, (1+6)/2 and (1+2)/2."""
    assert leave_one_out(np.array([1.0, 2.0, 6.0])).tolist() == [4.0, 3.5, 1.5]


@given(RETURNS)
def test_leave_one_out_is_the_mean_of_the_others(returns: np.ndarray) -> None:
    """Against the definition, one trajectory after the other."""
    expected = [np.delete(returns, i).mean() for i in range(len(returns))]
    np.testing.assert_allclose(leave_one_out(returns), expected, rtol=0, atol=ROUNDING)


@given(RETURNS, st.floats(-1000, 1000), st.data())
def test_leave_one_out_never_uses_its_own_return(returns: np.ndarray, other: float, data: st.DataObject) -> None:
    """However a trajectory's own return changes, its baseline stays: that is what makes the estimate unbiased."""
    i = data.draw(st.integers(0, len(returns) - 1))
    changed = returns.copy()
    changed[i] = other
    np.testing.assert_allclose(leave_one_out(changed)[i], leave_one_out(returns)[i], rtol=0, atol=ROUNDING)


@given(RETURNS)
def test_mean_is_a_shrunken_leave_one_out(returns: np.ndarray) -> None:
    """R - mean = (m-1)/m · (R - leave_one_out): the same direction, a shorter step."""
    m = len(returns)
    np.testing.assert_allclose(
        returns - mean(returns), (m - 1) / m * (returns - leave_one_out(returns)), rtol=0, atol=ROUNDING
    )


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("m", [2, 3, 16])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 500.25])
def test_equal_returns_leave_no_weight(name: str, m: int, value: float) -> None:
    """Where all trajectories did as well, there is nothing to learn from their difference."""
    returns = np.full(m, value)
    np.testing.assert_allclose(BASELINES[name](returns), returns, rtol=1e-14)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_baselines_are_float64_of_the_same_shape_and_leave_the_returns(name: str, dtype: type) -> None:
    """10⁸ and 1: their mean is not a float32 number, and the returns are not overwritten."""
    returns = np.array([1e8, 1, 1e8, 1]).astype(dtype)
    baseline = BASELINES[name](returns)
    assert baseline.dtype == np.float64
    assert baseline.shape == (4,)
    assert returns.tolist() == [1e8, 1, 1e8, 1]
    expected = {"mean": [50_000_000.5] * 4, "leave_one_out": [(1e8 + 2) / 3, (2e8 + 1) / 3] * 2}
    assert baseline.tolist() == expected[name]
