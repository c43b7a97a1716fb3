"""The value network: what a baseline asks of it, and its fit."""

import numpy as np
from torch.nn import functional as F

from sb3_reinforce.evaluation import Evaluator
from sb3_reinforce.gradients import step


def bootstrapped(rewards: np.ndarray, evaluator: Evaluator, gamma: float) -> np.ndarray:
    """Rewards with γV(s_H) added to the last one of each trajectory that was cut, as if it went on (Pardo et al. 2018).

    :param rewards: reward of each step, float ``[M]``
    :param evaluator: the policy and the batch
    :param gamma: discount factor
    :return: float64 ``[M]``
    """
    rewards = rewards.astype(np.float64)
    for index, value in evaluator.last_values().items():
        rewards[index] += gamma * value
    return rewards


def check_targets(targets: np.ndarray) -> None:
    """Refuse targets whose squared error is not a float32 number, before any parameter is updated.

    :raises ValueError: if their sum of squares overflows
    """
    if not np.isfinite(np.square(targets, dtype=np.float32).sum()):
        raise ValueError("The returns are too large for a value network in float32; the parameters were not updated.")


def fit(evaluator: Evaluator, targets: np.ndarray, n_updates: int, vf_coef: float, max_grad_norm: float | None) -> float:
    """Gradient steps of the value network towards the targets of this batch, for the batches to come.

    :param evaluator: the policy and the batch
    :param targets: what the values predict, float ``[M]``
    :param n_updates: number of gradient steps, at least 1
    :param vf_coef: coefficient of the loss, above 0
    :param max_grad_norm: the maximum norm of the gradient, above 0; None: no clipping
    :return: mean squared error before the last step
    :raises ValueError: if the gradient is not finite; no step is taken with it
    """
    policy = evaluator.policy
    expected = evaluator.batch.to_torch(targets)
    # Not what the policy shares: so many steps would move it as far as its own step does.
    shared = set(policy.features_extractor.parameters()) if policy.share_features_extractor else set()
    fitted = [p for p in policy.parameters() if p.requires_grad and p not in shared]
    value_loss = 0.0
    for _ in range(n_updates):
        value_loss = 0.0
        policy.optimizer.zero_grad()
        for part in evaluator.parts():
            loss = F.mse_loss(evaluator.values(part), expected[part.steps], reduction="sum") / len(targets)
            if loss.requires_grad:  # not where the value network is frozen
                (vf_coef * loss).backward(inputs=fitted)
            value_loss += loss.item()
        step(policy, max_grad_norm)
    return value_loss
