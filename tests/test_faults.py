"""When something breaks: an error that says what and where, a model as it was before, and training that goes on from there."""

import gc
import io
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch as th
from envs import BanditEnv, FaultyEnv, ScriptedEnv, SpacesEnv, scripted, vectorized
from gymnasium import spaces
from learned import learned_state
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecNormalize
from torch import nn

from sb3_reinforce import REINFORCE

BOX = spaces.Box(-1, 1, (2,), np.float32)
FORK_WARNING = "ignore:This process.*is multi-threaded:DeprecationWarning"  # from Python 3.12 on


def make_model(env: VecEnv, n_episodes: int = 2, **kwargs: Any) -> REINFORCE:
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    policy_kwargs = {"net_arch": [4], **kwargs.pop("policy_kwargs", {})}
    return REINFORCE(policy, env, n_episodes=n_episodes, policy_kwargs=policy_kwargs, seed=0, **kwargs)


def assert_unchanged(model: REINFORCE, before: list[th.Tensor]) -> None:
    after = learned_state(model)
    assert len(after) == len(before)
    assert all(th.equal(one, other) for one, other in zip(after, before, strict=True))


def assert_learns(model: REINFORCE) -> None:
    """One batch more, and an update of finite numbers."""
    before = model.policy.parameters_to_vector()
    model.learn(1, reset_num_timesteps=False)
    after = model.policy.parameters_to_vector()
    assert (after != before).any()
    assert np.isfinite(after).all()


# --- environments --------------------------------------------------------------------------------------------------------


class OwnTanh(nn.Tanh):
    """An activation of which only its own class knows what it does, so that rollouts ask the policy itself."""


FAULTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "raises": ({"error": ConnectionError("the simulator is gone")}, ConnectionError, "the simulator is gone"),
    "reward is NaN": ({"reward": np.nan}, ValueError, "Environment 1: reward at step 10 of the rollout .*: nan"),
    "reward is infinite": ({"reward": np.inf}, ValueError, "Environment 1: reward at step 10 of the rollout .*: inf"),
    "reward is -infinite": ({"reward": -np.inf}, ValueError, "Environment 1: reward at step 10 of the rollout .*: -inf"),
    # What a step returns is what the next one sees.
    "observation is NaN": ({"observation": np.nan}, ValueError, "Environment 1: observation at step 11 of the rollout"),
    "observation is infinite": ({"observation": np.inf}, ValueError, "Environment 1: observation at step 11 of the rollout"),
}
#: Who chooses the actions, and whether torch looks at the parameters of a distribution: not after ``torch.compile``.
ACTORS = {"numpy": (nn.Tanh, True), "policy": (OwnTanh, True), "policy, not validated": (OwnTanh, False)}


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # numpy's, of infinity times 0
@pytest.mark.parametrize(("activation_fn", "validated"), ACTORS.values(), ids=ACTORS)
@pytest.mark.parametrize("action_space", [spaces.Discrete(2), BOX], ids=["discrete", "box"])
@pytest.mark.parametrize(("fault", "error", "match"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_environment_is_named_and_nothing_is_learned_from_it(
    fault: dict[str, Any],
    error: type[Exception],
    match: str,
    action_space: spaces.Space[Any],
    activation_fn: type[nn.Module],
    validated: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the third rollout, at step 50 of its life: parameters and optimizer stay as they were, to the last bit, and once
    the environment is mended the model goes on."""
    monkeypatch.setattr(th.distributions.Distribution, "_validate_args", validated)
    envs = [FaultyEnv(ScriptedEnv([20], i, action_space=action_space), at=50 if i == 1 else -1, **fault) for i in range(2)]
    model = make_model(vectorized(*envs), baseline="value", policy_kwargs={"activation_fn": activation_fn})
    model.learn(80)
    assert model._n_updates == 2
    before = learned_state(model)
    with pytest.raises(error, match=match):
        model.learn(1, reset_num_timesteps=False)
    assert_unchanged(model, before)
    assert model._n_updates == 2
    assert_learns(model)


@pytest.mark.parametrize("activation_fn", [nn.Tanh, OwnTanh], ids=["numpy", "policy"])
def test_an_environment_that_was_mended_is_reset(activation_fn: type[nn.Module]) -> None:
    """Its last observation, still NaN, is not looked at again."""

    class Breaks(ScriptedEnv):
        broken = True

        def _observation(self) -> np.ndarray:
            return super()._observation() * (np.nan if self.broken and (self.episode, self.t) >= (0, 2) else 1)

    env = Breaks([5])
    model = make_model(vectorized(env), policy_kwargs={"activation_fn": activation_fn})
    with pytest.raises(ValueError, match="Environment 0: observation at step 2 of the rollout"):
        model.learn(1)
    env.broken = False
    assert_learns(model)


def test_an_error_of_the_policy_is_not_the_environments() -> None:
    """Where the observation is finite, what the policy raises goes through as it is."""

    class Broken(nn.Tanh):
        def forward(self, x: th.Tensor) -> th.Tensor:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        make_model(scripted([3]), policy_kwargs={"activation_fn": Broken}).learn(1)


def test_a_dict_observation_is_named_by_its_key() -> None:
    """And by the environment and step, where several sensors could be meant."""

    class BadSensor(SpacesEnv):
        def step(self, action: Any) -> Any:
            obs, *rest = super().step(action)
            obs["depth"][1] = np.inf
            return obs, *rest

    space = spaces.Dict(depth=BOX, mode=spaces.Discrete(3))
    model = make_model(vectorized(SpacesEnv(space, BOX), BadSensor(space, BOX)))
    with pytest.raises(ValueError, match="Environment 1: observation depth at step 1 of the rollout is not finite"):
        model.learn(1)


def test_the_very_first_observation_is_named_too() -> None:
    class BadStart(ScriptedEnv):
        def reset(self, **kwargs: Any) -> Any:
            obs, info = super().reset(**kwargs)
            return np.full_like(obs, np.nan), info

    model = make_model(vectorized(ScriptedEnv([4]), BadStart([4])))
    with pytest.raises(ValueError, match="Environment 1: observation at step 0 of the rollout is not finite"):
        model.learn(1)


def test_a_normalized_environment_is_looked_through() -> None:
    """``VecNormalize`` makes one environment's NaN the statistics of all; the first to show it is the one to look at."""
    env = VecNormalize(vectorized(ScriptedEnv([4]), FaultyEnv(ScriptedEnv([4], 1), at=2, observation=np.nan)))
    with pytest.raises(ValueError, match="observation at step 3 of the rollout is not finite"):
        make_model(env).learn(1)


class Dies(ScriptedEnv):
    """Its process ends at its fourth step, without a word."""

    def step(self, action: Any) -> Any:
        if self.t == 3:
            os._exit(1)
        return super().step(action)


class AlarmError(Exception):
    """What was awaited did not come."""


@pytest.fixture
def alarm() -> Any:
    """Ends a test that hangs."""

    def ring(*args: Any) -> None:
        raise AlarmError

    old = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@pytest.mark.filterwarnings(FORK_WARNING)
@pytest.mark.usefixtures("alarm")
def test_a_worker_that_dies_is_an_error_and_no_hang() -> None:
    """The model is as it was, and learns in a new environment."""
    # The first process: those forked later hold no end of its pipe, which would keep that open.
    env = SubprocVecEnv([lambda: Dies([5]), lambda: ScriptedEnv([5], 1)], start_method="fork")
    model = make_model(env)
    before = learned_state(model)
    with pytest.raises((EOFError, OSError)):
        model.learn(100)
    for process in env.processes:
        process.terminate()
        process.join()
    assert_unchanged(model, before)
    model.set_env(scripted([5], [5]))
    assert_learns(model)


# --- numbers too large ---------------------------------------------------------------------------------------------------


def huge(scale: float) -> VecEnv:
    """Rewards of 1 to 4 and a half, times ``scale``."""

    class Huge(ScriptedEnv):
        scale = 1.0

        def step(self, action: Any) -> Any:
            obs, reward, *rest = super().step(action)
            return obs, reward * self.scale, *rest

    env = Huge([4, 2])
    env.scale = scale
    return vectorized(env)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # numpy's, of returns beyond float32
@pytest.mark.parametrize("scale", [1e25, 5e37])
@pytest.mark.parametrize("options", [{}, {"baseline": "leave_one_out"}, {"max_grad_norm": 0.5}, {"baseline": "value"}])
def test_an_infinite_gradient_is_refused(scale: float, options: dict[str, Any]) -> None:
    """Finite rewards whose sums or squares are not: no step is taken, and the next batch finds the model as it was."""
    model = make_model(huge(scale), n_episodes=4, **options)
    before = learned_state(model)
    with pytest.raises(ValueError, match=r"no step was taken with it|the parameters were not updated"):
        model.learn(12)
    assert_unchanged(model, before)
    assert all(parameter.grad is None for parameter in model.policy.parameters())
    model.get_env().envs[0].unwrapped.scale = 1.0
    assert_learns(model)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_an_infinite_gradient_of_the_value_network_is_refused() -> None:
    """Before the policy's step is taken, where normalisation makes that finite."""
    options = {"baseline": "value", "normalize_advantage": True, "return_type": "reward_to_go"}
    model = make_model(huge(1e25), n_episodes=4, **options)
    before = learned_state(model)
    with pytest.raises(ValueError, match="too large for a value network"):
        model.learn(12)
    assert_unchanged(model, before)


@pytest.mark.parametrize("learning_rate", [1.0, 10.0])
def test_reuse_ends_where_the_ratios_leave_the_numbers(learning_rate: float) -> None:
    """A step so large that e to the log-ratio is 0 or infinite: the batch says nothing of the new policy any more."""
    env = scripted([50], [30], action_space=BOX)
    model = make_model(env, n_episodes=4, n_epochs=4, learning_rate=learning_rate)
    model.learn(1)
    assert model._n_updates == 1
    assert model.logger.name_to_value["train/effective_sample_size"] < 2
    assert np.isfinite(model.policy.parameters_to_vector()).all()


# --- interruptions -------------------------------------------------------------------------------------------------------


class Interrupting(BaseCallback):
    """Ctrl-C at one of the places where a callback is told of something.

    :param place: "rollout start", "step" or "rollout end"
    :param at: which of its calls
    """

    def __init__(self, place: str, at: int):
        super().__init__()
        self.place, self.at = place, at

    def _interrupt(self, place: str) -> bool:
        self.at -= place == self.place
        if self.at < 0:
            self.place = "none any more"
            signal.raise_signal(signal.SIGINT)
        return True

    def _on_rollout_start(self) -> None:
        self._interrupt("rollout start")

    def _on_step(self) -> bool:
        return self._interrupt("step")

    def _on_rollout_end(self) -> None:
        self._interrupt("rollout end")


@pytest.fixture
def ctrl_c() -> Any:
    """SIGINT raises KeyboardInterrupt, in a process too that was started in the background, where it would be ignored."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, old)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("place", [("rollout start", 2), ("step", 8), ("step", 9), ("rollout end", 1)])
def test_an_interrupted_model_is_saved_and_goes_on(place: tuple[str, int], tmp_path: Path) -> None:
    """Ctrl-C between rollouts and within them, at the first and a later step: what was learned until then can be saved, and
    ``learn`` goes on with whole episodes."""
    env = scripted([3], [4])
    model = make_model(env)
    with pytest.raises(KeyboardInterrupt):
        model.learn(1000, Interrupting(*place))
    before = learned_state(model)
    assert model._n_updates in (1, 2)
    model.save(tmp_path / "interrupted")
    loaded = REINFORCE.load(tmp_path / "interrupted", env=scripted([3], [4]))
    assert_unchanged(loaded, before)
    for each in (model, loaded):
        assert_learns(each)
        (part,) = each.rollout_buffer.get()
        assert part.observations[:, 2].tolist() == [0, 1, 2, 0, 1, 2, 3]  # t: each from its first step to its last


# --- files ---------------------------------------------------------------------------------------------------------------


class FullDisk(io.BytesIO):
    """A file on a disk with so many bytes left."""

    def __init__(self, room: int):
        super().__init__()
        self.room = room

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.room:
            raise OSError(28, "No space left on device")
        return super().write(data)


@pytest.fixture
def saved() -> bytes:
    """The same bytes every time: which error a wrong one makes would depend on the clock otherwise."""
    file = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: 1.7e9)
        patch.setattr(time, "time_ns", lambda: 1_700_000_000 * 10**9)
        make_model(vectorized(BanditEnv())).learn(8).save(file)
    return file.getvalue()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_full_disk_costs_the_file_and_not_the_model(share: float, saved: bytes) -> None:
    """The system's error goes through; the model learns on, and is saved where there is room."""
    model = make_model(vectorized(BanditEnv())).learn(8)
    before = learned_state(model)
    with pytest.raises(OSError, match="No space left"):
        model.save(FullDisk(int(share * len(saved))))
    assert_unchanged(model, before)
    assert_learns(model)
    model.save(FullDisk(2 * len(saved)))


def test_a_checkpoint_that_fails_interrupts_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the midst of a rollout, as ``CheckpointCallback`` meets a full disk: training goes on when there is room."""
    model = make_model(scripted([3], [5]))
    save = model.save
    monkeypatch.setattr(model, "save", lambda path: save(FullDisk(1000)))
    before = learned_state(model)
    with pytest.raises(OSError, match="No space left"):
        model.learn(100, CheckpointCallback(3, str(tmp_path)))
    assert_unchanged(model, before)
    monkeypatch.undo()
    model.learn(20, CheckpointCallback(3, str(tmp_path)), reset_num_timesteps=False)
    assert len(list(tmp_path.glob("*.zip"))) > 2


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_a_truncated_file_is_refused(share: float, saved: bytes) -> None:
    """A download that broke off is no model; where it ends within a state dict, which is a zip file in that file, neither."""
    with pytest.raises((ValueError, AssertionError), match=r"wasn't a zip-file|No data found"):
        REINFORCE.load(io.BytesIO(saved[: int(share * len(saved))]))


def test_a_corrupted_file_is_refused_or_makes_no_difference(saved: bytes) -> None:
    """One wrong byte in a hundred places: an error, or it was in a time stamp and the like; never other parameters."""
    expected = learned_state(REINFORCE.load(io.BytesIO(saved)))
    n_refused = 0
    for at in np.linspace(0, len(saved) - 1, 100, dtype=int):
        corrupted = bytearray(saved)
        corrupted[at] ^= 0xFF
        try:
            model = REINFORCE.load(io.BytesIO(corrupted))
        except ValueError:
            n_refused += 1
        else:
            assert_unchanged(model, expected)
    assert n_refused > 80


def test_parameters_stay_where_a_file_is_refused(saved: bytes, tmp_path: Path) -> None:
    """``set_parameters`` from a broken file leaves the model as it was."""
    (tmp_path / "broken.zip").write_bytes(saved[: len(saved) // 2])
    model = make_model(vectorized(BanditEnv()))
    before = learned_state(model)
    with pytest.raises(ValueError, match="wasn't a zip-file"):
        model.set_parameters(str(tmp_path / "broken"))
    assert_unchanged(model, before)


# --- a long life ---------------------------------------------------------------------------------------------------------


def live(n_cycles: int, path: Path, watch: Callable[[], Any]) -> list[Any]:
    """Learn, save, load, and again with what was loaded; what ``watch`` says after a tenth, a half and all of it."""
    policy_kwargs = {"net_arch": [], "optimizer_class": th.optim.SGD}  # each tensor more takes a millisecond to save and load
    model = make_model(scripted([2], [3]), policy_kwargs=policy_kwargs)
    said = []
    for i in range(1, n_cycles + 1):
        model.learn(1, reset_num_timesteps=False)
        model.save(path)
        model = REINFORCE.load(path, env=model.get_env())
        if i in (n_cycles // 10, n_cycles // 2, n_cycles):
            gc.collect()
            said.append(watch())
    assert model.num_timesteps == 6 * n_cycles
    return said


def test_a_life_of_20_cycles_leaves_nothing_behind(tmp_path: Path) -> None:
    """No file stays open, and not one object a cycle stays alive."""
    process = psutil.Process()
    said = live(20, tmp_path / "model.zip", lambda: (process.num_fds(), len(gc.get_objects())))
    files, objects = zip(*said, strict=True)
    assert files[0] == files[1] == files[2]
    assert objects[2] - objects[1] < 10  # cycles between them


@pytest.mark.slow
def test_a_life_of_10000_cycles_needs_no_more_memory(tmp_path: Path) -> None:
    """A tenth of what it would take to keep the model of each cycle, 10 kB with its buffer."""
    process = psutil.Process()
    said = live(10_000, tmp_path / "model.zip", lambda: (process.num_fds(), process.memory_info().rss))
    files, memory = zip(*said, strict=True)
    assert files[0] == files[1] == files[2]
    assert memory[2] - memory[1] < 0.1 * 5000 * 10_000
