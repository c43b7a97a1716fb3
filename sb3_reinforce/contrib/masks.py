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

from sb3_reinforce.actors.mlp import Sample, argmax_of_parts, in_blocks, is_one_of, seeded_by_torch


class UnmaskableSpaceError(ValueError, AssertionError):
    """A ``ValueError``, as for every mistake here, and what SB3 raises for an action space that an algorithm does not know."""


class MaskRule:
    """What masks of the actions of a space must be.

    :param space: action space
    :raises UnmaskableSpaceError: if its actions cannot be masked, a ``ValueError``
    """

    def __init__(self, space: spaces.Space[Any]):
        if isinstance(space, spaces.Discrete):
            self.n_choices = [int(space.n)]
        elif isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
            self.n_choices = [int(n) for n in space.nvec]
        elif isinstance(space, spaces.MultiBinary) and isinstance(space.n, int):
            self.n_choices = [2] * space.n
        else:
            raise UnmaskableSpaceError(
                "The algorithm only supports action spaces that can be masked: Discrete, and MultiDiscrete and MultiBinary "
                f"of one dimension. It is {space}."
            )
        self.size = sum(self.n_choices)
        self._starts: np.ndarray = np.cumsum(self.n_choices) - self.n_choices

    def checked(self, masks: Sequence[Any], whose: str = "environment") -> np.ndarray:
        """Masks as one array of their own, if each part of each action has a choice.

        :param masks: for each environment, which choices it offers: ``size`` truth values in any shape
        :param whose: what each mask is of, for the message
        :return: bool ``[n_envs, size]``
        :raises ValueError: naming the environment whose mask is of another size or offers nothing
        """
        try:
            flat = np.array(masks, dtype=bool).reshape(len(masks), self.size)
        except ValueError:
            arrays = map(np.asarray, masks)  # a tensor has another `size`
            i, mask = next((i, mask) for i, mask in enumerate(arrays) if mask.size != self.size)
            rule = f"`action_masks` of {whose} {i} must have {self.size} values, one for each choice"
            raise ValueError(f"{rule}, but they are of shape {mask.shape}.") from None
        if len(masks) * len(self.n_choices) != len(self._starts):
            self._starts = np.cumsum(self.n_choices * len(masks)) - self.n_choices * len(masks)
        offered = np.logical_or.reduceat(flat.ravel(), self._starts)  # of each part of each action
        if np.count_nonzero(offered) < len(offered):
            i, part = divmod(int(offered.argmin()), len(self.n_choices))
            mask = np.split(flat[i], np.cumsum(self.n_choices)[:-1])[part].tolist()
            of_part = f" in part {part} of the action" if len(self.n_choices) > 1 else ""
            raise ValueError(f"`action_masks` of {whose} {i} must leave something to choose{of_part}, but they are {mask}.")
        return flat


def masked_sampler(policy: MaskableActorCriticPolicy) -> Sample | None:
    """Sampling from one of sb3-contrib's distributions under masks, given the last layer's outputs; None for another one.

    :param policy: a policy of sb3-contrib, or one that derives from it
    :return: a function of logits ``[n_envs, n_choices]`` and masks bool ``[n_envs, n_choices]``
    """
    distribution: Any = policy.action_dist
    of_parts = MaskableMultiCategoricalDistribution, MaskableBernoulliDistribution
    if not is_one_of(distribution, MaskableCategoricalDistribution, *of_parts):
        return None
    gumbel = in_blocks(seeded_by_torch().gumbel)

    def perturbed(logits: np.ndarray, action_masks: np.ndarray | None) -> np.ndarray:
        # The Gumbel-max trick, in which a choice of probability 0 never has the greatest value.
        noisy = logits + gumbel(logits.shape)
        return noisy if action_masks is None else np.where(action_masks, noisy, -np.inf)

    if type(distribution) is MaskableCategoricalDistribution:
        return lambda logits, action_masks=None: perturbed(logits, action_masks).argmax(axis=1)
    splits = np.cumsum(distribution.action_dims)[:-1]
    return lambda logits, action_masks=None: argmax_of_parts(perturbed(logits, action_masks), splits)
