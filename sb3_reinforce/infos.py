"""What environments say besides observations and rewards."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import repeat
from typing import Any

import numpy as np

from sb3_reinforce.batch import Observations, indexed

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


def truncated_at(
    ended: list[int],
    cut: list[int],
    infos: list[dict[str, Any]],
    obs: Observations,
    new_obs: Observations,
    acted: np.ndarray,
) -> dict[int, Observations]:
    """The last observation s_H of each trajectory that a time limit or the horizon cut, by environment.

    :param ended: environments whose recorded episode the environment ended
    :param cut: environments whose recorded episode the horizon cut
    :param infos: what the vectorised environment said of this step
    :param obs: the observations before it
    :param new_obs: the observations after it, those of new episodes where one ended
    :param acted: environments that this was a step of, bool ``[n_envs]``; it only reset the others, which stood at s_H
    """
    observations: dict[int, Observations] = {}
    for index in ended:
        last = infos[index].get("terminal_observation") if acted[index] else indexed(obs, index)
        if infos[index].get("TimeLimit.truncated", False) and last is not None:
            observations[index] = last
    for index in cut:
        observations[index] = indexed(new_obs, index)
    return observations
