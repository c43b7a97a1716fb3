"""REINFORCE that chooses among the actions an environment offers."""

from typing import Any, ClassVar, TypeVar

import numpy as np
from sb3_contrib.common.maskable.policies import (
    MaskableActorCriticCnnPolicy,
    MaskableActorCriticPolicy,
    MaskableMultiInputActorCriticPolicy,
)
from sb3_contrib.common.maskable.utils import EXPECTED_METHOD_NAME, is_masking_supported
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_reinforce.actors import MlpActor, mlp_actor
from sb3_reinforce.arguments import require
from sb3_reinforce.batch import NOTHING, Given
from sb3_reinforce.contrib.masks import MaskRule, masked_sampler
from sb3_reinforce.guards import n_observations
from sb3_reinforce.reinforce import REINFORCE

SelfMaskableREINFORCE = TypeVar("SelfMaskableREINFORCE", bound="MaskableREINFORCE")


class _Reloadable(MaskableActorCriticPolicy):
    """Saves ``share_features_extractor`` too, which sb3-contrib leaves out, so that ``load`` makes the same policy."""

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "share_features_extractor": self.share_features_extractor}


class MlpPolicy(_Reloadable):
    """sb3-contrib's ``MaskableActorCriticPolicy``, loaded as it was made."""


class CnnPolicy(_Reloadable, MaskableActorCriticCnnPolicy):
    """sb3-contrib's ``MaskableActorCriticCnnPolicy``, loaded as it was made."""


class MultiInputPolicy(_Reloadable, MaskableMultiInputActorCriticPolicy):
    """sb3-contrib's ``MaskableMultiInputActorCriticPolicy``, loaded as it was made."""


class MaskableREINFORCE(REINFORCE):
    """REINFORCE with sb3-contrib's maskable policies: an action that the environment does not offer has probability 0.

    What is offered comes from the environment's method ``action_masks()``, or from the wrapper ``ActionMasker`` of
    sb3-contrib. It is stored with each step and given to the policy again in the update, so the gradient is that of the
    policy that acted. The arguments are those of ``REINFORCE``, without gSDE, which discrete actions do not have.

    Paper: https://doi.org/10.48550/arXiv.2006.14171 (Huang & Ontañón 2020)

    :param policy: "MlpPolicy", "CnnPolicy", "MultiInputPolicy", or a subclass of sb3-contrib's ``MaskableActorCriticPolicy``
    :param env: The environment to learn from; its actions are Discrete, MultiDiscrete or MultiBinary
    :raises ValueError: as in ``REINFORCE``, and for a policy or an action space that knows no masks
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    _use_masking = True

    def _check_policy_class(self) -> None:
        masked = isinstance(self.policy_class, type) and issubclass(self.policy_class, MaskableActorCriticPolicy)
        require(masked, "`policy` must be a name or a subclass of MaskableActorCriticPolicy", self.policy_class)
        require(not self.use_sde, "`use_sde` must be False with action masks: gSDE is for continuous actions", self.use_sde)

    def _build(self) -> None:
        self._mask_rule = MaskRule(self.action_space)
        policy_class = self.policy_class
        # SB3 passes ``use_sde`` to every policy, and those with masks do not take it.
        self.policy_class = lambda *args, use_sde, **kwargs: policy_class(*args, **kwargs)  # type: ignore[assignment]
        try:
            super()._build()
        finally:
            self.policy_class = policy_class

    def _fast_actor(self) -> MlpActor | None:
        return mlp_actor(self.policy, make_sampler=masked_sampler)  # type: ignore[arg-type]

    def _given(self, env: VecEnv) -> Given:
        if not self._use_masking:
            return NOTHING
        return {"action_masks": self._mask_rule.checked(env.env_method(EXPECTED_METHOD_NAME))}

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        if self._use_masking and not is_masking_supported(env):
            raise ValueError(
                f"The environment must have a method `{EXPECTED_METHOD_NAME}()`, or be wrapped in ActionMasker, but {env} has "
                "none. Without masks: `learn(use_masking=False)`, or RL Zoo's `--algo reinforce`."
            )
        return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)

    def learn(  # type: ignore[override] # as in MaskablePPO, progress_bar comes last
        self: SelfMaskableREINFORCE,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "MaskableREINFORCE",
        reset_num_timesteps: bool = True,
        use_masking: bool = True,
        progress_bar: bool = False,
    ) -> SelfMaskableREINFORCE:
        """As in ``REINFORCE``.

        :param use_masking: Whether the policy is given the masks; False: all actions are offered
        """
        if use_masking != self._use_masking:
            self._ahead = None  # steps that were taken otherwise would be evaluated with the wrong masks
        self._use_masking = use_masking
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
        **given: Any,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """As in ``REINFORCE``.

        :param action_masks: what is offered at each observation, bool ``[n_choices]`` or ``[n_envs, n_choices]``; None: all
        :raises ValueError: if they are of another size, or offer nothing for a part of an action
        """
        if action_masks is not None:
            action_masks = self._masks_for(observation, action_masks)
        return super().predict(observation, state, episode_start, deterministic, action_masks=action_masks, **given)

    def _masks_for(self, observation: np.ndarray | dict[str, np.ndarray], action_masks: np.ndarray) -> np.ndarray:
        """The masks as one row for each observation, if they are as they must be."""
        rule, n = self._mask_rule, n_observations(self.policy, observation)
        size = f"`action_masks` must have {rule.size} values for each of {n} observations"
        action_masks = np.asarray(action_masks)  # a tensor has another `size`
        require(action_masks.size == n * rule.size, size, action_masks.shape)
        return rule.checked(action_masks.reshape(n, rule.size), "observation")  # type: ignore[arg-type]
