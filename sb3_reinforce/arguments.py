"""The rules of ``REINFORCE``'s arguments: their ranges, and what is undefined together."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sb3_reinforce.baselines import BASELINES

RETURN_TYPES = ("trajectory", "reward_to_go")


def require(condition: bool | np.bool_, rule: str, value: object) -> None:
    """Raise a ``ValueError`` that states the rule and the value, unless the condition holds."""
    if not condition:
        raise ValueError(f"{rule}, but it is {value!r}.")


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse what is out of range or undefined.

    :param arguments: those of ``REINFORCE`` by name, among others that are not looked at
    :raises ValueError: naming the argument, the rule and the value
    """
    for name in ("n_episodes", "horizon", "batch_size", "n_critic_updates", "n_epochs"):
        value = arguments[name]
        optional = name in ("horizon", "batch_size")
        allowed = (optional and value is None) or (is_count(value) and value >= 1)
        require(allowed, f"`{name}` must be {'None or ' * optional}an integer of at least 1", value)
    for name in ("ent_coef", "vf_coef"):
        value = arguments[name]
        require(is_number(value) and value >= 0, f"`{name}` must be a number of at least 0", value)
    for name in ("exact_discounting", "normalize_advantage", "bootstrap_truncated", "carry_over"):
        require(isinstance(arguments[name], bool | np.bool_), f"`{name}` must be True or False", arguments[name])
    gamma, share, norm = (arguments[name] for name in ("gamma", "min_effective_share", "max_grad_norm"))
    require(is_number(gamma) and 0 <= gamma <= 1, "`gamma` must be in [0, 1]", gamma)
    require(is_number(share) and 0 <= share <= 1, "`min_effective_share` must be in [0, 1]", share)
    require(norm is None or is_above_0(norm), "`max_grad_norm` must be None or above 0", norm)
    for name, allowed_values in (("return_type", RETURN_TYPES), ("baseline", tuple(BASELINES))):
        named = arguments[name] is None or isinstance(arguments[name], str)
        require(named and arguments[name] in allowed_values, f"`{name}` must be one of {allowed_values}", arguments[name])
    _check_combinations(arguments)


def is_count(value: object) -> bool:
    """An integer, of Python or numpy, and not True or False."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_above_0(value: object) -> bool:
    """A number above 0, infinity too."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and bool(value > 0)


def is_number(value: object) -> bool:
    """A finite number, and not the text that YAML makes of 1e-3."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and bool(np.isfinite(value))


def _check_combinations(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that are undefined together, each of which is in its range."""
    baseline, return_type = arguments["baseline"], arguments["return_type"]
    if arguments["bootstrap_truncated"]:
        require(baseline == "value", '`baseline` must be "value" with `bootstrap_truncated=True`', baseline)
    for applies, option, why in (
        (arguments["bootstrap_truncated"], "bootstrap_truncated=True", "V is the value of the rest only then"),
        (arguments["exact_discounting"], "exact_discounting=True", "R(τ) is discounted exactly as it is"),
        (BASELINES[baseline].to_go_only, f"{baseline=}", 'R(τ) is the same at every step, so take "leave_one_out"'),
    ):
        rule = f'`return_type` must be "reward_to_go" with `{option}`: {why}'
        require(not applies or return_type == "reward_to_go", rule, return_type)
    normalize_advantage = arguments["normalize_advantage"]
    if baseline == "optimal":
        rule = (
            '`normalize_advantage` must be False with `baseline="optimal"`, a number for each parameter and not for each step'
        )
        require(not normalize_advantage, rule, normalize_advantage)
        rule = '`n_epochs` must be 1 with `baseline="optimal"`, whose optimum is that of trajectories of the policy itself'
        require(arguments["n_epochs"] == 1, rule, arguments["n_epochs"])
    if arguments["carry_over"]:
        rule = '`baseline` must not be "optimal" with `carry_over=True`, whose trajectories are not all of one policy'
        require(baseline != "optimal", rule, baseline)
        if arguments["use_sde"]:
            rule = "`sde_sample_freq` must be 1 with `use_sde=True` and `carry_over=True`"
            shared = "ratios of steps that share their noise do not multiply to that of the trajectory"
            require(arguments["sde_sample_freq"] == 1, f"{rule}: {shared}", arguments["sde_sample_freq"])
    if arguments["n_episodes"] == 1:
        rule = "`n_episodes` must be at least 2, or every weight is 0 or undefined, with"
        require(not BASELINES[baseline].compares, f"{rule} `{baseline=}`", 1)
        # All steps of the one trajectory share R(τ), unless a value baseline differs from step to step.
        same = return_type == "trajectory" and baseline != "value"
        require(not (normalize_advantage and same), f"{rule} `normalize_advantage=True`", 1)
