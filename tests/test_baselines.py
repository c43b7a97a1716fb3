"""Baselines from the returns of the batch: what they may and may not use, and the two identities that relate them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch as th
from envs import BanditEnv, vectorized
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from stable_baselines3.common.callbacks import BaseCallback

from sb3_reinforce import REINFORCE
from sb3_reinforce.baselines import leave_one_out, mean, moving_average, optimal, time_leave_one_out

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


@pytest.mark.parametrize("baseline", [mean, leave_one_out])
@pytest.mark.parametrize("m", [2, 3, 16])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 500.25])
def test_equal_returns_leave_no_weight(baseline: Callable[[np.ndarray], np.ndarray], m: int, value: float) -> None:
    """Where all trajectories did as well, there is nothing to learn from their difference."""
    returns = np.full(m, value)
    np.testing.assert_allclose(baseline(returns), returns, rtol=1e-14)


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [(mean, [50_000_000.5] * 4), (leave_one_out, [(1e8 + 2) / 3, (2e8 + 1) / 3] * 2)],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_baselines_are_float64_of_the_same_shape_and_leave_the_returns(
    baseline: Callable[[np.ndarray], np.ndarray], expected: list[float], dtype: type
) -> None:
    """10⁸ and 1: their mean is not a float32 number, and the returns are not overwritten."""
    returns = np.array([1e8, 1, 1e8, 1]).astype(dtype)
    values = baseline(returns)
    assert values.dtype == np.float64
    assert values.tolist() == expected
    assert returns.tolist() == [1e8, 1, 1e8, 1]


def test_time_leave_one_out_by_hand() -> None:
    """At t = 0 all three are alive, at t = 1 the first and the third, at t = 2 only the third: nothing to compare with."""
    to_go = np.array([10.0, 4.0, 7.0, 30.0, 20.0, 5.0])
    lengths = np.array([2, 1, 3])
    assert time_leave_one_out(to_go, lengths).tolist() == [18.5, 20.0, 20.0, 8.5, 4.0, 0.0]


def test_time_leave_one_out_never_uses_its_own_rewards() -> None:
    """Nor those of its other steps."""
    to_go, lengths = np.arange(6.0), np.array([2, 1, 3])
    changed = to_go.copy()
    changed[:2] += 100
    assert time_leave_one_out(changed, lengths)[:2].tolist() == time_leave_one_out(to_go, lengths)[:2].tolist()
    assert (time_leave_one_out(changed, lengths)[2:5] > time_leave_one_out(to_go, lengths)[2:5]).all()


def test_moving_average_starts_at_the_first_batch() -> None:
    """Then a tenth of each new one."""
    average = moving_average(None, np.array([1.0, 3.0]))
    assert average == 2.0
    assert moving_average(average, np.array([12.0])) == pytest.approx(3.0)


def test_a_moving_average_of_zero_is_an_average() -> None:
    """It is one of earlier batches that paid nothing on average, and not the lack of any."""
    assert moving_average(0.0, np.array([10.0])) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("paid", "expected"),
    [
        ([4.0, 14.0, 14.0, 0.0], [4.0, 10.0, 9.0, -5.9]),  # what is subtracted is 0, 4, 0.9·4 + 0.1·14 = 5, 5.9
        ([0.0, 10.0, 10.0, 10.0], [0.0, 10.0, 9.0, 8.1]),  # 0, 0, 1, 1.9
    ],
)
def test_the_average_of_all_earlier_batches_is_subtracted(paid: list[float], expected: list[float]) -> None:
    """Batch after batch, in which every action pays the same. Of two actions that are equally likely, -ψ log π is ψ log 2."""
    losses: list[float] = []

    class Pays(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            if self.model._n_updates > 0:
                losses.append(self.logger.name_to_value["train/policy_loss"])
            if len(losses) < len(paid):
                env.payoffs = [paid[len(losses)]] * 2

    env = BanditEnv()
    model = REINFORCE("MlpPolicy", vectorized(env), n_episodes=3, learning_rate=0.0, baseline="moving_average")
    with th.no_grad():
        model.policy.action_net.weight.zero_()
    model.learn(3 * len(paid), Pays(), log_interval=1000)
    losses.append(model.logger.name_to_value["train/policy_loss"])
    np.testing.assert_allclose(losses, np.log(2) * np.array(expected), rtol=1e-5)


UNEQUAL = th.tensor([[1.0], [9e-4], [7e-4]])


def test_optimal_is_the_quotient_over_the_others() -> None:
    """Against the definition, one trajectory after the other, for full-trajectory returns: E[s² R] / E[s²]."""
    generator = th.Generator().manual_seed(0)
    scores = th.randn(5, 3, generator=generator)
    returns = th.tensor([1.0, 2.0, 4.0, 8.0, 16.0])[:, None]
    values = optimal(scores * returns, scores)
    for i in range(5):
        others = [j for j in range(5) if j != i]
        expected = (scores[others] ** 2 * returns[others]).sum(0) / (scores[others] ** 2).sum(0)
        th.testing.assert_close(values[i], expected)


def test_optimal_is_zero_where_the_others_say_nothing() -> None:
    """A parameter that only one trajectory touches, or none."""
    scores = th.tensor([[0.3, 0.0], [0.0, 0.0], [0.0, 0.0]])
    values = optimal(2 * scores, scores)
    assert values[0].tolist() == [0.0, 0.0]
    assert values[1].tolist() == [2.0, 0.0]


def test_optimal_of_equal_returns_is_that_return() -> None:
    """Then nothing is left of the estimate, also where one score is a thousand times the others."""
    th.testing.assert_close(optimal(100 * UNEQUAL, UNEQUAL), th.full((3, 1), 100.0))
    scores = th.randn(4, 6, generator=th.Generator().manual_seed(0))
    th.testing.assert_close(optimal(3.0 * scores, scores), th.full((4, 6), 3.0))


@pytest.mark.parametrize(("smallness", "informed"), [(1e-2, True), (1e-4, True), (1e-7, False), (1e-8, False), (1e-9, False)])
def test_optimal_is_no_quotient_of_rounding(smallness: float, informed: bool) -> None:
    """Where the other scores are so small beside a trajectory's own that the sum's rounding is all that is left of them, they
    say nothing, and it is 0; until then, of equal returns it is that return."""
    scores = th.cat([th.full((1, 50), 0.3), smallness * (1 + th.rand(2, 50, generator=th.Generator().manual_seed(0)))])
    own = optimal(100 * scores, scores)[0]
    th.testing.assert_close(own, th.full((50,), 100.0 if informed else 0.0), rtol=1e-3, atol=0.0)
