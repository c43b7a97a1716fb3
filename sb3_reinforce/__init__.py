"""REINFORCE for Stable-Baselines3: the likelihood-ratio policy gradient from whole trajectories."""

from importlib.metadata import version

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
