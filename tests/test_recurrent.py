"""RecurrentREINFORCE: the gradient through the recurrence, states in rollouts and predictions, and what is refused."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import FLAT_SPACES, SpacesEnv, scripted, vectorized
from gymnasium import spaces
from oracle import (
    PARTLY_OBSERVED,
    UNBIASED_FROM_ANOTHER,
    UNBIASED_WHEREVER,
    TabularMDP,
    estimate,
    exact_gradient,
    expected_estimate,
    expected_second_estimate,
    horizon_for,
    policy_parameters,
    probability,
    trajectories,
)
from oracle import make_model as make_tabular_model
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

pytest.importorskip("sb3_contrib")
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates

from sb3_reinforce import REINFORCE, GradientStatsCallback, RecurrentREINFORCE
from sb3_reinforce.actors.lstm import LstmActor, LstmCell, lstm_actor
from sb3_reinforce.contrib import recurrent
from sb3_reinforce.contrib import trajectories as evaluation
from sb3_reinforce.contrib.trajectories import alike, padded

ROUNDING = 2e-6
TINY: dict[str, Any] = {"lstm_hidden_size": 3, "net_arch": []}
LSTMS: dict[str, dict[str, Any]] = {
    "critic's own": {},
    "shared": {"shared_lstm": True, "enable_critic_lstm": False},
    "none for the critic": {"enable_critic_lstm": False},
    "two layers": {"n_lstm_layers": 2},
}
BOX = spaces.Box(-1, 1, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (36, 36, 3), np.uint8)


def make_batch_model(n_episodes: int, lstm: dict[str, Any] | None = None, **options: Any) -> RecurrentREINFORCE:
    env = make_vec_env(lambda: TabularMDP(mdp=PARTLY_OBSERVED), n_envs=n_episodes)
    kwargs = {**TINY, **(lstm or {})}
    return make_tabular_model(env, RecurrentREINFORCE, "MlpLstmPolicy", kwargs, n_episodes=n_episodes, **options)


def make_model(env: Any, policy: str = "MlpLstmPolicy", **kwargs: Any) -> RecurrentREINFORCE:
    policy_kwargs = {**TINY, **kwargs.pop("policy_kwargs", {})}
    return RecurrentREINFORCE(policy, env, policy_kwargs=policy_kwargs, seed=0, **{"n_episodes": 3, **kwargs})


@pytest.mark.parametrize(("n_episodes", "options"), UNBIASED_WHEREVER)
def test_the_estimate_is_unbiased_through_the_recurrence(n_episodes, options):
    model, horizon = make_batch_model(n_episodes, **options), horizon_for(n_episodes)
    exact = exact_gradient(model, horizon, PARTLY_OBSERVED)
    assert th.allclose(expected_estimate(model, horizon, PARTLY_OBSERVED), exact, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("lstm", LSTMS.values(), ids=LSTMS)
def test_the_estimate_is_unbiased_for_each_kind_of_memory(lstm):
    model = make_batch_model(1, lstm, gamma=0.7, baseline="value")
    exact = exact_gradient(model, 3, PARTLY_OBSERVED)
    assert th.allclose(expected_estimate(model, 3, PARTLY_OBSERVED), exact, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize(("n_episodes", "options"), UNBIASED_FROM_ANOTHER)
def test_a_second_use_of_a_batch_is_unbiased_with_memory(n_episodes, options):
    model = make_batch_model(n_episodes, n_epochs=2, min_effective_share=0.0, **options)
    expected, exact = expected_second_estimate(model, horizon_for(n_episodes), PARTLY_OBSERVED)
    assert th.allclose(expected, exact, atol=5 * ROUNDING, rtol=0)


def test_memory_matters_in_this_oracle():
    model = make_batch_model(1)
    every = trajectories(3, PARTLY_OBSERVED)
    assert sum(probability(model, trajectory).item() for trajectory in every) == pytest.approx(1.0)
    exact = exact_gradient(model, 3, PARTLY_OBSERVED)
    sizes = [parameter.numel() for parameter in policy_parameters(model)]
    names = [name for name, _ in model.policy.named_parameters() if name.startswith(("lstm_actor", "action_net"))]
    of_hidden = dict(zip(names, exact.split(sizes), strict=True))["lstm_actor.weight_hh_l0"]
    assert of_hidden.abs().max() > 100 * ROUNDING


def test_back_propagation_that_was_cut_would_be_seen(monkeypatch):
    model = make_batch_model(2, gamma=1.0)
    exact = exact_gradient(model, 2, PARTLY_OBSERVED)
    process = RecurrentActorCriticPolicy._process_sequence

    def cut(features, states, starts, lstm):
        outputs = []
        for step in features.view(states[0].shape[1], -1, features.shape[1]).unbind(1):
            output, states = process(step, tuple(state.detach() for state in states), starts[: len(step)], lstm)
            outputs.append(output)
        return th.stack(outputs, 1).flatten(0, 1), states

    monkeypatch.setattr(model.policy, "_process_sequence", cut, raising=False)
    assert (expected_estimate(model, 2, PARTLY_OBSERVED) - exact).abs().max() > 1000 * ROUNDING


def test_a_state_carried_over_in_the_update_would_be_seen(monkeypatch):
    model = make_batch_model(2, gamma=1.0)
    exact = exact_gradient(model, 2, PARTLY_OBSERVED)
    monkeypatch.setattr(evaluation, "padded", lambda lengths: padded(np.array([lengths.sum()])))
    assert (expected_estimate(model, 2, PARTLY_OBSERVED) - exact).abs().max() > 1000 * ROUNDING


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("options", [{}, {"baseline": "value", "bootstrap_truncated": True, "return_type": "reward_to_go"}])
def test_the_gradient_does_not_depend_on_batch_size(batch_size, options):
    every = trajectories(3, PARTLY_OBSERVED)
    batch = (every[0], every[-1], every[4])
    at_once, in_parts = make_batch_model(3, **options), make_batch_model(3, batch_size=batch_size, **options)
    assert th.allclose(estimate(in_parts, batch), estimate(at_once, batch), atol=ROUNDING, rtol=0)


def test_the_mean_of_the_trajectory_estimates_is_the_update():
    every = trajectories(3, PARTLY_OBSERVED)
    model = make_batch_model(2, baseline="leave_one_out")
    update = estimate(model, (every[0], every[-1]))
    estimates, scores = model.trajectory_estimates()
    names = [name for name, _ in model.policy.named_parameters()]
    parts = estimates.mean(0).split([parameter.numel() for parameter in model.policy.parameters()])
    of_policy = [part for name, part in zip(names, parts, strict=True) if name.startswith(("lstm_actor", "action_net"))]
    assert th.allclose(th.cat(of_policy).double(), update, atol=ROUNDING)
    assert scores.shape == estimates.shape


def test_trajectories_of_like_length_go_together():
    lengths = np.array([3, 100, 60, 49, 2, 100, 1])
    assert alike(lengths, 10**6) == [[1, 5, 2], [3], [0, 4], [6]]
    assert alike(lengths, 200) == [[1, 5], [2, 3], [0, 4], [6]]
    assert alike(lengths, 10) == [[1], [5], [2], [3], [0, 4], [6]]
    index, steps = padded(np.array([3, 1, 2]), room=1)
    assert index.tolist() == [[0, 1, 2, 0], [3, 0, 0, 0], [4, 5, 0, 0]]
    assert index.ravel()[steps].tolist() == [0, 1, 2, 3, 4, 5]


def stepwise(model: RecurrentREINFORCE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log π, entropy and V of each step, by the policy asked one step after the other."""
    batch, policy = model.rollout_buffer.batch(), model.policy
    found = []
    for trajectory in batch.trajectories():
        zero = (th.zeros(policy.lstm_hidden_state_shape),) * 2
        states = RNNStates(zero, zero)
        for t in range(trajectory.start, trajectory.stop):
            part = batch.part(slice(t, t + 1))
            values, log_probs, entropy = policy.evaluate_actions(part.observations, part.actions, states, th.zeros(1))
            states = policy(part.observations, states, th.zeros(1))[3]
            found.append((log_probs.item(), entropy.item(), values.item()))
    return tuple(np.array(each) for each in zip(*found, strict=True))


@pytest.mark.parametrize("lstm", LSTMS.values(), ids=LSTMS)
@pytest.mark.parametrize("batch_size", [None, 8])
def test_a_batch_is_evaluated_as_it_was_lived(lstm, batch_size):
    env = scripted([4, 2, 7], [3, 6])
    model = make_model(env, n_episodes=5, batch_size=batch_size, policy_kwargs=lstm)
    model.learn(1)
    evaluator = model._evaluator(model.rollout_buffer.batch())
    log_probs, entropies, values = stepwise(model)
    np.testing.assert_allclose(evaluator.all_log_probs(), log_probs, atol=1e-5)
    np.testing.assert_allclose(evaluator.all_values(), values, atol=1e-5)
    np.testing.assert_allclose(evaluator._over_batch(lambda part: evaluator.log_probs(part)[1]), entropies, atol=1e-5)
    sizes = [len(part.actions) for part in evaluator.parts()]
    assert sum(sizes) == model.rollout_buffer.lengths.sum()
    assert (len(sizes) > 2) == (batch_size is not None)


@pytest.mark.parametrize("lstm", LSTMS.values(), ids=LSTMS)
def test_the_value_of_a_cut_trajectorys_last_observation_remembers_all_of_it(lstm):
    model = make_model(scripted([9, 2], [5]), horizon=4, policy_kwargs=lstm, **VALUE)
    model.learn(1)
    batch, policy = model.rollout_buffer.batch(), model.policy
    found = model._evaluator(batch).last_values()
    assert len(found) >= 2
    for trajectory in batch.trajectories():
        if (step := trajectory.stop - 1) not in found:
            continue
        last = policy.obs_to_tensor(batch.last_observations[step])[0]
        observations = th.cat([batch.part(trajectory).observations, last])
        zero = (th.zeros(policy.lstm_hidden_state_shape),) * 2
        expected = policy.predict_values(observations, zero, th.zeros(len(observations)))[-1]
        assert found[step] == pytest.approx(expected.item(), abs=1e-5)


VALUE: dict[str, Any] = {"baseline": "value", "return_type": "reward_to_go", "bootstrap_truncated": True}


def test_long_batches_are_evaluated_in_parts() -> None:
    """Where no ``batch_size`` is given, what fits is measured."""
    model = make_model(scripted([2500]), n_episodes=2).learn(1)
    assert model._evaluator(model.rollout_buffer.batch()).batch_size > 1000


def make_sharp_model(**kwargs: Any) -> RecurrentREINFORCE:
    """A policy that remembers much and takes the action that it prefers, where observations are random and lengths differ."""
    env = vectorized(*(SpacesEnv(BOX, spaces.Discrete(2), length=length, seed=length) for length in (4, 2, 7)))
    model = make_model(env, n_episodes=30, learning_rate=0.0, policy_kwargs={"lstm_hidden_size": 16}, **kwargs)
    generator = th.Generator().manual_seed(0)
    with th.no_grad():
        for name, parameter in model.policy.lstm_actor.named_parameters():
            parameter.normal_(std=float("weight" in name), generator=generator)
        model.policy.action_net.weight.normal_(std=1e4, generator=generator)
    return model


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("horizon", [None, 4])
def test_a_rollout_remembers_the_episode_and_nothing_before_it(fast, horizon, monkeypatch):
    """With several environments, waiting ones among them, and episodes that the horizon cuts."""
    if not fast:
        monkeypatch.setattr(recurrent, "lstm_actor", lambda policy: None)
    model = make_sharp_model(horizon=horizon)
    model.learn(1)
    assert isinstance(model._make_actor(), LstmActor) == fast
    assert 0.1 < next(model.rollout_buffer.get()).actions.float().mean() < 0.9
    assert model._evaluator(model.rollout_buffer.batch()).all_log_probs().min() > -5  # some actions are nearly as good


def test_a_state_carried_over_an_episodes_start_would_be_seen(monkeypatch):
    without_zeros = LstmCell.__call__
    monkeypatch.setattr(LstmCell, "__call__", lambda self, x, starts: without_zeros(self, x, np.zeros_like(starts)))
    monkeypatch.setattr(recurrent, "lstm_agrees", lambda actor, policy: True)
    model = make_sharp_model()
    model.learn(1)
    assert model._evaluator(model.rollout_buffer.batch()).all_log_probs().min() < -50


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("size", [5, 300])  # the larger one through torch's products
def test_the_lstm_in_numpy_is_that_of_torch(n_layers, size):
    model = make_model(SpacesEnv(BOX, spaces.Discrete(2)), policy_kwargs={"lstm_hidden_size": size, "n_lstm_layers": n_layers})
    policy, generator, n_envs = model.policy, np.random.default_rng(0), 4
    actor = lstm_actor(policy)
    states: Any = (th.zeros(n_layers, n_envs, size),) * 2
    for t in range(8):
        obs = generator.normal(size=(n_envs, 3)).astype(np.float32)
        starts = generator.random(n_envs) < 0.3 if t > 0 else np.ones(n_envs, dtype=bool)
        with th.no_grad():
            distribution, states = policy.get_distribution(th.as_tensor(obs), states, th.as_tensor(starts).float())
        expected = distribution.distribution.logits
        actual = th.log_softmax(th.as_tensor(actor.outputs(obs, starts)), 1)
        assert th.allclose(actual, expected, atol=1e-5)


def test_what_is_too_small_to_count_is_no_error():
    """``np.seterr(all="raise")``: products below 1e-38 are 0, in the LSTM, in layers and in standard deviations."""
    model = make_model(SpacesEnv(BOX, spaces.Box(-1, 1, (2,))), policy_kwargs={"log_std_init": -200.0})
    with th.no_grad():
        model.policy.lstm_actor.bias_ih_l0.fill_(1e-38)
    with np.errstate(all="raise"):
        actor = lstm_actor(model.policy)
        assert actor is not None
        assert np.isfinite(actor(np.full((2, 3), 1e-37, dtype=np.float32), np.ones(2, dtype=bool))).all()


@pytest.mark.parametrize(
    ("policy", "space", "lstm"),
    [
        *(("MlpLstmPolicy", space, {}) for space in FLAT_SPACES.values()),
        *(("MultiInputLstmPolicy", spaces.Dict(a=BOX, b=spaces.Discrete(3)), lstm) for lstm in LSTMS.values()),
        *(("CnnLstmPolicy", IMAGE, lstm) for lstm in LSTMS.values()),
        ("MultiInputLstmPolicy", spaces.Dict(a=IMAGE, b=BOX), {"share_features_extractor": False}),
    ],
    ids=str,
)
def test_any_observation_and_any_memory(policy, space, lstm, tmp_path):
    env = vectorized(*(SpacesEnv(space, spaces.MultiDiscrete([2, 3]), length=3 + i, seed=i) for i in range(2)))
    model = make_model(env, policy, policy_kwargs=lstm, horizon=4, n_critic_updates=1, **VALUE)
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(9)
    assert isinstance(model._make_actor(), LstmActor) == ("Cnn" not in policy and "36" not in str(space))
    after = dict(model.policy.named_parameters())
    assert all((old != new).any() for old, (name, new) in zip(before, after.items(), strict=True) if "bias_hh" not in name)
    path = tmp_path / "policy"
    model.policy.save(path)
    loaded = type(model.policy).load(path)
    obs = env.reset()
    for _ in range(2):
        actions, state = model.predict(obs, state=None, deterministic=True)
        again, _ = loaded.predict(obs, state=None, deterministic=True)
        assert (actions == again).all()
        model.predict(obs, state=state, episode_start=np.array([True, False]))


@pytest.mark.parametrize(
    "action_space", [spaces.Box(-2, 3, (2,)), spaces.Discrete(3, start=5), spaces.MultiBinary(2), spaces.MultiDiscrete([2, 3])]
)
def test_any_action(action_space, tmp_path):
    env = SpacesEnv(BOX, action_space)
    model = make_model(env, n_epochs=2, min_effective_share=0.0, ent_coef=0.01)
    model.learn(9, GradientStatsCallback())
    assert isinstance(model._make_actor(), LstmActor)
    assert all(action_space.contains(np.asarray(action, action_space.dtype)) for action in env.actions)
    model.save(tmp_path / "model")
    loaded = RecurrentREINFORCE.load(tmp_path / "model", env=env)
    obs = env.reset()[0]
    action, state = model.predict(obs, deterministic=True)
    assert (loaded.predict(obs, deterministic=True)[0] == action).all()
    assert action_space.contains(model.predict(obs, state, np.array([False]), deterministic=True)[0])
    loaded.learn(3, reset_num_timesteps=False)
    evaluate_policy(loaded, env, n_eval_episodes=2, warn=False)


@pytest.mark.parametrize("sde", [{"squash_output": True}, {}])
def test_continuous_actions_with_state_dependent_noise(sde):
    """Squashed actions are scaled to the bounds, which RecurrentPPO forgets."""
    env = SpacesEnv(BOX, spaces.Box(10, 20, (2,), np.float32))
    model = make_model(env, use_sde=True, sde_sample_freq=1, policy_kwargs=sde)
    model.learn(9)
    actions = np.array(env.actions)
    assert actions.min() >= 10
    if sde:
        assert actions.std() > 0.1  # and not all of them at a bound
        assert actions.mean() == pytest.approx(15.0, abs=4.0)


def test_a_policy_of_sb3_contrib_and_one_of_the_users_own():
    class Own(RecurrentActorCriticPolicy):
        n_calls = 0

        def forward(self, *args, **kwargs):
            Own.n_calls += 1
            return super().forward(*args, **kwargs)

        def evaluate_actions(self, *args, **kwargs):
            Own.n_calls += 1000
            return super().evaluate_actions(*args, **kwargs)

    for policy in (RecurrentActorCriticPolicy, Own):
        model = make_model(scripted([3, 2]), policy)
        model.learn(1)
        assert isinstance(model._make_actor(), LstmActor) == (policy is not Own)
    assert Own.n_calls > 1000 + model.rollout_buffer.size()


def test_dropout_between_layers_is_left_to_the_policy_in_updates():
    model = make_model(scripted([3, 2]), policy_kwargs={"n_lstm_layers": 2, "lstm_kwargs": {"dropout": 0.5}}, n_epochs=2)
    model.learn(1)
    model.policy.set_training_mode(False)  # as in rollouts
    assert isinstance(model._make_actor(), LstmActor)


def test_a_policy_that_does_something_else_acts_itself():
    model = make_model(scripted([3, 2]))
    model.policy.lstm_actor.register_forward_hook(lambda *args: None)
    assert lstm_actor(model.policy) is None
    model.learn(1)


def test_predict_carries_the_states_of_several_environments():
    model = make_model(SpacesEnv(BOX, spaces.Discrete(2)))
    obs = np.random.default_rng(0).normal(size=(2, 3, 3)).astype(np.float32)  # of two steps in three environments
    _, state = model.predict(obs[0])
    _, together = model.predict(obs[1], state, np.array([False, True, False]))
    for i in range(3):
        _, alone = model.predict(obs[0, i])
        _, alone = model.predict(obs[1, i], None if i == 1 else alone, np.array([False]))
        for one, all_ in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[:, 0], all_[:, i], atol=1e-6)


@pytest.mark.parametrize("episode_start", [True, np.True_, np.array(True), np.array([[True]])])
def test_the_loop_over_one_environment_may_say_whether_it_ended(episode_start):
    """``terminated or truncated``, as RecurrentPPO takes it."""
    model = make_model(SpacesEnv(BOX, spaces.Discrete(2)))
    observation = np.ones(3, np.float32)
    _, state = model.predict(observation)
    for one, other in zip(model.predict(observation, state, episode_start)[1], state, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("state_shape", "n_starts", "message"),
    [
        ((1, 1, 3), 3, r"`state` must be two arrays of shape \(1, 3, 3\), for 3 observations, but it is \(1, 1, 3\)"),
        ((1, 3, 4), 3, "`state`"),
        ((1, 3, 3), 1, r"`episode_start` must have the shape \(3,\)"),
    ],
)
def test_a_state_of_another_number_of_environments_is_refused(state_shape, n_starts, message):
    model = make_model(SpacesEnv(BOX, spaces.Discrete(2)))
    with pytest.raises(ValueError, match=message):
        model.predict(np.zeros((3, 3), np.float32), (np.zeros(state_shape),) * 2, np.zeros(n_starts, dtype=bool))


def test_predict_refuses_what_gymnasium_resets_to():
    env = SpacesEnv(BOX, spaces.Discrete(2))
    with pytest.raises(ValueError, match=r"`observation` must be a numpy array.*as in `obs, info = env.reset\(\)`"):
        make_model(env).predict(env.reset(), episode_start=np.array([True]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "MlpPolicy"}, "MlpPolicy"),
        ({"policy": REINFORCE.policy_aliases["MlpPolicy"]}, "must be a name or a subclass of RecurrentActorCriticPolicy"),
        ({"policy_kwargs": {"lstm_kwargs": {"batch_first": True}}}, "must not have `batch_first`"),
        ({"policy_kwargs": {"lstm_kwargs": {"bidirectional": True}}}, "must not have `bidirectional`"),
        ({"policy_kwargs": {"lstm_kwargs": {"proj_size": 2}}}, "must not have `proj_size`"),
    ],
)
def test_what_has_no_memory_or_another_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RecurrentREINFORCE(**{"policy": "MlpLstmPolicy", "env": "CartPole-v1", **arguments})


def test_what_was_seen_is_remembered():
    """The first observation says which action pays in the last step, where nothing is to be seen."""

    class Recall(gym.Env[np.ndarray, int]):
        observation_space = spaces.Box(-1, 1, (1,), np.float32)
        action_space = spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.cue, self.t = int(self.np_random.integers(2)), 0
            return np.array([2.0 * self.cue - 1], dtype=np.float32), {}

        def step(self, action):
            self.t += 1
            done = self.t == 3
            return np.zeros(1, dtype=np.float32), float(done and action == self.cue), done, False, {}

    model = make_model(
        Recall(), n_episodes=16, learning_rate=0.02, baseline="leave_one_out", policy_kwargs={"lstm_hidden_size": 8}
    )
    model.learn(2500)
    assert evaluate_policy(model, Recall(), n_eval_episodes=20, warn=False)[0] == 1.0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_type": "reward_to_go", "baseline": "value", "n_epochs": 3, "min_effective_share": 1.0},
        {"baseline": "optimal"},
    ],
    ids=str,
)
def test_what_is_differentiated_is_what_an_accelerator_can(options, monkeypatch):
    """cuDNN goes back through an LSTM in training mode alone. Here it is played by a check."""
    forward, passes = th.nn.LSTM.forward, []

    def checked(self, *arguments):
        if th.is_grad_enabled():
            passes.append(self.training or not th.backends.cudnn.enabled)
        return forward(self, *arguments)

    monkeypatch.setattr(th.nn.LSTM, "forward", checked)
    make_model(scripted([3, 5]), n_episodes=4, **options).learn(60, GradientStatsCallback())
    assert len(passes) > 10
    assert all(passes)
