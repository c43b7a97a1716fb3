"""REINFORCE for Stable-Baselines3: the likelihood-ratio policy gradient from whole trajectories.

The names below are imported from their modules when they are first asked for, so that programs of this package that need
no torch, such as ``sb3-reinforce --help``, start at once.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sb3_reinforce.buffer import EpisodicRolloutBuffer
    from sb3_reinforce.callbacks import AdaptiveEpisodesCallback, GradientStatsCallback
    from sb3_reinforce.contrib import MaskableREINFORCE as MaskableREINFORCE
    from sb3_reinforce.contrib import RecurrentREINFORCE as RecurrentREINFORCE
    from sb3_reinforce.gymnasium_vec_env import GymnasiumVecEnv
    from sb3_reinforce.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
    from sb3_reinforce.reinforce import REINFORCE
    from sb3_reinforce.vec_env import FastDummyVecEnv

__version__ = version("sb3_reinforce")

__all__ = [
    "REINFORCE",
    "AdaptiveEpisodesCallback",
    "CnnPolicy",
    "EpisodicRolloutBuffer",
    "FastDummyVecEnv",
    "GradientStatsCallback",
    "GymnasiumVecEnv",
    "MlpPolicy",
    "MultiInputPolicy",
]

_MODULES = {
    "REINFORCE": "reinforce",
    "AdaptiveEpisodesCallback": "callbacks",
    "CnnPolicy": "policies",
    "EpisodicRolloutBuffer": "buffer",
    "FastDummyVecEnv": "vec_env",
    "GradientStatsCallback": "callbacks",
    "GymnasiumVecEnv": "gymnasium_vec_env",
    "MlpPolicy": "policies",
    "MultiInputPolicy": "policies",
    # Not in __all__: `from sb3_reinforce import *` must not need sb3-contrib.
    "MaskableREINFORCE": "contrib",
    "RecurrentREINFORCE": "contrib",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
