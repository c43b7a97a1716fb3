"""The space that RL Zoo's ``--optimize-hyperparameters`` searches for REINFORCE.

A trial holds what its sampler finds easiest to search (1 - γ on a log scale, m as a power of two, networks by name);
``convert`` makes arguments of ``REINFORCE`` of it. RL Zoo converts again when ``--trial-id`` reads a trial back, so all
that an argument depends on is in the trial. Nothing in the space is a combination that ``REINFORCE`` refuses: RL Zoo builds
the model where an error ends the whole study.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from sb3_reinforce.arguments import RETURN_TYPES

if TYPE_CHECKING:  # importing Optuna is left to RL Zoo
    import optuna

#: Those that any normalisation goes with; the batch mean is a shorter step of leave-one-out.
_BASELINES = (None, "leave_one_out", "time_leave_one_out", "moving_average", "value")
_LAYERS = {"tiny": [64], "small": [64, 64], "medium": [256, 256]}
_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


def sample(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """One point of the space, as arguments of ``REINFORCE``, or of ``MaskableREINFORCE``.

    :param trial: where the point is drawn from and recorded
    :param n_actions: number of dimensions of a Box action space, 0 for any other space
    :param n_envs: not used; REINFORCE's batch does not depend on it
    :param additional_args: not used; RL Zoo's settings of off-policy algorithms
    """
    return _arguments(trial, _drawn(trial, n_actions))


def sample_with_lstm(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """One point of the space, as arguments of ``RecurrentREINFORCE``; the parameters are those of ``sample``."""
    params = _drawn(trial, n_actions)
    params["lstm_hidden_size"] = trial.suggest_categorical("lstm_hidden_size", [32, 64, 128])
    params["enable_critic_lstm"] = trial.suggest_categorical("enable_critic_lstm", [False, True])
    params["ortho_init"] = trial.suggest_categorical("ortho_init", [False, True])
    return _arguments(trial, params)


def _drawn(trial: optuna.Trial, n_actions: int) -> dict[str, Any]:
    """What a trial records."""
    params: dict[str, Any] = {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 5e-2, log=True),
        "linear_schedule": trial.suggest_categorical("linear_schedule", [False, True]),
        "one_minus_gamma": trial.suggest_float("one_minus_gamma", 1e-4, 0.2, log=True),
        "n_episodes_pow": trial.suggest_int("n_episodes_pow", 1, 6),
        "n_epochs": trial.suggest_int("n_epochs", 1, 10),
        "min_effective_share": trial.suggest_float("min_effective_share", 0.5, 0.95),  # without effect at one epoch
        "return_type": trial.suggest_categorical("return_type", RETURN_TYPES),
        "exact_discounting": trial.suggest_categorical("exact_discounting", [False, True]),
        "baseline": trial.suggest_categorical("baseline", _BASELINES),
        "normalize_advantage": trial.suggest_categorical("normalize_advantage", [False, True]),
        "ent_coef": trial.suggest_float("ent_coef", 1e-8, 0.1, log=True),
        "max_grad_norm": trial.suggest_categorical("max_grad_norm", [None, 0.5, 5.0, 50.0]),
        # Without effect but with baseline="value"; drawn always, since TPE models only what all trials share.
        "n_critic_updates": trial.suggest_int("n_critic_updates", 1, 40, log=True),
        "bootstrap_truncated": trial.suggest_categorical("bootstrap_truncated", [False, True]),
        "net_arch": trial.suggest_categorical("net_arch", list(_LAYERS)),
        "activation_fn": trial.suggest_categorical("activation_fn", list(_ACTIVATIONS)),
    }
    if n_actions > 0:
        params["log_std_init"] = trial.suggest_float("log_std_init", -2.0, 0.5)
        params["use_sde"] = trial.suggest_categorical("use_sde", [False, True])
    return params


def _arguments(trial: optuna.Trial, params: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the algorithm, of which the trial is told those that are easier to read so."""
    from rl_zoo3.utils import SimpleLinearSchedule

    arguments = convert(params)
    if params["linear_schedule"]:  # RL Zoo has made schedules of strings before it samples
        arguments["learning_rate"] = SimpleLinearSchedule(params["learning_rate"])
    for name in ("gamma", "n_episodes"):
        trial.set_user_attr(name, arguments[name])
    return arguments


def convert(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``REINFORCE``, as a hyperparameter file has them, from the parameters of a trial.

    :param sampled_params: ``trial.params`` of a trial that ``sample`` or ``sample_with_lstm`` has drawn
    """
    arguments = dict(sampled_params)
    arguments["gamma"] = 1 - arguments.pop("one_minus_gamma")
    arguments["n_episodes"] = 2 ** arguments.pop("n_episodes_pow")
    if arguments.pop("linear_schedule"):
        arguments["learning_rate"] = f"lin_{arguments['learning_rate']}"
    if arguments["return_type"] == "trajectory" and arguments["baseline"] == "time_leave_one_out":
        arguments["baseline"] = "leave_one_out"  # R(τ) is the same at every step
    # What the others rule out is switched off, also where the YAML entry has it on.
    to_go = arguments["return_type"] == "reward_to_go"
    arguments["bootstrap_truncated"] &= to_go and arguments["baseline"] == "value"
    arguments["exact_discounting"] &= to_go
    if arguments.get("use_sde"):
        arguments["sde_sample_freq"] = 1  # noise that steps share is refused with `carry_over`, and not exact without
    layers = _LAYERS[arguments.pop("net_arch")]
    policy_kwargs: dict[str, Any] = {
        "net_arch": {"pi": layers, "vf": layers},
        "activation_fn": _ACTIVATIONS[arguments.pop("activation_fn")],
    }
    for name in ("log_std_init", "lstm_hidden_size", "enable_critic_lstm", "ortho_init"):
        if name in arguments:
            policy_kwargs[name] = arguments.pop(name)
    return {**arguments, "policy_kwargs": policy_kwargs}
