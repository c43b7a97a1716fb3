"""Arguments of ``REINFORCE`` that are out of range, or undefined together."""

import warnings
from typing import TYPE_CHECKING

import numpy as np

from sb3_reinforce.baselines import BASELINES

if TYPE_CHECKING:
    from sb3_reinforce.reinforce import REINFORCE

RETURN_TYPES = ("trajectory", "reward_to_go")
#: Baselines that compare a trajectory with the others of its batch.
COMPARING = ("mean", "leave_one_out", "time_leave_one_out", "optimal")


def _is_number(value: object) -> bool:
    """A finite number, and not the text that YAML makes of 1e-3."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and bool(np.isfinite(value))


def require(condition: bool | np.bool_, rule: str, value: object) -> None:
    """Raise a ``ValueError`` that states the rule and the value, unless the condition holds."""
    if not condition:
        raise ValueError(f"{rule}, but it is {value!r}.")


def check_arguments(model: "REINFORCE") -> None:
    """Refuse what is out of range or undefined, before anything is built; warn of gSDE.

    :param model: with the arguments under their own names, as the constructor or ``load`` has set them
    :raises ValueError: naming the argument, the rule and the value
    """
    for name in ("n_episodes", "horizon", "batch_size", "n_critic_updates", "n_epochs"):
        value = getattr(model, name)
        optional = name in ("horizon", "batch_size")
        counts = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        allowed = (optional and value is None) or (counts and value >= 1)
        require(allowed, f"`{name}` must be {'None or ' * optional}an integer of at least 1", value)
    for name in ("ent_coef", "vf_coef"):
        value = getattr(model, name)
        require(_is_number(value) and value >= 0, f"`{name}` must be a number of at least 0", value)
    for name in ("exact_discounting", "normalize_advantage", "bootstrap_truncated"):
        require(isinstance(getattr(model, name), bool | np.bool_), f"`{name}` must be True or False", getattr(model, name))
    gamma, share, norm = model.gamma, model.min_effective_share, model.max_grad_norm
    require(_is_number(gamma) and 0 < gamma <= 1, "`gamma` must be in (0, 1]", gamma)
    require(_is_number(share) and 0 <= share <= 1, "`min_effective_share` must be in [0, 1]", share)
    limit = norm is None or norm == np.inf or (_is_number(norm) and norm > 0)
    require(limit, "`max_grad_norm` must be None or above 0", norm)
    require(model.return_type in RETURN_TYPES, f"`return_type` must be one of {RETURN_TYPES}", model.return_type)
    require(model.baseline in BASELINES, f"`baseline` must be one of {BASELINES}", model.baseline)
    check_combinations(model)
    if model.use_sde and model.sde_sample_freq != 1:
        warnings.warn(
            "gSDE shares one noise matrix between steps, so the log-probability of a trajectory is not the sum over its "
            "steps, and the gradient estimate is not exact. With `sde_sample_freq=1` the noise is drawn anew at each step.",
            stacklevel=4,
        )


def check_combinations(model: "REINFORCE") -> None:
    """Refuse arguments that are undefined together.

    :param model: with arguments that are each in their range
    :raises ValueError: naming the argument, the rule and the value
    """
    baseline, return_type = model.baseline, model.return_type
    if model.bootstrap_truncated:
        require(baseline == "value", '`baseline` must be "value" with `bootstrap_truncated=True`', baseline)
        rule = '`return_type` must be "reward_to_go" with `bootstrap_truncated=True`: V is the value of the rest only then'
        require(return_type == "reward_to_go", rule, return_type)
    if model.exact_discounting or baseline == "time_leave_one_out":
        option = "`exact_discounting=True`" if model.exact_discounting else f"`{baseline=}`"
        rule = f'`return_type` must be "reward_to_go" with {option}: R(τ) is discounted exactly and the same at every step'
        require(return_type == "reward_to_go", rule, return_type)
    if baseline == "optimal":
        rule = (
            '`normalize_advantage` must be False with `baseline="optimal"`, which is no number that a step could be shifted by'
        )
        require(not model.normalize_advantage, rule, model.normalize_advantage)
        rule = '`n_epochs` must be 1 with `baseline="optimal"`, whose optimum is that of trajectories of the policy itself'
        require(model.n_epochs == 1, rule, model.n_epochs)
    if model.n_episodes == 1:
        rule = "`n_episodes` must be at least 2, or every weight is 0 or undefined, with"
        require(baseline not in COMPARING, f"{rule} `{baseline=}`", 1)
        # All steps of the one trajectory share R(τ), unless a value baseline differs from step to step.
        same = return_type == "trajectory" and baseline != "value"
        require(not (model.normalize_advantage and same), f"{rule} `normalize_advantage=True`", 1)
