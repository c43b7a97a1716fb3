"""RL Zoo's programs with REINFORCE among their algorithms, nearly all in this process, through ``cli.main``."""

import functools
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from command import run
from envs import SpacesEnv
from gymnasium import spaces
from stable_baselines3 import PPO

import sb3_reinforce
from sb3_reinforce import REINFORCE, zoo
from sb3_reinforce.gymnasium_vec_env import GymnasiumVecEnv
from sb3_reinforce.vec_env import FastDummyVecEnv
from sb3_reinforce.zoo import search

optuna = pytest.importorskip("optuna")
yaml = pytest.importorskip("yaml")
pytest.importorskip("rl_zoo3")

import pandas as pd  # noqa: E402
from rl_zoo3 import exp_manager, hyperparams_opt, utils  # noqa: E402

from sb3_reinforce.zoo import vec_envs  # noqa: E402

FILES = sorted(zoo.hyperparams_file().parent.glob("*.yml"))
#: For `default` an environment that only RL Zoo knows and no file lists; for `atari` one whose class is Atari's.
STAND_INS = {"default": "MountainCarNoVel-v0", "atari": "ALE/Pong-v5"}
QUICK = (
    "--env",
    "CartPole-v1",
    "--n-timesteps",
    "100",
    "--eval-freq",
    "-1",
    "--seed",
    "1",
    "--verbose",
    "0",
    "--num-threads",
    "1",
)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log folder with one short run of REINFORCE on CartPole-v1, with evaluations. Not to be written to."""
    folder = tmp_path_factory.mktemp("logs")
    evaluated = ("--n-timesteps", 400, "--eval-freq", 200, "--eval-episodes", 2)
    run("train", *QUICK, *evaluated, "--log-folder", folder)
    return folder


@pytest.fixture
def copied_logs(logs: Path, tmp_path: Path) -> Path:
    """The same, to be written to."""
    return shutil.copytree(logs, tmp_path / "logs")


def trained(folder: Path, n: int = 1) -> REINFORCE:
    """The n-th agent that was trained into a log folder."""
    return REINFORCE.load(folder / f"reinforce/CartPole-v1_{n}/CartPole-v1.zip")


def config(folder: Path, n: int = 1) -> dict[str, Any]:
    """The hyperparameters that the n-th run has recorded."""
    text = (folder / f"reinforce/CartPole-v1_{n}/CartPole-v1/config.yml").read_text()
    return dict(yaml.unsafe_load(text))


def parameters(model: REINFORCE) -> th.Tensor:
    return th.nn.utils.parameters_to_vector(model.policy.parameters())


def test_registration_is_done_once() -> None:
    """A second call leaves the registries and RL Zoo's reader of hyperparameters as the first left them."""
    zoo.register()
    read = exp_manager.ExperimentManager.read_hyperparameters
    zoo.register()
    assert exp_manager.ExperimentManager.read_hyperparameters is read
    assert utils.ALGOS["reinforce"] is REINFORCE
    assert hyperparams_opt.HYPERPARAMS_SAMPLER["reinforce"] is search.sample
    assert hyperparams_opt.HYPERPARAMS_CONVERTER["reinforce"] is search.convert


def imported(code: str) -> set[str]:
    """The packages that are imported after the code was run in a process of its own."""
    code = f"import sys; {code}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return {*subprocess.check_output([sys.executable, "-c", code], text=True).split()}


def test_package_needs_no_rl_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor sb3-contrib: neither the algorithm nor the module of the command imports them before it is asked to.

    Imported here once more, and then forgotten: a process of its own would spend seconds on torch.
    """
    optional = {"rl_zoo3", "optuna", "huggingface_sb3", "sb3_contrib"}
    asked_for = []

    class Watch:
        def find_spec(self, name: str, *_: Any) -> None:
            asked_for.append(name)

    with monkeypatch.context() as patch:
        for name in [name for name in sys.modules if name.split(".")[0] in {*optional, "sb3_reinforce"}]:
            patch.delitem(sys.modules, name)
        patch.setattr(sys, "meta_path", [Watch(), *sys.meta_path])
        exec("from sb3_reinforce import *; import sb3_reinforce.zoo.cli", {})
    assert {"sb3_reinforce.rollouts", "sb3_reinforce.zoo.cli"} <= {*asked_for}
    assert not optional & {name.split(".")[0] for name in asked_for}


@pytest.mark.parametrize("module", ["sb3_reinforce", "sb3_reinforce.zoo.cli"])
def test_a_command_waits_for_no_torch(module: str) -> None:
    """Help, the version and what is mistyped are answered at once, and torch takes seconds to import."""
    assert not {"torch", "gymnasium", "numpy"} & imported(f"import {module}")


def test_names_of_the_package() -> None:
    """Each is found, wherever it is asked for, and no other."""
    names: dict[str, Any] = {}
    exec("from sb3_reinforce import *", names)
    public = set(sb3_reinforce.__all__)
    assert public == names.keys() - {"__builtins__"}
    assert public | {"__version__"} < {*dir(sb3_reinforce)}
    assert names["REINFORCE"] is REINFORCE is sb3_reinforce.REINFORCE
    with pytest.raises(AttributeError, match="module 'sb3_reinforce' has no attribute 'REINFORSE'"):
        sb3_reinforce.REINFORSE  # noqa: B018


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run("--version")
    assert end.value.code == 0
    assert capsys.readouterr().out == f"sb3_reinforce {sb3_reinforce.__version__}\n"


@pytest.mark.filterwarnings("ignore:gSDE shares one noise matrix")
@pytest.mark.parametrize(("file", "entry"), [(file, entry) for file in FILES for entry in yaml.safe_load(file.read_text())])
def test_every_entry_builds_a_model(file: Path, entry: str, tmp_path: Path) -> None:
    """RL Zoo makes environments and a model of each entry, and the model has the entry's values."""
    zoo.register()
    env_id = STAND_INS.get(entry, entry)
    try:
        gym.make(env_id).close()
    except (gym.error.DependencyNotInstalled, gym.error.NamespaceNotFound) as error:
        pytest.skip(str(error))
    algo = file.stem if file.stem in utils.ALGOS else "reinforce"
    args = Namespace(algo=algo)
    manager = exp_manager.ExperimentManager(args, args.algo, env_id, str(tmp_path), eval_freq=-1, config=str(file), verbose=0)
    built = manager.setup_experiment()
    assert built is not None
    model, _ = built
    assert type(model) is utils.ALGOS[algo]
    model.env.close()
    values = yaml.safe_load(file.read_text())[entry]
    assert model.n_envs == values.get("n_envs", 1)
    own = values.keys() & vars(model).keys() - {"n_envs", "policy", "policy_kwargs", "learning_rate", "env"}
    assert {name: getattr(model, name) for name in own} == {name: values[name] for name in own}


def test_training_uses_the_packaged_file(logs: Path) -> None:
    """Without --conf-file the hyperparameters are those of our own file, and --algo need not be given."""
    expected = yaml.safe_load(zoo.hyperparams_file().read_text())["CartPole-v1"]
    assert config(logs) == expected
    assert trained(logs).n_episodes == expected["n_episodes"]


@pytest.mark.parametrize(
    ("env_id", "flags", "normalized"),
    [
        ("Vector-v0", (), True),
        ("Vector-v0", ("-params", "normalize:None"), False),
        ("FrozenLake-v1", (), False),
        ("FrozenLake-v1", ("-params", "env_wrapper:'gymnasium.wrappers.FlattenObservation'"), True),
        ("Image-v0", ("-params", "policy:'CnnPolicy'"), False),
        ("Image-v0", ("-params", "policy:'CnnPolicy'", "normalize:'dict(norm_obs=False)'"), True),
    ],
    ids=["Box", "as the user says", "Discrete", "flattened", "images", "images, as the user says"],
)
def test_the_default_normalizes_what_can_be_normalized(
    env_id: str, flags: tuple[str, ...], normalized: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the agent is loaded as it was trained."""
    for name, space in (("Vector-v0", spaces.Box(-1, 1, (3,))), ("Image-v0", spaces.Box(0, 255, (36, 36, 1), np.uint8))):
        make = functools.partial(SpacesEnv, space, spaces.Discrete(2))
        monkeypatch.setitem(gym.registry, name, gym.envs.registration.EnvSpec(name, make))
    known = ("--env", env_id, "-f", tmp_path, "--seed", 0, "--num-threads", 1)
    run("train", *known, "-n", 10, "--eval-freq", 5, "--eval-episodes", 1, "--verbose", 0, *flags)
    assert bool([*tmp_path.rglob(f"{env_id}/vecnormalize.pkl")]) == normalized
    run("enjoy", *known, "-n", 10, "--no-render")


def test_a_file_of_the_user_s_is_read_as_it_is(tmp_path: Path) -> None:
    """Also where SB3 will refuse to normalise."""
    entry = {"policy": "MlpPolicy", "n_timesteps": 10, "normalize": True}
    file = tmp_path / "mine.yml"
    file.write_text(yaml.safe_dump({"default": entry}))
    zoo.register()
    manager = exp_manager.ExperimentManager(Namespace(), "reinforce", "FrozenLake-v1", str(tmp_path), config=str(file))
    assert manager.read_hyperparameters() == (entry, entry)


def test_the_textbook_file_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the user is, unless there is a file of that name."""
    monkeypatch.chdir(tmp_path)
    run("train", *QUICK, "--conf-file", "reinforce_textbook.yml", "-f", "ours")
    assert trained(tmp_path / "ours").n_episodes == 16
    entry = {"CartPole-v1": {"policy": "MlpPolicy", "n_episodes": 3, "n_timesteps": 100}}
    (tmp_path / "reinforce_textbook.yml").write_text(yaml.dump(entry))
    run("train", *QUICK, "--conf-file", "reinforce_textbook.yml", "-f", "theirs")
    assert trained(tmp_path / "theirs").n_episodes == 3


def test_our_files_are_known_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("train", *QUICK, "--conf-file", "reinforce.yml", "-f", "logs")
    assert trained(tmp_path / "logs").n_episodes == 4


def test_conf_file_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A --conf-file of the user is used, also where an abbreviation names it; one that is missing is an error."""
    file = tmp_path / "mine.yml"
    file.write_text(yaml.dump({"CartPole-v1": {"policy": "MlpPolicy", "n_episodes": 3, "n_timesteps": 100}}))
    run("train", *QUICK, "--conf", file, "-f", tmp_path)
    assert f"Loading hyperparameters from: {file}" in capsys.readouterr().out
    assert trained(tmp_path).n_episodes == 3
    with pytest.raises(FileNotFoundError, match=r"missing\.yml"):
        run("train", *QUICK, "-conf", tmp_path / "missing.yml", "-f", tmp_path)


def test_trained_agent_can_be_enjoyed(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last and the best agent of a run are loaded and played."""
    for which in ((), ("--load-best",)):
        run("enjoy", "--env", "CartPole-v1", "-f", logs, "--no-render", *which)
        assert "Mean reward: " in capsys.readouterr().out


def test_other_algorithms_still_train(tmp_path: Path) -> None:
    """The user's --algo comes before ours."""
    run("train", "--algo", "ppo", *QUICK, "-f", tmp_path)
    assert not (tmp_path / "reinforce").exists()
    PPO.load(tmp_path / "ppo/CartPole-v1_1/CartPole-v1.zip")


def test_continuing_uses_the_agent_and_the_new_hyperparameters(copied_logs: Path) -> None:
    """-i starts from the saved parameters with the hyperparameters given: a learning rate of 0 leaves them as they are."""
    agent = copied_logs / "reinforce/CartPole-v1_1/CartPole-v1.zip"
    run("train", *QUICK, "-f", copied_logs, "-i", agent, "-params", "n_episodes:3", "learning_rate:0.0")
    before, after = trained(copied_logs), trained(copied_logs, 2)
    assert after.n_episodes == 3 != before.n_episodes
    assert after._n_updates > before._n_updates
    assert th.equal(parameters(after), parameters(before))


@pytest.mark.parametrize("other", ["fast", pytest.param("subproc", marks=pytest.mark.slow)])
def test_kinds_of_vectorised_environments(tmp_path: Path, other: str) -> None:
    """Each trains the same agent as --vec-env dummy: the environments are seeded alike."""
    for kind in ("dummy", other):
        run("train", *QUICK, "-f", tmp_path / kind, "--vec-env", kind, "-params", "n_envs:2")
        assert th.equal(parameters(trained(tmp_path / "dummy")), parameters(trained(tmp_path / kind)))


def test_environments_are_fast_unless_asked() -> None:
    manager = exp_manager.ExperimentManager
    for flags, known, default in (
        (["--env", "X", "-n", "5"], ["--env", "X", "-n", "5"], FastDummyVecEnv),
        (["--vec-env=dummy", "-n", "5"], ["-n", "5", "--vec-env", "dummy"], None),
        (["--vec", "dummy", "--verbose", "0"], ["--verbose", "0", "--vec-env", "dummy"], None),
        (["--vec-env", "vector", "-params", "n_envs:4"], ["--seed", ANY, "-params", "n_envs:4"], None),
    ):
        with vec_envs.chosen(flags) as rest:
            assert rest == known
            assert manager.default_vec_env_cls is default
        assert manager.default_vec_env_cls is None


def test_environments_that_rl_zoo_was_told_of_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of simulators that are vectorised themselves."""
    monkeypatch.setattr(exp_manager.ExperimentManager, "default_vec_env_cls", GymnasiumVecEnv)
    with vec_envs.chosen([]):
        assert exp_manager.ExperimentManager.default_vec_env_cls is GymnasiumVecEnv


def test_vector_environments_of_gymnasium(tmp_path: Path) -> None:
    """Trained on, with the episodes written to monitor.csv, and evaluated with single environments."""
    flags = ("--vec-env", "vector", "-params", "n_envs:4", "n_episodes:8", "normalize:True", "--eval-freq", 50)
    flags += ("--eval-episodes", 2)
    run("train", *QUICK, *flags, "-f", tmp_path)
    folder = tmp_path / "reinforce/CartPole-v1_1"
    assert len(trained(tmp_path)._last_obs) == 4  # type: ignore[arg-type]
    lengths = pd.read_csv(folder / "monitor.csv", skiprows=1)["l"]
    assert len(lengths) >= 8
    assert lengths.min() >= 8
    assert (folder / "evaluations.npz").is_file()


def test_seeds_that_vector_environments_take() -> None:
    """Those of C++ take 31 bits, of which RL Zoo's own are 32. The last --seed counts."""
    for _ in range(50):
        with vec_envs.chosen(["--vec-env", "vector", "--seed", "7"]) as (flag, seed, *rest):
            assert flag == "--seed"
            assert 0 <= int(seed) + 1000 < 2**31
            assert rest == ["--seed", "7"]


def test_a_vector_environment_with_observations_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ALE's, which preprocesses and stacks images."""

    def stacked(num_envs: int, **_: Any) -> gym.vector.VectorEnv[Any, Any, Any]:
        return gym.vector.SyncVectorEnv([lambda: gym.wrappers.FrameStackObservation(gym.make("CartPole-v1"), 2)] * num_envs)

    spec = gym.envs.registration.EnvSpec(
        "Stacked-v0", "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=200, vector_entry_point=stacked
    )
    monkeypatch.setitem(gym.registry, "Stacked-v0", spec)
    flags = ("--env", "Stacked-v0", "-n", 20, "--vec-env", "vector", "-f", tmp_path)
    with pytest.raises(ValueError, match=r"shape \(2, 4\) here, but evaluations .* have shape \(4,\): `--eval-freq -1`"):
        run("train", *flags, "--eval-freq", 10)
    run("train", *flags, "--eval-freq", -1)
    assert (tmp_path / "reinforce/Stacked-v0_2/Stacked-v0.zip").is_file()


def test_a_vector_environment_has_nothing_to_wrap(tmp_path: Path) -> None:
    wrapped = ("-params", "env_wrapper:'gymnasium.wrappers.RescaleAction'")
    with pytest.raises(ValueError, match="`--vec-env vector` has no single environments that `env_wrapper` could wrap"):
        run("train", *QUICK, "--vec-env", "vector", *wrapped, "-f", tmp_path)
    with pytest.raises(SystemExit):
        run("train", *QUICK, "--vec-env", "quick", "-f", tmp_path)


@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
def test_flags_of_training(tmp_path: Path) -> None:
    """Checkpoints, TensorBoard, a progress bar, arguments of the environment and a name that is unique."""
    flags = ("--save-freq", 50, "--tensorboard-log", tmp_path / "board", "--progress", "--uuid", "-f", tmp_path / "logs")
    run("train", *QUICK, *flags, "--env-kwargs", "sutton_barto_reward:True")
    (folder,) = (tmp_path / "logs/reinforce").iterdir()
    assert len(folder.name) > len("CartPole-v1_1_") + 30
    assert (folder / "rl_model_50_steps.zip").is_file()
    assert list((tmp_path / "board").rglob("events.out.tfevents*"))
    assert yaml.unsafe_load((folder / "CartPole-v1/args.yml").read_text())["env_kwargs"] == {"sutton_barto_reward": True}
    returns = [float(line.split(",")[0]) for line in (folder / "0.monitor.csv").read_text().splitlines()[2:]]
    assert returns
    assert set(returns) == {-1.0}  # this environment pays only for falling


def test_search_and_its_trials(tmp_path: Path) -> None:
    """A study of two trials runs to its report, and --trial-id trains with the hyperparameters of one of them."""
    storage = tmp_path / "study.log"
    study = ("--storage", storage, "--study-name", "two")
    optimize = ("-optimize", "--n-trials", 2, "--sampler", "random", "--eval-episodes", 1, "--no-optim-plots")
    run("train", *QUICK, "-f", tmp_path / "search", *study, *optimize)
    assert list((tmp_path / "search/reinforce").glob("report_*.csv"))
    run("train", *QUICK, "-f", tmp_path, *study, "--trial-id", 1)  # RL Zoo overlooks --trial-id 0
    backend = optuna.storages.journal.JournalFileBackend(str(storage))
    trials = optuna.load_study(study_name="two", storage=optuna.storages.JournalStorage(backend)).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE"]
    sampled = search.convert(trials[1].params)
    assert {name: config(tmp_path)[name] for name in sampled} == sampled
    assert trained(tmp_path).n_episodes == trials[1].user_attrs["n_episodes"]


def test_trial_as_arguments() -> None:
    """What a trial holds in a form that is easy to search becomes arguments; what other arguments rule out is off."""
    arguments = search.convert(
        {
            "learning_rate": 0.5,
            "linear_schedule": True,
            "one_minus_gamma": 0.25,
            "n_episodes_pow": 3,
            "return_type": "trajectory",
            "exact_discounting": True,
            "baseline": "time_leave_one_out",
            "bootstrap_truncated": True,
            "net_arch": "tiny",
            "activation_fn": "relu",
            "log_std_init": -1.0,
        }
    )
    assert arguments == {
        "learning_rate": "lin_0.5",
        "gamma": 0.75,
        "n_episodes": 8,
        "return_type": "trajectory",
        "exact_discounting": False,
        "baseline": "leave_one_out",
        "bootstrap_truncated": False,
        "policy_kwargs": {
            "net_arch": {"pi": [64], "vf": [64]},
            "activation_fn": th.nn.ReLU,
            "log_std_init": -1.0,
        },
    }


@pytest.mark.filterwarnings("ignore:gSDE shares one noise matrix:UserWarning")
@pytest.mark.parametrize(
    ("algo", "policy", "env_id"),
    [
        ("reinforce", "MlpPolicy", "CartPole-v1"),
        ("reinforce", "MlpPolicy", "Pendulum-v1"),
        ("reinforce_mask", "MlpPolicy", "CartPole-v1"),
        ("reinforce_lstm", "MlpLstmPolicy", "Pendulum-v1"),
    ],
)
def test_all_of_the_search_space_is_allowed(algo: str, policy: str, env_id: str) -> None:
    """The algorithm accepts whatever is sampled (RL Zoo's study would end at a refusal), and trials convert to it again."""
    env = gym.make(env_id)
    n_actions = sum(env.action_space.shape or ())
    zoo.register()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        sampled = hyperparams_opt.HYPERPARAMS_SAMPLER[algo](trial, n_actions, 1, {})
        utils.ALGOS[algo](policy, env, **sampled)
        assert ("log_std_init" in sampled["policy_kwargs"]) == (env_id == "Pendulum-v1")
        converted = hyperparams_opt.HYPERPARAMS_CONVERTER[algo](study.trials[-1].params)
        rates = {"learning_rate": converted.pop("learning_rate")}
        rate = sampled.pop("learning_rate")
        assert converted == sampled
        if isinstance(rates["learning_rate"], str):  # what RL Zoo makes of it is what was sampled
            assert exp_manager.ExperimentManager._preprocess_schedules(rates)["learning_rate"](0.5) == rate(0.5)
        else:
            assert rates["learning_rate"] == rate


def test_mistyped_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that does not exist ends with an error that names the closest one."""
    with pytest.raises(SystemExit) as end:
        run("trian", "--env", "CartPole-v1")
    assert end.value.code == 2
    assert "there is no command 'trian', maybe you meant 'train'?" in capsys.readouterr().err


def test_flags_before_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run("--algo", "ppo", "train")
    assert end.value.code == 2
    assert "the command comes before its flags, but the first word is '--algo'" in capsys.readouterr().err


def test_mistyped_algorithm(capsys: pytest.CaptureFixture[str]) -> None:
    """An algorithm that does not exist ends with an error that lists ours among those that do."""
    with pytest.raises(SystemExit) as end:
        run("train", "--algo", "reinforse")
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "invalid choice: 'reinforse'" in error
    assert "reinforce" in error


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_lists_the_commands(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Help, asked for or not, names every command."""
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.partition("commands:\n")[2].splitlines()]
    assert len(listed) == 11
    assert {"compare", "train", "enjoy", "benchmark", "load_from_hub"} <= {*listed}


@pytest.mark.parametrize("missing", ["rl_zoo3", "moviepy"])
def test_missing_package_is_named(missing: str, logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a package that the command needs, it ends with an error that names it, and the extra that has it."""
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as end:
        run("record_video", "-f", logs, "-n", 2, "--no-render")
    message = str(end.value.code)
    assert missing in message.lower()
    assert "pip install 'sb3_reinforce[zoo]'" in message


def test_the_extra_for_tracking_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RL Zoo raises an error of its own there."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SystemExit, match=r"zoo,track"):
        run("train", *QUICK, "--track", "-f", tmp_path)


def test_a_module_that_is_not_there_is_no_matter_of_extras() -> None:
    with pytest.raises(SystemExit, match=r"No module named 'nothing_of_that_name'.*neither in this folder nor installed$"):
        run("train", *QUICK, "--gym-packages", "nothing_of_that_name")


def test_a_faulty_module_of_the_user_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its traceback: no advice on what to install hides it."""
    (tmp_path / "faulty.py").write_text("from gymnasium import no_such_thing")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImportError, match="no_such_thing"):
        run("train", *QUICK, "--gym-packages", "faulty", "-f", "logs")


@pytest.mark.slow
@pytest.mark.parametrize("program", ["train", "record_video"])
def test_custom_envs_makes_rl_zoo_know_us(program: str, logs: Path, tmp_path: Path) -> None:
    """One line in ``custom_envs.py`` is enough for RL Zoo's own programs, whichever of its modules they import first."""
    (tmp_path / "custom_envs.py").write_text("import sb3_reinforce.zoo; sb3_reinforce.zoo.register()\n")
    flags = {
        "train": [*QUICK, "-f", "logs"],
        # Agents are looked for after the algorithm was accepted.
        "record_video": ["-f", "nowhere"],
    }[program]
    command = [sys.executable, "-m", f"rl_zoo3.{program}", "--algo", "reinforce", *flags]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if program == "train":
        assert result.returncode == 0, result.stderr
        assert config(tmp_path / "logs") == yaml.safe_load(zoo.hyperparams_file().read_text())["CartPole-v1"]
    else:
        assert "AssertionError: The nowhere/reinforce folder was not found" in result.stderr


def test_modules_of_the_current_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--gym-packages finds a module beside the user, as it does with ``python -m rl_zoo3.train``."""
    code = "import gymnasium\ngymnasium.register('Beside-v0', 'gymnasium.envs.classic_control:CartPoleEnv', None, 20)"
    (tmp_path / "beside.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    run("train", *QUICK, "--env", "Beside-v0", "--gym-packages", "beside", "-f", "logs")
    assert (tmp_path / "logs/reinforce/Beside-v0_1/Beside-v0.zip").exists()


def test_video_is_recorded(copied_logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """record_video writes a film of a trained agent."""
    pytest.importorskip("pygame")
    pytest.importorskip("moviepy")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    run("record_video", "-f", copied_logs, "-n", 5, "--no-render")
    assert [path.stat().st_size > 0 for path in copied_logs.glob("reinforce/*/videos/*.mp4")] == [True]


def test_children_know_us(copied_logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What record_training and benchmark start is our command under this Python; benchmark's results are its child's."""
    started: list[list[str]] = []

    def call(arguments: list[str]) -> int:
        started.append(arguments[:4])
        if arguments[3] == "enjoy":
            run(*arguments[3:])
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    monkeypatch.chdir(tmp_path)
    run("record_training", "-f", copied_logs)
    run("benchmark", "--log-dir", copied_logs, "--benchmark-dir", "table", "--no-hub", "-n", 200)
    ours = [sys.executable, "-m", "sb3_reinforce.zoo"]
    assert started == [[*ours, "record_video"], [*ours, "record_video"], [*ours, "enjoy"]]
    assert "|reinforce|CartPole-v1|" in (tmp_path / "table/benchmark.md").read_text()
    assert subprocess.call is call


@pytest.mark.slow
def test_plots(copied_logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are drawn by each of RL Zoo's plots; plot_train takes ours as its algorithm."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pytest.importorskip("rl_zoo3.plots")
    pyplot.switch_backend("agg")
    drawn = []
    monkeypatch.setattr(pyplot, "show", lambda: drawn.append(len(pyplot.gca().lines)))
    runs = copied_logs / "reinforce"
    shutil.copytree(runs / "CartPole-v1_1", runs / "CartPole-v1_2")  # plot_from_file asks for statistics over two runs
    run("plot_train", "-e", "CartPole-v1", "-f", copied_logs, "--episode-window", 2)
    run("all_plots", "--algos", "reinforce", "-e", "CartPole-v1", "-f", copied_logs, "-o", tmp_path / "all")
    run("plot_from_file", "-i", tmp_path / "all.pkl")
    pyplot.close("all")
    assert drawn == [2, 1, 1]


def test_agent_goes_to_the_hub_and_back(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What push_to_hub uploads, load_from_hub makes the same agent of, which has no VecNormalize statistics."""
    import huggingface_hub
    from huggingface_hub.errors import RemoteEntryNotFoundError

    repository = tmp_path / "hub/reinforce-CartPole-v1"

    class Api:
        """A hub that keeps what is pushed where RL Zoo has put it."""

        def create_repo(self, **kwargs: Any) -> str:
            repository.mkdir(parents=True)
            return "address"

        def snapshot_download(self, **kwargs: Any) -> None:
            pass

        def upload_folder(self, folder_path: Path, **kwargs: Any) -> None:
            assert Path(folder_path).resolve() == repository

    def download(repo_id: str, filename: str, **kwargs: Any) -> str:
        if not (repository / filename).exists():
            raise RemoteEntryNotFoundError(filename, response=SimpleNamespace(headers={}, request=None))  # type: ignore[arg-type]
        return str(repository / filename)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
    monkeypatch.chdir(tmp_path)
    run("push_to_hub", "--env", "CartPole-v1", "-f", logs, "-orga", "us", "--no-render")
    assert "model-index" in (repository / "README.md").read_text()
    monkeypatch.delitem(sys.modules, "rl_zoo3.load_from_hub", raising=False)  # as in a process of its own
    run("load_from_hub", "--env", "CartPole-v1", "-f", "loaded", "-orga", "us")
    assert th.equal(parameters(trained(tmp_path / "loaded")), parameters(trained(logs)))


def test_unknown_file_of_hyperparameters() -> None:
    """A name that no file of ours has is an error that says it."""
    with pytest.raises(FileNotFoundError, match=r"nothing\.yml"):
        zoo.hyperparams_file("nothing.yml")
