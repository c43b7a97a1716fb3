"""The instruments: what they say of a gradient whose value and variance are known exactly."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import ScriptedEnv, scripted, vectorized
from oracle import TabularMDP, estimate, exact_gradient, make_model, probability, trajectories
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EveryNTimesteps
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_reinforce import REINFORCE, AdaptiveEpisodesCallback, GradientStatsCallback


def tabular(n_envs: int, seed: int) -> VecEnv:
    env = DummyVecEnv([TabularMDP] * n_envs)
    env.seed(seed)
    return env


def logged(
    model: REINFORCE, callback: GradientStatsCallback, n_batches: int, spoil=lambda model: None
) -> dict[str, np.ndarray]:
    """What the callback logs for rollouts of a policy that does not change, by key."""
    _, nothing = model._setup_learn(1)
    callback.init_callback(model)
    n_episodes = model.n_episodes
    records = []
    for _ in range(n_batches):
        model.n_episodes = n_episodes
        assert model.collect_rollouts(model.env, nothing, model.rollout_buffer, 0)
        spoil(model)
        callback.on_rollout_end()
        records.append({key: value for key, value in model.logger.name_to_value.items() if key.startswith("gradient/")})
    return {key: np.array([record[key] for record in records if key in record]) for key in records[-1]}


@pytest.fixture(scope="module")
def watched() -> tuple[REINFORCE, dict[str, np.ndarray]]:
    """A model, and what the callback logs of 300 unbiased batches: no warning, which would be an error here."""
    model = make_model(tabular(8, seed=3), n_episodes=2, gamma=1.0)
    return model, logged(model, GradientStatsCallback(), 300)


def test_variance_and_signal_are_unbiased(watched):
    """Their means over batches are tr Σ and |∇U|², both of which enumeration gives, within 4 standard errors."""
    model, values = watched
    gradient = exact_gradient(model)
    single = make_model(n_episodes=1, gamma=1.0)
    moments = sum(probability(single, tau).item() * estimate(single, (tau,)).square() for tau in trajectories(3))
    exact_trace = (moments - gradient.square()).sum().item()

    traces = values["gradient/trace_of_covariance"]
    signals = values["gradient/squared_norm"]
    for sample, exact in ((traces, exact_trace), (signals, gradient.square().sum().item())):
        assert abs(sample.mean() - exact) < 4 * sample.std() / np.sqrt(len(sample))


def test_the_score_test_is_silent_on_unbiased_batches(watched):
    """z is within what a standard normal allows."""
    z = watched[1]["gradient/mean_score_z"]
    assert len(z) == 299
    assert abs(z[-1]) < 4


@pytest.mark.parametrize("other", ["Acrobot-v1", "CartPole-v1"])
def test_a_callback_begins_anew_with_another_model(other):
    """Of another size, or of the same, where what is known of the first would pass for the second's."""
    used, new = GradientStatsCallback(), GradientStatsCallback()
    REINFORCE("MlpPolicy", "CartPole-v1", n_episodes=4, seed=0).learn(200, callback=used)
    for callback in (used, new):
        REINFORCE("MlpPolicy", other, n_episodes=4, horizon=10, seed=1).learn(200, callback=callback)
    np.testing.assert_array_equal(used._averages, new._averages)
    assert (used._sum, used._sum_of_squares) == (new._sum, new._sum_of_squares)
    assert th.equal(used._scores, new._scores)


def test_a_callback_goes_on_with_its_model():
    """Learning on, it compares the second batch with the first."""
    model, callback = REINFORCE("MlpPolicy", "CartPole-v1", n_episodes=4, seed=0), GradientStatsCallback()
    model.learn(1, callback=callback)
    assert callback._sum_of_squares == 0
    model.learn(1, callback=callback, reset_num_timesteps=False)
    assert callback._sum_of_squares > 0


def test_the_noise_scale_is_the_ratio_of_the_averages():
    """Without smoothing, that of the batch; with it, averages of numerator and denominator, not of the ratio."""
    model = make_model(tabular(4, seed=2), n_episodes=4)
    values = logged(model, GradientStatsCallback(smoothing=0.0), 30)
    traces, signals = values["gradient/trace_of_covariance"], values["gradient/squared_norm"]
    expected = np.divide(traces, signals, out=np.full(30, np.inf), where=signals > 0)
    np.testing.assert_allclose(values["gradient/noise_scale"], expected)
    noisy = traces > 0
    np.testing.assert_allclose(values["gradient/signal_to_noise"][noisy], 4 * signals[noisy] / traces[noisy])

    callback = GradientStatsCallback(smoothing=0.5)
    values = logged(model, callback, 2)
    traces, signals = values["gradient/trace_of_covariance"], values["gradient/squared_norm"]
    assert callback._averages == pytest.approx([traces @ [0.25, 0.5], signals @ [0.25, 0.5]])


def z_by_definition(scores: np.ndarray) -> np.ndarray:
    """z after each batch but the first, ``[..., n - 1]``, of mean scores ``[..., n, P]``: the sum of their components along
    the sum of those before, in units of its standard deviation."""
    before = np.cumsum(scores, axis=-2)[..., :-1, :]
    components = (scores[..., 1:, :] * before).sum(-1) / np.linalg.norm(before, axis=-1)
    return np.cumsum(components, -1) / np.sqrt(np.cumsum(components**2, -1))


def said_of(scores: np.ndarray, callback: GradientStatsCallback | None = None, model: REINFORCE | None = None) -> list[float]:
    """Each z that a callback, a new one by default, logs of mean scores ``[n, P]``."""
    callback, z = callback or GradientStatsCallback(), []
    callback.init_callback(model or make_model(n_episodes=2))
    for scores_of_batch in th.as_tensor(scores):
        callback._test_scores(scores_of_batch)
        z.append(callback.logger.name_to_value.get("gradient/mean_score_z"))
    return z[1:]


def test_the_level_of_the_score_test_is_as_stated():
    """Of 1,000 runs of 1,000 batches of scores with mean zero, less than 1 in 100 ever exceed the threshold of 4; and the
    callback says of a run what the definition says, without a warning, which would be an error here."""
    scores = np.random.default_rng(0).standard_normal((1000, 1000, 6))
    z = z_by_definition(scores)
    assert (z > 4).any(1).mean() < 0.01
    np.testing.assert_allclose(said_of(scores[0]), z[0], atol=1e-9)


def test_the_score_test_warns_where_the_threshold_is_passed():
    """At a tenth of a standard deviation off zero it takes some hundred batches, and then there is one warning."""
    scores = np.random.default_rng(0).standard_normal((1000, 6)) + 0.1
    z = z_by_definition(scores)
    passed = np.flatnonzero(z > 4)[0]
    assert 100 < passed < 900
    said_of(scores[: passed + 1])  # up to the batch before: silent
    with pytest.warns(UserWarning, match=f"The mean score is {z[passed]:.1f} standard deviations from zero") as warned:
        np.testing.assert_allclose(said_of(scores), z, atol=1e-9)
    assert len(warned) == 1


def test_another_model_is_warned_of_as_well():
    """Of each once, however often learning goes on."""
    callback = GradientStatsCallback()
    for model in (make_model(n_episodes=2), make_model(n_episodes=2)):
        with pytest.warns(UserWarning, match="The mean score is") as warned:
            said_of(np.ones((60, 3)), callback, model)
        said_of(np.ones((60, 3)), callback, model)
        assert len(warned) == 1


def first_finished(model: REINFORCE) -> None:
    """Keep the 4 of 16 trajectories that finish first, as a biased collector would."""
    buffer = model.rollout_buffer
    trajectory_slices = buffer.batch().trajectories()
    last_rows = [buffer._order[each.stop - 1] // buffer.n_envs for each in trajectory_slices]
    kept = np.argsort(last_rows, kind="stable")[:4]
    steps = np.concatenate([buffer._order[trajectory_slices[i]] for i in kept])
    buffer.recorded[: buffer.pos] = False
    buffer.recorded.reshape(-1)[steps] = True
    buffer.compute_returns_and_advantage()


def test_the_score_test_fires_on_a_biased_collector():
    model = make_model(tabular(8, seed=3), n_episodes=16)
    callback = GradientStatsCallback()
    with pytest.warns(UserWarning, match="do not seem to be draws from the policy") as warned:
        z = logged(model, callback, 60, spoil=first_finished)["gradient/mean_score_z"]
    assert (z > callback.z_threshold).sum() > 1
    assert len(warned) == 1  # as promised, once


@pytest.mark.parametrize("options", [{}, {"baseline": "value"}])
def test_the_cosine_is_that_of_the_update_before(options):
    """With SGD the last change is the last estimate, so on one and the same batch the cosine is 1; what the value network
    changed has no part in it."""
    model = make_model(tabular(2, seed=0), n_episodes=2, **options)
    callback = GradientStatsCallback()
    _, nothing = model._setup_learn(1)
    callback.init_callback(model)
    assert model.collect_rollouts(model.env, nothing, model.rollout_buffer, 0)
    callback.on_rollout_end()
    assert "gradient/cosine_with_last_update" not in model.logger.name_to_value
    model.lr_schedule = lambda _: 1e-4
    model.train()
    callback.on_rollout_end()
    assert model.logger.name_to_value["gradient/cosine_with_last_update"] == pytest.approx(1.0, abs=1e-3)


def test_the_number_of_episodes_follows_the_noise_scale_within_bounds():
    sizes = []

    class Recorded(AdaptiveEpisodesCallback):
        def _on_rollout_end(self):
            super()._on_rollout_end()
            sizes.append((self.noise_scale, self.model.n_episodes))

    model = REINFORCE("MlpPolicy", tabular(2, seed=0), n_episodes=4, seed=0)
    model.learn(300, callback=Recorded(min_episodes=3, max_episodes=9))
    assert {size for _, size in sizes} <= set(range(3, 10))
    assert all(size == int(np.clip(scale, 3, 9)) for scale, size in sizes)
    assert len({size for _, size in sizes}) > 1
    assert model.logger.name_to_value["train/n_episodes"] in range(3, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"smoothing": 1.0}, r"`smoothing` must be in \[0, 1\), but it is 1.0"),
        ({"z_threshold": 0.0}, "`z_threshold` must be above 0, but it is 0.0"),
        ({"smoothing": "0.5"}, r"`smoothing` must be in \[0, 1\), but it is '0.5'"),
        ({"z_threshold": None}, "`z_threshold` must be above 0, but it is None"),
        ({"min_episodes": 1}, "`min_episodes` must be an integer of at least 2, but it is 1"),
        ({"min_episodes": 2.5}, "`min_episodes` must be an integer of at least 2, but it is 2.5"),
        ({"min_episodes": None}, "`min_episodes` must be an integer of at least 2, but it is None"),
        (
            {"min_episodes": 9, "max_episodes": 8},
            "`max_episodes` must be an integer of at least `min_episodes`, 9, but it is 8",
        ),
        ({"max_episodes": float("inf")}, "`max_episodes` must be an integer of at least `min_episodes`, 2, but it is inf"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveEpisodesCallback(**arguments)


def test_a_batch_of_one_trajectory_is_passed_over():
    """As a callback may set it for a while: nothing is measured then, and what was known stays known."""

    class One(BaseCallback):
        def _on_rollout_start(self):
            self.model.n_episodes = 1 if self.n_calls in range(20, 40) else 4

        def _on_step(self):
            return True

    model, stats = make_model(n_episodes=4), GradientStatsCallback()
    model.learn(200, [One(), stats])
    assert np.isfinite(stats._averages).all()
    assert stats._averages[0] > 0


def test_where_there_is_neither_signal_nor_noise_their_ratio_is_not_known():
    """All returns are equal, and compared with each other."""
    env = vectorized(gym.wrappers.TransformReward(ScriptedEnv([3]), lambda reward: 1.0))
    model = REINFORCE("MlpPolicy", env, n_episodes=4, baseline="leave_one_out", seed=0)
    values = logged(model, GradientStatsCallback(), 1)
    assert values["gradient/squared_norm"] == values["gradient/trace_of_covariance"] == 0
    assert np.isnan(values["gradient/signal_to_noise"]).all()


@pytest.mark.parametrize("callback", [GradientStatsCallback(), AdaptiveEpisodesCallback()])
def test_within_an_event_nothing_would_be_measured(callback):
    with pytest.raises(ValueError, match="must not be within an EventCallback, which passes on no ends of rollouts"):
        make_model(tabular(4, seed=0), n_episodes=4).learn(1, EveryNTimesteps(1, CallbackList([callback])))
    with pytest.raises(ValueError, match=f"{type(callback).__name__} must not be within an EventCallback"):
        make_model(tabular(4, seed=0), n_episodes=4).learn(1, EveryNTimesteps(1, callback))


def test_one_trajectory_has_no_variance():
    model = make_model(n_episodes=1)
    with pytest.raises(ValueError, match="`n_episodes` must be at least 2 for GradientStatsCallback"):
        model.learn(10, callback=GradientStatsCallback())


def test_it_works_in_a_list_with_a_schedule_and_any_baseline():
    """And what is learned does not depend on whether it is watched."""
    for baseline in ("value", "optimal"):
        options = {"n_episodes": 4, "baseline": baseline, "seed": 0, "learning_rate": LinearSchedule(1e-2, 0.0, 1.0)}
        parameters = []
        for callback in (None, CallbackList([GradientStatsCallback()])):
            model = REINFORCE("MlpPolicy", tabular(2, seed=0), **options).learn(60, callback)
            parameters.append(th.nn.utils.parameters_to_vector(model.policy.parameters()))
        assert th.equal(*parameters)


def test_parts_of_the_policy_may_be_frozen_and_freed():
    """All of it too, while the value network learns alone."""
    model = REINFORCE("MlpPolicy", scripted([3], [4]), n_episodes=2, baseline="value", seed=0)
    callback, policy = GradientStatsCallback(), model.policy
    parts = [policy.mlp_extractor.policy_net, policy.action_net]
    for trained in ([], parts, parts[:1]):
        for part in parts:
            part.requires_grad_(part in trained)
        model.learn(14, callback, reset_num_timesteps=False)
        estimates, _ = model.trajectory_estimates()
        assert bool(estimates.any()) == bool(trained)
