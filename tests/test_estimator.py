"""The estimators against the exact gradient: expectations over every trajectory of a small MDP, without sampling."""

import itertools
import math

import pytest
import torch as th
from oracle import (
    PLAIN,
    TabularMDP,
    batches,
    estimate,
    exact_gradient,
    expected_estimate,
    expected_second_estimate,
    horizon_for,
    make_model,
    probability,
    trajectories,
)
from stable_baselines3.common.env_util import make_vec_env

from sb3_reinforce.estimator import entropy_loss, likelihood_ratio_loss

ROUNDING = 2e-6  # of float32 parameters, gradients and updates around 1


def make_batch_model(n_episodes, **options):
    """A model whose m trajectories run in m environments."""
    return make_model(make_vec_env(TabularMDP, n_envs=n_episodes), n_episodes=n_episodes, **options)


def test_the_trajectories_are_all_there_are():
    model = make_model()
    assert sum(probability(model, trajectory).item() for trajectory in trajectories(3)) == pytest.approx(1.0)
    assert {len(trajectory.actions) for trajectory in trajectories(3)} == {1, 2, 3}


@pytest.mark.parametrize("gamma", [pytest.param(1.0, marks=pytest.mark.slow), 0.7])
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
        # does the average know nothing of this batch?
        (2, {"baseline": "moving_average"}),
        # does each trajectory's optimal baseline come from the others alone, in parts too?
        (2, {"baseline": "optimal"}),
        (2, {"baseline": "optimal", "batch_size": 1}),
    ],
)
def test_full_trajectory_returns_are_unbiased_for_any_gamma(n_episodes, options, gamma):
    model = make_batch_model(n_episodes, gamma=gamma, **options)
    horizon = horizon_for(n_episodes)
    assert th.allclose(expected_estimate(model, horizon), exact_gradient(model, horizon), atol=ROUNDING, rtol=0)


@pytest.mark.parametrize(
    ("n_episodes", "options"),
    [
        (1, {}),
        (2, {"baseline": "leave_one_out"}),
        (2, {"baseline": "time_leave_one_out"}),
        (2, {"baseline": "moving_average"}),
        (2, {"baseline": "optimal"}),
        (1, {"baseline": "value"}),
    ],
)
@pytest.mark.parametrize("discounting", [{"gamma": 1.0}, {"gamma": 0.7, "exact_discounting": True}])
def test_rewards_to_go_are_unbiased_with_their_discount_weight(n_episodes, options, discounting):
    """Past rewards are independent of the action given the state; with gamma = 1 the weight is 1."""
    model = make_batch_model(n_episodes, return_type="reward_to_go", **discounting, **options)
    horizon = horizon_for(n_episodes)
    assert th.allclose(expected_estimate(model, horizon), exact_gradient(model, horizon), atol=ROUNDING, rtol=0)


def test_the_optimal_baseline_of_three_trajectories_is_unbiased():
    model = make_batch_model(3, gamma=0.7, baseline="optimal")
    assert th.allclose(expected_estimate(model, horizon=2), exact_gradient(model, horizon=2), atol=ROUNDING, rtol=0)


def expected_square(model, horizon):
    """E|ĝ|², which is the variance but for a number that all unbiased estimates share."""
    every = trajectories(horizon)
    probabilities = {trajectory: probability(model, trajectory).item() for trajectory in every}
    return sum(
        n_orders * math.prod(probabilities[trajectory] for trajectory in batch) * estimate(model, batch).square().sum().item()
        for n_orders, batch in batches(every, model.n_episodes)
    )


@pytest.mark.parametrize("return_type", ["trajectory", "reward_to_go"])
def test_leave_one_out_lowers_the_variance(return_type, monkeypatch):
    """Where the returns have much in common to subtract, as when every step pays 3 more: by half, even of two trajectories."""
    for pair, reward in PLAIN.rewards.items():
        monkeypatch.setitem(PLAIN.rewards, pair, reward + 3.0)
    plain, better = (
        expected_square(make_batch_model(2, gamma=1.0, return_type=return_type, baseline=baseline), horizon=2)
        for baseline in (None, "leave_one_out")
    )
    assert better < 0.5 * plain


TO_GO = {"gamma": 1.0, "return_type": "reward_to_go"}


@pytest.mark.parametrize(
    ("n_episodes", "options"),
    [
        (1, {"gamma": 0.7}),
        (2, {"gamma": 0.7, "baseline": "leave_one_out"}),
        (1, {"gamma": 0.7, "baseline": "value"}),
        (1, TO_GO),
        (1, {"gamma": 0.7, "return_type": "reward_to_go", "exact_discounting": True}),
        (1, {**TO_GO, "baseline": "value"}),
        # does a baseline of the others' rewards, weighted one by one, know nothing of the trajectory's own actions? Not how
        # long it lasts either: these are of one and two steps.
        (2, {**TO_GO, "baseline": "leave_one_out"}),
        (2, {**TO_GO, "baseline": "time_leave_one_out"}),
        (3, {**TO_GO, "baseline": "time_leave_one_out"}),
        (2, {**TO_GO, "gamma": 0.7, "baseline": "time_leave_one_out", "exact_discounting": True}),
        (2, {**TO_GO, "baseline": "mean"}),
    ],
)
def test_the_ratio_weighted_gradient_is_exact_away_from_the_policy_that_collected(n_episodes, options):
    """The second step of ``n_epochs=2``, at parameters far from those that the trajectories were collected with."""
    model = make_batch_model(n_episodes, n_epochs=2, min_effective_share=0.0, n_critic_updates=1, **options)
    expected, exact = expected_second_estimate(model, horizon_for(n_episodes))
    if model.baseline == "mean":  # biased by its share of the own return, as without ratios
        exact = (n_episodes - 1) / n_episodes * exact
    assert th.allclose(expected, exact, atol=5 * ROUNDING, rtol=0)


def test_reuse_ends_when_the_effective_sample_size_falls():
    """A third step is not taken when after the second the two trajectories are worth less than 1.99 of two."""
    batch = (trajectories(3)[0], trajectories(3)[-1])
    updates = []
    for n_epochs, share in ((1, 0.0), (3, 0.0), (3, 0.995)):
        model = make_batch_model(2, n_epochs=n_epochs, min_effective_share=share)
        estimate(model, batch)
        updates.append(model._n_updates)
        if n_epochs > 1:
            assert 0.0 < model.logger.name_to_value["train/effective_sample_size"] <= 2.0
    assert updates == [1, 3, 1]


def test_the_mean_of_the_trajectory_estimates_is_the_update():
    batch = (trajectories(3)[0], trajectories(3)[5])
    for options in ({}, {"baseline": "leave_one_out"}, {"baseline": "optimal"}, {"return_type": "reward_to_go"}):
        model = make_batch_model(2, batch_size=2, **options)
        update = estimate(model, batch)
        estimates, scores = model.trajectory_estimates()
        names = [name for name, _ in model.policy.named_parameters()]
        sizes = [parameter.numel() for parameter in model.policy.parameters()]
        by_name = dict(zip(names, estimates.mean(0).split(sizes), strict=True))
        assert th.allclose(th.cat([by_name["action_net.weight"], by_name["action_net.bias"]]).double(), update, atol=ROUNDING)
        assert not by_name["value_net.weight"].any()
        assert scores.shape == estimates.shape


def test_discounted_rewards_to_go_are_biased():
    """The reward-to-go that nearly every library computes is no gradient for gamma < 1 (Nota & Thomas 2020)."""
    model = make_batch_model(1, gamma=0.7, return_type="reward_to_go")
    assert (expected_estimate(model) - exact_gradient(model)).abs().max() > 0.05


@pytest.mark.parametrize(("n_episodes", "horizon"), [(2, 2), (3, 1)])
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
    at_once = make_batch_model(2, return_type="reward_to_go", **options)
    in_parts = make_batch_model(2, return_type="reward_to_go", batch_size=batch_size, **options)
    for batch in itertools.islice(itertools.product(every, every), 0, None, 17):
        assert th.allclose(estimate(in_parts, batch), estimate(at_once, batch), atol=ROUNDING, rtol=0)


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


def test_no_gradient_flows_into_the_weights():
    weights = th.tensor([2.0, -1.0], requires_grad=True)
    log_probs = th.tensor([-0.5, -0.25], requires_grad=True)
    likelihood_ratio_loss(log_probs, weights, 2).backward()
    assert weights.grad is None
    assert log_probs.grad.tolist() == [-1.0, 0.5]


def test_without_a_closed_form_entropy_is_minus_the_log_probability():
    assert entropy_loss(th.tensor([-0.5, -1.5]), None, 2).item() == -1.0
    assert entropy_loss(th.tensor([-0.5, -1.5]), th.tensor([3.0, 1.0]), 2).item() == -2.0


def test_the_entropy_bonus_of_a_squashed_policy_is_the_gradient_of_its_entropy():
    """No closed form, so it is that of the score function, whose mean over actions is to be the gradient through the actions.

    -log π of a sampled action, as in SB3, has a gradient of mean 0, whatever the policy.
    """
    mean, log_std = parameters = th.tensor(0.4, requires_grad=True), th.tensor(-0.3, requires_grad=True)
    quantiles = th.distributions.Normal(0.0, 1.0).icdf((th.arange(20_000, dtype=th.float64) + 0.5) / 20_000)
    gaussian_actions = mean + log_std.exp() * quantiles

    def log_prob(gaussian_actions):
        """Of their tanh."""
        gaussian = th.distributions.Normal(mean, log_std.exp()).log_prob(gaussian_actions)
        return gaussian - th.log(1 - th.tanh(gaussian_actions) ** 2)

    exact = th.autograd.grad(log_prob(gaussian_actions).mean(), parameters, retain_graph=True)  # of minus the entropy
    loss = entropy_loss(log_prob(gaussian_actions.detach()), None, n_episodes=20_000)
    assert loss.item() == pytest.approx(log_prob(gaussian_actions).mean().item())
    assert min(gradient.abs() for gradient in exact) > 0.2
    for ours, theirs in zip(th.autograd.grad(loss, parameters), exact, strict=True):
        assert ours.item() == pytest.approx(theirs.item(), abs=2e-3)


def test_the_entropy_bonus_of_a_squashed_policy_is_right_for_actions_of_another_policy():
    """As at the second use of a batch: each action is weighted with its likelihood ratio."""
    mean, log_std = parameters = th.tensor(0.4, requires_grad=True), th.tensor(-0.3, requires_grad=True)
    quantiles = th.distributions.Normal(0.0, 1.0).icdf((th.arange(20_000, dtype=th.float64) + 0.5) / 20_000)

    def log_prob(gaussian_actions, mean=mean):
        gaussian = th.distributions.Normal(mean, log_std.exp()).log_prob(gaussian_actions)
        return gaussian - th.log(1 - th.tanh(gaussian_actions) ** 2)

    own, others = mean + log_std.exp() * quantiles, (mean - 0.1 + log_std.exp() * quantiles).detach()
    exact = th.autograd.grad(log_prob(own).mean(), parameters, retain_graph=True)
    ratios = (log_prob(others) - log_prob(others, mean - 0.1)).exp().detach()
    for weights, right in ((ratios, True), (1.0, False)):
        loss = entropy_loss(log_prob(others), None, 20_000, weights)
        gradients = th.autograd.grad(loss, parameters, retain_graph=True)
        errors = [abs(ours - theirs) for ours, theirs in zip(gradients, exact, strict=True)]
        assert (max(errors).item() < 5e-3) is right
