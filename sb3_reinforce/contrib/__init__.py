"""REINFORCE with the policies of sb3-contrib: action masks and memory."""

try:
    import sb3_contrib  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        "MaskableREINFORCE and RecurrentREINFORCE use the policies of sb3-contrib: pip install 'sb3_reinforce[contrib]'"
    ) from error

from sb3_reinforce.contrib.maskable import MaskableREINFORCE
from sb3_reinforce.contrib.recurrent import RecurrentREINFORCE

__all__ = ["MaskableREINFORCE", "RecurrentREINFORCE"]
