"""How a report writes algorithms, environments and numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

LABELS = {
    "reinforce": "REINFORCE",
    "crossq": "CrossQ",
    "qrdqn": "QR-DQN",
    "ppo_lstm": "PPO LSTM",
    "reinforce_mask": "REINFORCE masked",
    "reinforce_lstm": "REINFORCE LSTM",
}
LABELS |= {name: name.upper() for name in ("a2c", "ppo", "trpo", "ars", "ddpg", "td3", "sac", "tqc", "dqn")}
COLOURS = {"reinforce": "#c1272d", "a2c": "#0072b2", "ppo": "#56b4e9", "trpo": "#009e73", "ars": "#e69f00"}
MORE_COLOURS = ("#cc79a7", "#332288", "#999933", "#882255", "#222222", "#661100", "#6699cc", "#888888")


def label(algo: str) -> str:
    return LABELS.get(algo, algo)


def in_order(values: "pd.Series[Any]") -> list[str]:
    """Each once, in order of the first."""
    return list(dict.fromkeys(values))


def colours(algos: Sequence[str]) -> dict[str, str]:
    others = [algo for algo in algos if algo not in COLOURS]
    return COLOURS | {algo: MORE_COLOURS[i % len(MORE_COLOURS)] for i, algo in enumerate(others)}


def pair_name(algo: str, env_id: str) -> str:
    """As ``settings.json`` has it."""
    return f"{algo} on {env_id}"


def run_name(algo: str, env_id: str, seed: int) -> str:
    """As ``failed.json`` has it."""
    return f"{pair_name(algo, env_id)}, seed {seed}"


def decimals(values: Sequence[float] | np.ndarray) -> int:
    """How many decimals tell numbers apart: two or three digits of each, and five steps from the least to the greatest."""
    scale, spread = float(np.median(np.abs(values))), float(np.ptp(values))  # a median: a run that diverged hides no digits
    by_scale = 0 if scale >= 10 else 2 if scale >= 1 else 3
    return max(by_scale, math.ceil(-math.log10(spread / 5)) if spread > 0 else 0)


def number(value: float, digits: int = 0) -> str:
    """With so many decimals, and a true minus."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no minus before a zero


def steps_of(steps: float) -> str:
    if steps < 10_000:
        return f"{steps:,.0f}"
    return f"{steps / 1e6:.3g}M" if steps >= 999_500 else f"{steps / 1e3:.0f}k"


def asked(settings: Mapping[str, Any], rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Algorithms and environments that were asked for, in this order, whether or not a run of theirs was finished."""
    pairs = [key.split(" on ", 1) for key in settings]
    algos = dict.fromkeys([*(algo for algo, _ in pairs), *rows["algo"]])
    env_ids = dict.fromkeys([*(env_id for _, env_id in pairs), *rows["env"]])
    return list(algos), list(env_ids)
