"""RL Zoo's ``train`` in processes that ``torchrun`` has launched: one run, one folder, one voice."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

#: What ``torchrun`` sets for each process, as ``distributed.py`` has it, whose import would take torch's.
_LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_OF_THE_FIRST = ("-P", "--progress", "--track")


def launched() -> bool:
    """Whether ``torchrun`` has launched this process as one of several."""
    return all(name in os.environ for name in _LAUNCHED) and int(os.environ["WORLD_SIZE"]) > 1


def refusal(command: str, arguments: list[str]) -> str | None:
    """Why a command is not one for several processes; None: it is.

    :param command: one of ``sb3-reinforce``
    :param arguments: its flags
    """
    if command != "train":
        return f"{command} is for one process: run it without torchrun."
    if any(each.startswith(("-o", "--optimize")) for each in arguments):
        return (
            "-optimize is not for torchrun, whose processes train one model. Start a search in each process by itself; with "
            "the same `--storage` and `--study-name` they share one study."
        )
    return None


@contextmanager
def in_one_voice(arguments: list[str]) -> Iterator[list[str]]:
    """Flags of ``train`` for this process. All but the first write to a folder that lasts as long, and print nothing.

    :param arguments: the flags of all
    """
    if int(os.environ["RANK"]) == 0:
        yield arguments
        return
    own = [each for each in arguments if each not in _OF_THE_FIRST]
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        # Of equal flags the last one counts.
        yield [*own, "-f", folder, "--tensorboard-log", "", "--eval-freq", "-1", "--save-freq", "-1", "--verbose", "0"]


def exit_as_one(message: str) -> None:
    """End with a message of the first process, and like it."""
    sys.exit(message if int(os.environ["RANK"]) == 0 else 1)
