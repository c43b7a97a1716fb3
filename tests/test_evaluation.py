"""Passes through the policy: how many steps each takes, whether the mode matters, and what is left behind."""

import gc
from typing import Any

import numpy as np
import pytest
import torch as th
from envs import SpacesEnv, scripted, vectorized
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_reinforce import REINFORCE, evaluation
from sb3_reinforce.evaluation import Evaluator, cut_graph, depends_on_mode

FRAMES = spaces.Box(0, 255, (4, 84, 84), np.uint8)
BOX = spaces.Box(-1, 1, (2,), np.float32)


def parts(model: REINFORCE, batch_size: int | None = None) -> list[int]:
    """Number of steps of each part of the last batch."""
    evaluator = Evaluator(model.policy, model.rollout_buffer.batch(), batch_size)
    return [len(part.actions) for part in evaluator.parts()]


def collected(
    space: spaces.Space[Any], length: int, action_space: spaces.Space[Any] | None = None, **kwargs: Any
) -> REINFORCE:
    """A model with a batch of so many steps, that nothing was learned from."""
    default = {spaces.Dict: "MultiInputPolicy"}.get(type(space), "CnnPolicy" if len(space.shape or ()) == 3 else "MlpPolicy")
    policy = kwargs.pop("policy", default)
    env = vectorized(SpacesEnv(space, action_space or spaces.Discrete(3), length))
    model = REINFORCE(policy, env, n_episodes=1, device="cpu", seed=0, **kwargs)
    model.train = lambda: None  # type: ignore[method-assign]
    return model.learn(1)


def test_a_pass_through_large_observations_is_bounded() -> None:
    """64 MiB of observations as float32 and activations: of frames of 4 x 84 x 84, some hundred steps, and not all of them."""
    model = collected(spaces.Dict(camera=FRAMES, joints=BOX), 300)
    sizes = parts(model)
    assert 100 < sizes[0] < 250
    assert sum(sizes) == 300
    assert set(sizes[:-1]) == {sizes[0]}
    assert parts(model, 300) == [300]
    assert parts(model, 7) == [7] * 42 + [6]


def test_a_pass_through_small_observations_is_one() -> None:
    """Without a measurement, which would take a pass of its own."""
    model = collected(BOX, 2000)
    calls = []
    model.policy.mlp_extractor.register_forward_hook(lambda *_: calls.append(1))
    assert parts(model) == [2000]
    assert calls == []


def test_a_pass_is_bounded_by_the_network_too() -> None:
    """Small observations, but four layers of 2048 units: 32 KiB a step are kept, in two ways."""
    model = collected(BOX, 4200, policy_kwargs={"net_arch": [16]})
    assert parts(model) == [4200]
    wide = REINFORCE("MlpPolicy", model.env, policy_kwargs={"net_arch": [2048] * 4, "ortho_init": False}).policy
    evaluator = Evaluator(wide, model.rollout_buffer.batch(), None)
    assert 1000 < evaluator.batch_size < 3000


class Convolutions(BaseFeaturesExtractor):
    """Few parameters, each of which is used at every square of a board."""

    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space, 16)
        layers = [nn.Conv2d(3, 16, 3, padding=1), *(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.layers(observations)


def test_a_pass_is_bounded_where_parameters_are_shared() -> None:
    """The inputs of four convolutions over a board of 19 x 19 squares: 77 KiB a step are kept."""
    board, policy_kwargs = spaces.Box(-1, 1, (3, 19, 19), np.float32), {"features_extractor_class": Convolutions}
    model = collected(board, 1000, policy="MlpPolicy", policy_kwargs=policy_kwargs)
    assert 800 < parts(model)[0] < 900


@pytest.mark.parametrize(("space", "action_space"), [(spaces.Discrete(20_000), None), (BOX, spaces.Discrete(20_000))])
def test_a_pass_of_few_steps_is_bounded_too(space: spaces.Space[Any], action_space: spaces.Space[Any] | None) -> None:
    """A number of 8 bytes is an observation, or an action, of which the network makes 80 KB at each step, several times."""
    model = collected(space, 1000, action_space, policy_kwargs={"net_arch": [16]})
    assert 80 < parts(model)[0] < 900


def test_the_update_is_that_of_any_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the default cuts the batch into parts, here of an eighth of the memory and of 26 steps."""
    monkeypatch.setattr(evaluation, "_PASS_NBYTES", 2**23)
    updates = []
    for batch_size in (None, 80):
        model = REINFORCE(
            "CnnPolicy", SpacesEnv(FRAMES, spaces.Discrete(3), 40), n_episodes=2, batch_size=batch_size, seed=0, device="cpu"
        )
        updates.append(model.learn(1).policy.action_net.weight.detach().clone())
    th.testing.assert_close(*updates, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("policy_kwargs", "expected"),
    [
        ({}, False),
        ({"activation_fn": nn.ReLU, "share_features_extractor": False}, False),
        ({"activation_fn": nn.Dropout}, True),
        ({"activation_fn": nn.RReLU}, True),
        ({"activation_fn": type("Own", (nn.Tanh,), {})}, True),  # which may do anything
    ],
)
def test_where_the_mode_may_matter_is_known(policy_kwargs: dict[str, Any], expected: bool) -> None:
    model = REINFORCE("MlpPolicy", scripted([2]), policy_kwargs=policy_kwargs)
    assert depends_on_mode(model.policy) is expected


def test_the_mode_of_batch_normalisation_matters() -> None:
    model = REINFORCE("CnnPolicy", SpacesEnv(FRAMES, spaces.Discrete(3)))
    assert not depends_on_mode(model.policy)
    model.policy.features_extractor.linear.append(nn.BatchNorm1d(512))
    assert depends_on_mode(model.policy)


@pytest.mark.parametrize(
    ("space", "n_epochs"),
    [
        (spaces.Discrete(2), 1),
        (spaces.Discrete(2), 2),
        (spaces.MultiDiscrete([2, 2]), 2),
        (spaces.MultiBinary(2), 2),
        (BOX, 2),
    ],
    ids=lambda value: str(value),
)
def test_no_graph_outlives_an_update(space: spaces.Space[Any], n_epochs: int) -> None:
    """Nor do its activations, which may be hundreds of megabytes through the next rollout."""
    kwargs: dict[str, Any] = {"policy_kwargs": {"net_arch": [3]}, "n_episodes": 2, "seed": 0, "n_epochs": n_epochs}
    model = REINFORCE("MlpPolicy", scripted([7], action_space=space), baseline="value", **kwargs).learn(1)
    gc.collect()
    assert model._n_updates == n_epochs
    graphs = [each for each in gc.get_objects() if type(each) is th.Tensor and each.grad_fn is not None]
    assert not [each for each in graphs if each.shape[:1] == (14,)]


@pytest.mark.parametrize("batch_size", [3, 5, 6, 12])
def test_no_part_is_of_a_single_step_where_two_fit(batch_size: int) -> None:
    """Batch normalisation refuses one, and nobody knows how many steps a batch will have."""
    model = collected(BOX, 13)
    sizes = parts(model, batch_size)
    assert max(sizes) <= batch_size
    assert min(sizes) > 1
    assert sum(sizes) == 13


def test_cutting_a_graph_keeps_the_numbers() -> None:
    """Of a distribution that consists of several, too."""
    model = REINFORCE("MlpPolicy", scripted([2], action_space=spaces.MultiDiscrete([2, 3])))
    distribution: Distribution = model.policy.get_distribution(th.ones(5, 3))
    before = [part.probs for part in distribution.distribution]
    cut_graph(distribution)
    for one, other in zip(distribution.distribution, before, strict=True):
        assert not one.logits.requires_grad
        assert th.equal(one.probs, other)
