"""The estimators against the exact gradient: expectations over every trajectory of a small MDP, without sampling."""

import itertools

import numpy as np
import pytest
import torch as th
from oracle import TabularMDP, estimate, exact_gradient, expected_estimate, make_model, probability, trajectories
from stable_baselines3.common.env_util import make_vec_env

from sb3_reinforce.estimator import entropy_loss, likelihood_ratio_loss, normalized

ROUNDING = 2e-6  # of float32 parameters, gradients and updates around 1


def make_batch_model(n_episodes, **options):
    """A model whose m trajectories run in m environments."""
    return make_model(make_vec_env(TabularMDP, n_envs=n_episodes), n_episodes=n_episodes, **options)


def test_the_trajectories_are_all_there_are():
    model = make_model()
    assert sum(probability(model, trajectory).item() for trajectory in trajectories(3)) == pytest.approx(1.0)
    assert {len(trajectory.actions) for trajectory in trajectories(3)} == {1, 2, 3}


@pytest.mark.parametrize("gamma", [1.0, 0.7])
@pytest.mark.parametrize(
    ("n_episodes", "options"),
    [
        # (8) itself: R(τ), no baseline
        (1, {}),
        # one batch of two is as good as two of one: the mean is over trajectories
        (2, {}),
        # does the baseline see no return of its own trajectory?
        (2, {"baseline": "leave_one_out"}),
        # is V(s) subtracted as fitted before this batch, and V's own fit kept out of the policy's step?
        (1, {"baseline": "value"}),
        (2, {"baseline": "value", "batch_size": 2, "n_critic_updates": 1}),
    ],
)
def test_full_trajectory_returns_are_unbiased_for_any_gamma(n_episodes, options, gamma):
    model = make_batch_model(n_episodes, gamma=gamma, **options)
    assert th.allclose(expected_estimate(model), exact_gradient(model), atol=ROUNDING, rtol=0)


@pytest.mark.parametrize(
    ("n_episodes", "options"),
    [(1, {}), (2, {"baseline": "leave_one_out"}), (1, {"baseline": "value"})],
)
def test_rewards_to_go_are_unbiased_without_discount(n_episodes, options):
    """Past rewards are independent of the action given the state; with gamma = 1 there is no weight to forget."""
    model = make_batch_model(n_episodes, gamma=1.0, return_type="reward_to_go", **options)
    assert th.allclose(expected_estimate(model), exact_gradient(model), atol=ROUNDING, rtol=0)


def test_discounted_rewards_to_go_are_biased():
    """The reward-to-go that nearly every library computes is no gradient for gamma < 1 (Nota & Thomas 2020)."""
    model = make_batch_model(1, gamma=0.7, return_type="reward_to_go")
    assert (expected_estimate(model) - exact_gradient(model)).abs().max() > 0.05


@pytest.mark.parametrize(("n_episodes", "horizon"), [(2, 3), (3, 2)])
def test_the_batch_mean_is_biased_by_exactly_its_share_of_the_own_return(n_episodes, horizon):
    model = make_batch_model(n_episodes, gamma=0.7, baseline="mean")
    expected = (n_episodes - 1) / n_episodes * exact_gradient(model, horizon)
    assert th.allclose(expected_estimate(model, horizon), expected, atol=ROUNDING, rtol=0)


def test_dividing_by_steps_would_be_biased():
    """The oracle can fail: the mean over steps, which most libraries take, is not the gradient for any step size."""
    model = make_model(n_episodes=1)
    expected = sum(
        probability(model, trajectory).item() * estimate(model, (trajectory,)) / len(trajectory.actions)
        for trajectory in trajectories(3)
    )
    direction = exact_gradient(model) / exact_gradient(model).norm()
    astray = expected - (expected @ direction) * direction
    assert astray.norm() > 1000 * ROUNDING


@pytest.mark.parametrize("options", [{}, {"baseline": "value"}, {"ent_coef": 0.1, "max_grad_norm": 0.5}])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_gradient_does_not_depend_on_batch_size(batch_size, options):
    every = trajectories(3)
    for batch in itertools.islice(itertools.product(every, every), 0, None, 17):
        whole = estimate(make_batch_model(2, return_type="reward_to_go", **options), batch)
        parts = estimate(make_batch_model(2, return_type="reward_to_go", batch_size=batch_size, **options), batch)
        assert th.allclose(parts, whole, atol=ROUNDING, rtol=0)


def test_the_entropy_bonus_is_the_gradient_of_the_entropy():
    """With returns of zero weight, what is left of the update is ent_coef times ∇ of the mean sum of entropies."""
    model = make_batch_model(2, gamma=1.0, baseline="mean", ent_coef=0.3)
    trajectory = trajectories(3)[0]
    entropies = model.policy.get_distribution(th.tensor(trajectory.states)).entropy().sum()
    gradient = th.cat([g.flatten() for g in th.autograd.grad(entropies, list(model.policy.action_net.parameters()))])
    assert gradient.abs().max() > 0.01
    assert th.allclose(estimate(model, (trajectory, trajectory)), 0.3 * gradient.double(), atol=ROUNDING, rtol=0)


def test_clipping_bounds_the_step_and_logs_the_norm_before():
    trajectory = trajectories(3)[0]
    free = make_model(n_episodes=1)
    clipped = make_model(n_episodes=1, max_grad_norm=0.1)
    whole, bounded = estimate(free, (trajectory,)), estimate(clipped, (trajectory,))
    assert whole.norm() > 0.2
    assert bounded.norm().item() == pytest.approx(0.1, rel=1e-4)
    assert clipped.logger.name_to_value["train/grad_norm"] == pytest.approx(whole.norm().item(), rel=1e-5)


def test_normalized_advantages_have_mean_zero_and_deviation_one():
    weights = normalized(np.array([1.0, 2.0, 6.0]))
    assert weights.mean() == pytest.approx(0.0)
    assert weights.std() == pytest.approx(1.0)


def test_normalizing_one_step_gives_zero_and_not_nan():
    assert normalized(np.array([3.0])).tolist() == [0.0]


def test_no_gradient_flows_into_the_weights():
    weights = th.tensor([2.0, -1.0], requires_grad=True)
    log_probs = th.tensor([-0.5, -0.25], requires_grad=True)
    likelihood_ratio_loss(log_probs, weights, 2).backward()
    assert weights.grad is None
    assert log_probs.grad.tolist() == [-1.0, 0.5]


def test_without_a_closed_form_entropy_is_minus_the_log_probability():
    assert entropy_loss(th.tensor([-0.5, -1.5]), None, 2).item() == -1.0
    assert entropy_loss(th.tensor([-0.5, -1.5]), th.tensor([3.0, 1.0]), 2).item() == -2.0
