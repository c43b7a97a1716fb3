"""One step of the policy: what is logged of it and how long it is, against the policy's own distribution, by hand."""

from typing import Any

import numpy as np
import pytest
import torch as th
from envs import scripted
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_reinforce import REINFORCE

BOX = spaces.Box(-1, 1, (2,), np.float32)


def make_model(env: Any = None, **options: Any) -> REINFORCE:
    """Plain gradient descent of a linear policy, at batches of 3 + 3 + 5 steps."""
    policy_kwargs = {"net_arch": [], "optimizer_class": th.optim.SGD, "log_std_init": -0.5}
    env = env or scripted([3], [5], action_space=BOX)
    return REINFORCE("MlpPolicy", env, n_episodes=3, seed=0, policy_kwargs=policy_kwargs, **options)


@pytest.mark.parametrize("batch_size", [None, 1, 4])
@pytest.mark.parametrize("action_space", [BOX, spaces.Discrete(3)], ids=["box", "discrete"])
def test_losses_are_of_the_whole_batch(action_space: spaces.Space[Any], batch_size: int | None) -> None:
    """-(1/m) Σ Σ ψ log π and minus the mean entropy of a step, however many parts they were computed in."""
    env = scripted([3], [5], action_space=action_space)
    model = make_model(env, learning_rate=0.0, gamma=0.9, batch_size=batch_size).learn(1)
    (part,) = model.rollout_buffer.get()
    psi = np.repeat(model.rollout_buffer.returns, model.rollout_buffer.lengths)
    with th.no_grad():
        _, log_probs, entropy = model.policy.evaluate_actions(part.observations, part.actions)
    logged = model.logger.name_to_value
    assert logged["train/policy_loss"] == pytest.approx(-(psi @ log_probs.double().numpy()) / 3, rel=1e-5)
    assert logged["train/entropy_loss"] == pytest.approx(-entropy.mean().item(), rel=1e-5)


@pytest.mark.parametrize("max_grad_norm", [None, np.inf, 1e9, 0.01])
def test_the_norm_is_the_length_of_the_step(max_grad_norm: float | None) -> None:
    """Over all parameters together, and before clipping: with SGD the step is as long as the rate times the norm, or than
    the rate times the bound."""
    rate = 1e-3
    model = make_model(learning_rate=rate, max_grad_norm=max_grad_norm)
    before = th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().double()
    model.learn(1)
    moved = (th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().double() - before).norm().item()
    norm = model.logger.name_to_value["train/grad_norm"]
    assert norm > 1
    assert moved == pytest.approx(rate * min(norm, max_grad_norm or np.inf), rel=1e-3)


@pytest.mark.parametrize("baseline", [None, "leave_one_out", "optimal"])
def test_no_gradient_is_carried_into_the_next_step(baseline: str | None) -> None:
    """At a rate of 0 nothing moves, and a step after two of these, on the same batch, is the mean of the estimates of its
    trajectories alone."""
    model = make_model(baseline=baseline, learning_rate=0.0).learn(1)
    model.train()
    expected = model.trajectory_estimates()[0].mean(0)
    before = th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()
    model.lr_schedule = lambda _: 1e-3
    model.train()
    moved = th.nn.utils.parameters_to_vector(model.policy.parameters()).detach() - before
    th.testing.assert_close(moved, 1e-3 * expected, rtol=1e-3, atol=1e-6)
    assert moved.abs().max() > 1e-3


class Listed(ActorCriticPolicy):
    """A layer of the logits is in a plain list, so that the optimizer alone has its parameters."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.listed = [nn.Linear(3, 3)]
        self.optimizer.add_param_group({"params": self.listed[0].parameters()})

    def get_distribution(self, obs: Any) -> Any:
        logits = super().get_distribution(obs).distribution.logits
        return self.action_dist.proba_distribution(logits + self.listed[0](obs))

    def evaluate_actions(self, obs: Any, actions: Any) -> Any:
        distribution = self.get_distribution(obs)
        return self.predict_values(obs), distribution.log_prob(actions), distribution.entropy()

    def forward(self, obs: Any, deterministic: bool = False) -> Any:
        distribution = self.get_distribution(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, self.predict_values(obs), distribution.log_prob(actions)


@pytest.mark.parametrize("baseline", [None, "value"])
def test_parameters_that_only_the_optimizer_has_are_cleared_too(baseline: str | None) -> None:
    """As by A2C: nothing of earlier steps is left, and the steps of the value network move none of them."""
    policy_kwargs = {"net_arch": [], "optimizer_class": th.optim.SGD}
    env = scripted([3], [5], action_space=spaces.Discrete(3))
    model = REINFORCE(Listed, env, n_episodes=3, baseline=baseline, learning_rate=0.0, seed=0, policy_kwargs=policy_kwargs)
    model.learn(1)
    model.train()
    bias = model.policy.listed[0].bias
    (part,) = model.rollout_buffer.get()
    if baseline == "value":  # the last steps were its own
        assert bias.grad is None
        return
    weights = th.as_tensor(np.repeat(model.rollout_buffer.returns, model.rollout_buffer.lengths).astype(np.float32))
    log_probs = model.policy.get_distribution(part.observations).log_prob(part.actions)
    (gradient,) = th.autograd.grad(-(weights * log_probs).sum() / 3, bias)
    th.testing.assert_close(bias.grad, gradient)


class Tempered(CategoricalDistribution):
    """Its temperature is a parameter of the policy."""

    temperature: th.Tensor

    def proba_distribution(self, action_logits: th.Tensor) -> Any:
        return super().proba_distribution(action_logits / self.temperature)


class TemperedPolicy(ActorCriticPolicy):
    def _build(self, lr_schedule: Any) -> None:
        self.temperature = nn.Parameter(th.ones(()))
        self.action_dist = Tempered(3)
        self.action_dist.temperature = self.temperature
        super()._build(lr_schedule)


def test_a_parameter_that_the_distribution_holds_is_trained() -> None:
    """It is no graph of an evaluation, which is not to outlive the update."""
    model = REINFORCE(TemperedPolicy, scripted([3], [5], action_space=spaces.Discrete(3)), n_episodes=3, seed=0).learn(100)
    assert model.policy.action_dist.temperature is model.policy.temperature
    assert model.policy.temperature.item() != 1
