"""The value network: what a baseline asks of it, and its fit."""

import numpy as np
import torch as th
from torch.nn import functional as F

from sb3_reinforce.distributed import together
from sb3_reinforce.evaluation import Evaluator
from sb3_reinforce.gradients import clear, step


def bootstrapped(rewards: np.ndarray, evaluator: Evaluator, gamma: float) -> np.ndarray:
    """Rewards with γV(s_H) added to the last one of each trajectory that was cut, as if it went on (Pardo et al. 2018).

    :param rewards: reward of each step, float ``[M]``
    :param evaluator: the policy and the batch
    :param gamma: discount factor in [0, 1]
    :return: float64 ``[M]``
    """
    rewards = rewards.astype(np.float64)
    for index, value in evaluator.last_values().items():
        rewards[index] += gamma * value
    return rewards


@np.errstate(over="ignore")  # which is what is looked for
def check_targets(targets: np.ndarray) -> None:
    """Refuse targets whose squared error is not a float32 number, before any parameter is updated.

    :raises ValueError: if their sum of squares overflows
    """
    if not np.isfinite(np.square(targets, dtype=np.float32).sum()):
        raise ValueError("The returns are too large for a value network in float32; the parameters were not updated.")


def fit(
    evaluator: Evaluator,
    targets: np.ndarray,
    parameters: list[th.nn.Parameter],
    n_updates: int,
    vf_coef: float,
    max_grad_norm: float | None,
) -> float:
    """Gradient steps of the value network towards the targets of this batch, for the batches to come.

    :param evaluator: the policy and the batch
    :param targets: what the values predict, float ``[M]``
    :param parameters: what is fitted: no parameter that log π depends on, since so many steps would move the policy as far
        as its own step does
    :param n_updates: number of gradient steps, at least 1
    :param vf_coef: coefficient of the loss, above 0
    :param max_grad_norm: the maximum norm of the gradient, above 0; None: no clipping
    :return: squared error of the values after the last step, mean over the steps of the batch, in evaluation mode
    :raises ValueError: if the gradient is not finite; no step is taken with it
    """
    policy = evaluator.policy
    policy.set_training_mode(True)  # an earlier pass may have left evaluation mode
    expected = evaluator.batch.to_torch(targets)
    features = together(lambda: evaluator.fixed_features(parameters))

    def accumulate() -> None:
        clear(policy)
        for part in evaluator.parts():
            loss = F.mse_loss(evaluator.values(part, features), expected[part.steps], reduction="sum") / len(targets)
            if loss.requires_grad:
                (vf_coef * loss).backward(inputs=parameters)

    # There are none where the value network is frozen, or all of it is shared.
    for _ in range(n_updates if parameters else 0):
        evaluator.gather(accumulate)
        step(policy, max_grad_norm)
    return float(np.square(evaluator.all_values(features) - targets).mean())
