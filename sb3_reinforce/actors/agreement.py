"""Whether an actor and the policy have the same distribution."""

from typing import Any

import torch as th
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor

from sb3_reinforce.actors.mlp import MlpActor
from sb3_reinforce.batch import Observations


def agrees(actor: MlpActor, policy: ActorCriticPolicy, obs: Observations) -> bool:
    """Whether actor and policy have the same distribution at these observations, to the rounding of float32."""
    with th.inference_mode():
        expected = _parameters(policy.get_distribution(obs_as_tensor(obs, policy.device)))
        log_std = [policy.log_std] if isinstance(policy.action_dist, DiagGaussianDistribution) else []
        actual = _parameters(policy.action_dist.proba_distribution(th.as_tensor(actor.outputs(obs)), *log_std))
    return all(
        e.shape == a.shape and th.allclose(e, a, rtol=1e-4, atol=1e-5, equal_nan=True)
        for e, a in zip(expected, actual, strict=True)
    )


def _parameters(distribution: Distribution) -> list[th.Tensor]:
    parts: Any = distribution.distribution
    parts = parts if isinstance(parts, list) else [parts]
    return [p for part in parts for p in ((part.mean, part.stddev) if hasattr(part, "loc") else (part.logits,))]
