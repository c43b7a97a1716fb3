"""The rules of the arguments, on a mapping: the numbers next to each bound, and the combinations, without a model."""

import itertools
from typing import Any

import numpy as np
import pytest

from sb3_reinforce.arguments import RETURN_TYPES, check_arguments
from sb3_reinforce.baselines import BASELINES

#: REINFORCE's defaults, but for the number of trajectories.
DEFAULTS: dict[str, Any] = {
    "n_episodes": 2,
    "gamma": 0.99,
    "horizon": None,
    "return_type": "trajectory",
    "exact_discounting": False,
    "baseline": None,
    "normalize_advantage": False,
    "ent_coef": 0.0,
    "max_grad_norm": None,
    "batch_size": None,
    "vf_coef": 0.5,
    "n_critic_updates": 5,
    "bootstrap_truncated": False,
    "n_epochs": 1,
    "min_effective_share": 0.75,
    "carry_over": False,
    "use_sde": False,
    "sde_sample_freq": -1,
}
TINY = 5e-324
ABOVE_1 = np.nextafter(1.0, 2.0)


def is_allowed(**arguments: Any) -> bool:
    """Whether nothing is refused; if something is, then by the name and the value of one of these."""
    try:
        check_arguments({**DEFAULTS, **arguments, "another": object()})
    except ValueError as refusal:
        message = str(refusal)
    else:
        return True
    assert any(f"`{name}`" in message and message.endswith(f"{value!r}.") for name, value in arguments.items()), message
    return False


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("gamma", [0, 0.0, TINY, 0.5, 1, 1.0, np.float32(0.5)], [-TINY, ABOVE_1, np.nan, np.inf, True, None, "1e-3"]),
        ("min_effective_share", [0, 0.0, 1, 1.0], [-TINY, ABOVE_1, np.nan, False, None, "0.5"]),
        ("ent_coef", [0, 0.0, TINY, 10], [-TINY, np.inf, np.nan, True, None, "auto"]),
        ("vf_coef", [0, 0.0, TINY, 10], [-TINY, np.inf, np.nan, True, None, "0.5"]),
        ("max_grad_norm", [None, TINY, np.inf, 1], [0, 0.0, -TINY, -np.inf, np.nan, True, "0.5", [0.5, 0.5]]),
        ("n_episodes", [1, np.int32(3)], [0, -1, 1.0, True, None, "1"]),
        ("n_epochs", [1, np.int64(3)], [0, -1, 1.0, True, None, "1"]),
        ("n_critic_updates", [1, np.int64(3)], [0, -1, 1.0, True, None, "1"]),
        ("horizon", [None, 1, np.int64(3)], [0, -1, 1.0, True, "1", np.inf]),
        ("batch_size", [None, 1, np.int64(3)], [0, -1, 1.0, True, "1"]),
        ("normalize_advantage", [True, False, np.True_], [None, 0, 1, "True"]),
        ("exact_discounting", [False, np.False_], [None, 0, 1, "True"]),
        ("carry_over", [True, False, np.True_], [None, 0, 1, "True"]),
        ("bootstrap_truncated", [False, np.False_], [None, 0, 1, "True"]),
        ("return_type", [*RETURN_TYPES], [None, "", "Trajectory", 0]),
        (
            "baseline",
            [*(name for name in BASELINES if name != "time_leave_one_out")],
            ["", "None", "leave-one-out", False, 0, np.ones(2)],
        ),
    ],
)
def test_the_bounds_are_where_they_are_said_to_be(name: str, allowed: list[Any], refused: list[Any]) -> None:
    """What lies on the bound or next to it within the range is allowed, what lies next to it outside is refused by name."""
    for value in allowed:
        assert is_allowed(**{name: value}), value
    for value in refused:
        assert not is_allowed(**{name: value}), value


def is_defined(
    return_type: str, baseline: str | None, exact: bool, bootstrap: bool, normalize: bool, n_episodes: int, n_epochs: int
) -> bool:
    """What the docstring of REINFORCE says of the combinations, one rule a line."""
    to_go = return_type == "reward_to_go"
    compared = baseline in ("mean", "leave_one_out", "time_leave_one_out", "optimal")
    return not (
        (bootstrap and not (to_go and baseline == "value"))
        or (exact and not to_go)
        or (baseline == "time_leave_one_out" and not to_go)
        or (baseline == "optimal" and (normalize or n_epochs > 1))
        or (n_episodes == 1 and compared)
        or (n_episodes == 1 and normalize and not to_go and baseline != "value")
    )


def test_what_is_undefined_together_is_refused_and_nothing_else() -> None:
    """All 1,008 combinations of what the rules speak of."""
    both = (False, True)
    names = ("return_type", "baseline", "exact_discounting", "bootstrap_truncated", "normalize_advantage", "n_episodes")
    n_allowed = 0
    for values in itertools.product(RETURN_TYPES, BASELINES, both, both, both, (1, 2), (1, 2)):
        arguments = dict(zip((*names, "n_epochs"), values, strict=True))
        assert is_allowed(**arguments) == is_defined(*values), arguments
        n_allowed += is_defined(*values)
    assert 100 < n_allowed < 400
