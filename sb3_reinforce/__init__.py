"""REINFORCE for Stable-Baselines3: the likelihood-ratio policy gradient from whole trajectories."""

from importlib.metadata import version
from typing import Any

from sb3_reinforce.buffer import EpisodicRolloutBuffer
from sb3_reinforce.callbacks import AdaptiveEpisodesCallback, GradientStatsCallback
from sb3_reinforce.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_reinforce.reinforce import REINFORCE

__version__ = version("sb3_reinforce")

__all__ = [
    "REINFORCE",
    "AdaptiveEpisodesCallback",
    "CnnPolicy",
    "EpisodicRolloutBuffer",
    "GradientStatsCallback",
    "MlpPolicy",
    "MultiInputPolicy",
]


def __getattr__(name: str) -> Any:
    """The algorithms that need sb3-contrib, which nothing else does."""
    if name in ("MaskableREINFORCE", "RecurrentREINFORCE"):
        from sb3_reinforce import contrib

        return getattr(contrib, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
