"""Action masks: what an environment offers, checked and sampled from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import (
    MaskableBernoulliDistribution,
    MaskableCategoricalDistribution,
    MaskableMultiCategoricalDistribution,
)
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy

from sb3_reinforce.actors.mlp import Sample, in_blocks


def choices(space: spaces.Space[Any]) -> list[int]:
    """Number of choices in each part of an action: what a mask is the concatenation of.

    :param space: action space
    :raises ValueError: if its actions cannot be masked
    """
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return [int(n) for n in space.nvec]
    if isinstance(space, spaces.MultiBinary) and isinstance(space.n, int):
        return [2] * space.n
    raise ValueError(
        f"The action space must be Discrete, or MultiDiscrete or MultiBinary of one dimension, to be masked, but it is {space}."
    )


def checked(masks: Sequence[Any] | np.ndarray, n_choices: list[int], whose: str = "environment") -> np.ndarray:
    """Masks as one array of their own, if each part of each action has a choice.

    :param masks: for each environment, which choices it offers: ``sum(n_choices)`` truth values in any shape
    :param n_choices: number of choices in each part of an action
    :param whose: what each mask is of, for the message
    :return: bool ``[n_envs, sum(n_choices)]``
    :raises ValueError: naming the environment whose mask is of another size or offers nothing
    """
    size = sum(n_choices)
    if any(np.size(mask) != size for mask in masks):
        i = next(i for i, mask in enumerate(masks) if np.size(mask) != size)
        raise ValueError(
            f"`action_masks` of {whose} {i} must have {size} values, one for each choice, but they are of shape "
            f"{np.shape(masks[i])}."
        )
    flat = np.array([np.ravel(mask) for mask in masks], dtype=bool)
    starts = np.cumsum(n_choices) - n_choices
    offers = np.logical_or.reduceat(flat, starts, axis=1)
    if not offers.all():
        i, part = map(int, np.argwhere(~offers)[0])
        of_part = f" in part {part} of the action" if len(n_choices) > 1 else ""
        mask = flat[i, starts[part] : starts[part] + n_choices[part]].tolist()
        raise ValueError(f"`action_masks` of {whose} {i} must leave something to choose{of_part}, but they are {mask}.")
    return flat


def masked_sampler(policy: MaskableActorCriticPolicy, generator: np.random.Generator) -> Sample | None:
    """Sampling from the policy's distribution under masks, given the last layer's outputs.

    :param policy: a policy of sb3-contrib, or one that derives from it
    :param generator: source of random numbers
    :return: a function of logits ``[n_envs, n_choices]`` and masks bool ``[n_envs, n_choices]``, or None where the
        distribution is not one of sb3-contrib's
    """
    distribution = policy.action_dist
    if any(callable(value) for value in vars(distribution).values()):  # a method that was set on the object
        return None
    gumbel = in_blocks(generator.gumbel)

    def perturbed(logits: np.ndarray, action_masks: np.ndarray | None) -> np.ndarray:
        # The Gumbel-max trick, in which a choice of probability 0 never has the greatest value.
        noisy = logits + gumbel(logits.shape)
        return noisy if action_masks is None else np.where(action_masks, noisy, -np.inf)

    def sample_categorical(logits: np.ndarray, action_masks: np.ndarray | None = None) -> np.ndarray:
        return perturbed(logits, action_masks).argmax(axis=1)

    def sample_multi_categorical(logits: np.ndarray, action_masks: np.ndarray | None = None) -> np.ndarray:
        parts = np.split(perturbed(logits, action_masks), splits, axis=1)
        return np.stack([part.argmax(axis=1) for part in parts], axis=1)

    if type(distribution) is MaskableCategoricalDistribution:
        return sample_categorical
    if type(distribution) in (MaskableMultiCategoricalDistribution, MaskableBernoulliDistribution):
        splits = np.cumsum(distribution.action_dims)[:-1]
        return sample_multi_categorical
    return None
