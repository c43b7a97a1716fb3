"""A policy on an accelerator: ``pytest --accelerator tests/test_accelerator.py``, on a machine that has one."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import SpacesEnv, vectorized
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_reinforce import REINFORCE, GradientStatsCallback, MaskableREINFORCE, RecurrentREINFORCE

pytestmark = pytest.mark.skipif(not th.cuda.is_available(), reason="needs --accelerator, and one")

BOX = spaces.Box(-1, 1, (3,), np.float32)
TO_GO: dict[str, Any] = {"return_type": "reward_to_go"}
CASES: dict[str, dict[str, Any]] = {
    "textbook": {},
    "value": {**TO_GO, "baseline": "value", "normalize_advantage": True, "bootstrap_truncated": True, "horizon": 60},
    "reused": {**TO_GO, "baseline": "time_leave_one_out", "n_epochs": 4},
    "optimal": {"baseline": "optimal"},
    "in parts": {"batch_size": 7, "ent_coef": 0.01, "max_grad_norm": 0.5},
    "carried over": {"carry_over": True, "baseline": "leave_one_out", "n_epochs": 2},
    "Box": {"env": "Pendulum-v1", **TO_GO, "baseline": "mean", "normalize_advantage": True},
    "memory": {"model_class": RecurrentREINFORCE, "policy": "MlpLstmPolicy", **TO_GO, "baseline": "value", "n_epochs": 2},
    "memory carried over": {"model_class": RecurrentREINFORCE, "policy": "MlpLstmPolicy", "carry_over": True},
}


def learned(device: str, options: dict[str, Any], callback: BaseCallback | None = None) -> Any:
    options = {"model_class": REINFORCE, "policy": "MlpPolicy", "env": "CartPole-v1", **options}
    model_class, policy, env = (options.pop(name) for name in ("model_class", "policy", "env"))
    # By plain gradient descent, since Adam makes steps of the same size of any gradient, also where it is all rounding. Steps
    # are small, so that rounding changes no action of a later batch.
    options["policy_kwargs"] = {"optimizer_class": th.optim.SGD}
    env = make_vec_env(env, 3, seed=0)
    model = model_class(policy, env, learning_rate=1e-4, n_episodes=6, seed=0, device=device, **options)
    model.before = parameters(model)
    return model.learn(1500, callback)


def parameters(model: Any) -> th.Tensor:
    return th.nn.utils.parameters_to_vector(model.policy.parameters()).detach().cpu()


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_the_same_is_learned_as_on_the_cpu(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rollouts act on copies, so the same actions are taken; updates differ by rounding, that of float32 in LSTMs too."""
    monkeypatch.setattr(th.backends.cudnn, "allow_tf32", False)
    there, here = learned("cuda", options), learned("cpu", options)
    assert {p.device.type for p in there.policy.parameters()} == {"cuda"}
    assert there.num_timesteps == here.num_timesteps
    assert there._n_updates == here._n_updates > 1
    step = parameters(here) - here.before
    assert (parameters(there) - parameters(here)).norm() < 1e-5 * step.norm()


SPACES: dict[str, tuple[str, spaces.Space[Any]]] = {
    "images": ("CnnPolicy", spaces.Box(0, 255, (36, 36, 3), np.uint8)),
    "dict": ("MultiInputPolicy", spaces.Dict(box=BOX, camera=spaces.Box(0, 255, (36, 36, 3), np.uint8))),
    "discrete": ("MlpPolicy", spaces.Discrete(4)),
}


@pytest.mark.parametrize(("policy", "space"), SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("action_space", [BOX, spaces.MultiDiscrete([2, 3])], ids=["box", "multi-discrete"])
def test_any_space(policy: str, space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    env = vectorized(*(SpacesEnv(space, action_space, 5) for _ in range(3)))
    model = REINFORCE(policy, env, n_episodes=4, device="cuda", seed=0, **TO_GO, baseline="value")
    before = parameters(model)
    assert not th.equal(before, parameters(model.learn(60)))


def test_masks() -> None:
    from sb3_contrib.common.envs import InvalidActionEnvDiscrete

    def learned(device: str) -> MaskableREINFORCE:
        env = make_vec_env(InvalidActionEnvDiscrete, 2, seed=0, env_kwargs={"dim": 20, "n_invalid_actions": 10})
        return MaskableREINFORCE("MlpPolicy", env, n_episodes=4, seed=0, device=device).learn(1000)

    there, here = learned("cuda"), learned("cpu")
    th.testing.assert_close(parameters(there), parameters(here), rtol=0, atol=1e-4)


@pytest.mark.parametrize("options", [CASES["value"], CASES["memory"]], ids=["mlp", "memory"])
def test_gradient_statistics(options: dict[str, Any]) -> None:
    model = learned("cuda", options, GradientStatsCallback())
    assert np.isfinite(model.logger.name_to_value["gradient/squared_norm"])


def test_saved_there_and_loaded_here(tmp_path: Path) -> None:
    model = learned("cuda", {})
    model.save(tmp_path / "model")
    here = REINFORCE.load(tmp_path / "model", gym.make("CartPole-v1"), device="cpu")
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.testing.assert_array_equal(model.predict(obs, deterministic=True)[0], here.predict(obs, deterministic=True)[0])
    here.learn(100)
    there = REINFORCE.load(tmp_path / "model", VecNormalize(make_vec_env("CartPole-v1")), device="cuda")
    there.learn(100)
