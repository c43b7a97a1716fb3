"""What every test starts from: the CPU, one torch thread and seeded generators. pyproject.toml makes warnings errors.

``pytest --accelerator tests/test_accelerator.py`` is for machines that have one.
"""

import gc
import os
import random
import tempfile
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings

# Properties are tried on the same examples at every run, and no run leaves a database behind. A deadline for each example
# would fail tests for the load of the machine.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accelerator", action="store_true", help="do not hide the accelerator, for the tests that need one")


def pytest_configure(config: pytest.Config) -> None:
    """Tests are of the CPU, where the same seed gives the same numbers, whatever else the machine has."""
    if not config.getoption("--accelerator"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_finish() -> None:
    """What was imported stays, so the garbage collector need not look at it again and again; nor at the rest as often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Python's, numpy's and torch's generators start alike, whichever tests ran before."""
    import torch as th

    random.seed(0)
    np.random.seed(0)
    th.default_generator.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each ``learn`` makes a folder for SB3's logger, which nobody removes. Here all lie in one that is removed at the end."""
    tmp_path_factory.getbasetemp()  # which pytest keeps for a while, so not in there
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(autouse=True, scope="session")
def _torch() -> Iterator[None]:
    """One thread. Without an accelerator, torch queues no seeds for one: each would keep a stack trace, a millisecond.

    Torch is imported within the fixtures: the process that hands out the tests need not wait for it.
    """
    import torch as th

    # Small networks are slower on several threads, and sums over threads may differ in their last bits from run to run.
    th.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        if not th.cuda.is_available():
            for name in ("cuda", "xpu"):
                patch.setattr(f"torch.{name}.random._lazy_call", lambda *args, **kwargs: None, raising=False)
        yield
