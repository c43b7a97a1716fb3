"""Likelihood ratios and the effective sample size, against numbers worked by hand; and the reuse of batches by them."""

from typing import Any

import numpy as np
import pytest
import torch as th
from envs import scripted
from torch import nn

from sb3_reinforce import REINFORCE, MlpPolicy
from sb3_reinforce.ratios import effective_sample_size, likelihood_ratios


def test_likelihood_ratios_by_hand() -> None:
    """Products of the ratios from each trajectory's own first step on."""
    ratios = np.array([2.0, 3.0, 0.5, 4.0, 0.25])
    expected = [2.0, 6.0, 0.5, 2.0, 0.5]
    np.testing.assert_allclose(likelihood_ratios(np.log(ratios), np.array([2, 3])), expected, rtol=1e-14)


def test_effective_sample_size_counts_what_weighs() -> None:
    """All, where weights are equal; one, where one outweighs the rest; and less where their mean is far from 1."""
    one_step = np.ones(7, dtype=np.int64)
    assert effective_sample_size(np.zeros(7), one_step) == pytest.approx(7.0)
    assert effective_sample_size(np.log([0.4, 2.0, 0.9]), np.array([1, 2])) == pytest.approx(2.2**2 / (0.4**2 + 1.8**2))
    assert effective_sample_size(np.log([0.1, 0.1, 6.8, 1e-9]), one_step[:4]) == pytest.approx(49 / 46.26)
    for factor in (2.0, 0.5):
        assert effective_sample_size(np.full(7, np.log(factor)), one_step) == pytest.approx(7 / 2)
        assert effective_sample_size(np.log([factor]), one_step[:1]) == pytest.approx(1 / 2)
    assert effective_sample_size(np.array([1e5, 0.0]), one_step[:2]) == 0.0
    assert effective_sample_size(np.array([-1e5, -2e5]), one_step[:2]) == 0.0
    assert np.isnan(effective_sample_size(np.array([np.nan, 0.0]), one_step[:2]))


def test_likelihood_ratios_are_float64_and_each_trajectorys_own() -> None:
    """A trajectory has alone the ratios that it has in the batch, to the rounding of float64, though log-ratios are float32;
    where a neighbour's ratio is infinitely small, too."""
    log_ratios = np.array([0.1, -0.2, -2000.0, -2000.0, 0.3, 0.4], dtype=np.float32)
    together = likelihood_ratios(log_ratios, np.array([2, 2, 2]))
    assert together.dtype == np.float64
    for steps in (slice(0, 2), slice(2, 4), slice(4, 6)):
        np.testing.assert_allclose(together[steps], likelihood_ratios(log_ratios[steps], np.array([2])), rtol=1e-12)


class Lost(MlpPolicy):
    """From the first update on, no log-probability is a number."""

    def evaluate_actions(self, obs: Any, actions: th.Tensor) -> Any:
        values, log_probs, entropy = super().evaluate_actions(obs, actions)
        updated = self.action_net.bias.any()  # it is zero at first
        return values, log_probs.where(~updated, th.nan), entropy


def test_a_sample_size_that_is_no_number_ends_reuse() -> None:
    """One step is taken, on the batch as it was collected, and none with ratios that are not numbers."""
    model = REINFORCE(Lost, scripted([3], [4]), n_episodes=4, n_epochs=3, seed=0).learn(1)
    assert model._n_updates == 1
    assert np.isnan(model.logger.name_to_value["train/effective_sample_size"])
    assert np.isfinite(model.policy.parameters_to_vector()).all()


def test_every_step_is_taken_in_training_mode() -> None:
    """Those of later epochs too, between which the likelihood ratio is asked for in evaluation mode."""
    modes: list[bool] = []

    class Watched(nn.Dropout):
        def forward(self, x: th.Tensor) -> th.Tensor:
            if th.is_grad_enabled():  # as the ratio, the values and the rollout need not
                modes.append(self.training)
            return super().forward(x)

    options = {"n_epochs": 4, "min_effective_share": 0.0, "baseline": "value", "n_critic_updates": 2}
    policy_kwargs = {"activation_fn": Watched, "net_arch": {"pi": [4], "vf": [4]}}
    model = REINFORCE("MlpPolicy", scripted([3], [4]), n_episodes=2, seed=0, policy_kwargs=policy_kwargs, **options).learn(1)
    assert model._n_updates == 4
    n_passes = len(modes)
    assert n_passes >= 4 + 2
    assert modes == [True] * n_passes


@pytest.mark.parametrize(("share", "n_updates"), [(0.0, 3), (1.0, 1)])
def test_the_share_decides_how_often_a_batch_is_used(share: float, n_updates: int) -> None:
    """All of the trajectories are never worth what they were before a step; no share at all is always reached. What is logged
    is how often the batch was used."""
    options = {"n_epochs": 3, "min_effective_share": share}
    model = REINFORCE("MlpPolicy", scripted([3], [4]), n_episodes=4, seed=0, **options).learn(1)
    assert model._n_updates == model.logger.name_to_value["train/n_epochs"] == n_updates


def test_reuse_learns_more_of_a_batch_than_a_step() -> None:
    """The second step is another than the first, in the direction of the same batch: with SGD it adds to it."""
    moved = []
    for n_epochs in (1, 2):
        policy_kwargs = {"net_arch": [], "optimizer_class": th.optim.SGD}
        model = REINFORCE("MlpPolicy", scripted([3], [4]), 1e-3, 4, n_epochs=n_epochs, seed=0, policy_kwargs=policy_kwargs)
        before = model.policy.action_net.weight.detach().clone()
        model.learn(1)
        moved.append(model.policy.action_net.weight.detach() - before)
    assert (moved[1] - 2 * moved[0]).abs().max() < 0.1 * moved[0].abs().max()
    assert not th.equal(moved[1], 2 * moved[0])
