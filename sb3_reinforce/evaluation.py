"""What an update asks of a policy: log π, entropy and V of the steps of a batch."""

from collections.abc import Iterator

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_reinforce.actors import overrides
from sb3_reinforce.batch import Batch, EpisodicRolloutBufferSamples


class Evaluator:
    """A policy and a batch, evaluated part by part.

    :param policy: any actor-critic policy
    :param batch: the trajectories
    :param batch_size: number of steps per pass, to bound memory; None: all at once
    """

    def __init__(self, policy: ActorCriticPolicy, batch: Batch, batch_size: int | None):
        self.policy = policy
        self.batch = batch
        self.batch_size = batch_size
        # V is spared where the policy's class allows that.
        self._with_value = overrides(policy, "evaluate_actions", "get_distribution", "extract_features")

    def parts(self, within: slice | None = None) -> Iterator[EpisodicRolloutBufferSamples]:
        """The batch, or the trajectory ``within`` it, in parts that each fit in one pass."""
        return self.batch.parts(self.batch_size, within)

    def log_probs(self, part: EpisodicRolloutBufferSamples) -> tuple[th.Tensor, th.Tensor | None]:
        """log π of each action taken and the policy's entropy there, float ``[B]``, with graph.

        The entropy is None where the distribution has none in closed form.
        """
        if self._with_value:
            _, log_probs, entropy = self.policy.evaluate_actions(part.observations, part.actions, **part.given)
            return log_probs, entropy
        distribution = self.policy.get_distribution(part.observations, **part.given)
        return distribution.log_prob(part.actions), distribution.entropy()

    def values(self, part: EpisodicRolloutBufferSamples) -> th.Tensor:
        """V of each step, float ``[B]``, with graph."""
        return self.policy.predict_values(part.observations).flatten()

    def all_log_probs(self) -> np.ndarray:
        """log π of each action taken, by the policy as it is, float32 ``[M]``; leaves it in eval mode, that of the rollout."""
        self.policy.set_training_mode(False)
        with th.no_grad():
            return th.cat([self.log_probs(part)[0] for part in self.parts()]).cpu().numpy()

    def all_values(self) -> np.ndarray:
        """V of each step by the value network as it is, float32 ``[M]``."""
        with th.no_grad():
            return th.cat([self.values(part) for part in self.parts()]).cpu().numpy()

    def last_values(self) -> dict[int, float]:
        """V(s_H) of each trajectory that was cut, by the index of its last step."""
        with th.no_grad():
            return {
                step: self.policy.predict_values(self.policy.obs_to_tensor(obs)[0]).item()
                for step, obs in self.batch.last_observations.items()
            }
