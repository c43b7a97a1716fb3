"""The command ``sb3-reinforce``: RL Zoo's own programs, with REINFORCE among their algorithms, and ``compare``.

They, and torch, are imported only when they are asked for, so that help and errors come at once.
"""

import argparse
import difflib
import importlib
import os
import runpy
import sys
from contextlib import ExitStack
from importlib.metadata import version

from sb3_reinforce.zoo import compare, launch
from sb3_reinforce.zoo.registration import register

_COMMANDS = {
    "compare": "train algorithms on environments over seeds, and report: tables and pictures",
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
_WITHOUT_ALGO = ("compare", "all_plots", "plot_from_file", "benchmark")


def main() -> None:
    """Run one of RL Zoo's programs, with all its flags and ``reinforce`` as its default algorithm."""
    command, *arguments = sys.argv[1:] or ["--help"]
    _check(command)
    from gymnasium.error import DependencyNotInstalled

    # Of two --algo the last one counts, which is the user's.
    default = [] if command in _WITHOUT_ALGO else ["--algo", "reinforce"]
    sys.argv = [f"sb3-reinforce {command}", *default, *arguments]
    # RL Zoo imports modules of the current folder (custom_envs.py, --gym-packages, wrappers that YAML names), which
    # `python -m rl_zoo3.train` finds and a script in another folder does not.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        if launch.launched():
            _train_together(command, arguments)
        elif command == "compare":
            compare.main(arguments)
        else:
            register()
            _run(command)
    except (ImportError, DependencyNotInstalled) as error:
        if type(error) is ImportError and error.name:
            raise  # a faulty import of the user's, and not RL Zoo's own words about --track
        if getattr(error, "name", None) in arguments:  # after --gym-packages, so no package could bring it
            sys.exit(f"sb3-reinforce {command}: {error}, neither in this folder nor installed")
        sys.exit(
            f"sb3-reinforce {command}: {error}\n"
            "`pip install 'sb3_reinforce[zoo]'`, or `pip install '.[zoo]'` in a clone, installs RL Zoo and what it needs; "
            "`[zoo,envs]` Box2D and MuJoCo, too, `[zoo,atari]` Atari's games, and `[zoo,track]` Weights & Biases."
        )


def _check(command: str) -> None:
    """End here if help or the version is asked for, or the command is unknown."""
    parser = argparse.ArgumentParser(
        prog="sb3-reinforce",
        usage="%(prog)s <command> [<flags of RL Zoo's command>]",
        description="RL Zoo with REINFORCE among its algorithms. Where a command has --algo, the default is reinforce.",
        epilog="commands:\n" + "\n".join(f"  {name:16} {purpose}" for name, purpose in _COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sb3_reinforce {version('sb3_reinforce')}")
    parser.add_argument("command", help=argparse.SUPPRESS)
    if command.startswith("-") and command not in ("-h", "--help", "--version"):
        parser.error(f"the command comes before its flags, but the first word is {command!r}")
    parser.parse_args([command])
    if command not in _COMMANDS:
        closest = difflib.get_close_matches(command, _COMMANDS, n=1)
        hint = f"maybe you meant {closest[0]!r}?" if closest else "see --help"
        parser.error(f"there is no command {command!r}, {hint}")


def _train_together(command: str, arguments: list[str]) -> None:
    """Run ``train`` as one of the processes that ``torchrun`` has launched."""
    if reason := launch.refusal(command, arguments):
        launch.exit_as_one(f"sb3-reinforce {command}: {reason}")
    with launch.in_one_voice(sys.argv[1:]) as own:
        sys.argv[1:] = own
        register()
        _run(command)


def _run(command: str) -> None:
    if command in _PLOTS:  # functions, which their package has imported: runpy would warn of a second import
        getattr(importlib.import_module("rl_zoo3.plots"), command)()
        return
    from sb3_reinforce.zoo import masks, repairs, vec_envs

    if command in ("push_to_hub", "load_from_hub"):
        repairs.repair_hub()
    with ExitStack() as stack:
        stack.enter_context(repairs.children_of_ours())
        if command in ("enjoy", "record_video", "push_to_hub"):
            stack.enter_context(masks.given_to_players())
        if command == "train":
            sys.argv[1:] = stack.enter_context(vec_envs.chosen(sys.argv[1:]))
        runpy.run_module(f"rl_zoo3.{command}", run_name="__main__")
