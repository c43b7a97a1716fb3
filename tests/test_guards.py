"""What users get wrong is refused with words that name it, before anything is learned."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from envs import ScriptedEnv, SpacesEnv, scripted, vectorized
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnNoModelImprovement,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnvWrapper, VecMonitor, VecNormalize

from sb3_reinforce import REINFORCE
from sb3_reinforce.critic import check_targets
from sb3_reinforce.gymnasium_vec_env import GymnasiumVecEnv

BOX = spaces.Box(-1, 1, (2,), np.float32)
DICT = spaces.Dict(position=BOX, speed=BOX)


def make_model(env: Any, **kwargs: Any) -> REINFORCE:
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    return REINFORCE(policy, env, **{"n_episodes": 2, "seed": 0, **kwargs})


class Returns(VecEnvWrapper):
    """Returns what a function makes of what it should.

    :param change: from (observations, rewards, dones) to what to return instead
    :param at_reset: whether the observations of ``reset`` are changed as well
    """

    def __init__(self, venv: Any, change: Callable[..., Any], at_reset: bool):
        super().__init__(venv)
        self.change, self.at_reset = change, at_reset

    def reset(self) -> Any:
        obs = self.venv.reset()
        return self.change(obs, None, None)[0] if self.at_reset else obs

    def step_wait(self) -> Any:
        *returned, infos = self.venv.step_wait()
        return *self.change(*returned), infos


class Knows(BaseCallback):
    """A callback that knows another one."""

    other: BaseCallback

    def _on_step(self) -> bool:
        return True


def test_callbacks_may_know_each_other() -> None:
    callbacks = Knows(), Knows()
    callbacks[0].other, callbacks[1].other = callbacks[::-1]
    assert make_model(scripted([3])).learn(1, list(callbacks)).num_timesteps == 6


@pytest.mark.skipif(not hasattr(gym.vector, "AutoresetMode"), reason="gymnasium below 1.1")
@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")
@pytest.mark.parametrize("inner", [False, True])
def test_an_evaluation_on_the_training_vector_environment_is_refused(inner: bool) -> None:
    """However it is wrapped, and on one of the environments that it consists of."""
    env = SyncVectorEnv([lambda: Monitor(ScriptedEnv([3]))] * 2)
    callback = EvalCallback(env.envs[0] if inner else GymnasiumVecEnv(env))
    with pytest.raises(ValueError, match="`eval_env` of EvalCallback must not be the training environment"):
        make_model(GymnasiumVecEnv(env)).learn(1, callback)


def test_returns_too_large_for_the_value_network_are_refused_whatever_numpy_raises() -> None:
    with np.errstate(all="raise"), pytest.raises(ValueError, match="too large for a value network"):
        check_targets(np.array([1e21]))


FIRST = np.ones((2, 3), np.float32)
WRONG: dict[str, tuple[Callable[..., Any], bool, str]] = {
    "tensor": (
        lambda o, r, d: (th.as_tensor(o), r, d),
        True,
        r"observations must be a numpy array .*cpu\(\).numpy\(\).*Tensor",
    ),
    "tensor later": (lambda o, r, d: (th.as_tensor(o), r, d), False, r"observations must be a numpy array .*Tensor"),
    "list": (lambda o, r, d: (o.tolist(), r, d), True, "observations must be a numpy array .*list"),
    "obs and info": (lambda o, r, d: ((o, {}), r, d), True, r"are a tuple.*`\(observations, infos\)`"),
    "shape": (lambda o, r, d: (o[:, :2], r, d), True, r"observations must be a numpy array .*of shape \(2, 3\).*\(2, 2\)"),
    "dones of a column": (lambda o, r, d: (o, r, d[:, None]), False, r"dones must .*\(2,\), but it is \(2, 1\)"),
    "rewards of a column": (lambda o, r, d: (o, r[:, None], d), False, r"rewards must .*\(2,\), but it is \(2, 1\)"),
    "one reward": (lambda o, r, d: (o, r.sum(), d), False, r"rewards must .*\(2,\), but it is \(\)"),
}


@pytest.mark.parametrize(("change", "at_reset", "match"), WRONG.values(), ids=WRONG)
def test_what_an_environment_must_not_return_is_named(change: Callable[..., Any], at_reset: bool, match: str) -> None:
    """At the first observation or step: what it is, what it should be, and how to make it that."""
    model = make_model(Returns(scripted([3], [4]), change, at_reset))
    with pytest.raises(ValueError, match=match):
        model.learn(1)
    assert model._n_updates == 0


WRONG_DICTS: dict[str, tuple[Callable[..., Any], str]] = {
    "no dict": (lambda o: o["speed"], "must be a dict of arrays.*ndarray"),
    "key missing": (lambda o: {"speed": o["speed"]}, r"must have the key 'position', but it is \['speed'\]"),
    "tensor": (lambda o: {**o, "speed": th.as_tensor(o["speed"])}, "'speed' must be a numpy array .*Tensor"),
}


@pytest.mark.parametrize(("change", "match"), WRONG_DICTS.values(), ids=WRONG_DICTS)
def test_dict_observations_are_named_by_their_keys(change: Callable[..., Any], match: str) -> None:
    env = vectorized(SpacesEnv(DICT, spaces.Discrete(2)))
    with pytest.raises(ValueError, match=match):
        make_model(Returns(env, lambda o, r, d: (change(o), r, d), True)).learn(1)


# --- files of other algorithms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [A2C, PPO])
def test_what_another_algorithm_has_saved_is_loaded_with_the_arguments_that_are_named(algorithm: Any) -> None:
    file = io.BytesIO()
    algorithm("MlpPolicy", scripted([3]), n_steps=8, device="cpu", **({"batch_size": 8} if algorithm is PPO else {})).save(
        file
    )
    file.seek(0)
    model = None
    with pytest.raises(ValueError, match=r"`rollout_buffer_class` must be None.*pass `rollout_buffer_class=None` to `load`"):
        model = REINFORCE.load(file, env=scripted([3])).learn(1)
    assert model is None
    file.seek(0)
    arguments = {"learning_rate": 1e-3, "max_grad_norm": None, "n_epochs": 1, "batch_size": None, "normalize_advantage": False}
    model = REINFORCE.load(file, env=scripted([3]), rollout_buffer_class=None, n_episodes=2, **arguments)
    assert model.learn(1)._n_updates == 1


# --- policies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name", "other"),
    [
        ("sb3_contrib.common.maskable.policies", "MaskableActorCriticPolicy", "MaskableREINFORCE"),
        ("sb3_contrib.common.recurrent.policies", "RecurrentActorCriticPolicy", "RecurrentREINFORCE"),
    ],
)
def test_policies_that_need_masks_or_states_are_refused(module: str, name: str, other: str) -> None:
    """By name, and what takes them; subclasses too. Where sb3-contrib is missing, by a class of that name."""
    contrib = pytest.importorskip(module)
    policy = type("Own", (getattr(contrib, name),), {})
    with pytest.raises(ValueError, match=f"`policy` must not be a {name}, but it is Own: .*{other}"):
        REINFORCE(policy, scripted([3]))


def test_a_policy_of_another_family_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`policy` must be a name or a subclass of ActorCriticPolicy.*DQNPolicy"):
        REINFORCE(DQN.policy_aliases["MlpPolicy"], scripted([3]))


# --- evaluation on the training environment ------------------------------------------------------------------------------

EVALUATIONS: dict[str, Callable[[Any], BaseCallback | list[BaseCallback]]] = {
    "itself": lambda env: EvalCallback(env),
    "a list": lambda env: [EvalCallback(env)],
    "in lists": lambda env: CallbackList([CallbackList([EvalCallback(env)])]),
    "every so often": lambda env: EveryNTimesteps(5, EvalCallback(env)),
    "after another": lambda env: EvalCallback(scripted([3]), callback_after_eval=EvalCallback(env)),
    "normalized": lambda env: EvalCallback(VecNormalize(env)),
    "monitored": lambda env: EvalCallback(VecMonitor(env)),
    "below its wrapper": lambda env: EvalCallback(env.venv),
    "the gym environment": lambda env: EvalCallback(env.unwrapped.envs[0]),
}


@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")
@pytest.mark.parametrize("make", EVALUATIONS.values(), ids=EVALUATIONS)
def test_evaluation_on_the_training_environment_is_refused(make: Callable[[Any], Any]) -> None:
    """However deep it is hidden; before a step is taken."""
    env = VecMonitor(scripted([3]))
    model = make_model(env)
    with pytest.raises(ValueError, match="`eval_env` of EvalCallback must not be the training environment"):
        model.learn(50, make(env))
    assert model.num_timesteps == 0


def test_evaluation_elsewhere_is_not_refused() -> None:
    """With callbacks that have callbacks, and parents that have them."""
    callback = EvalCallback(
        VecMonitor(scripted([3])),
        eval_freq=2,
        n_eval_episodes=1,
        callback_after_eval=StopTrainingOnNoModelImprovement(100),
        verbose=0,
    )
    assert make_model(VecMonitor(scripted([3]))).learn(12, [callback, EveryNTimesteps(3, callback)]).num_timesteps >= 12


# --- predict -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observation", "match"),
    [
        (th.ones(3, requires_grad=True), r"`observation` must be a numpy array.*`\.detach\(\)\.cpu\(\)\.numpy\(\)`"),
        (th.ones(3, device="meta"), r"`observation` must be a numpy array.*`\.detach\(\)\.cpu\(\)\.numpy\(\)`"),
        ((np.ones(3), {}), "mistake.*Gym API|tuple"),
    ],
    ids=["tensor with a graph", "tensor elsewhere", "obs and info"],
)
def test_predict_says_what_it_takes(observation: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make_model(scripted([3])).predict(observation)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of SB3's np.array(tensor)
@pytest.mark.parametrize("convert", [np.ndarray.tolist, tuple, th.as_tensor], ids=["list", "tuple", "tensor"])
def test_predict_takes_what_sb3_does(convert: Callable[[np.ndarray], Any]) -> None:
    model = make_model(scripted([3]))
    observation = np.ones(model.observation_space.shape, np.float32)  # type: ignore[arg-type]
    expected, _ = model.predict(observation, deterministic=True)
    assert model.predict(convert(observation), deterministic=True)[0] == expected


NUMBERED = {
    "Discrete": spaces.Discrete(3, start=1),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3], start=[0, 1]),
    "Dict": spaces.Dict({"room": spaces.Discrete(3, start=-1)}),
}


@pytest.mark.parametrize("space", NUMBERED.values(), ids=NUMBERED)
def test_observations_that_do_not_begin_at_0_are_refused(space: spaces.Space[Any]) -> None:
    """A2C fails at one of them, with an error of torch."""
    with pytest.raises(ValueError, match=r"`observation_space(\['room'\])?` must begin at 0"):
        REINFORCE("MultiInputPolicy" if "room" in str(space) else "MlpPolicy", SpacesEnv(space, spaces.Discrete(2)))


def test_predict_names_what_is_wrong_in_a_dict() -> None:
    model = make_model(vectorized(SpacesEnv(DICT, spaces.Discrete(2))))
    with pytest.raises(ValueError, match=r"`observation` must be a numpy array.*`\.detach\(\)\.cpu\(\)\.numpy\(\)`"):
        model.predict({"position": np.zeros(2, np.float32), "speed": th.zeros(2, requires_grad=True)})


# --- what there is not ---------------------------------------------------------------------------------------------------

USES: dict[str, Callable[[Any], Any]] = {
    "attribute": lambda x: x.shape,
    "method": lambda x: x.cpu().numpy(),
    "item": lambda x: x[0],
    "array": np.asarray,
    "tensor": th.as_tensor,
    "function of torch": lambda x: th.mean(x),
    "stacked": lambda x: th.stack([x, x]),
    "float": float,
    "sum": lambda x: 1.0 + x,
    "product": lambda x: np.ones(2) * x,
    "comparison": lambda x: x > 0,
    "iteration": list,
    "length": len,
    "truth": bool,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("name", ["values", "log_probs", "obs_tensor"])
def test_what_a_rollout_does_not_compute_says_so(use: Callable[[Any], Any], name: str) -> None:
    """However a callback uses it: an ``AttributeError`` that says whom to ask."""
    local: dict[str, Any] = {}
    make_model(scripted([3])).learn(1, callback=lambda locals_, _: local.update(locals_) or True)
    with pytest.raises(AttributeError, match=f"REINFORCE computes no .*`{name}`.* during a rollout.*policy"):
        use(local[name])


def test_locals_can_be_copied() -> None:
    """As by a callback that keeps them for later."""

    def keep(locals_: dict[str, Any], globals_: Any) -> bool:
        for name in ("values", "log_probs", "obs_tensor"):
            again = pickle.loads(pickle.dumps(copy.deepcopy(locals_[name])))
            with pytest.raises(AttributeError, match=f"computes no `{name}`"):
                again.mean()
        return True

    assert make_model(scripted([3])).learn(1, callback=keep)._n_updates == 1


@pytest.mark.parametrize("name", ["advantages", "values", "log_probs"])
def test_what_the_buffer_does_not_hold_says_so(name: str) -> None:
    buffer = make_model(scripted([3])).learn(1).rollout_buffer
    with pytest.raises(AttributeError, match=f"has no `{name}`.*add to `rewards`"):
        getattr(buffer, name)
    with pytest.raises(AttributeError, match=f"has no `{name}`.*add to `rewards`"):
        setattr(buffer, name, np.ones(6))
    assert not hasattr(buffer, name)


def test_what_would_have_no_effect_is_read_only() -> None:
    """``returns`` and ``step_rewards`` are made of ``rewards``, which have their effect."""
    buffer = make_model(scripted([3])).learn(1).rollout_buffer
    with pytest.raises((ValueError, AttributeError), match=r"read-only|add to"):
        buffer.returns += 1
    with pytest.raises((ValueError, AttributeError), match=r"read-only|no setter|can't set"):
        buffer.step_rewards += 1
    before = buffer.returns
    buffer.rewards += 1
    assert (buffer.returns > before).all()


def test_a_batch_that_outruns_training_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it goes on, with its remedies, and once: else two episodes without a time limit take hours without a word."""
    monkeypatch.setattr("sb3_reinforce.rollouts._LONG", 10)
    model = make_model(scripted([30]))
    model.learn(60)  # whose last batch may end after that
    with pytest.warns(UserWarning, match=r"taken 21 steps so far, and `total_timesteps` is 20: its 2 .*`horizon=`") as said:
        model.learn(20, reset_num_timesteps=False)
    assert len(said) == 1
    assert model._n_updates == 2


def test_a_small_batch_is_no_matter() -> None:
    """``learn(1)`` is one batch."""
    assert make_model(scripted([30])).learn(1)._n_updates == 1


def test_the_scripted_environment_is_fine() -> None:
    """None of these guards stands in the way of what is right."""
    model = make_model(make_vec_env(lambda: ScriptedEnv([3]), n_envs=2))
    assert model.learn(20)._n_updates > 1
