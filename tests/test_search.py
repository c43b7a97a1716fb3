"""The search space: its ends, its sizes and its names, and which of them reach the arguments."""

from typing import Any

import pytest
from torch import nn

from sb3_reinforce.zoo import search

hyperparams_opt = pytest.importorskip("rl_zoo3.hyperparams_opt")


class Extreme:
    """A trial at one end of every range, and of every list.

    :param last: whether it is the upper end
    """

    def __init__(self, last: bool):
        self.last = last
        self.user_attrs: dict[str, Any] = {}

    def suggest_float(self, name: str, low: float, high: float, log: bool = False) -> float:
        return high if self.last else low

    suggest_int = suggest_float

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return choices[-1 if self.last else 0]

    def set_user_attr(self, name: str, value: Any) -> None:
        self.user_attrs[name] = value


ENDS: list[tuple[bool, dict[str, Any]]] = [
    (
        False,
        {
            "learning_rate": 1e-4,
            "gamma": 0.9999,
            "n_episodes": 2,
            "n_epochs": 1,
            "min_effective_share": 0.5,
            "ent_coef": 1e-8,
            "n_critic_updates": 1,
        },
    ),
    (
        True,
        {
            "gamma": 0.8,
            "n_episodes": 64,
            "n_epochs": 10,
            "min_effective_share": 0.95,
            "ent_coef": 0.1,
            "n_critic_updates": 40,
        },
    ),
]


@pytest.mark.parametrize(("last", "expected"), ENDS, ids=["lower", "upper"])
def test_the_ends_of_the_ranges(last: bool, expected: dict[str, Any]) -> None:
    """γ from 0.8 to 0.9999, m from 2 to 64, and so on; the trial remembers γ and m as the arguments have them."""
    trial = Extreme(last)
    arguments = search.sample(trial, 2, 1, {})
    assert {name: arguments[name] for name in expected} == pytest.approx(expected)
    assert trial.user_attrs == pytest.approx({"gamma": expected["gamma"], "n_episodes": expected["n_episodes"]})
    assert arguments["policy_kwargs"]["log_std_init"] == (0.5 if last else -2.0)
    assert arguments["use_sde"] is last
    assert arguments.get("sde_sample_freq") == (1 if last else None)  # noise that steps share is refused with `carry_over`
    if last:  # a linear schedule of the greatest rate
        assert arguments["learning_rate"](0.5) == pytest.approx(0.025)


@pytest.mark.parametrize("name", ["tiny", "small", "medium"])
def test_networks_have_the_sizes_of_rl_zoos_names(name: str) -> None:
    """Those that RL Zoo gives A2C and PPO under the same name, with the same activation."""
    theirs = {"one_minus_gamma": 0.1, "one_minus_gae_lambda": 0.1, "net_arch": name, "activation_fn": "relu"}
    ours = {"one_minus_gamma": 0.1, "n_episodes_pow": 1, "linear_schedule": False, "return_type": "trajectory"}
    ours |= {"baseline": None, "bootstrap_truncated": False, "exact_discounting": False}
    converted = search.convert({**ours, "net_arch": name, "activation_fn": "relu"})
    assert converted["policy_kwargs"] == hyperparams_opt.convert_onpolicy_params(theirs)["policy_kwargs"]


def test_names_are_activations_of_theirs() -> None:
    """The first and the last of the list."""
    for last, activation in ((False, nn.Tanh), (True, nn.ReLU)):
        assert search.sample(Extreme(last), 0, 1, {})["policy_kwargs"]["activation_fn"] is activation


@pytest.mark.parametrize("last", [False, True])
def test_only_box_actions_have_a_deviation(last: bool) -> None:
    """Nor gSDE, which REINFORCE would refuse."""
    arguments = search.sample(Extreme(last), 0, 1, {})
    assert "log_std_init" not in arguments["policy_kwargs"]
    assert "use_sde" not in arguments
