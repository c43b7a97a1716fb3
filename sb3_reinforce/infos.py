"""What environments say besides observations and rewards."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import repeat
from typing import Any

import numpy as np

#: Types of values that nobody can write to, so that a caller and the environment may hold the same one.
_IMMUTABLE = frozenset({type(None), bool, int, float, complex, str, bytes, np.bool_, np.int64, np.float32, np.float64})


def own_info(info: dict[str, Any]) -> dict[str, Any]:
    """A copy that shares nothing that can be written to."""
    own = info.copy()
    for key, value in own.items():
        if type(value) not in _IMMUTABLE:
            own[key] = deepcopy(value)
    return own


def infos_of_each(vector_infos: Mapping[str, Any] | list[dict[str, Any]], n_envs: int) -> list[dict[str, Any]]:
    """What a vector environment says of each of its environments.

    :param vector_infos: one value per environment under each key, and under ``_key`` whose values count, if not all do.
        Dicts are of the same form. A value that is not one per environment is said of each. Or a list, of what is said of
        each, as the wrapper ``DictInfoToList`` makes it
    :param n_envs: number of environments
    :return: new dicts, of values of their own
    """
    if isinstance(vector_infos, list):
        return [own_info(info) for info in vector_infos]
    infos: list[dict[str, Any]] = [{} for _ in range(n_envs)]
    for key, values in vector_infos.items():
        if key.startswith("_") and key[1:] in vector_infos:
            continue
        each: Sequence[Any]
        if isinstance(values, Mapping):
            each = infos_of_each(values, n_envs)
        elif isinstance(values, np.ndarray) and values.shape == (n_envs,) and not values.dtype.hasobject:
            each = values.tolist()
        elif is_one_each(values, n_envs):
            each = list(deepcopy(values))
        else:
            each = [deepcopy(values) for _ in range(n_envs)]
        mask = vector_infos.get(f"_{key}")
        for info, value, counts in zip(infos, each, repeat(True) if mask is None else mask, strict=False):
            if counts:
                info[key] = value
    return infos


def is_one_each(values: Any, n_envs: int) -> bool:
    """Whether these are as many values as there are environments, of whatever lengths."""
    return isinstance(values, np.ndarray | list | tuple) and getattr(values, "ndim", 1) > 0 and len(values) == n_envs
