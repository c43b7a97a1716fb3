"""REINFORCE in RL Zoo: registration, and the command ``sb3-reinforce``."""

from sb3_reinforce.zoo.registration import hyperparams_file, register

__all__ = ["hyperparams_file", "register"]
