"""What every test starts from: one torch thread and seeded generators. pyproject.toml makes warnings errors."""

import pytest
import torch as th
from hypothesis import settings
from stable_baselines3.common.utils import set_random_seed

# Small networks are slower on several threads, and sums over threads may differ in their last bits from run to run.
th.set_num_threads(1)

# Properties are tried on the same examples at every run, and no run leaves a database behind. A deadline for each example
# would fail tests for the load of the machine.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Python's, numpy's and torch's generators start alike, whichever tests ran before."""
    set_random_seed(0)
