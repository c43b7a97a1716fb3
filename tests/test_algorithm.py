"""REINFORCE where A2C stood: any space, policy and environment of SB3, the numbers it learns from, and what it refuses."""

import inspect
import io
import threading
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import FLAT_SPACES, BanditEnv, ScriptedEnv, SpacesEnv, scripted, vectorized
from gymnasium import spaces
from stable_baselines3 import A2C
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.envs import IdentityEnv, IdentityEnvBox, IdentityEnvMultiBinary, IdentityEnvMultiDiscrete
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    unwrap_vec_normalize,
)
from torch import nn

from sb3_reinforce import REINFORCE, CnnPolicy, MlpPolicy, MultiInputPolicy, critic, gradients
from sb3_reinforce.evaluation import Evaluator
from sb3_reinforce.returns import rewards_to_go

BOX = spaces.Box(-1, 1, (2,), np.float32)
IMAGE = spaces.Box(0, 255, (36, 36, 3), np.uint8)  # the least that SB3's NatureCNN takes
ACTION_SPACES = {
    "box": BOX,
    "box 2-d": spaces.Box(0, 5, (2, 3), np.float32),
    "box float64": spaces.Box(-1, 1, (2,), np.float64),
    "discrete": spaces.Discrete(3),
    "discrete from 5": spaces.Discrete(3, start=5),
    "discrete from -1": spaces.Discrete(3, start=-1),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-discrete from": spaces.MultiDiscrete([2, 3], start=[1, -4]),
    "multi-binary": spaces.MultiBinary(3),
}
OBSERVATION_SPACES = {
    **FLAT_SPACES,
    "image": IMAGE,
    "image, channels first": spaces.Box(0, 255, (3, 36, 36), np.uint8),
    "dict": spaces.Dict(position=BOX, mode=spaces.Discrete(3), switches=spaces.MultiBinary(2), camera=IMAGE),
}
SMALL = {"net_arch": [4]}


def policy_name(space: spaces.Space[Any]) -> str:
    if isinstance(space, spaces.Dict):
        return "MultiInputPolicy"
    return "CnnPolicy" if len(space.shape) == 3 else "MlpPolicy"


def spaces_env(observation_space: spaces.Space[Any], action_space: spaces.Space[Any], n_envs: int = 1) -> DummyVecEnv:
    return vectorized(*(SpacesEnv(observation_space, action_space, length=8, seed=i) for i in range(n_envs)))


def make_model(env: Any, n_episodes: int = 3, **kwargs: Any) -> REINFORCE:
    policy = kwargs.pop("policy", None) or policy_name(env.observation_space)
    policy_kwargs = {**SMALL, **kwargs.pop("policy_kwargs", {})}
    return REINFORCE(policy, env, n_episodes=n_episodes, policy_kwargs=policy_kwargs, seed=0, **kwargs)


def stored(model: REINFORCE) -> dict[str, th.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.policy.named_parameters()}


def changed(model: REINFORCE, before: dict[str, th.Tensor]) -> set[str]:
    """The names of the parameters of which any element is another than it was."""
    return {name for name, parameter in model.policy.named_parameters() if not th.equal(parameter, before[name])}


# --- spaces --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("space", ACTION_SPACES.values(), ids=ACTION_SPACES)
def test_environments_get_actions_of_their_space(space: spaces.Space[Any], n_envs: int) -> None:
    """Shape, dtype, bounds and ``start`` included, where an unbounded Gaussian has to be clipped as well; and it trains."""
    env = spaces_env(BOX, space, n_envs)
    model = make_model(env, policy_kwargs={"log_std_init": 1.0})
    before = stored(model)
    model.learn(1)
    taken = [action for each in env.envs for action in each.unwrapped.actions]
    assert len(taken) == model.num_timesteps >= 24
    assert all(space.contains(action) for action in taken)
    assert len(np.unique(taken, axis=0)) > 1
    assert any(name.startswith("action_net") for name in changed(model, before))


#: By turns in the suite, and all where there is time.
OBSERVED = [
    pytest.param(space, action_space, k, id=f"{name}-{k}", marks=[pytest.mark.slow] * ((i + k) % 2))
    for i, (name, space) in enumerate(OBSERVATION_SPACES.items())
    for k, action_space in ((1, spaces.Discrete(3)), (2, BOX))
]


@pytest.mark.parametrize(("space", "action_space", "n_envs"), OBSERVED)
def test_any_observation_space_is_learned_from(space: spaces.Space[Any], action_space: spaces.Space[Any], n_envs: int) -> None:
    """Policy and value network, each layer of them, at several updates."""
    model = make_model(spaces_env(space, action_space, n_envs), baseline="value", return_type="reward_to_go")
    before = stored(model)
    model.learn(50)
    assert model._n_updates >= 2
    assert changed(model, before) == set(before)
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())


def test_images_stay_bytes() -> None:
    """Stored as the environment gave them, channels first, in a quarter of the memory of floats."""
    model = make_model(spaces_env(IMAGE, spaces.Discrete(2)))
    model.learn(1)
    assert model.rollout_buffer.observations.dtype == np.uint8
    (part,) = model.rollout_buffer.get()
    assert part.observations.shape == (24, 3, 36, 36)


CASES = [(OBSERVATION_SPACES["box"], space) for space in ACTION_SPACES.values()]
CASES += [(space, ACTION_SPACES["discrete from 5"]) for space in OBSERVATION_SPACES.values()]


@pytest.mark.parametrize(("observation_space", "action_space"), CASES)
def test_predict_is_that_of_a2c(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    """Of the same policy the same actions, in the same type, dtype and shape: for one observation and for four, at random
    and deterministic. Only ``start`` is added, which SB3 leaves out."""
    env = spaces_env(observation_space, action_space)
    model = make_model(env, policy_kwargs={"ortho_init": False})
    a2c = A2C(policy_name(observation_space), env, policy_kwargs={**SMALL, "ortho_init": False}, device="cpu")
    a2c.policy.load_state_dict(model.policy.state_dict())
    one = observation_space.sample()
    draws = [observation_space.sample() for _ in range(4)]
    four = {key: np.stack([d[key] for d in draws]) for key in one} if isinstance(one, dict) else np.stack(draws)
    start = getattr(action_space, "start", 0)
    for observation, shape in ((one, action_space.shape), (four, (4, *action_space.shape))):
        for deterministic in (True, False):
            answers = []
            for algorithm in (model, a2c):
                th.manual_seed(1)
                answers.append(algorithm.predict(observation, deterministic=deterministic))
            (ours, our_state), (theirs, their_state) = answers
            np.testing.assert_array_equal(ours, theirs + start)
            assert (type(ours), ours.dtype, ours.shape) == (type(theirs), theirs.dtype, shape)
            assert our_state is their_state is None
            assert all(action_space.contains(action) for action in (ours.reshape(-1, *action_space.shape)))


def test_predict_keeps_box_actions_within_bounds() -> None:
    """Also where the Gaussian is far wider than the space."""
    space = spaces.Box(np.array([-1, 0], dtype=np.float32), np.array([1, 5], dtype=np.float32))
    model = make_model(spaces_env(BOX, space), policy_kwargs={"log_std_init": 3.0})
    actions, _ = model.predict(np.zeros((100, 2), dtype=np.float32))
    np.testing.assert_array_equal([actions.min(axis=0), actions.max(axis=0)], [space.low, space.high])


# --- policies ------------------------------------------------------------------------------------------------------------


class Features(BaseFeaturesExtractor):
    """Features of a user's own, with something to learn."""

    def __init__(self, observation_space: spaces.Box, features_dim: int = 3):
        super().__init__(observation_space, features_dim)
        self.layer = nn.Linear(2, features_dim)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return th.tanh(self.layer(observations))


class OwnPolicy(ActorCriticPolicy):
    """A policy of a user's own, with one parameter more: the temperature."""

    def _build(self, lr_schedule: Any) -> None:
        self.temperature = nn.Parameter(th.ones(1))
        super()._build(lr_schedule)

    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Any:
        logits = self.action_net(latent_pi) / self.temperature
        return self.action_dist.proba_distribution(action_logits=logits)


class OwnFeatures(ActorCriticPolicy):
    """Likewise, the scale of the features."""

    def _build(self, lr_schedule: Any) -> None:
        self.scale = nn.Parameter(th.ones(1))
        super()._build(lr_schedule)

    def extract_features(self, obs: Any, features_extractor: Any = None) -> Any:
        return self.scale * super().extract_features(obs, features_extractor)


class Indifferent(ActorCriticPolicy):
    """Likewise, of an own log-probability, which no parameter changes."""

    def evaluate_actions(self, obs: Any, actions: th.Tensor) -> Any:
        values, log_probs, entropy = super().evaluate_actions(obs, actions)
        return values, 0 * log_probs, entropy


POLICIES: dict[str, dict[str, Any]] = {
    "class": {"policy": MlpPolicy},
    "own class": {"policy": OwnPolicy, "policy_kwargs": {"ortho_init": False}},
    "own features": {"policy": OwnFeatures, "policy_kwargs": {"ortho_init": False}},
    "no layers": {"policy_kwargs": {"net_arch": []}},
    "pi and vf": {"policy_kwargs": {"net_arch": {"pi": [4, 3], "vf": [5]}}},
    "only pi": {"policy_kwargs": {"net_arch": {"pi": [4]}}},
    "activation_fn": {"policy_kwargs": {"activation_fn": nn.ELU}},
    "features": {"policy_kwargs": {"features_extractor_class": Features, "features_extractor_kwargs": {"features_dim": 5}}},
    "features not shared": {"policy_kwargs": {"features_extractor_class": Features, "share_features_extractor": False}},
    "SGD": {"policy_kwargs": {"optimizer_class": th.optim.SGD, "optimizer_kwargs": {"momentum": 0.5}}},
    "RMSprop": {"policy_kwargs": {"optimizer_class": th.optim.RMSprop}},
    "AdamW": {"policy_kwargs": {"optimizer_class": th.optim.AdamW}},
    "log_std_init": {"action_space": BOX, "policy_kwargs": {"log_std_init": -1.0}},
    "gSDE": {"action_space": BOX, "use_sde": True, "sde_sample_freq": 1},
    "gSDE, one std a feature": {
        "action_space": BOX,
        "use_sde": True,
        "sde_sample_freq": 1,
        "policy_kwargs": {"full_std": False, "use_expln": True},
    },
    "gSDE, squashed": {
        "action_space": BOX,
        "use_sde": True,
        "sde_sample_freq": 1,
        "policy_kwargs": {"squash_output": True},
        "ent_coef": 0.01,
    },
    "gSDE, one matrix a rollout": {"action_space": BOX, "use_sde": True},
}


@pytest.mark.filterwarnings("ignore:gSDE shares one noise matrix")
@pytest.mark.parametrize("baseline", [None, "value"])
@pytest.mark.parametrize("arguments", POLICIES.values(), ids=POLICIES)
def test_every_parameter_of_a_policy_is_trained(arguments: dict[str, Any], baseline: str | None) -> None:
    """By one update, whichever way the policy is put together; the value network only where there is one to fit, weight
    decay and momentum notwithstanding."""
    arguments = dict(arguments)
    env = spaces_env(BOX, arguments.pop("action_space", spaces.Discrete(3)), n_envs=2)
    model = make_model(env, baseline=baseline, return_type="reward_to_go", **arguments)
    optimizer_class = arguments.get("policy_kwargs", {}).get("optimizer_class", th.optim.Adam)
    assert type(model.policy.optimizer) is optimizer_class
    before = stored(model)
    model.learn(1)
    critic = {name for name in before if "value" in name or "vf" in name}
    assert critic
    assert changed(model, before) == (set(before) if baseline == "value" else set(before) - critic)


def test_log_probabilities_are_those_of_the_policys_own_method() -> None:
    """What is differentiated is ``evaluate_actions``, as in A2C, where a user's class has its own."""
    policy_kwargs = {"optimizer_class": th.optim.SGD}
    model = make_model(spaces_env(BOX, BOX), policy=Indifferent, policy_kwargs=policy_kwargs)
    before = stored(model)
    model.learn(1)
    assert model.logger.name_to_value["train/policy_loss"] == 0
    assert changed(model, before) == set()


def test_standard_deviations_are_those_asked_for() -> None:
    """``log_std_init`` is what exploration starts from."""
    env = spaces_env(BOX, spaces.Box(-9, 9, (2,), np.float32))
    model = make_model(env, n_episodes=50, policy_kwargs={"log_std_init": -2.0})
    model.learn(1)
    (part,) = model.rollout_buffer.get()
    n_actions = part.actions.numel()
    standard_error = np.exp(-2) / np.sqrt(2 * n_actions)  # of a standard deviation; the means are within 0.01 of 0
    assert part.actions.std().item() == pytest.approx(np.exp(-2), abs=4 * standard_error)


@pytest.mark.parametrize("net_arch", [{"pi": [4], "vf": [4]}, []])
def test_dropout_and_batch_norm_are_in_their_modes(net_arch: Any) -> None:
    """Rollouts and baselines in evaluation mode, updates in training mode, as in SB3: statistics move in updates only."""
    modes: list[bool] = []

    class Noisy(BaseFeaturesExtractor):
        def __init__(self, observation_space: spaces.Box):
            super().__init__(observation_space, 2)
            self.layers = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5))

        def forward(self, observations: th.Tensor) -> th.Tensor:
            modes.append(self.layers.training)
            return self.layers(observations)

    class Statistics(BaseCallback):
        def _on_step(self) -> bool:
            assert not any(modes)
            assert norm.num_batches_tracked == 0
            return True

    policy_kwargs = {"net_arch": net_arch, "features_extractor_class": Noisy}
    env = spaces_env(BOX, spaces.Discrete(3))
    model = make_model(env, baseline="value", n_critic_updates=2, batch_size=24, policy_kwargs=policy_kwargs)
    norm = model.policy.features_extractor.layers[0]
    model.learn(1, Statistics())
    n_rollout = 24 + 1  # steps, and the values that are subtracted
    # The policy's step, and two of the value network; what is logged of it after.
    assert modes == [False] * n_rollout + [True] * 3 + [False]
    assert norm.num_batches_tracked == 3
    model.predict(np.zeros(2, dtype=np.float32))
    assert modes[-1] is False


def test_a_compiled_policy_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """``model.policy = torch.compile(model.policy)`` works with A2C, which saves such models too."""
    monkeypatch.setattr(th.distributions.Distribution, "_validate_args", False)  # as compiling does, and is undone after
    model = make_model(spaces_env(BOX, spaces.Discrete(2)), baseline="value")
    before = stored(model)
    model.policy = th.compile(model.policy, backend="eager")
    model.learn(1)
    assert len(changed(model, {f"_orig_mod.{name}": parameter for name, parameter in before.items()})) == len(before)
    if "_orig_mod" not in inspect.getsource(REINFORCE.get_parameters):
        return  # the older SB3 that cannot load a compiled policy, of whatever algorithm
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    trained = dict(REINFORCE.load(file).policy.named_parameters())
    assert all(th.equal(trained[name.removeprefix("_orig_mod.")], p) for name, p in model.policy.named_parameters())


@pytest.mark.filterwarnings("ignore:.*torch.nn.utils.weight_norm.* is deprecated")
def test_weights_that_a_hook_computes_are_acted_on() -> None:
    """``weight_norm`` and ``spectral_norm`` compute a layer's weight from other parameters whenever it is called. One large
    step makes action 1 certain, and no rollout after it may choose another."""

    class Returns(BaseCallback):
        def _on_training_start(self) -> None:
            self.means: list[float] = []

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            self.means.append(self.locals["rollout_buffer"].returns.mean())

    class WeightNorm(MlpPolicy):
        def _build_mlp_extractor(self) -> None:
            super()._build_mlp_extractor()
            nn.utils.weight_norm(self.mlp_extractor.policy_net[0])

    policy_kwargs = {"optimizer_class": th.optim.SGD, "activation_fn": nn.Identity, "ortho_init": False}
    model = make_model(vectorized(BanditEnv()), 20, policy=WeightNorm, learning_rate=100.0, policy_kwargs=policy_kwargs)
    for parameter in (model.policy.mlp_extractor.policy_net[0].bias, *model.policy.action_net.parameters()):
        parameter.requires_grad_(False)
    returns = Returns()
    model.learn(60, returns)
    assert 0 < returns.means[0] < 1
    assert returns.means[1:] == [1.0, 1.0]


# --- environments --------------------------------------------------------------------------------------------------------


class OwnVecEnv(VecEnv):
    """Two counters whose episodes last 3 and 5 steps, with no more than what ``VecEnv`` demands.

    :param dtype: of ``dones``
    """

    def __init__(self, dtype: Any = bool):
        self.dtype = dtype
        super().__init__(2, spaces.Box(0, 5, (1,), np.float32), spaces.Discrete(2))

    def reset(self) -> np.ndarray:
        self.t = np.zeros(2)
        return self.t[:, None].astype(np.float32)

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> Any:
        rewards = 1 + self.t + self.actions / 2
        self.t += 1
        dones = self.t == [3, 5]
        self.t[dones] = 0
        return self.t[:, None].astype(np.float32), rewards, dones.astype(self.dtype), [{}, {}]

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None, None]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False, False]


def in_processes() -> SubprocVecEnv:
    return SubprocVecEnv([lambda: ScriptedEnv([3], 0), lambda: ScriptedEnv([5], 1)], start_method="fork")


ENVIRONMENTS: dict[str, tuple[Callable[[], Any], list[int]]] = {
    "gym.Env": (lambda: ScriptedEnv([3, 5]), [3, 5, 3]),
    "Monitor": (lambda: Monitor(ScriptedEnv([3, 5])), [3, 5, 3]),
    "DummyVecEnv": (lambda: scripted([3], [5]), [3, 3, 5]),
    "SubprocVecEnv": (in_processes, [3, 3, 5]),
    "VecMonitor": (lambda: VecMonitor(scripted([3], [5])), [3, 3, 5]),
    "VecCheckNan": (lambda: VecCheckNan(scripted([3], [5]), raise_exception=True), [3, 3, 5]),
    "VecFrameStack": (lambda: VecFrameStack(scripted([3], [5]), 2), [3, 3, 5]),
    "VecNormalize": (lambda: VecNormalize(scripted([3], [5]), norm_reward=False), [3, 3, 5]),
    "several": (lambda: VecMonitor(VecFrameStack(VecNormalize(scripted([3], [5]), norm_reward=False), 3)), [3, 3, 5]),
    "own": (OwnVecEnv, [3, 3, 5]),
    "own, dones are int64": (lambda: OwnVecEnv(np.int64), [3, 3, 5]),
    "own, dones are float32": (lambda: OwnVecEnv(np.float32), [3, 3, 5]),
}


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")  # of fork, from Python 3.12 on
@pytest.mark.parametrize(("make", "lengths"), ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_any_environment_fills_the_batch(make: Callable[[], Any], lengths: list[int]) -> None:
    """Each pays 1 + t + a/2: the same returns, of the trajectories that started first, whatever is wrapped around."""
    model = make_model(make(), policy="MlpPolicy", gamma=1.0)
    model.learn(1)
    model.env.close()
    (part,) = model.rollout_buffer.get()
    assert model.rollout_buffer.lengths.tolist() == lengths
    actions = np.split(part.actions.numpy(), np.cumsum(lengths)[:-1])
    expected = [n * (n + 1) / 2 + each.sum() / 2 for n, each in zip(lengths, actions, strict=True)]
    np.testing.assert_allclose(model.rollout_buffer.returns, expected)


def begin_again(model: REINFORCE) -> None:
    model.learn(1)


def give_environments_back(model: REINFORCE) -> None:
    model.set_env(model.get_env())
    model.learn(1, reset_num_timesteps=False)


@pytest.mark.parametrize("reset", [begin_again, give_environments_back])
def test_what_goes_ahead_ends_where_the_environments_are_reset(reset: Callable[[REINFORCE], None]) -> None:
    """By SB3, though nothing of these environments tells of a reset."""
    model = make_model(OwnVecEnv(), n_episodes=4, carry_over=True)
    model.learn(20)
    assert not model._last_episode_starts.all()
    reset(model)
    batch = model.rollout_buffer.batch()
    for trajectory in batch.trajectories():
        steps = np.ravel(batch.observations[batch.order[trajectory]])
        assert steps.tolist() == list(range(len(steps)))


class OwnInfoVecEnv(OwnVecEnv):
    """It says what cannot be copied."""

    def step_wait(self) -> Any:
        return *super().step_wait()[:3], [{"lock": threading.Lock()}, {"steps": (step for step in self.t)}]


class Bare:
    """What speaks ``VecEnv``'s methods, and is none."""

    def __init__(self) -> None:
        self.env = OwnVecEnv()

    def __getattr__(self, name: str) -> Any:
        if name == "unwrapped":
            raise AttributeError(name)
        return getattr(self.env, name)


def own_with(**attributes: Any) -> VecEnv:
    env = OwnVecEnv()
    vars(env).update(attributes)
    return env


@pytest.mark.parametrize(
    "make",
    [
        lambda: own_with(envs=[object(), object()]),
        lambda: own_with(envs=2),
        lambda: own_with(envs=None),
        lambda: own_with(resetting=False),
        lambda: own_with(resetting=lambda: None),
        OwnInfoVecEnv,
        lambda: VecMonitor(Bare()),  # type: ignore[arg-type]
    ],
)
@pytest.mark.parametrize("carry_over", [False, True])
def test_attributes_and_infos_of_environments_are_their_own(make: Callable[[], VecEnv], carry_over: bool) -> None:
    """Whatever ``envs`` is, or ``resetting``: others use these names for something else. A2C trains on them, too."""
    A2C("MlpPolicy", make(), n_steps=2).learn(4)
    model = make_model(make(), n_episodes=3, carry_over=carry_over)
    model.learn(30)
    assert sorted(model.rollout_buffer.lengths) in ([3, 3, 3], [3, 3, 5], [3, 5, 5])


def test_an_id_is_an_environment() -> None:
    """As for any algorithm of SB3, with a Monitor around it. CartPole pays 1 a step."""
    model = REINFORCE("MlpPolicy", "CartPole-v1", n_episodes=2, gamma=1.0, seed=0)
    model.learn(1)
    assert model.rollout_buffer.returns.tolist() == model.rollout_buffer.lengths.tolist()
    assert [info["l"] for info in model.ep_info_buffer] == model.rollout_buffer.lengths.tolist()


@pytest.mark.parametrize("wrap", [lambda env: env, VecTransposeImage])
def test_images_are_transposed_once(wrap: Callable[[VecEnv], VecEnv]) -> None:
    """By the user or, where that was forgotten, by SB3; ``predict`` takes them either way."""
    model = make_model(wrap(spaces_env(IMAGE, spaces.Discrete(2))), policy="CnnPolicy")
    model.learn(1)
    assert model.observation_space.shape == (3, 36, 36)
    image = IMAGE.sample()
    assert model.predict(image, deterministic=True)[0] == model.predict(image.transpose(2, 0, 1), deterministic=True)[0]


def test_normalized_rewards_are_what_is_learned_from() -> None:
    """``VecNormalize`` pays them, so R(τ) is their sum; the original ones stay available to the user."""

    class Rewards(BaseCallback):
        def _on_training_start(self) -> None:
            self.paid: list[np.ndarray] = []
            self.original: list[np.ndarray] = []

        def _on_step(self) -> bool:
            self.paid.append(self.locals["rewards"].copy())
            self.original.append(self.model.get_vec_normalize_env().get_original_reward())
            return True

    env = VecNormalize(scripted([4], [4]))
    model = make_model(env, n_episodes=4, gamma=0.9)
    rewards = Rewards()
    model.learn(1, rewards)
    assert model.get_vec_normalize_env() is env
    discounts = 0.9 ** np.arange(4)
    paid = np.array(rewards.paid).reshape(2, 4, 2)  # two episodes of four steps in two environments
    np.testing.assert_allclose(model.rollout_buffer.returns, np.einsum("t,ety->ye", discounts, paid).ravel(), rtol=1e-6)
    (part,) = model.rollout_buffer.get()
    np.testing.assert_allclose(np.array(rewards.original).T.ravel(), 1 + np.tile(range(4), 4) + part.actions.numpy() / 2)
    assert part.observations.min() < 0  # normalised too: ScriptedEnv's own are not negative


def test_a_reset_that_monitor_forbids_is_a_clear_error() -> None:
    """Two environments of different lengths have to be reset within an episode; Monitor says so, before anything else."""
    env = vectorized(*(Monitor(ScriptedEnv([length], i), allow_early_resets=False) for i, length in enumerate([3, 5])))
    model = make_model(env, n_episodes=2)
    model.learn(1)
    with pytest.raises(RuntimeError, match="Tried to reset an environment before done"):
        model.learn(1, reset_num_timesteps=False)


def test_a_trajectory_may_outgrow_all_others() -> None:
    """One step beside five hundred, through three growths of the storage."""
    model = make_model(scripted([1], [500]), n_episodes=3, gamma=1.0)
    model.learn(1)
    buffer = model.rollout_buffer
    (part,) = buffer.get()
    assert buffer.lengths.tolist() == [1, 1, 500]
    assert part.observations[2:, 2].tolist() == list(range(500))
    expected = [1 + part.actions[0] / 2, 1 + part.actions[1] / 2, 500 * 501 / 2 + part.actions[2:].sum() / 2]
    assert buffer.returns.tolist() == expected


# --- what truncated trajectories are worth ---------------------------------------------------------------------------------


class AsDict(gym.ObservationWrapper[Any, Any, Any]):
    """``ScriptedEnv``'s ``[env_id, episode, t]`` under two keys."""

    def __init__(self, env: gym.Env[Any, Any]):
        super().__init__(env)
        box = spaces.Box(0, np.inf, (3,), np.float32)
        self.observation_space = spaces.Dict(
            t=spaces.Box(0, np.inf, (1,), np.float32), who=spaces.Box(0, np.inf, (2,), np.float32)
        )
        assert env.observation_space == box

    def observation(self, observation: np.ndarray) -> dict[str, np.ndarray]:
        return {"t": observation[2:], "who": observation[:2]}


def frozen_normalization(env: VecEnv) -> VecNormalize:
    """Observations (x - 2) / 3 and rewards r / 4, for good."""
    normalized = VecNormalize(env, training=False, epsilon=0.0)
    normalized.obs_rms.mean, normalized.obs_rms.var = np.full(3, 2.0), np.full(3, 9.0)
    normalized.ret_rms.var = 16.0
    return normalized


def stacked(i: int, episode: int, t: int) -> list[float]:
    before = [i, episode, t - 1] if t > 0 else [0, 0, 0]
    return [*before, i, episode, t]


#: What is wrapped around; what the policy's features then are, of environment, episode and t; what a reward is divided by.
WRAPPED: dict[str, tuple[Callable[..., VecEnv], Callable[[int, int, int], list[float]], float]] = {
    "plain": (vectorized, lambda i, episode, t: [i, episode, t], 1),
    "dict": (lambda *envs: vectorized(*map(AsDict, envs)), lambda i, episode, t: [t, i, episode], 1),
    "normalised": (
        lambda *envs: frozen_normalization(vectorized(*envs)),
        lambda i, episode, t: [(i - 2) / 3, (episode - 2) / 3, (t - 2) / 3],
        4,
    ),
    "stacked": (lambda *envs: VecFrameStack(vectorized(*envs), 2), stacked, 1),
}
#: Environment, episode, length, and whether it was cut, of each trajectory of the batch.
BATCHES = {
    "time limit": (None, [(0, 0, 3, True), (0, 1, 3, True), (1, 0, 5, False)]),
    # Cut at 2 all of them, which takes a reset of all environments.
    "horizon": (2, [(0, 0, 2, True), (0, 1, 2, True), (1, 0, 2, True)]),
    # At 4, environment 1 is cut. Environment 0 goes on, as its time limit comes before the horizon.
    "both": (4, [(0, 0, 3, True), (0, 1, 3, True), (1, 0, 4, True)]),
    # An episode of 5 steps that ends at the horizon by itself is not cut.
    "neither": (5, [(0, 0, 3, True), (0, 1, 3, True), (1, 0, 5, False)]),
}


@pytest.mark.parametrize(
    ("return_type", "bootstrap"), [("trajectory", False), ("reward_to_go", False), ("reward_to_go", True)]
)
@pytest.mark.parametrize(("horizon", "batch"), BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(("wrap", "features", "scale"), WRAPPED.values(), ids=WRAPPED)
def test_weights_are_what_a_hand_computes(
    wrap: Callable[..., VecEnv],
    features: Callable[[int, int, int], list[float]],
    scale: float,
    horizon: int | None,
    batch: list[tuple[int, int, int, bool]],
    return_type: str,
    bootstrap: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ψ = R(τ) or Gₜ, less V(sₜ) of a linear V that is known, and γ to the steps left times V(s_H) more for what was cut.

    Environment 0 has a time limit of 3, environment 1 terminates after 5 steps.
    """
    psi: list[np.ndarray] = []
    original = gradients.likelihood_ratio_loss

    def spied(log_probs: th.Tensor, weights: th.Tensor, n_episodes: int) -> th.Tensor:
        psi.append(weights.numpy())
        return original(log_probs, weights, n_episodes)

    monkeypatch.setattr(gradients, "likelihood_ratio_loss", spied)
    gamma = 0.9
    env = wrap(ScriptedEnv([3], 0, truncated=True), ScriptedEnv([5], 1))
    options = {"horizon": horizon, "gamma": gamma, "return_type": return_type, "bootstrap_truncated": bootstrap}
    model = make_model(env, baseline="value", policy_kwargs={"net_arch": []}, **options)
    linear = 0.1 * (1 + np.arange(model.policy.features_dim))
    with th.no_grad():
        model.policy.value_net.weight.copy_(th.as_tensor(linear))
        model.policy.value_net.bias.fill_(0.5)
    model.learn(1)

    (part,) = model.rollout_buffer.get()
    actions = iter(part.actions.tolist())
    expected = []
    for i, episode, length, cut in batch:
        rewards = [(1 + t + next(actions) / 2) / scale for t in range(length)]
        values = [linear @ features(i, episode, t) + 0.5 for t in range(length + 1)]
        rewards[-1] += gamma * values[-1] if bootstrap and cut else 0
        to_go = [sum(gamma ** (k - t) * rewards[k] for k in range(t, length)) for t in range(length)]
        targets = to_go if return_type == "reward_to_go" else [to_go[0]] * length
        expected += [target - value for target, value in zip(targets, values[:-1], strict=True)]
    np.testing.assert_allclose(psi[0], expected, rtol=1e-5, atol=1e-6)  # float32 of numbers up to 15


def test_bootstrapping_is_off_by_default() -> None:
    """R(τ) is what the environment paid, unless asked."""
    assert make_model(scripted([3])).bootstrap_truncated is False


def test_what_is_frozen_between_calls_of_learn_stays() -> None:
    """The gradient of the last step is not applied again."""
    model = make_model(scripted([3], [5]), n_episodes=2, baseline="value", return_type="reward_to_go").learn(1)
    for parameter in model.policy.parameters():
        parameter.requires_grad_(parameter is model.policy.action_net.bias)
    before = stored(model)
    model.learn(20, reset_num_timesteps=False)
    assert changed(model, before) == {"action_net.bias"}


def test_without_gradients_nothing_is_said_to_be_learned() -> None:
    """An error, as with A2C."""
    with th.no_grad(), pytest.raises(RuntimeError, match="does not require grad"):
        make_model(scripted([3])).learn(1)


@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
@pytest.mark.parametrize("frozen", ["value", "policy", "both"])
def test_what_is_frozen_stays_and_the_rest_learns(frozen: str, max_grad_norm: float | None) -> None:
    """A critic trained before can be the baseline as it is, and beside a policy that is held the critic learns alone."""
    model = make_model(scripted([3, 5]), n_episodes=4, baseline="value", ent_coef=0.1, max_grad_norm=max_grad_norm)
    parts = {
        "policy": [*model.policy.mlp_extractor.policy_net.parameters(), *model.policy.action_net.parameters()],
        "value": [*model.policy.mlp_extractor.value_net.parameters(), *model.policy.value_net.parameters()],
    }
    held = {name: frozen in (name, "both") for name in parts}
    before = {name: [p.detach().clone() for p in part] for name, part in parts.items()}
    for name, part in parts.items():
        for parameter in part:
            parameter.requires_grad_(not held[name])
    model.learn(1)
    for name, part in parts.items():
        assert all(th.equal(p, old) == held[name] for p, old in zip(part, before[name], strict=True))


SET_LATER = [
    ("n_episodes", 1),  # which a comparison of trajectories needs 2 of
    ("baseline", "leave-one-out"),
    ("return_type", "reward-to-go"),
    ("batch_size", -1),
    ("max_grad_norm", 0),
    ("gamma", 1.5),
    ("n_epochs", 0),
]


@pytest.mark.parametrize(("name", "value"), SET_LATER)
def test_an_attribute_set_later_is_checked(name: str, value: Any) -> None:
    """When training starts; and where a callback has set it, before the next step or update."""
    env = ScriptedEnv([3])
    model = make_model(env, baseline="leave_one_out")
    setattr(model, name, value)
    with pytest.raises(ValueError, match=f"`{name}` must be .* but it is {value!r}"):
        model.learn(1)
    assert env.episode == -1  # never reset

    class Sets(BaseCallback):
        def _on_rollout_start(self) -> None:
            setattr(self.model, name, value)

        def _on_step(self) -> bool:
            raise AssertionError("a step was taken")

    class SetsLater(BaseCallback):
        def _on_step(self) -> bool:
            setattr(self.model, name, value)
            return True

    for callback in (Sets(), SetsLater()):
        model = make_model(ScriptedEnv([3]), baseline="leave_one_out")
        with pytest.raises(ValueError, match=f"`{name}` must be .* but it is {value!r}"):
            model.learn(1, callback)
        assert model._n_updates == 0


# --- learning ------------------------------------------------------------------------------------------------------------


class Equal(gym.Env[np.ndarray, int]):
    """All episodes pay the same.

    :param rewards: what each step pays; for episodes of several lengths, the last one is paid at the end
    :param lengths: length of each episode, from the beginning again after the last; none: as many as rewards
    """

    observation_space, action_space = spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(2)

    def __init__(self, rewards: list[float], lengths: tuple[int, ...] = ()):
        self.rewards, self.lengths, self.episode = rewards, lengths or (len(rewards),), -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return np.ones(1, dtype=np.float32), {}

    def step(self, action: int) -> Any:
        self.t += 1
        done = self.t == self.lengths[self.episode % len(self.lengths)]
        paid = self.rewards[-1] if done else self.rewards[self.t - 1] if len(self.lengths) == 1 else 0.0
        return np.ones(1, dtype=np.float32), paid, done, False, {}


#: 0.1 is no binary number.
EQUAL_RETURNS: dict[str, tuple[Callable[[], Equal], float]] = {
    "one step": (lambda: Equal([0.1]), 0.9),
    "equal rewards": (lambda: Equal([0.1, 0.1, 0.1]), 0.9),
    "a reward at the end": (lambda: Equal([0.1], (3, 1, 2)), 1.0),
}
#: Every combination that leaves no weight where all returns are equal. With "reward_to_go", one number for all steps does
#: so where all rewards-to-go are that number; "value" leaves the error of V, and None the return, which normalisation shifts.
SILENT = [
    (env, {"return_type": return_type, "baseline": baseline, "normalize_advantage": normalize, "n_epochs": n_epochs})
    for env in EQUAL_RETURNS
    for return_type in ("trajectory", "reward_to_go")
    for baseline in (None, "mean", "leave_one_out", "time_leave_one_out", "moving_average")
    for normalize in (False, True)
    for n_epochs in (1, 10)
    if (baseline == "time_leave_one_out") <= (return_type == "reward_to_go" and env != "a reward at the end")
    and (baseline is None) <= normalize
    and (return_type == "trajectory" or baseline == "time_leave_one_out" or env != "equal rewards")
]


@pytest.mark.parametrize(("env", "options"), SILENT, ids=[f"{env}-{list(options.values())}" for env, options in SILENT])
def test_equal_returns_change_nothing(env: str, options: dict[str, Any]) -> None:
    """Where all trajectories pay the same there is nothing to learn, but what rounding says, however often a batch is used."""
    make, gamma = EQUAL_RETURNS[env]
    model = make_model(vectorized(make(), make()), n_episodes=7, gamma=gamma, learning_rate=0.1, **options)
    if options["baseline"] == "moving_average":  # as if there had been earlier batches
        model._average_return = float(np.sum(np.float32(0.1) * gamma ** np.arange(3 if env == "equal rewards" else 1)))
    before = model.policy.parameters_to_vector()
    model.learn(1)
    assert model._n_updates == options["n_epochs"]
    np.testing.assert_allclose(model.policy.parameters_to_vector(), before, rtol=0, atol=1e-7)


def test_without_a_baseline_equal_returns_are_noise() -> None:
    """The test above can fail."""
    model = make_model(vectorized(BanditEnv((0.1, 0.1))), n_episodes=7, policy_kwargs={"optimizer_class": th.optim.SGD})
    before = stored(model)
    model.learn(50)
    assert changed(model, before)


LEARNED = {
    "discrete, textbook": (IdentityEnv, {"dim": 2}, {}),
    "discrete, value": (IdentityEnv, {"dim": 4}, {"return_type": "reward_to_go", "baseline": "value", "gamma": 0.1}),
    "multi-discrete": (IdentityEnvMultiDiscrete, {"dim": 2}, {"baseline": "leave_one_out", "normalize_advantage": True}),
    "multi-binary": (IdentityEnvMultiBinary, {"dim": 2}, {"return_type": "reward_to_go", "baseline": "mean", "gamma": 0.1}),
    "box": (
        IdentityEnvBox,
        {"eps": 0.5},
        {"return_type": "reward_to_go", "baseline": "time_leave_one_out", "gamma": 0.1, "n_epochs": 2},
    ),
}


@pytest.mark.parametrize(
    ("env_class", "arguments", "options"),
    [pytest.param(*each, id=name, marks=[pytest.mark.slow] * ("multi" in name)) for name, each in LEARNED.items()],
)
def test_the_identity_is_learned(env_class: Any, arguments: dict[str, Any], options: dict[str, Any]) -> None:
    """To repeat what is seen pays 1 a step, 10 in all. Chance pays 5 at most. Of six seeds of training, all pay 10."""
    env = vectorized(*(env_class(**arguments, ep_length=10) for _ in range(4)))
    for i, each in enumerate(env.envs):
        each.action_space.seed(i)  # where SB3's class draws its states from
    model = make_model(env, n_episodes=16, learning_rate=0.03, **options, policy_kwargs={"net_arch": [16]})
    model.learn(4000)
    mean_reward, _ = evaluate_policy(model, env, n_eval_episodes=20, warn=False)
    assert mean_reward > 9.5


def test_reuse_compares_policies_and_not_modes() -> None:
    """Dropout is off for both sides of the likelihood ratio: of a policy that hardly moves, it is 1."""
    kwargs = {"activation_fn": nn.Dropout, "net_arch": [8]}
    model = make_model(scripted([20]), n_episodes=6, n_epochs=3, learning_rate=1e-9, policy_kwargs=kwargs).learn(1)
    assert model._n_updates == 3
    assert model.logger.name_to_value["train/effective_sample_size"] == pytest.approx(6.0)


def test_the_value_fit_is_clipped_as_the_policy_is() -> None:
    """``max_grad_norm`` bounds each step: with plain gradient descent, no step of either is longer."""
    kwargs = {"net_arch": [4], "optimizer_class": th.optim.SGD}
    options = {"max_grad_norm": 1e-3, "learning_rate": 1.0, "n_critic_updates": 1, "policy_kwargs": kwargs}
    model = make_model(scripted([9]), baseline="value", **options)
    before = stored(model)
    model.learn(1)
    fitted = [p - before[name] for name, p in model.policy.named_parameters() if "value_net" in name]
    assert th.cat([each.flatten() for each in fitted]).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_without_a_coefficient_values_are_not_fitted() -> None:
    model = make_model(scripted([5]), baseline="value", vf_coef=0)
    before = stored(model)
    model.learn(20)
    assert not any(name.startswith("value_net") for name in changed(model, before))


STRICT: list[dict[str, Any]] = [
    {},
    {"baseline": "leave_one_out", "n_epochs": 3},
    {"baseline": "time_leave_one_out", "return_type": "reward_to_go", "n_epochs": 3, "normalize_advantage": True},
    {"baseline": "mean", "return_type": "reward_to_go", "exact_discounting": True, "n_epochs": 3},
    {"baseline": "value", "return_type": "reward_to_go", "bootstrap_truncated": True, "n_epochs": 3},
    {"baseline": "optimal"},
    {"baseline": "moving_average", "ent_coef": 0.01},
]


@pytest.mark.parametrize(
    ("options", "action_space"),
    [*((options, BOX) for options in STRICT), ({}, spaces.Discrete(2)), (STRICT[2], spaces.MultiBinary(2))],
    ids=str,
)
def test_what_is_too_small_to_count_is_no_error(options: dict[str, Any], action_space: spaces.Space[Any]) -> None:
    """``np.seterr(all="raise")``, as SB3's guide to NaN advises: 0.5 to the power of 1,100 is 0, and so are some ratios."""
    env = scripted([1100, 1, 60], action_space=action_space, truncated=True)
    with np.errstate(all="raise"):
        model = make_model(env, gamma=0.5, learning_rate=0.3, min_effective_share=0.0, **options).learn(1)
    assert model._n_updates == options.get("n_epochs", 1)


# --- arguments -----------------------------------------------------------------------------------------------------------

BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"n_episodes": 0}, "`n_episodes` must be an integer of at least 1, but it is 0"),
    ({"n_episodes": 2.5}, r"`n_episodes` must be an integer of at least 1, but it is 2\.5"),
    ({"n_episodes": True}, "`n_episodes` must be an integer of at least 1, but it is True"),
    ({"n_episodes": "4"}, "`n_episodes` must be an integer of at least 1, but it is '4'"),
    ({"n_episodes": 1, "baseline": "mean"}, "`n_episodes` must be at least 2.*`baseline='mean'`, but it is 1"),
    ({"n_episodes": 1, "baseline": "leave_one_out"}, "`n_episodes` must be at least 2.*'leave_one_out'`, but it is 1"),
    (
        {"n_episodes": 1, "normalize_advantage": True},
        "`n_episodes` must be at least 2.*`normalize_advantage=True`, but it is 1",
    ),
    ({"gamma": -0.1}, r"`gamma` must be in \[0, 1\], but it is -0\.1"),
    ({"gamma": 1.1}, r"`gamma` must be in \[0, 1\], but it is 1\.1"),
    ({"gamma": np.nan}, r"`gamma` must be in \[0, 1\], but it is nan"),
    ({"horizon": 0}, "`horizon` must be None or an integer of at least 1, but it is 0"),
    ({"horizon": 1.5}, r"`horizon` must be None or an integer of at least 1, but it is 1\.5"),
    ({"return_type": "rewards"}, r"`return_type` must be one of \('trajectory', 'reward_to_go'\), but it is 'rewards'"),
    ({"baseline": "median"}, r"`baseline` must be one of \(None, 'mean', 'leave_one_out', .*'value'\), but it is 'median'"),
    ({"bootstrap_truncated": True}, '`baseline` must be "value" with `bootstrap_truncated=True`, but it is None'),
    ({"bootstrap_truncated": True, "baseline": "mean"}, "`baseline` must be \"value\" with .*, but it is 'mean'"),
    (
        {"bootstrap_truncated": True, "baseline": "value"},
        "`return_type` must be \"reward_to_go\" with `bootstrap_truncated=True`.*, but it is 'trajectory'",
    ),
    ({"ent_coef": -0.1}, r"`ent_coef` must be a number of at least 0, but it is -0\.1"),
    ({"ent_coef": np.nan}, "`ent_coef` must be a number of at least 0, but it is nan"),
    ({"ent_coef": True}, "`ent_coef` must be a number of at least 0, but it is True"),
    ({"vf_coef": -1}, "`vf_coef` must be a number of at least 0, but it is -1"),
    ({"vf_coef": np.inf}, "`vf_coef` must be a number of at least 0, but it is inf"),
    ({"normalize_advantage": "False"}, "`normalize_advantage` must be True or False, but it is 'False'"),
    ({"exact_discounting": 1}, "`exact_discounting` must be True or False, but it is 1"),
    ({"bootstrap_truncated": None}, "`bootstrap_truncated` must be True or False, but it is None"),
    ({"max_grad_norm": 0}, "`max_grad_norm` must be None or above 0, but it is 0"),
    ({"max_grad_norm": np.nan}, "`max_grad_norm` must be None or above 0, but it is nan"),
    ({"batch_size": 0}, "`batch_size` must be None or an integer of at least 1, but it is 0"),
    ({"n_critic_updates": 0}, "`n_critic_updates` must be an integer of at least 1, but it is 0"),
    ({"n_critic_updates": None}, "`n_critic_updates` must be an integer of at least 1, but it is None"),
    ({"n_epochs": 0}, "`n_epochs` must be an integer of at least 1, but it is 0"),
    ({"n_epochs": 2, "baseline": "optimal"}, '`n_epochs` must be 1 with `baseline="optimal"`.*, but it is 2'),
    ({"n_episodes": 1, "baseline": "optimal"}, "`n_episodes` must be at least 2.*'optimal'`, but it is 1"),
    ({"normalize_advantage": True, "baseline": "optimal"}, "`normalize_advantage` must be False with .*, but it is True"),
    ({"min_effective_share": 1.5}, r"`min_effective_share` must be in \[0, 1\], but it is 1\.5"),
    ({"min_effective_share": np.nan}, r"`min_effective_share` must be in \[0, 1\], but it is nan"),
    ({"exact_discounting": True}, "`return_type` must be \"reward_to_go\" with `exact_discounting=True`.*'trajectory'"),
    ({"baseline": "time_leave_one_out"}, "`return_type` must be \"reward_to_go\" with .*time_leave_one_out.*'trajectory'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS, ids=[str(arguments) for arguments, _ in BAD_ARGUMENTS])
def test_a_bad_argument_is_named_with_its_rule_and_its_value(arguments: dict[str, Any], message: str) -> None:
    """At once, before anything is built."""
    with pytest.raises(ValueError, match=message):
        make_model(scripted([2]), **arguments)


def test_the_value_fit_leaves_the_policy_alone() -> None:
    """Also where they share a features extractor, as those of CnnPolicy do: else it would move π as far as ĝ does."""
    env = SpacesEnv(IMAGE, ACTION_SPACES["discrete"], length=3)
    model = REINFORCE("CnnPolicy", env, n_episodes=2, baseline="value", policy_kwargs=SMALL, seed=0, device="cpu").learn(1)
    before = stored(model)
    evaluator = Evaluator(model.policy, model.rollout_buffer.batch(), None)
    untouched = gradients.accumulate(evaluator, np.ones(6), 0.0).untouched
    critic.fit(evaluator, np.full(6, 100.0), untouched, 5, 0.5, None)
    fitted = changed(model, before)
    assert fitted
    assert all(name.startswith(("value_net", "mlp_extractor.value_net")) for name in fitted)


class SharedTrunk(nn.Module):
    """Layers of which policy and value network have the first in common."""

    def __init__(self, n_features: int):
        super().__init__()
        self.latent_dim_pi = self.latent_dim_vf = 4
        self.trunk, self.pi, self.vf = (nn.Linear(n, 4) for n in (n_features, 4, 4))

    def forward(self, features: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        return self.pi(th.tanh(self.trunk(features)))

    def forward_critic(self, features: th.Tensor) -> th.Tensor:
        return self.vf(th.tanh(self.trunk(features)))


class SharesTrunk(ActorCriticPolicy):
    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = SharedTrunk(self.features_dim)


class TiesWeights(ActorCriticPolicy):
    """The value network's first layer is the policy's."""

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        self.mlp_extractor.value_net[0].weight = self.mlp_extractor.policy_net[0].weight


class ValueOfLogits(ActorCriticPolicy):
    """V is a function of the policy's own outputs."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.value_net = nn.Linear(2, 1)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1))

    def predict_values(self, obs: Any) -> th.Tensor:
        return self.value_net(self.get_distribution(obs).distribution.logits)

    def forward(self, obs: Any, deterministic: bool = False) -> Any:
        distribution = self.get_distribution(obs)
        actions = distribution.get_actions(deterministic)
        return actions, self.predict_values(obs), distribution.log_prob(actions)

    def evaluate_actions(self, obs: Any, actions: th.Tensor) -> Any:
        distribution = self.get_distribution(obs)
        return self.predict_values(obs), distribution.log_prob(actions), distribution.entropy()


@pytest.mark.parametrize("policy", [SharesTrunk, TiesWeights, ValueOfLogits])
def test_the_value_fit_moves_nothing_that_the_policy_depends_on(policy: type[ActorCriticPolicy]) -> None:
    """Wherever they share: after one batch, the policy is the one that no fit has followed, and V is another."""
    observations = th.rand(20, 3, generator=th.Generator().manual_seed(0))
    probabilities, values = [], []
    for vf_coef in (0.0, 0.5):
        options = {"baseline": "value", "n_critic_updates": 5, "learning_rate": 0.1, "vf_coef": vf_coef}
        model = make_model(scripted([5]), policy=policy, **options).learn(1)
        with th.no_grad():
            probabilities.append(model.policy.get_distribution(observations).distribution.probs)
            values.append(model.policy.predict_values(observations))
    assert th.equal(*probabilities)
    assert not th.equal(*values)


def test_the_value_loss_is_that_after_the_fit() -> None:
    """Of the whole batch, by the network as it is when it is logged."""
    model = make_model(scripted([5], [7]), baseline="value", return_type="reward_to_go", batch_size=4, learning_rate=0.1)
    model.learn(1, log_interval=None)
    (part,) = model.rollout_buffer.get()
    with th.no_grad():
        values = model.policy.predict_values(part.observations).flatten().numpy()
    expected = rewards_to_go(model.rollout_buffer.step_rewards, model.rollout_buffer.lengths, model.gamma)
    assert model.logger.name_to_value["train/value_loss"] == pytest.approx(np.mean((values - expected) ** 2), rel=1e-5)


@pytest.mark.parametrize("buffer_class", [int, "EpisodicRolloutBuffer", 5])
def test_what_is_no_buffer_class_is_refused_by_name(buffer_class: Any) -> None:
    """Before any work; those of A2C and PPO when training starts, so that their agents can be loaded to act."""
    with pytest.raises(ValueError, match=r"`rollout_buffer_class` must be None or a subclass of EpisodicRolloutBuffer, but"):
        make_model(scripted([3]), rollout_buffer_class=buffer_class)


def test_numbers_of_numpy_may_be_small_ones() -> None:
    """Sums of them are greater than they could be."""
    small = np.int8(100)
    model = make_model(vectorized(*(BanditEnv() for _ in range(60))), small, horizon=small, batch_size=small, carry_over=True)
    model.learn(500)
    assert len(model.rollout_buffer.lengths) == 100


@pytest.mark.parametrize(("activation_fn", "n_passes"), [(nn.Tanh, 5), (nn.Dropout, 6)])
def test_log_probabilities_are_computed_again_only_where_the_mode_matters(activation_fn: Any, n_passes: int) -> None:
    """Three uses: three passes with a gradient, two for the ratios between, and one before for those in evaluation mode."""
    kwargs = {"activation_fn": activation_fn}
    model = make_model(scripted([5], [5]), n_episodes=2, n_epochs=3, learning_rate=1e-9, policy_kwargs=kwargs)
    counted = 0
    forward_actor = model.policy.mlp_extractor.forward_actor

    def counting(features: th.Tensor) -> th.Tensor:
        nonlocal counted
        counted += len(features) == 10
        return forward_actor(features)

    model.policy.mlp_extractor.forward_actor = counting
    model.learn(1, log_interval=None)
    assert counted == n_passes
    assert model.logger.name_to_value["train/n_epochs"] == 3


def test_gamma_may_change_between_batches() -> None:
    """What is subtracted is discounted as what it is subtracted from."""
    model = make_model(scripted([5]), gamma=0.5, n_episodes=2)
    model.gamma = 1.0
    model.learn(1)
    rewards = model.rollout_buffer.step_rewards.reshape(2, 5)
    np.testing.assert_allclose(model.rollout_buffer.returns, rewards.sum(1), rtol=1e-6)


@pytest.mark.parametrize("name", ["gamma", "ent_coef", "vf_coef", "max_grad_norm", "min_effective_share"])
def test_a_number_that_yaml_reads_as_text_is_named(name: str) -> None:
    """``1e-3`` in a YAML file is the text "1e-3"; RL Zoo passes it on."""
    with pytest.raises(ValueError, match=f"`{name}` must be .*, but it is '1e-3'"):
        make_model(scripted([2]), **{name: "1e-3"})


GOOD_ARGUMENTS: list[dict[str, Any]] = [
    {"n_episodes": 1},
    {"n_episodes": np.int64(2)},
    {"n_episodes": 1, "baseline": "value", "normalize_advantage": True},
    {"n_episodes": 1, "return_type": "reward_to_go", "normalize_advantage": True},
    {"gamma": 1},
    {"gamma": 1e-6},
    {"horizon": 1},
    {"ent_coef": 0, "vf_coef": 0, "max_grad_norm": np.inf},
    {"normalize_advantage": np.True_, "n_episodes": 2},
    {"batch_size": 1, "baseline": "value", "n_critic_updates": 1},
    {"baseline": "optimal", "n_episodes": 2},
    {"baseline": "moving_average", "n_episodes": 1},
    {"min_effective_share": 0, "n_epochs": 2},
    {"min_effective_share": 1, "n_epochs": 2, "exact_discounting": True, "return_type": "reward_to_go"},
]


@pytest.mark.parametrize("arguments", GOOD_ARGUMENTS, ids=map(str, GOOD_ARGUMENTS))
def test_the_bounds_themselves_are_allowed(arguments: dict[str, Any]) -> None:
    """What lies within the rules trains."""
    model = make_model(scripted([2], [3]), **arguments)
    before = stored(model)
    model.learn(1)
    assert any(name.startswith("action_net") for name in changed(model, before))


def test_a_buffer_without_episodes_is_refused() -> None:
    """When learning starts, before a step is taken: SB3's own tests construct any algorithm with a plain buffer."""
    env = ScriptedEnv([2])
    model = make_model(env, rollout_buffer_class=RolloutBuffer)
    with pytest.raises(ValueError, match=r"`rollout_buffer_class` must be None or a subclass of EpisodicRoll.*RolloutBuffer"):
        model.learn(1)
    assert env.episode == -1  # never reset


@pytest.mark.parametrize(
    "space", [spaces.Dict(a=BOX), spaces.Tuple([BOX]), spaces.Text(3), spaces.Box(-np.inf, np.inf, (2,), np.float32)]
)
def test_an_unsupported_action_space_is_refused(space: spaces.Space[Any]) -> None:
    """With SB3's own assertion, as by A2C."""
    messages = []
    for algorithm in (REINFORCE, A2C):
        with pytest.raises(AssertionError) as error:
            algorithm("MlpPolicy", DummyVecEnv([lambda: SpacesEnv(BOX, space)]))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(("policy", "match"), [("MlpPolicy", "MultiInputPolicy"), ("LstmPolicy", "LstmPolicy unknown")])
def test_a_policy_that_does_not_fit_is_refused(policy: str, match: str) -> None:
    """As by A2C: a Dict needs ``MultiInputPolicy``, and names are SB3's."""
    with pytest.raises(ValueError, match=match):
        REINFORCE(policy, spaces_env(OBSERVATION_SPACES["dict"], BOX))


def test_policies_have_the_names_of_sb3() -> None:
    """``from sb3_reinforce import MlpPolicy``, and by text."""
    assert REINFORCE.policy_aliases == {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    assert REINFORCE.policy_aliases == A2C.policy_aliases


def test_gsde_needs_a_box() -> None:
    """As in SB3."""
    with pytest.raises(ValueError, match=r"gSDE.*continuous actions"):
        make_model(scripted([2]), use_sde=True)


@pytest.mark.parametrize(("sde_sample_freq", "n_warnings"), [(-1, 1), (4, 1), (1, 0)])
def test_gsde_warns_once_where_the_estimate_is_not_exact(
    sde_sample_freq: int, n_warnings: int, recwarn: pytest.WarningsRecorder
) -> None:
    """When the model is made, at the user's own line; and not where each step has noise of its own."""
    env = scripted([2], action_space=BOX)
    model = REINFORCE("MlpPolicy", env, n_episodes=2, use_sde=True, sde_sample_freq=sde_sample_freq)
    model.learn(1)
    model.learn(1)
    assert [warning.filename for warning in recwarn] == [__file__] * n_warnings
    assert all("gSDE shares one noise matrix" in str(warning.message) for warning in recwarn)


def test_a_policy_that_is_more_than_its_layers_is_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    """At the user's own line too, as it tells why rollouts are slow."""
    model = make_model(scripted([2]))
    layer = model.policy.action_net
    layer.forward = lambda x: nn.Linear.forward(layer, x) + th.tensor([0.0, 100.0])
    model.learn(1)
    assert [warning.filename for warning in recwarn] == [__file__]


def test_the_normalization_of_the_environment_is_known() -> None:
    """``get_vec_normalize_env`` finds it below other wrappers, as evaluation and RL Zoo do."""
    env = VecMonitor(VecNormalize(scripted([2])))
    assert make_model(env).get_vec_normalize_env() is unwrap_vec_normalize(env)
