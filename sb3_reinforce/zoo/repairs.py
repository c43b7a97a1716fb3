"""What RL Zoo 2.9.2 needs to run with the packages it asks for. Each repair can go once RL Zoo has its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def children_of_ours() -> Iterator[None]:
    """Programs that RL Zoo starts while this lasts know ``reinforce`` too.

    ``record_training`` starts ``python -m rl_zoo3.record_video`` and ``benchmark`` starts ``python enjoy.py``, which would
    have to lie in the current folder. Both are made children of this Python and of our command.
    """
    call = subprocess.call

    def call_ours(arguments: Any, **kwargs: Any) -> int:
        match arguments:
            case ["python", "-m", "rl_zoo3.record_video", *flags]:
                arguments = [sys.executable, "-m", "sb3_reinforce.zoo", "record_video", *flags]
            case ["python", "enjoy.py", *flags]:
                arguments = [sys.executable, "-m", "sb3_reinforce.zoo", "enjoy", *flags]
        return call(arguments, **kwargs)

    subprocess.call = call_ours  # type: ignore[assignment]
    try:
        yield
    finally:
        subprocess.call = call


def repair_hub() -> None:
    """Give back to the Hugging Face packages what RL Zoo expects of them.

    ``push_to_hub`` imports ``generate_metadata``, which now has an underscore and returns an object. ``load_from_hub``
    expects the error of ``requests`` where an agent has no ``VecNormalize`` statistics, and would end with another.
    """
    import huggingface_sb3
    from huggingface_hub.errors import RemoteEntryNotFoundError
    from requests.exceptions import HTTPError

    push: Any = sys.modules["huggingface_sb3.push_to_hub"]  # as an attribute, the name is that of a function
    if not hasattr(push, "generate_metadata"):
        push.generate_metadata = lambda *args: push._generate_metadata(*args).to_dict()

    load = huggingface_sb3.load_from_hub

    def load_from_hub(*args: Any) -> str:
        try:
            return load(*args)
        except RemoteEntryNotFoundError as error:
            raise HTTPError(str(error)) from error

    huggingface_sb3.load_from_hub = load_from_hub
