"""The value network: the loss of its fit, the size of its steps, and what it is asked beyond the batch, by hand."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch as th
from envs import SpacesEnv, scripted, vectorized
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import VecEnvWrapper

from sb3_reinforce import REINFORCE, critic
from sb3_reinforce.evaluation import Evaluator

GAMMA = 0.9
#: V is linear in the observation [environment, episode, t] of ``ScriptedEnv``, so that a fit is a matter of arithmetic.
WEIGHT, BIAS = np.array([0.3, -0.7, 1.1]), 0.5


def make_model(env: Any = None, **options: Any) -> REINFORCE:
    """Plain gradient descent on V as above, at batches of 3 + 3 + 5 steps."""
    policy_kwargs = {"net_arch": [], "optimizer_class": th.optim.SGD}
    arguments = {"n_episodes": 3, "gamma": GAMMA, "baseline": "value", "return_type": "reward_to_go", **options}
    model = REINFORCE("MlpPolicy", env or scripted([3], [5]), seed=0, policy_kwargs=policy_kwargs, **arguments)
    with th.no_grad():
        model.policy.value_net.weight.copy_(th.as_tensor(WEIGHT))
        model.policy.value_net.bias.fill_(BIAS)
    return model


class Known(NamedTuple):
    """The batch as the value network sees it."""

    observations: np.ndarray
    targets: np.ndarray

    def errors(self, weight: np.ndarray, bias: float) -> np.ndarray:
        return self.observations @ weight + bias - self.targets


def known(model: REINFORCE) -> Known:
    """Observations of the batch and Gₜ of each step, by the definition."""
    buffer = model.rollout_buffer
    (part,) = buffer.get()
    targets = []
    for rewards in np.split(buffer.step_rewards, np.cumsum(buffer.lengths)[:-1]):
        targets += [sum(GAMMA**k * r for k, r in enumerate(rewards[t:].tolist())) for t in range(len(rewards))]
    return Known(part.observations.numpy().astype(np.float64), np.array(targets))


@pytest.mark.parametrize("n_critic_updates", [1, 5])
@pytest.mark.parametrize("batch_size", [None, 1, 4, 11])
def test_the_value_loss_is_the_mean_squared_error(batch_size: int | None, n_critic_updates: int) -> None:
    """Over all steps of the batch, whatever the parts it was computed in, however many steps the fit takes, and whatever
    the coefficient. Nothing moves here, so it is the same before and after."""
    options = {"batch_size": batch_size, "n_critic_updates": n_critic_updates, "vf_coef": 2.0}
    model = make_model(learning_rate=0.0, **options).learn(1)
    expected = np.square(known(model).errors(WEIGHT, BIAS)).mean()
    assert model.logger.name_to_value["train/value_loss"] == pytest.approx(expected, rel=1e-5)


def test_values_are_fitted_to_what_would_have_followed_too() -> None:
    """With ``bootstrap_truncated``, V is the value of the rest, and so is what it predicts: Gₜ + γᴴ⁻ᵗ V(s_H)."""
    model = make_model(scripted([3], [5], truncated=True), learning_rate=0.0, bootstrap_truncated=True).learn(1)
    batch, lengths = known(model), model.rollout_buffer.lengths
    lasts = np.array(list(model.rollout_buffer.last_observations.values()))
    left = np.concatenate([np.arange(length, 0, -1) for length in lengths])
    targets = batch.targets + GAMMA**left * np.repeat(lasts @ WEIGHT + BIAS, lengths)
    expected = np.square(batch.observations @ WEIGHT + BIAS - targets).mean()
    assert model.logger.name_to_value["train/value_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("batch_size", "expected"), [(None, [3]), (2, [2, 1])])
def test_what_would_have_followed_is_valued_in_few_passes(batch_size: int | None, expected: list[int]) -> None:
    """One, or as many as ``batch_size`` asks for."""
    model = make_model(scripted([3], [5], truncated=True), learning_rate=0.0, bootstrap_truncated=True).learn(1)
    batch = model.rollout_buffer.batch()
    assert len(batch.last_observations) == 3
    passes: list[int] = []
    model.policy.value_net.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    values = Evaluator(model.policy, batch, batch_size).last_values()
    assert passes == expected
    lasts = np.array(list(batch.last_observations.values()))
    np.testing.assert_allclose([values[step] for step in batch.last_observations], lasts @ WEIGHT + BIAS, rtol=1e-5)


@pytest.mark.parametrize("n_critic_updates", [1, 3])
@pytest.mark.parametrize("vf_coef", [0.5, 2.0])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_the_fit_descends_the_weighted_loss(batch_size: int | None, vf_coef: float, n_critic_updates: int) -> None:
    """θ ← θ - rate · vf_coef · ∇(1/M) Σ (V - G)², so many times: with SGD the size of the coefficient matters."""
    rate = 0.01
    model = make_model(learning_rate=rate, batch_size=batch_size, vf_coef=vf_coef, n_critic_updates=n_critic_updates).learn(1)
    batch, weight, bias = known(model), WEIGHT, BIAS
    for _ in range(n_critic_updates):
        slope = rate * vf_coef * 2 * batch.errors(weight, bias) / len(batch.targets)
        weight, bias = weight - slope @ batch.observations, bias - slope.sum()
    np.testing.assert_allclose(model.policy.value_net.weight.detach()[0], weight, rtol=1e-4)
    assert model.policy.value_net.bias.item() == pytest.approx(bias, rel=1e-4)
    loss = np.square(batch.errors(weight, bias)).mean()  # after the last step
    assert model.logger.name_to_value["train/value_loss"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("shared", [True, False])
def test_a_fit_computes_features_that_it_does_not_train_once(
    shared: bool, batch_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is the same fit to the bit. An extractor of the value network's own is trained, and asked at each step."""
    forward, counts, fitted = NatureCNN.forward, [], []
    monkeypatch.setattr(NatureCNN, "forward", lambda self, obs: counts.append(len(obs)) or forward(self, obs))
    fit = critic.fit

    def counted(*args: Any) -> float:
        counts.clear()
        loss = fit(*args)
        fitted.append(sum(counts))
        return loss

    monkeypatch.setattr(critic, "fit", counted)
    parameters = []
    for once in (True, False):
        if not once:
            monkeypatch.setattr(Evaluator, "fixed_features", lambda self, fitted: None)
        env = SpacesEnv(spaces.Box(0, 255, (3, 36, 36), np.uint8), spaces.Discrete(2), 3, seed=0)
        options = {"baseline": "value", "n_critic_updates": 5, "batch_size": batch_size, "learning_rate": 0.01}
        policy_kwargs = {"share_features_extractor": shared, "optimizer_class": th.optim.SGD}
        model = REINFORCE("CnnPolicy", env, n_episodes=2, seed=0, policy_kwargs=policy_kwargs, **options).learn(1)
        parameters.append(th.nn.utils.parameters_to_vector(model.policy.parameters()))
    assert fitted == ([6, 36] if shared else [36, 36])  # the last 6 are of the loss that is logged
    assert th.equal(*parameters)


def test_explained_variance_is_that_of_the_returns() -> None:
    """1 - Var[G - V] / Var[G], which is not the same with V for G. It tells of V as fitted before this batch."""
    model = make_model(learning_rate=0.01).learn(1)
    batch = known(model)
    residuals = batch.errors(WEIGHT, BIAS)
    expected = 1 - residuals.var() / batch.targets.var()
    swapped = 1 - residuals.var() / (residuals + batch.targets).var()
    assert abs(expected - swapped) > 0.1
    assert model.logger.name_to_value["train/explained_variance"] == pytest.approx(expected, rel=1e-4)


class Reusing(VecEnvWrapper):
    """Writes all observations of Dict spaces into the same arrays, as vector environments in other languages do."""

    def reset(self) -> Any:
        self.arrays = {key: obs.copy() for key, obs in self.venv.reset().items()}
        return self.arrays

    def step_wait(self) -> Any:
        obs, *rest = self.venv.step_wait()
        for key, array in self.arrays.items():
            array[:] = obs[key]
        return self.arrays, *rest


class Seen(BaseCallback):
    """Copies of what each step led to."""

    def __init__(self) -> None:
        super().__init__()
        self.observations: list[dict[str, np.ndarray]] = []

    def _on_step(self) -> bool:
        self.observations.append({key: obs.copy() for key, obs in self.locals["new_obs"].items()})
        return True


def test_what_follows_a_trajectory_stays_what_it_was() -> None:
    """s_H of a Dict, where the horizon cut one environment at step 4 and the arrays of the observations are written to
    until another trajectory ends: V(s_H) is that of step 4."""
    space = spaces.Dict(position=spaces.Box(-1, 1, (2,), np.float32), mode=spaces.Discrete(5))
    env = Reusing(vectorized(*(SpacesEnv(space, spaces.Discrete(2), n, seed=n) for n in (9, 2))))
    options = {"baseline": "value", "return_type": "reward_to_go", "bootstrap_truncated": True}
    model = REINFORCE("MultiInputPolicy", env, n_episodes=4, horizon=4, seed=0, **options)
    seen = Seen()
    model.learn(1, seen)
    assert len(seen.observations) > 4
    buffer = model.rollout_buffer
    assert buffer.lengths.tolist()[0] == 4
    (kept,) = buffer.last_observations.values()
    for key, obs in seen.observations[3].items():
        np.testing.assert_array_equal(kept[key], obs[0])
        assert any((later[key][0] != obs[0]).any() for later in seen.observations[4:])
