"""The life of a model: saved, loaded with other arguments, moved to other environments, continued, and always the same."""

import copy
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch as th
from envs import BanditEnv, CoinFlipEnv, ScriptedEnv, scripted, vectorized
from gymnasium import spaces
from learned import learned_state, parameters
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize
from torch import nn

from sb3_reinforce import REINFORCE, EpisodicRolloutBuffer, MlpPolicy

BOX = spaces.Box(-1, 1, (2,), np.float32)
OBSERVATIONS = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def make_model(env: VecEnv, n_episodes: int = 4, **kwargs: Any) -> REINFORCE:
    return REINFORCE("MlpPolicy", env, n_episodes=n_episodes, policy_kwargs={"net_arch": [4]}, **{"seed": 0, **kwargs})


def same(ours: list[th.Tensor], theirs: list[th.Tensor]) -> bool:
    """To the last bit."""
    return len(ours) == len(theirs) and all(th.equal(*pair) for pair in zip(ours, theirs, strict=True))


def assert_same_predictions(ours: Any, theirs: Any) -> None:
    """Of models or policies, at random with the same seed, and deterministic."""
    for deterministic in (True, False):
        actions = []
        for each in (ours, theirs):
            th.manual_seed(1)
            actions.append(each.predict(OBSERVATIONS, deterministic=deterministic)[0])
        np.testing.assert_array_equal(*actions)


@pytest.fixture
def trained() -> REINFORCE:
    """Of Box actions, whose predictions tell any difference of parameters."""
    return make_model(scripted([3], [5], action_space=BOX), baseline="value", learning_rate=0.01).learn(20)


# --- save and load -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["path", "text", "file"])
def test_a_loaded_model_is_the_saved_one(trained: REINFORCE, place: str, tmp_path: Path) -> None:
    """Parameters, optimizer, predictions and counters; through a path with or without suffix, or an open file."""
    file = {"path": tmp_path / "model.zip", "text": str(tmp_path / "model"), "file": io.BytesIO()}[place]
    trained.save(file)
    if isinstance(file, io.BytesIO):
        file.seek(0)
    loaded = REINFORCE.load(file)
    assert loaded.env is None
    assert same(learned_state(loaded), learned_state(trained))
    assert_same_predictions(loaded, trained)
    for name in ("num_timesteps", "_n_updates", "n_episodes", "gamma", "baseline", "learning_rate", "seed", "policy_kwargs"):
        assert getattr(loaded, name) == getattr(trained, name), name


def test_the_file_holds_no_batch(tmp_path: Path) -> None:
    """However much was collected: the same entries as A2C's, and as many bytes after 2000 steps as after 2."""
    sizes = []
    for length in (1, 1000):
        model = make_model(scripted([length]), n_episodes=2)
        model.learn(1)
        model.save(tmp_path / "model")
        sizes.append((tmp_path / "model.zip").stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 1000
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        names, data = archive.namelist(), json.loads(archive.read("data"))
    a2c = A2C("MlpPolicy", scripted([3]), device="cpu")
    a2c.learn(5)
    a2c.save(tmp_path / "a2c")
    with zipfile.ZipFile(tmp_path / "a2c.zip") as archive:
        a2c_names, a2c_data = archive.namelist(), json.loads(archive.read("data"))
    assert names == a2c_names
    assert not any("buffer" in name for name in set(data) - set(a2c_data))


def test_a_saved_batch_is_there_if_asked_for(trained: REINFORCE) -> None:
    """``include`` and ``exclude`` as in SB3."""
    file = io.BytesIO()
    trained.save(file, include=["rollout_buffer"], exclude=["gamma"])
    with zipfile.ZipFile(file) as archive:
        data = json.loads(archive.read("data"))
    assert "rollout_buffer" in data
    assert "gamma" not in data
    file.seek(0)
    assert REINFORCE.load(file).gamma == 0.99  # the default of the class, in place of what was left out


def test_custom_objects_replace_what_the_file_holds(trained: REINFORCE) -> None:
    """As RL Zoo's ``enjoy`` does with schedules that another Python cannot read."""
    file = io.BytesIO()
    trained.save(file)
    file.seek(0)
    custom_objects = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0}
    loaded = REINFORCE.load(file, env=trained.env, custom_objects=custom_objects)
    before = parameters(loaded)
    loaded.learn(1)
    np.testing.assert_array_equal(parameters(loaded), before)


def test_arguments_given_to_load_take_effect(trained: REINFORCE) -> None:
    """Each in what the next update is made of, as if the model had been made with them."""
    file = io.BytesIO()
    trained.save(file)
    file.seek(0)
    arguments = {
        "n_episodes": 3,
        "horizon": 2,
        "gamma": 0.5,
        "return_type": "reward_to_go",
        "baseline": "leave_one_out",
        "max_grad_norm": 0.1,
        "learning_rate": 0.5,
        "batch_size": 2,
    }
    loaded = REINFORCE.load(file, env=scripted([3], [5], action_space=BOX), **arguments)
    assert {name: getattr(loaded, name) for name in arguments} == arguments
    loaded.learn(1)
    assert loaded.rollout_buffer.lengths.tolist() == [2, 2, 2]
    paid = 1 + 2 * 0.5  # and half the action, which is within 1 and -1 by component
    assert (np.abs(loaded.rollout_buffer.returns - paid) <= 1 + 0.5).all()
    assert loaded.policy.optimizer.param_groups[0]["lr"] == 0.5
    assert "train/value_loss" not in loaded.logger.name_to_value


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"n_episodes": 0}, "`n_episodes`.*at least 1.*0"),
        ({"horizon": 0}, "`horizon`.*at least 1.*0"),
        ({"return_type": "rewards"}, "`return_type`.*'rewards'"),
        ({"baseline": "median"}, "`baseline`.*'median'"),
        ({"gamma": 2.0}, r"`gamma`.*2\.0"),
        ({"n_episodes": 1, "baseline": "mean"}, "`n_episodes`.*at least 2.*'mean'"),
        ({"baseline": None, "bootstrap_truncated": True}, "`baseline`.*`bootstrap_truncated=True`"),
    ],
)
def test_arguments_given_to_load_are_validated(trained: REINFORCE, arguments: dict[str, Any], match: str) -> None:
    """As the constructor's are; RL Zoo passes a YAML file's values this way."""
    file = io.BytesIO()
    trained.save(file)
    file.seek(0)
    with pytest.raises(ValueError, match=match):
        REINFORCE.load(file, **arguments)


def test_a_model_moves_to_another_number_of_environments(trained: REINFORCE) -> None:
    """Two at first, then one, then three; it goes on learning in each."""
    for lengths, expected in (([[4]], [4] * 4), ([[2], [3], [4]], [2, 2, 3, 4])):
        file = io.BytesIO()
        trained.save(file)
        file.seek(0)
        loaded = REINFORCE.load(file, env=scripted(*lengths, action_space=BOX))
        assert loaded.n_envs == len(lengths)
        before = parameters(loaded)
        loaded.learn(1, reset_num_timesteps=False)
        assert loaded.rollout_buffer.lengths.tolist() == expected
        assert loaded.num_timesteps == trained.num_timesteps + (16 if len(lengths) == 1 else 12)
        assert (parameters(loaded) != before).any()


def test_another_space_is_refused(trained: REINFORCE) -> None:
    """By ``load`` and ``set_env``, as in SB3."""
    file = io.BytesIO()
    trained.save(file)
    file.seek(0)
    with pytest.raises(ValueError, match="Action spaces do not match"):
        REINFORCE.load(file, env=scripted([3]))
    with pytest.raises(ValueError, match="Action spaces do not match"):
        trained.set_env(scripted([3], [3]))
    with pytest.raises(AssertionError, match="number of environments"):
        trained.set_env(scripted([3], action_space=BOX))


def test_a_policy_lives_alone(trained: REINFORCE, tmp_path: Path) -> None:
    """``policy.save`` and ``Policy.load``, for where nothing is to be learned any more."""
    trained.policy.save(tmp_path / "policy.pth")
    policy = MlpPolicy.load(tmp_path / "policy.pth", device="cpu")
    assert_same_predictions(policy, trained.policy)
    assert_same_predictions(policy, trained)


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
@pytest.mark.parametrize("what", ["policy", "model"])
@pytest.mark.parametrize("stage", ["new", "trained"])
def test_models_and_policies_can_be_pickled(trained: REINFORCE, pickler: Any, what: str, stage: str) -> None:
    """To send them to another process; A2C's can be. A model goes with its environment and batch, and goes on learning."""
    model = make_model(scripted([3], action_space=BOX)) if stage == "new" else trained
    again = pickler.loads(pickler.dumps(getattr(model, what, model)))
    assert_same_predictions(again, model)
    if what == "model":
        before, n_before = parameters(model), model.num_timesteps
        again.learn(1, reset_num_timesteps=False)
        assert again.num_timesteps > n_before == model.num_timesteps
        assert (parameters(again) != before).any()
        np.testing.assert_array_equal(parameters(model), before)


# --- parameters ----------------------------------------------------------------------------------------------------------


def test_parameters_can_be_carried_over(trained: REINFORCE, tmp_path: Path) -> None:
    """From model to model by ``get_parameters`` and ``set_parameters``, or from a file; the optimizer's state with them."""
    trained.save(tmp_path / "model")
    for source in (trained.get_parameters(), str(tmp_path / "model")):
        model = make_model(scripted([3], action_space=BOX), baseline="value", seed=1)
        assert (parameters(model) != parameters(trained)).any()
        model.set_parameters(source)
        assert same(learned_state(model), learned_state(trained))
        assert_same_predictions(model, trained)


def test_parameters_that_are_set_are_acted_on(trained: REINFORCE) -> None:
    """The next rollout is the new parameters', though rollouts have their own way to evaluate the policy."""
    model = make_model(vectorized(BanditEnv()), n_episodes=20, learning_rate=0.0)
    model.learn(1)
    assert 0 < model.rollout_buffer.returns.mean() < 1
    given = model.get_parameters()
    given["policy"]["action_net.bias"] = th.tensor([0.0, 100.0])
    model.set_parameters(given)
    model.learn(1)
    assert model.rollout_buffer.returns.tolist() == [1.0] * 20


def by_storage(parameter: nn.Parameter, module: nn.Module, name: str) -> None:
    parameter.data = th.full_like(parameter, 100.0)


def by_object(parameter: nn.Parameter, module: nn.Module, name: str) -> None:
    setattr(module, name, nn.Parameter(th.full_like(parameter, 100.0)))


def in_place(parameter: nn.Parameter, module: nn.Module, name: str) -> None:
    parameter.data.fill_(100.0)


class Meddling(BaseCallback):
    """Remembers the actions of the first steps, and does something to the model after some of them.

    :param n_steps: how many steps there are
    :param acts: what is done after so many steps
    """

    def __init__(self, n_steps: int, acts: dict[int, Callable[[Any], None]]):
        super().__init__()
        self.n_steps, self.acts = n_steps, acts
        self.actions: list[float] = []

    def _on_step(self) -> bool:
        self.actions.append(self.locals["actions"].item())
        if (act := self.acts.get(len(self.actions))) is not None:
            act(self.model)
        return len(self.actions) < self.n_steps


def actions_of(length: int, weight: float, callback: Meddling, recurrent: bool = False) -> list[float]:
    """Actions in episodes of this length, all but without noise. The last layer's bias is 0.

    :param weight: all weights of the last layer
    """
    model_class: Any = pytest.importorskip("sb3_reinforce.contrib").RecurrentREINFORCE if recurrent else REINFORCE
    policy, kwargs = ("MlpLstmPolicy", {"lstm_hidden_size": 4}) if recurrent else ("MlpPolicy", {})
    env = vectorized(ScriptedEnv([length], action_space=spaces.Box(-1e3, 1e3, (1,), np.float32)))
    model = model_class(policy, env, n_episodes=5, seed=0, policy_kwargs={"log_std_init": -20.0, **kwargs})
    with th.no_grad():
        model.policy.action_net.weight.fill_(weight)
    model.learn(9, callback)
    return callback.actions


@pytest.mark.parametrize("whose", ["policy", "layer"])
def test_modules_that_a_callback_replaces_are_acted_on(whose: str) -> None:
    """At once, as in A2C, and so is what is done with the new ones later."""

    def replace_module(model: REINFORCE) -> None:
        owner, name = (model, "policy") if whose == "policy" else (model.policy, "action_net")
        setattr(owner, name, copy.deepcopy(getattr(owner, name)))
        model.policy.action_net.bias.data.fill_(100.0)

    def replace_parameter(model: REINFORCE) -> None:
        model.policy.action_net.bias = nn.Parameter(th.full((1,), 200.0))

    actions = actions_of(9, 0.0, Meddling(6, {2: replace_module, 4: replace_parameter}))
    assert np.round(actions, 3).tolist() == [0.0] * 2 + [100.0] * 2 + [200.0] * 2


@pytest.mark.parametrize("at", [2, 3, 5])
def test_nothing_is_forgotten_where_parameters_are_replaced_by_the_same(at: int) -> None:
    """Within an episode and at its end: the next step remembers this one, or that an episode has begun."""

    def replace(model: REINFORCE) -> None:
        for parameter in model.policy.parameters():
            parameter.data = parameter.data.clone()

    expected, actual = (actions_of(3, 100.0, Meddling(8, acts), recurrent=True) for acts in ({}, {at: replace}))
    assert len(set(np.round(expected, 4))) > 3, "the memory shows"
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


@pytest.mark.parametrize("replace", [by_storage, by_object, in_place])
@pytest.mark.parametrize("recurrent", [False, True])
def test_parameters_that_a_callback_replaces_are_acted_on(replace: Callable[..., None], recurrent: bool) -> None:
    """At once, as in A2C, and not only from the next rollout on. All is 0 before: a mean of 0, and a noise of 1e-9."""

    def shift(model: REINFORCE) -> None:
        replace(model.policy.action_net.bias, model.policy.action_net, "bias")

    actions = actions_of(9, 0.0, Meddling(6, {3: shift}), recurrent)
    assert np.round(actions, 3).tolist() == [0.0] * 3 + [100.0] * 3


# --- learning again ------------------------------------------------------------------------------------------------------


def test_learning_again_starts_from_zero_or_goes_on() -> None:
    """The counters, as in SB3: ``reset_num_timesteps`` decides, and ``total_timesteps`` are so many more."""
    model = make_model(scripted([3]), n_episodes=2)
    assert model.learn(10).num_timesteps == 12
    assert model.learn(10).num_timesteps == 12
    assert model.learn(10, reset_num_timesteps=False).num_timesteps == 24
    assert model.learn(1, reset_num_timesteps=False).num_timesteps == 30
    assert model._n_updates == 2 + 2 + 2 + 1


def test_learning_in_parts_is_learning_at_once() -> None:
    """Where each part ends with an update, nothing is lost and nothing repeated: the same parameters, to the last bit."""
    whole = make_model(scripted([3], [3]), n_episodes=4).learn(48)
    parts = make_model(scripted([3], [3]), n_episodes=4)
    for _ in range(4):
        parts.learn(12, reset_num_timesteps=False)
    assert whole.num_timesteps == parts.num_timesteps == 48
    assert same(learned_state(whole), learned_state(parts))


class LearnsWithin(BaseCallback):
    """Calls ``learn`` of the model at one of its events.

    :param event: name of the method that is to do so
    """

    def __init__(self, event: str):
        super().__init__()
        self.event = event

    def _call(self, event: str) -> bool:
        if event == self.event:
            self.model.learn(5, reset_num_timesteps=False)
        return True

    def _on_training_start(self) -> None:
        self._call("training start")

    def _on_rollout_start(self) -> None:
        self._call("rollout start")

    def _on_step(self) -> bool:
        return self._call("step")

    def _on_rollout_end(self) -> None:
        self._call("rollout end")


@pytest.mark.parametrize("event", ["training start", "rollout start", "step", "rollout end"])
def test_learning_within_learning_is_refused(event: str) -> None:
    """At every event; and the model may learn when that has failed. Others may learn meanwhile."""
    model = make_model(scripted([3]))
    with pytest.raises(RuntimeError, match=r"`learn\(\)` must not be called while it runs.*`reset_num_timesteps=False`"):
        model.learn(20, LearnsWithin(event))
    assert model._n_updates == 0
    model.learn(20)
    other = make_model(scripted([3]))
    model.learn(20, callback=lambda *_: other.learn(1)._n_updates > 0)
    assert other._n_updates > 1


class Copies(BaseCallback):
    """Copies the policy and the model, in memory and as bytes, at every event."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[Any] = []

    def _keep(self) -> None:
        self.copies += [copy.deepcopy(self.model.policy), pickle.loads(pickle.dumps(self.model.policy))]
        file = io.BytesIO()
        self.model.save(file)
        file.seek(0)
        self.copies.append(REINFORCE.load(file).policy)

    def _on_training_start(self) -> None:
        self._keep()

    def _on_rollout_start(self) -> None:
        self._keep()

    def _on_step(self) -> bool:
        self._keep()
        return True

    def _on_rollout_end(self) -> None:
        self._keep()

    def _on_training_end(self) -> None:
        self._keep()


COPIED: list[tuple[spaces.Space[Any], dict[str, Any]]] = [
    (spaces.Discrete(2), {}),
    (BOX, {"baseline": "value"}),
    (spaces.MultiDiscrete([2, 2]), {"n_epochs": 2}),
    (spaces.MultiBinary(2), {"baseline": "optimal"}),
    (BOX, {"use_sde": True, "sde_sample_freq": 1, "baseline": "value"}),
    (BOX, {"use_sde": True, "sde_sample_freq": 1, "policy_kwargs": {"squash_output": True}}),
]


@pytest.mark.parametrize(
    ("space", "options"),
    [pytest.param(*case, id=str(case), marks=[pytest.mark.slow] * (i < 2)) for i, case in enumerate(COPIED)],
)
def test_a_policy_can_be_copied_at_every_event(space: spaces.Space[Any], options: dict[str, Any]) -> None:
    """As for a league of opponents: no graph of an update is left in it. After ``learn`` too, where A2C's cannot be."""
    options = {**options, "policy_kwargs": {"net_arch": [4], **options.get("policy_kwargs", {})}}
    model = REINFORCE("MlpPolicy", scripted([1], action_space=space), n_episodes=2, **options)
    callback = Copies()
    model.learn(4, callback)
    callback._keep()
    assert len(callback.copies) == 3 * (1 + 2 * (1 + 2 + 1) + 1 + 1)
    model.trajectory_estimates()
    copied = copy.deepcopy(model.policy)
    assert_same_predictions(copied, model.policy)


def test_set_env_changes_what_is_learned_from() -> None:
    """The next rollout begins with a reset of the new environment, wherever the old one stood."""
    model = make_model(scripted([3], [7]), n_episodes=2)
    model.learn(1)
    other = scripted([2], [4])
    model.set_env(other)
    assert model.get_env() is other
    model.learn(1, reset_num_timesteps=False)
    assert model.rollout_buffer.lengths.tolist() == [2, 4]
    assert [env.unwrapped.episode for env in other.envs] == [2, 1]  # one reset, and those at the ends of episodes
    assert model.num_timesteps == 2 * 7 + 2 * 4


def test_set_env_finds_the_normalization() -> None:
    """``get_vec_normalize_env`` is the new environment's."""
    model = make_model(scripted([2]))
    env = VecNormalize(scripted([2]))
    model.set_env(env)
    assert model.get_vec_normalize_env() is env
    model.set_env(scripted([2]))
    assert model.get_vec_normalize_env() is None


def test_a_model_without_environment_predicts_and_can_be_given_one(trained: REINFORCE) -> None:
    """``load`` without ``env``, then ``set_env``."""
    file = io.BytesIO()
    trained.save(file)
    file.seek(0)
    loaded = REINFORCE.load(file)
    with pytest.raises(AssertionError):
        loaded.learn(1)
    loaded.set_env(scripted([2], [2], action_space=BOX))
    loaded.learn(1)
    assert loaded.rollout_buffer.lengths.tolist() == [2, 2, 2, 2]


def test_the_buffer_class_survives(tmp_path: Path) -> None:
    """``rollout_buffer_class`` and ``rollout_buffer_kwargs`` are saved, the buffer is made anew."""
    model = make_model(scripted([2]), rollout_buffer_class=LoudBuffer, rollout_buffer_kwargs={"scale": 3.0})
    model.save(tmp_path / "model")
    loaded = REINFORCE.load(tmp_path / "model", env=scripted([2]))
    loaded.learn(1)
    assert isinstance(loaded.rollout_buffer, LoudBuffer)
    assert (loaded.rollout_buffer.returns >= 3).all()


def test_the_average_of_earlier_returns_is_saved() -> None:
    """``baseline="moving_average"`` goes on where it was: where every episode pays 2, nothing is left to learn."""
    env = vectorized(BanditEnv((2.0, 2.0)))
    policy_kwargs = {"optimizer_class": th.optim.SGD}
    model = REINFORCE("MlpPolicy", env, n_episodes=3, baseline="moving_average", policy_kwargs=policy_kwargs, seed=0)
    new = parameters(model)
    model.learn(3)
    before = parameters(model)
    assert (before != new).any()  # there was no average yet
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    loaded = REINFORCE.load(file, env=env).learn(9)
    np.testing.assert_array_equal(parameters(loaded), before)


class LoudBuffer(EpisodicRolloutBuffer):
    """A buffer of a user's own, which scales rewards.

    :param scale: what with
    """

    def __init__(self, *args: Any, scale: float, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.scale = scale

    def add(self, obs: Any, action: Any, reward: Any, *args: Any, **kwargs: Any) -> None:
        super().add(obs, action, self.scale * reward, *args, **kwargs)


# --- determinism ---------------------------------------------------------------------------------------------------------


def coin_flips(n_envs: int, kind: type[VecEnv]) -> VecEnv:
    """Episodes whose lengths depend on the actions, so that any other draw is another batch."""
    makers = [CoinFlipEnv] * n_envs
    return SubprocVecEnv(makers, start_method="fork") if kind is SubprocVecEnv else DummyVecEnv(makers)


def trained_state(env: VecEnv, **kwargs: Any) -> list[th.Tensor]:
    model = make_model(env, baseline="value", return_type="reward_to_go", **kwargs)
    model.learn(60)
    env.close()
    return learned_state(model)


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")  # of fork, from Python 3.12 on
@pytest.mark.parametrize("n_envs", [1, 8])
def test_a_seed_decides_everything(n_envs: int) -> None:
    """The same parameters to the last bit, in one process or several; other parameters from another seed."""
    first = trained_state(coin_flips(n_envs, DummyVecEnv), seed=3)
    assert same(trained_state(coin_flips(n_envs, DummyVecEnv), seed=3), first)
    assert same(trained_state(coin_flips(n_envs, SubprocVecEnv), seed=3), first)
    assert not same(trained_state(coin_flips(n_envs, DummyVecEnv), seed=4), first)


@pytest.mark.parametrize(
    "options", [{"use_sde": True, "sde_sample_freq": 1}, {"policy_kwargs": {"activation_fn": th.nn.GELU}}]
)
def test_a_seed_decides_whoever_draws(options: dict[str, Any]) -> None:
    """Noise matrices, and activations that torch evaluates."""
    states = []
    for seed in (3, 3, 4):
        env = scripted([3], [5], action_space=BOX)
        model = REINFORCE("MlpPolicy", env, n_episodes=3, seed=seed, **options).learn(40)
        states.append(learned_state(model))
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_resuming_from_a_checkpoint_is_deterministic(tmp_path: Path) -> None:
    """Saved in the midst of a rollout: whoever loads it in a fresh environment learns the same, to the last bit."""
    env = coin_flips(3, DummyVecEnv)
    make_model(env, seed=5).learn(100, CheckpointCallback(7, str(tmp_path), "model"))
    checkpoints = sorted(tmp_path.glob("model_*_steps.zip"), key=lambda path: int(path.stem.split("_")[1]))
    assert len(checkpoints) > 2
    states = []
    for _ in range(2):
        model = REINFORCE.load(checkpoints[1], env=coin_flips(3, DummyVecEnv))
        assert model.num_timesteps == 42
        model.learn(60, reset_num_timesteps=False)
        assert model.num_timesteps >= 102
        states.append(learned_state(model))
    assert same(*states)


def test_without_a_seed_runs_differ() -> None:
    """``seed=None`` leaves the generators alone."""
    assert not same(*(trained_state(coin_flips(1, DummyVecEnv), seed=None) for _ in range(2)))


def test_the_seed_reaches_the_environments() -> None:
    """The model's seed reaches each environment, each with its own, at the first reset."""
    seeds: list[int | None] = []

    class Seeded(ScriptedEnv):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            seeds.append(seed)
            return super().reset(seed=seed, options=options)

    make_model(vectorized(Seeded([2], 0), Seeded([2], 1)), n_episodes=2, seed=7).learn(1)
    assert seeds[:2] == [7, 8]
    assert set(seeds[2:]) == {None}


def test_a_policy_can_be_copied_after_an_update_that_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(scripted([3]))
    monkeypatch.setattr(model.policy.optimizer, "step", partial(_raise, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        model.learn(1)
    copy.deepcopy(model.policy)
    copy.deepcopy(model)


def _raise(error: BaseException, *args: Any) -> None:
    raise error


def test_a_rollout_by_hand_without_steps_to_go() -> None:
    """As A2C allows."""
    model = make_model(scripted([3]))
    _, callback = model._setup_learn(0)
    assert model.env is not None
    assert model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
    model.train()
