"""The command ``sb3-reinforce``, as a user would give it, within this process."""

import sys

import pytest

from sb3_reinforce.zoo import cli


def run(*arguments: object) -> None:
    """``sb3-reinforce <arguments>``, and whatever it does to this process's arguments and path undone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sb3-reinforce", *map(str, arguments)])
        patch.setattr(sys, "path", [*sys.path])
        cli.main()
