"""REINFORCE in RL Zoo: registration, and the command ``sb3-reinforce``.

RL Zoo knows its algorithms by entries of three dictionaries, and looks for hyperparameters in its own package.
``register`` adds ours to both; ``main`` then runs RL Zoo's own programs. They are imported only when they are asked for.
"""

import argparse
import difflib
import importlib
import os
import runpy
import sys
from pathlib import Path
from typing import Any

from gymnasium.error import DependencyNotInstalled

from sb3_reinforce import zoo_repairs, zoo_search
from sb3_reinforce.reinforce import REINFORCE

_COMMANDS = {
    "train": "train an agent, continue with one (-i), or search hyperparameters (-optimize)",
    "enjoy": "watch a trained agent, or evaluate it (--no-render)",
    "record_video": "record a trained agent",
    "record_training": "record the checkpoints of a training run",
    "plot_train": "plot the rewards, lengths or successes of training episodes",
    "all_plots": "compare runs by their evaluations",
    "plot_from_file": "plot what all_plots has saved, with statistics over seeds",
    "benchmark": "evaluate every trained agent of a folder",
    "push_to_hub": "upload a trained agent to the Hugging Face hub",
    "load_from_hub": "download a trained agent",
}
_PLOTS = ("plot_train", "all_plots", "plot_from_file")
_WITHOUT_ALGO = ("all_plots", "plot_from_file", "benchmark")


def register() -> None:
    """Make ``reinforce`` an algorithm of RL Zoo in this process; a second call changes nothing.

    For ``python -m rl_zoo3.train --algo reinforce``, call it in a file ``custom_envs.py`` in the folder that this is run
    from: RL Zoo imports that file before it reads the command line.

    :raises ImportError: if RL Zoo is not installed
    """
    from rl_zoo3 import exp_manager, hyperparams_opt, utils

    utils.ALGOS["reinforce"] = REINFORCE
    hyperparams_opt.HYPERPARAMS_SAMPLER["reinforce"] = zoo_search.sample
    hyperparams_opt.HYPERPARAMS_CONVERTER["reinforce"] = zoo_search.convert
    # A program that imports exp_manager first, such as record_video, is here (by custom_envs.py) in the middle of that
    # import, before the class exists. It plays trained agents and reads no hyperparameters.
    if hasattr(exp_manager, "ExperimentManager"):
        _offer_hyperparameters(exp_manager.ExperimentManager, Path(exp_manager.__file__).parent)


def _offer_hyperparameters(manager_class: Any, package: Path) -> None:
    """Where RL Zoo would read a file of ours in its own package, or ``--conf-file`` is one by name, have it read ours."""
    read = manager_class.read_hyperparameters
    if read.__name__ == "read_offered_hyperparameters":
        return
    # Within RL Zoo's package or, in a checkout of it, beside the package.
    ours = {str(folder / "hyperparams/reinforce.yml"): "reinforce.yml" for folder in (package, package.parent)}
    ours |= {name: name for name in ("reinforce.yml", "reinforce_textbook.yml")}

    def read_offered_hyperparameters(manager: Any) -> Any:
        if manager.config in ours and not Path(manager.config).is_file():
            manager.config = str(hyperparams_file(ours[manager.config]))
        return read(manager)

    manager_class.read_hyperparameters = read_offered_hyperparameters


def hyperparams_file(name: str = "reinforce.yml") -> Path:
    """Path of a file of hyperparameters that comes with this package.

    :param name: name of the file
    :raises FileNotFoundError: if there is none of that name
    """
    package = Path(__file__).parent
    # Within the package where it was installed from a wheel, beside it in a checkout.
    for folder in (package / "hyperparams", package.parent / "hyperparams"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"No hyperparameters {name!r} come with sb3_reinforce.")


def main() -> None:
    """Run one of RL Zoo's programs, with all its flags; ``reinforce`` is among its algorithms, and the default one."""
    command, *arguments = sys.argv[1:] or ["--help"]
    _check(command)
    # Of two --algo the last one counts, which is the user's.
    default = [] if command in _WITHOUT_ALGO else ["--algo", "reinforce"]
    sys.argv = [f"sb3-reinforce {command}", *default, *arguments]
    # RL Zoo imports modules of the current folder (custom_envs.py, --gym-packages, wrappers that YAML names), which
    # `python -m rl_zoo3.train` finds and a script in another folder does not.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        register()
        _run(command)
    except (ModuleNotFoundError, DependencyNotInstalled) as error:
        sys.exit(
            f"sb3-reinforce {command}: {error}\n"
            "`pip install 'sb3_reinforce[zoo]'` installs RL Zoo and what it needs; `[zoo,envs]` Box2D and MuJoCo, too, and "
            "`[zoo,track]` Weights & Biases."
        )


def _check(command: str) -> None:
    """End here if help is asked for, or the command is unknown."""
    parser = argparse.ArgumentParser(
        prog="sb3-reinforce",
        usage="%(prog)s <command> [<flags of RL Zoo's command>]",
        description="RL Zoo with REINFORCE among its algorithms. Where a command has --algo, the default is reinforce.",
        epilog="commands:\n" + "\n".join(f"  {name:16} {purpose}" for name, purpose in _COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", help=argparse.SUPPRESS)
    if command.startswith("-") and command not in ("-h", "--help"):
        parser.error(f"the command comes before its flags, but the first word is {command!r}")
    parser.parse_args([command])
    if command not in _COMMANDS:
        closest = difflib.get_close_matches(command, _COMMANDS, n=1)
        hint = f"maybe you meant {closest[0]!r}?" if closest else "see --help"
        parser.error(f"there is no command {command!r}, {hint}")


def _run(command: str) -> None:
    if command in _PLOTS:  # functions, which their package has imported: runpy would warn of a second import
        getattr(importlib.import_module("rl_zoo3.plots"), command)()
        return
    if command in ("push_to_hub", "load_from_hub"):
        zoo_repairs.repair_hub()
    with zoo_repairs.children_of_ours():
        runpy.run_module(f"rl_zoo3.{command}", run_name="__main__")


if __name__ == "__main__":
    main()
