"""Both ways to choose actions sample from the policy's own distribution, and the fast one knows when it cannot."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from envs import FLAT_SPACES, BanditEnv, scripted, vectorized
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_reinforce import REINFORCE, CnnPolicy, MlpPolicy, MultiInputPolicy, rollouts
from sb3_reinforce.actors import MlpActor, agrees, environment_actions, mlp, mlp_actor, policy_actor

BOX = FLAT_SPACES["box"]
IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
OBSERVATION_SPACES = {**FLAT_SPACES, "dict": spaces.Dict({key.replace(" ", "_"): s for key, s in FLAT_SPACES.items()})}
ACTION_SPACES = {
    "discrete": spaces.Discrete(3),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(2),
    "box": spaces.Box(-1, 1, (2,), np.float32),
    "box 2-d": spaces.Box(-1, 1, (2, 3), np.float32),
}
ACTIVATIONS = [
    nn.Tanh,
    nn.ReLU,
    nn.ELU,
    nn.LeakyReLU,
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Identity,
    nn.Softplus,
    nn.Hardtanh,
    nn.PReLU,
]


def make_policy(
    observation_space: spaces.Space[Any] = BOX,
    action_space: spaces.Space[Any] = ACTION_SPACES["discrete"],
    policy_class: type[ActorCriticPolicy] | None = None,
    **kwargs: Any,
) -> ActorCriticPolicy:
    """A small policy, of torch's own initial weights: SB3's make all biases 0 and all actions nearly equally likely."""
    if policy_class is None:
        policy_class = MultiInputPolicy if isinstance(observation_space, spaces.Dict) else MlpPolicy
    arguments = {"net_arch": [8], "ortho_init": False, "log_std_init": -0.5, **kwargs}
    return policy_class(observation_space, action_space, lambda _: 0.1, **arguments)


def drawn(space: spaces.Space[Any], n_envs: int = 3) -> Any:
    """Observations as a VecEnv stacks them, ``[n_envs, ...]``."""
    space.seed(0)
    samples = [space.sample() for _ in range(n_envs)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([sample[key] for sample in samples]) for key in space}
    return np.stack(samples)


def tensors(obs: Any) -> Any:
    return {key: th.as_tensor(each) for key, each in obs.items()} if isinstance(obs, dict) else th.as_tensor(obs)


def step(policy: ActorCriticPolicy, obs: Any, actions: np.ndarray) -> None:
    """One step of the policy's optimizer, along the gradient of the log-probability of these actions."""
    tensor = th.as_tensor(actions)
    if not isinstance(policy.action_space, spaces.Discrete):
        tensor = tensor.flatten(1)
    policy.evaluate_actions(tensors(obs), tensor)[1].sum().backward()
    policy.optimizer.step()


def assert_agree(policy: ActorCriticPolicy) -> None:
    """Numpy and policy, and still after an optimizer step, which the views of the parameters follow."""
    obs = drawn(policy.observation_space)
    actor = mlp_actor(policy)
    assert actor is not None
    assert agrees(actor, policy, obs)
    before = actor.outputs(obs).copy()
    step(policy, obs, actor(obs))
    assert np.abs(actor.outputs(obs) - before).max() > 0.001  # more than a hundred times what `agrees` tolerates
    assert agrees(actor, policy, obs)


@pytest.mark.parametrize("action_space", ACTION_SPACES.values(), ids=ACTION_SPACES)
@pytest.mark.parametrize("observation_space", OBSERVATION_SPACES.values(), ids=OBSERVATION_SPACES)
def test_numpy_and_policy_agree(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """For every pair of spaces, without a hidden layer and with one."""
    for net_arch in ([], [8]):
        assert_agree(make_policy(observation_space, action_space, net_arch=net_arch, optimizer_class=th.optim.SGD))


@pytest.mark.parametrize("dtype", [np.float32, bool, np.uint8])
@pytest.mark.parametrize("space", [spaces.Discrete(2), spaces.MultiDiscrete([2, 2])], ids=str)
def test_whole_numbers_may_come_in_any_dtype(space: spaces.Space[Any], dtype: type) -> None:
    """As SB3 takes them, from wrappers that make floats of all observations."""
    actor = mlp_actor(make_policy(space))
    assert actor is not None
    obs = drawn(space)
    expected = actor.outputs(obs).copy()
    np.testing.assert_array_equal(actor.outputs(obs.astype(dtype)), expected)


@pytest.mark.parametrize("net_arch", [[8], {"pi": [8, 8], "vf": [4]}, {"vf": [4]}], ids=str)
@pytest.mark.parametrize("activation_fn", ACTIVATIONS)
def test_numpy_and_policy_agree_whatever_is_between(activation_fn: type[nn.Module], net_arch: Any) -> None:
    """For every activation, in networks of no, one and two hidden layers."""
    for action_space in (ACTION_SPACES["discrete"], ACTION_SPACES["box"]):
        options = {"net_arch": net_arch, "activation_fn": activation_fn, "optimizer_class": th.optim.SGD}
        assert_agree(make_policy(action_space=action_space, **options))


@pytest.mark.parametrize("optimizer_class", [th.optim.Adam, th.optim.AdamW, th.optim.RMSprop, th.optim.SGD])
def test_parameters_are_followed(optimizer_class: type[th.optim.Optimizer]) -> None:
    """The usual optimizers, and loading parameters, write in place; the actor need not be told."""
    policy = make_policy(optimizer_class=optimizer_class)
    actor = mlp_actor(policy)
    assert actor is not None
    obs = drawn(BOX)
    saved = {name: parameter.clone() for name, parameter in policy.state_dict().items()}
    before = actor.outputs(obs).copy()
    step(policy, obs, actor(obs))
    assert np.abs(actor.outputs(obs) - before).max() > 0.001
    assert agrees(actor, policy, obs)
    policy.load_state_dict(saved)
    np.testing.assert_array_equal(actor.outputs(obs), before)


def test_the_standard_deviation_is_followed() -> None:
    """Also within a rollout, where a callback may set it."""
    policy = make_policy(action_space=ACTION_SPACES["box"])
    actor = mlp_actor(policy)
    assert actor is not None
    obs = drawn(BOX)
    with th.no_grad():
        policy.log_std.fill_(-20.0)
    np.testing.assert_allclose(actor(obs).reshape(len(obs), -1), actor.outputs(obs), atol=1e-6)


def test_large_products_are_left_to_torch() -> None:
    """numpy would share them among threads that torch.set_num_threads does not govern."""
    policy = make_policy(net_arch=[256, 256])
    actor = mlp_actor(policy)
    assert actor is not None
    assert agrees(actor, policy, drawn(BOX, 8))
    seen: list[nn.Module] = []
    for module in policy.mlp_extractor.policy_net:
        module.register_forward_hook(lambda module, *_: seen.append(module))
    actor.outputs(drawn(BOX, 8))
    assert seen == [policy.mlp_extractor.policy_net[2]]


@pytest.mark.parametrize("action_space", ACTION_SPACES.values(), ids=ACTION_SPACES)
def test_numpy_and_policy_act_alike(action_space: spaces.Space[Any]) -> None:
    """The same shape and dtype of actions, one for each environment, so that nobody can tell who chose them."""
    policy = make_policy(action_space=action_space)
    actor = mlp_actor(policy)
    assert actor is not None
    for n_envs in (1, 3):
        slow, fast = policy_actor(policy)(drawn(BOX, n_envs)), actor(drawn(BOX, n_envs))
        assert fast.shape == slow.shape == (n_envs, *action_space.shape)
        assert fast.dtype == slow.dtype


@pytest.mark.parametrize("action_space", ACTION_SPACES.values(), ids=ACTION_SPACES)
def test_each_environment_has_noise_of_its_own(action_space: spaces.Space[Any]) -> None:
    """Also when their number changes from call to call: of twenty that see the same, not all do the same, and one is one."""
    actor = mlp_actor(make_policy(action_space=action_space))
    assert actor is not None
    obs = np.full((1, 3), 0.5, dtype=np.float32)
    for n_envs in (1, 20, 1, 4, 20):
        actions = actor(np.repeat(obs, n_envs, axis=0))
        assert actions.shape == (n_envs, *action_space.shape)
        if n_envs == 20:
            assert len(np.unique(actions, axis=0)) > 1
            if isinstance(action_space, spaces.Box):
                assert len(np.unique(actions)) == actions.size


@pytest.mark.parametrize("action_space", ACTION_SPACES.values(), ids=ACTION_SPACES)
def test_noise_is_not_drawn_twice(action_space: spaces.Space[Any]) -> None:
    """Over several blocks of random numbers, no stretch of ten steps is another's."""
    actor = mlp_actor(make_policy(action_space=action_space))
    assert actor is not None
    obs = np.full((20, 3), 0.5, dtype=np.float32)
    stretches = [np.stack([actor(obs) for _ in range(10)]).tobytes() for _ in range(30)]
    assert len(set(stretches)) == 30


@pytest.mark.parametrize("action_space", ACTION_SPACES.values(), ids=ACTION_SPACES)
def test_agrees_notices_a_difference(action_space: spaces.Space[Any]) -> None:
    """One output of the policy, off by 0.01, at one environment of three."""

    def shift_one(module: nn.Module, args: Any, output: th.Tensor) -> th.Tensor:
        return output + 0.01 * (th.arange(output.numel()).reshape(output.shape) == output.numel() - 1)

    policy = make_policy(action_space=action_space)
    actor = mlp_actor(policy)
    assert actor is not None
    assert agrees(actor, policy, drawn(BOX))
    policy.action_net.register_forward_hook(shift_one)
    assert not agrees(actor, policy, drawn(BOX))


def test_agrees_notices_another_standard_deviation() -> None:
    """A method replaced on the instance, which no look at the class can tell, and which leaves the means as they are."""
    policy = make_policy(action_space=ACTION_SPACES["box"])
    actor = mlp_actor(policy)
    assert actor is not None
    assert agrees(actor, policy, drawn(BOX))
    distribution = policy.action_dist
    policy._get_action_dist_from_latent = lambda latent: distribution.proba_distribution(
        policy.action_net(latent), policy.log_std + 0.01
    )
    assert not agrees(actor, policy, drawn(BOX))


# --- samples -----------------------------------------------------------------------------------------------------------

N_SAMPLES = 100_000
#: Standard errors that a frequency may be off. One comparison in 16,000 is further off by chance, and the seed is fixed.
TOLERATED = 4


def sampled(action_space: spaces.Space[Any], kind: str) -> tuple[np.ndarray, Any]:
    """Many actions at one observation, ``[N_SAMPLES, ...]``, and the distribution they should come from."""
    policy = make_policy(action_space=action_space)
    with th.no_grad():
        policy.action_net.weight *= 4  # far from equally likely
    actor = mlp_actor(policy) if kind == "numpy" else policy_actor(policy)
    assert actor is not None
    obs = np.full((1, 3), 0.5, dtype=np.float32)
    with th.no_grad():
        distribution = policy.get_distribution(th.as_tensor(obs)).distribution
    return actor(np.repeat(obs, N_SAMPLES, axis=0)), distribution


def assert_frequencies(actions: np.ndarray, probabilities: np.ndarray) -> None:
    """Each joint action as often as the table says: ``probabilities[a0, a1, ...]``."""
    counts = np.zeros(probabilities.shape)
    np.add.at(counts, tuple(actions.reshape(len(actions), -1).T.astype(int)), 1)
    assert probabilities.min() > 0.001  # so that counts are nearly normal
    standard_error = np.sqrt(probabilities * (1 - probabilities) / N_SAMPLES)
    np.testing.assert_array_less(np.abs(counts / N_SAMPLES - probabilities), TOLERATED * standard_error)


@pytest.mark.parametrize("kind", ["numpy", "policy"])
class TestFrequencies:
    """Actions are as frequent as the policy says they are, components of one action independent of each other."""

    def test_discrete(self, kind: str) -> None:
        """Softmax of the logits."""
        actions, categorical = sampled(spaces.Discrete(4), kind)
        assert_frequencies(actions, categorical.probs[0].numpy())

    def test_multi_discrete(self, kind: str) -> None:
        """The joint probability is the product of the components'."""
        actions, categoricals = sampled(spaces.MultiDiscrete([2, 3]), kind)
        first, second = (categorical.probs[0].numpy() for categorical in categoricals)
        assert_frequencies(actions, np.outer(first, second))

    def test_multi_binary(self, kind: str) -> None:
        """Likewise, with 0 first."""
        actions, bernoulli = sampled(spaces.MultiBinary(3), kind)
        assert set(np.unique(actions)) == {0, 1}
        one = bernoulli.probs[0].numpy()
        first, second, third = np.stack([1 - one, one], axis=1)
        assert_frequencies(actions, np.einsum("i,j,k->ijk", first, second, third))

    def test_box(self, kind: str) -> None:
        """Means, standard deviations, correlations, and a third moment and a quantile that tell a Gaussian from others."""
        actions, normal = sampled(spaces.Box(-1, 1, (2, 2), np.float32), kind)
        z = (actions.reshape(N_SAMPLES, 4) - normal.mean.numpy()) / normal.stddev.numpy()
        standard_error = 1 / np.sqrt(N_SAMPLES)
        np.testing.assert_array_less(np.abs(z.mean(axis=0)), TOLERATED * standard_error)
        covariance = z.T @ z / N_SAMPLES  # its entries have variance 2/n on the diagonal, 1/n elsewhere
        np.testing.assert_array_less(np.abs(covariance - np.eye(4)), TOLERATED * np.sqrt(1 + np.eye(4)) * standard_error)
        np.testing.assert_array_less(np.abs((z**3).mean(axis=0)), TOLERATED * np.sqrt(15) * standard_error)
        within = 0.682689  # of a Gaussian lies within one standard deviation
        error = TOLERATED * np.sqrt(within * (1 - within)) * standard_error
        np.testing.assert_array_less(np.abs((np.abs(z) < 1).mean(axis=0) - within), error)


@pytest.mark.parametrize("kind", ["numpy", "policy"])
@pytest.mark.parametrize("action_space", ACTION_SPACES.values(), ids=ACTION_SPACES)
def test_a_seed_repeats_actions(action_space: spaces.Space[Any], kind: str) -> None:
    """The generators that SB3 seeds are the only source of randomness."""
    policy, obs = make_policy(action_space=action_space), drawn(BOX, 20)

    def acted(seed: int) -> list[Any]:
        set_random_seed(seed)
        actor = mlp_actor(policy) if kind == "numpy" else policy_actor(policy)
        assert actor is not None
        return [actor(obs).tolist() for _ in range(3)]

    assert acted(1) == acted(1)
    assert acted(1) != acted(2)


# --- where the fast actor does not exist ---------------------------------------------------------------------------------


class OwnExtractor(FlattenExtractor):
    """A features extractor of the user's, which may do anything."""


class OwnMlpExtractor(MlpExtractor):
    """Likewise."""


class OwnActivation(nn.Module):
    """Likewise, even if it may be used elementwise."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        return th.tanh(x)


class OwnTanh(nn.Tanh):
    """Likewise."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        return super().forward(2 * x)


class OwnLayers(MlpPolicy):
    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = OwnMlpExtractor(self.features_dim, self.net_arch, self.activation_fn, self.device)


class OwnForward(MlpPolicy):
    """Always action 2, whatever the distribution."""

    def forward(self, obs: Any, deterministic: bool = False) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        actions, values, log_prob = super().forward(obs, deterministic)
        return th.full_like(actions, 2), values, log_prob


class OwnDistribution(MlpPolicy):
    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Any:
        return self.action_dist.proba_distribution(self.action_net(latent_pi) + th.tensor([0.0, 0.0, 100.0]))


class OwnGetDistribution(MlpPolicy):
    """Changes what ``predict`` does, and neither rollouts nor ``evaluate_actions``."""

    def get_distribution(self, obs: Any) -> Any:
        return super().get_distribution(-obs)


class OwnFeatures(MlpPolicy):
    """Another scale, as of a user's own normalisation."""

    def extract_features(self, obs: Any, features_extractor: Any = None) -> Any:
        return super().extract_features(1000 * obs, features_extractor)


def hooked(policy: ActorCriticPolicy, name: str) -> ActorCriticPolicy:
    """It only looks, at what numpy would not show it."""
    policy.get_submodule(name).register_forward_hook(lambda module, args, output: None)
    return policy


def with_layers(policy: ActorCriticPolicy, *layers: nn.Module) -> ActorCriticPolicy:
    """The same policy, of these layers."""
    policy.mlp_extractor.policy_net = nn.Sequential(*layers)
    return policy


class KeepsATensor(FlattenExtractor):
    """Made at the first call, in a rollout, and part of the graph in the update."""

    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space)
        self.factor = nn.Parameter(th.ones(()))
        self.scale: th.Tensor | None = None

    def forward(self, obs: th.Tensor) -> th.Tensor:
        if self.scale is None:
            self.scale = th.arange(1.0, 1.0 + obs.shape[1])
        return super().forward(self.factor * obs * self.scale)


CIRCUMVENTED: dict[str, Callable[[], ActorCriticPolicy]] = {
    "cnn": lambda: make_policy(IMAGE, policy_class=CnnPolicy),
    "image, normalised": lambda: make_policy(IMAGE),
    "dict with an image": lambda: make_policy(spaces.Dict(image=IMAGE, box=BOX)),
    "dict with an image, not normalised": lambda: make_policy(spaces.Dict(image=IMAGE, box=BOX), normalize_images=False),
    "gSDE": lambda: make_policy(action_space=ACTION_SPACES["box"], use_sde=True),
    "gSDE, squashed": lambda: make_policy(action_space=ACTION_SPACES["box"], use_sde=True, squash_output=True),
    "features extractor": lambda: make_policy(features_extractor_class=OwnExtractor),
    "mlp extractor": lambda: make_policy(policy_class=OwnLayers),
    "activation": lambda: make_policy(activation_fn=OwnActivation),
    "activation of torch's with a method of one's own": lambda: make_policy(activation_fn=OwnTanh),
    "modules within a module": lambda: make_policy(activation_fn=lambda: nn.Sequential(OwnActivation())),
    "dropout": lambda: make_policy(activation_fn=nn.Dropout),
    "normalisation over features": lambda: make_policy(activation_fn=lambda: nn.LayerNorm(8)),
    "normalisation over the batch": lambda: make_policy(activation_fn=lambda: nn.BatchNorm1d(8)),
    "no bias": lambda: with_layers(make_policy(), nn.Linear(3, 8, bias=False), nn.Tanh()),
    "computed weights": lambda: with_layers(make_policy(), nn.utils.parametrizations.orthogonal(nn.Linear(3, 8)), nn.Tanh()),
    "forward": lambda: make_policy(policy_class=OwnForward),
    "_get_action_dist_from_latent": lambda: make_policy(policy_class=OwnDistribution),
    "get_distribution": lambda: make_policy(policy_class=OwnGetDistribution),
    "extract_features": lambda: make_policy(policy_class=OwnFeatures),
    "hook of a layer": lambda: hooked(make_policy(), "mlp_extractor.policy_net.0"),
    "hook of the layers": lambda: hooked(make_policy(), "mlp_extractor.policy_net"),
    "hook of the features": lambda: hooked(make_policy(), "features_extractor"),
    "hook of one feature": lambda: hooked(make_policy(spaces.Dict(box=BOX)), "features_extractor.extractors.box"),
    "float64": lambda: make_policy().double(),
    "another device": lambda: make_policy().to("meta"),
}


@pytest.mark.parametrize("make", CIRCUMVENTED.values(), ids=CIRCUMVENTED)
def test_there_is_no_numpy_actor_for_what_is_not_known(make: Callable[[], ActorCriticPolicy]) -> None:
    """Policies that may do more than their linear layers and activations say are asked themselves."""
    assert mlp_actor(make()) is None


@pytest.mark.parametrize("space", [spaces.Discrete(2), BOX], ids=["discrete", "box"])
def test_copies_from_an_accelerator_act_as_the_policy_does(space: spaces.Space[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """They are taken by force here. Each rollout has those of its own policy, so the results are the same to the last bit."""
    results = []
    for by_force in (False, True):
        if by_force:
            monkeypatch.setattr(mlp, "on_cpu", copy.deepcopy)
        policy_kwargs = {"activation_fn": nn.PReLU}
        model = REINFORCE("MlpPolicy", scripted([5], action_space=space), 0.1, 2, seed=0, policy_kwargs=policy_kwargs)
        model.learn(40)
        results.append(th.nn.utils.parameters_to_vector(model.policy.parameters()))
        actor, obs = model._make_actor(), drawn(spaces.Box(-1, 1, (3,), np.float32))
        assert isinstance(actor, MlpActor)
        before = actor.outputs(obs).copy()
        with th.no_grad():
            model.policy.action_net.bias += 1
        assert np.array_equal(actor.outputs(obs), before) == by_force
    assert th.equal(*results)


def test_nobody_is_sent_to_the_cpu() -> None:
    """SB3 warns of multilayer perceptrons on an accelerator."""
    model = REINFORCE("MlpPolicy", scripted([5]))
    model.device = th.device("cuda")
    model._maybe_recommend_cpu()


#: Activations of torch's that take or return other shapes than a layer's.
OF_OTHER_SHAPES = {"GLU", "MultiheadAttention", "Softmax2d"}


@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
@pytest.mark.parametrize("name", sorted({*nn.modules.activation.__all__} - OF_OTHER_SHAPES))
def test_any_activation_of_torch_is_right_or_left_to_the_policy(name: str) -> None:
    """Those that a policy can be made of, in evaluation mode, as in rollouts: elementwise or not, with parameters or none."""
    arguments = (0.1, 20.0) if name == "Threshold" else ()
    policy = make_policy(activation_fn=lambda: getattr(nn, name)(*arguments), net_arch=[8, 8])
    policy.set_training_mode(False)
    actor = mlp_actor(policy)
    for n_envs in (1, 3):
        obs = drawn(BOX, n_envs)
        assert actor is None or agrees(actor, policy, obs)
        np.testing.assert_array_equal(obs, drawn(BOX, n_envs))


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.ELU, nn.Identity])
def test_observations_are_not_written_to(activation: type[nn.Module]) -> None:
    """Not by an activation before the first linear layer either, and the environment's array is what the buffer stores."""
    obs, policy = 3 * drawn(BOX), with_layers(make_policy(), activation(), nn.Linear(3, 8), nn.Tanh())
    before = obs.copy()
    actor = mlp_actor(policy)
    assert actor is None or agrees(actor, policy, obs)
    (actor or policy_actor(policy))(obs)
    np.testing.assert_array_equal(obs, before)


def test_an_image_that_is_not_normalised_is_a_box() -> None:
    """With ``normalize_images=False`` SB3 only flattens it, and so does the actor."""
    policy = make_policy(IMAGE, normalize_images=False)
    actor = mlp_actor(policy)
    assert actor is not None
    assert agrees(actor, policy, drawn(IMAGE))


def test_the_actors_are_compared_as_they_act() -> None:
    """In evaluation mode, where this activation is not random, also when learning goes on after an update."""
    env = scripted([3], [3])  # of which one begins with observations other than 0
    model = REINFORCE("MlpPolicy", env, n_episodes=2, policy_kwargs={"activation_fn": nn.RReLU}, seed=0)
    for _ in range(2):
        model.policy.set_training_mode(True)
        model.learn(1, reset_num_timesteps=False)
        model.policy.set_training_mode(False)
        assert isinstance(model._make_actor(), MlpActor)


def test_separate_features_extractors_are_no_obstacle() -> None:
    """The policy's own is used, the value's is not asked."""
    policy = make_policy(share_features_extractor=False)
    actor = mlp_actor(policy)
    assert actor is not None
    assert agrees(actor, policy, drawn(BOX))


@pytest.mark.parametrize("policy_class", [MlpPolicy, OwnForward, OwnDistribution, OwnGetDistribution, OwnFeatures])
def test_the_policy_actor_samples_what_forward_samples(policy_class: type[ActorCriticPolicy]) -> None:
    """Whichever method a subclass overrides, to the last bit: SB3's rollouts ask ``forward``.

    ``get_distribution`` is cheaper, and goes past an overridden ``forward`` or ``extract_features``, while
    ``evaluate_actions`` does not go past the latter: the gradient would be that of actions nobody sampled.
    """
    policy, obs = make_policy(policy_class=policy_class), drawn(BOX, 100)
    assert_same_draws(policy, obs)


@pytest.mark.parametrize(("name", "use_sde"), [*((name, False) for name in ACTION_SPACES), ("box", True), ("box 2-d", True)])
def test_the_policy_actor_samples_any_space_as_forward_does(name: str, use_sde: bool) -> None:
    """The same draws, in the same shape, for every distribution."""
    assert_same_draws(make_policy(action_space=ACTION_SPACES[name], use_sde=use_sde), drawn(BOX, 100))


def assert_same_draws(policy: ActorCriticPolicy, obs: np.ndarray) -> None:
    th.manual_seed(1)
    actions = policy_actor(policy)(obs)
    th.manual_seed(1)
    with th.no_grad():
        np.testing.assert_array_equal(actions, policy(th.as_tensor(obs))[0])


# --- no gradient ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy_class", [MlpPolicy, OwnForward])
def test_the_policy_actor_builds_no_graph(policy_class: type[ActorCriticPolicy]) -> None:
    """A rollout needs no gradient, and a graph would cost time and memory at each step."""
    policy = make_policy(policy_class=policy_class)
    outputs: list[th.Tensor] = []
    policy.action_net.register_forward_hook(lambda module, args, output: outputs.append(output))
    policy_actor(policy)(drawn(BOX))
    assert [output.requires_grad for output in outputs] == [False]


def test_the_numpy_actor_builds_no_graph() -> None:
    """Also where an activation is torch's, with a parameter of its own."""
    policy = make_policy(activation_fn=nn.PReLU)
    actor = mlp_actor(policy)
    assert actor is not None
    outputs: list[th.Tensor] = []
    policy.mlp_extractor.policy_net[1].register_forward_hook(lambda module, args, output: outputs.append(output))
    actor(drawn(BOX))
    assert [output.requires_grad for output in outputs] == [False]


# --- what the environment gets -------------------------------------------------------------------------------------------


def test_box_actions_are_clipped() -> None:
    """Gaussian actions have no bounds, the environment has."""
    space = spaces.Box(np.array([-1, 0], dtype=np.float32), np.array([1, 5], dtype=np.float32))
    bounded = environment_actions(make_policy(action_space=space))
    actions = np.array([[-3.0, -3.0], [0.5, 7.0]], dtype=np.float32)
    assert bounded(actions).tolist() == [[-1, 0], [0.5, 5]]
    assert actions.tolist() == [[-3, -3], [0.5, 7]]  # what is stored stays


def test_squashed_actions_are_scaled() -> None:
    """From -1 .. 1, where tanh put them, to the bounds."""
    space = spaces.Box(np.array([-1, 0], dtype=np.float32), np.array([1, 5], dtype=np.float32))
    bounded = environment_actions(make_policy(action_space=space, use_sde=True, squash_output=True))
    assert bounded(np.array([[-1.0, -1.0], [0.5, 0.0], [1.0, 1.0]])).tolist() == [[-1, 0], [0.5, 2.5], [1, 5]]


def test_discrete_actions_are_counted_from_the_start_of_their_space() -> None:
    """SB3's distributions count from 0, Gymnasium's spaces from where they please."""
    discrete = environment_actions(make_policy(action_space=spaces.Discrete(3, start=5)))
    assert discrete(np.array([0, 1, 2])).tolist() == [5, 6, 7]
    multi_discrete = environment_actions(make_policy(action_space=spaces.MultiDiscrete([3, 3], start=[-1, 2])))
    assert multi_discrete(np.array([[0, 0], [2, 1]])).tolist() == [[-1, 2], [1, 3]]
    for space in (spaces.Discrete(3), spaces.MultiDiscrete([3, 3]), spaces.MultiBinary(2)):
        actions = np.array([[0, 1], [1, 0]])
        np.testing.assert_array_equal(environment_actions(make_policy(action_space=space))(actions), actions)


# --- in REINFORCE --------------------------------------------------------------------------------------------------------


def test_learn_does_not_ask_the_policy_where_numpy_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast way is the usual one."""

    def asked(policy: ActorCriticPolicy) -> None:
        raise AssertionError("the policy was asked")

    monkeypatch.setattr(rollouts, "policy_actor", asked)
    model = REINFORCE("MlpPolicy", vectorized(BanditEnv()), n_episodes=4)
    assert model.learn(12).num_timesteps == 12


def test_learn_warns_once_and_asks_the_policy_where_it_does_not_agree() -> None:
    """A replaced method is no layer: it makes action 1 certain here, and rollouts have to see that."""
    model = REINFORCE("MlpPolicy", vectorized(BanditEnv()), n_episodes=4)
    forward = model.policy.action_net.forward
    model.policy.action_net.forward = lambda x: forward(x) + th.tensor([0.0, 100.0])
    with pytest.warns(UserWarning, match="has hooks or methods that its layers do not show") as warned:
        model.learn(12)
    assert len(warned) == 1
    assert model.num_timesteps == 12
    assert model.rollout_buffer.returns.tolist() == [1.0] * 4


@pytest.mark.parametrize("factor", [2.0, 10.0, -1.0])
def test_actors_are_compared_where_observations_differ(factor: float) -> None:
    """At the first observations all is 0 nearly, with ``VecNormalize`` and biases that begin at 0."""
    policy = REINFORCE("MlpPolicy", VecNormalize(scripted([4]))).policy
    actor = mlp_actor(policy)
    assert actor is not None
    assert agrees(actor, policy)
    actor._layers.append(lambda x: factor * x)
    assert not agrees(actor, policy)


@pytest.mark.parametrize("factor", [2.0, 10.0, -1.0])
def test_what_is_replaced_when_training_goes_on_is_acted_on(factor: float) -> None:
    """In the next rollout, though none was before."""
    model = REINFORCE("MlpPolicy", VecNormalize(scripted([4])), n_episodes=2).learn(1)
    assert isinstance(model._make_actor(), MlpActor)
    layer = model.policy.action_net
    layer.forward = lambda x: factor * nn.Linear.forward(layer, x)
    with pytest.warns(UserWarning, match="rollouts ask the policy itself"):
        model.learn(1, reset_num_timesteps=False)
    assert not isinstance(model._make_actor(), MlpActor)


WATCHED: dict[str, Callable[[ActorCriticPolicy, Callable[..., None]], Any]] = {
    "forward hook of the policy": lambda policy, see: policy.register_forward_hook(see),
    "pre-hook of the policy": lambda policy, see: policy.register_forward_pre_hook(see),
    "forward hook of mlp_extractor": lambda policy, see: policy.mlp_extractor.register_forward_hook(see),
    "forward hook of value_net": lambda policy, see: policy.value_net.register_forward_hook(see),
    "forward hook of the value network": lambda policy, see: policy.mlp_extractor.value_net[0].register_forward_hook(see),
    "hook of all modules": lambda policy, see: nn.modules.module.register_module_forward_hook(see),
    "pre-hook of all modules": lambda policy, see: nn.modules.module.register_module_forward_pre_hook(see),
    "forward of the policy": lambda policy, see: replaced(policy, "forward", see),
    "forward of value_net": lambda policy, see: replaced(policy.value_net, "forward", see),
    "forward of mlp_extractor": lambda policy, see: replaced(policy.mlp_extractor, "forward", see),
    "extract_features": lambda policy, see: replaced(policy, "extract_features", see),
    "another features extractor": lambda policy, see: extracted(policy, see),
    "get_distribution": lambda policy, see: replaced(policy, "_get_action_dist_from_latent", see),
}


def replaced(module: nn.Module, name: str, see: Callable[..., None]) -> None:
    """Set a method on the object that calls ``see`` before the class's."""
    original = getattr(module, name)

    def method(*args: Any, **kwargs: Any) -> Any:
        see()
        return original(*args, **kwargs)

    setattr(module, name, method)


def extracted(policy: ActorCriticPolicy, see: Callable[..., None]) -> None:
    """Put another features extractor in the place of the policy's, under the name that SB3's documentation has for it."""

    class Seen(FlattenExtractor):
        def forward(self, observations: th.Tensor) -> th.Tensor:
            see()
            return super().forward(observations)

    policy.features_extractor = Seen(policy.observation_space)


@pytest.mark.filterwarnings("ignore:The policy has hooks or methods that its layers do not show")
@pytest.mark.parametrize("watch", WATCHED.values(), ids=WATCHED)
def test_what_looks_on_sees_each_step_of_a_rollout(watch: Callable[..., Any]) -> None:
    """As it does with A2C: at each of 12 steps, whatever the update adds."""
    n_calls, in_rollout = [0], []

    def see(*args: Any) -> None:
        n_calls[0] += 1

    model = REINFORCE("MlpPolicy", scripted([4]), n_episodes=3)
    hook = watch(model.policy, see)
    try:
        model.learn(1, callback=lambda *_: in_rollout.append(n_calls[0]) or True)
    finally:
        if hook is not None:
            hook.remove()
    assert len(in_rollout) == 12
    assert all(later > earlier for earlier, later in itertools.pairwise([0, *in_rollout]))


@pytest.mark.parametrize("space", [BOX, FLAT_SPACES["box 2-d float64"]], ids=["float32", "float64"])
def test_what_is_too_small_to_count_is_no_error(space: spaces.Space[Any]) -> None:
    """``np.seterr(all="raise")``: products below 1e-38 are 0, in layers, in standard deviations and in observations."""
    policy = make_policy(space, ACTION_SPACES["box"], log_std_init=-200.0)
    tiny = np.full((2, *space.shape), 1e-37 if space.dtype == np.float32 else 1e-60, dtype=space.dtype)
    with np.errstate(all="raise"):
        actor = mlp_actor(policy)
        assert actor is not None
        assert np.isfinite(actor(tiny)).all()


def test_modules_may_keep_what_they_make_in_a_rollout() -> None:
    """As with A2C: it is not made in inference mode, whose tensors no gradient flows through."""
    model = REINFORCE("MlpPolicy", "CartPole-v1", n_episodes=1, policy_kwargs={"features_extractor_class": KeepsATensor})
    model.learn(1)
    assert model.policy.features_extractor.factor != 1.0


def test_large_discrete_spaces_take_no_more_than_their_features() -> None:
    """A table of all one-hot vectors would be of 40 GB."""
    space = spaces.Dict(one=spaces.Discrete(100_000), two=spaces.MultiDiscrete([3, 100_000]))
    policy = make_policy(space, net_arch=[])
    actor = mlp_actor(policy)
    assert actor is not None
    assert agrees(actor, policy, drawn(space))
