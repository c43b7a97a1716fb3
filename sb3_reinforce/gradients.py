"""From ψ and a batch to a step of the policy's parameters."""

from typing import NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_reinforce import baselines
from sb3_reinforce.distributed import sum_gradients
from sb3_reinforce.estimator import entropy_loss, likelihood_ratio_loss
from sb3_reinforce.evaluation import Evaluator


class Surrogate(NamedTuple):
    """What one step computes besides the gradient."""

    policy_loss: float
    """-(1/m) Σ Σ ψ log π, which means nothing by itself."""
    entropy: float
    """The policy's entropy, mean over steps."""
    log_probs: np.ndarray
    """log π of each action taken, before the step, float32 ``[M]``."""
    untouched: list[th.nn.Parameter]
    """Trainable parameters that log π does not depend on: those of the value network alone."""


def accumulate(evaluator: Evaluator, weights: np.ndarray, ent_coef: float, log_ratios: np.ndarray | None = None) -> Surrogate:
    """Leave in ``grad`` of the policy's parameters minus the likelihood-ratio estimate, and the entropy bonus's part.

    Of a batch of several processes each leaves its own summands, which ``step`` adds up.

    :param evaluator: the policy and the batch
    :param weights: ψ of each step, float ``[M]``
    :param ent_coef: entropy coefficient, at least 0
    :param log_ratios: log π - log π_old of each action taken, float ``[M]``; None: the batch is of this policy
    :return: what else the pass finds
    """
    psi = evaluator.batch.to_torch(weights)
    ratios = None if log_ratios is None else evaluator.batch.to_torch(log_ratios).exp()
    n_episodes = len(evaluator.batch.lengths)
    clear(evaluator.policy)

    def own() -> tuple[float, float, np.ndarray]:
        policy_loss, mean_entropy, seen = 0.0, 0.0, th.empty_like(psi)
        for part in evaluator.parts():
            log_probs, entropy = evaluator.log_probs(part)
            loss = likelihood_ratio_loss(log_probs, psi[part.steps], n_episodes)
            bonus = entropy_loss(log_probs, entropy, n_episodes, 1.0 if ratios is None else ratios[part.steps])
            # Without a bonus, spare the backward pass through what is only logged.
            objective = loss + ent_coef * bonus if ent_coef > 0 else loss
            if objective.requires_grad or not th.is_grad_enabled():  # not where the policy is frozen
                objective.backward()
            policy_loss += loss.item()
            seen[part.steps] = log_probs.detach()
            mean_entropy -= bonus.item() * n_episodes / len(weights)
        return policy_loss, mean_entropy, seen[evaluator.batch.own_steps].cpu().numpy()

    losses, entropies, log_probs = zip(*evaluator.gather(own), strict=True)
    untouched = [parameter for parameter in _trainable(evaluator.policy) if parameter.grad is None]
    return Surrogate(sum(losses), sum(entropies), np.concatenate(log_probs), untouched)


def clear(policy: ActorCriticPolicy) -> None:
    """Set ``grad`` to None for the policy's parameters, and for any others that its optimizer holds."""
    policy.zero_grad(set_to_none=True)
    policy.optimizer.zero_grad(set_to_none=True)


def trajectory_gradients(evaluator: Evaluator, weights: np.ndarray) -> tuple[th.Tensor, th.Tensor]:
    """Σ ψ ∇log π and Σ ∇log π of each trajectory by itself; ĝ is the mean of the former.

    :param evaluator: the policy and the batch
    :param weights: ψ of each step, float ``[M]``
    :return: two tensors ``[m, P]``, for all P trainable parameters of the policy, 0 for those of the value network
    """
    batch = evaluator.batch
    psi = batch.to_torch(weights)
    parameters = _trainable(evaluator.policy)
    trajectories = batch.trajectories()

    def own() -> np.ndarray:
        sums = th.zeros(2, len(trajectories), sum(p.numel() for p in parameters), device=batch.device)
        for i, trajectory in enumerate(trajectories):
            for part in evaluator.parts(within=trajectory):
                log_probs, _ = evaluator.log_probs(part)
                if not log_probs.requires_grad:  # the policy is frozen
                    continue
                for k, weighted in enumerate(((log_probs * psi[part.steps]).sum(), log_probs.sum())):
                    gradients = th.autograd.grad(weighted, parameters, retain_graph=k == 0, materialize_grads=True)
                    sums[k, i] += th.cat([gradient.flatten() for gradient in gradients])
        return sums.cpu().numpy()

    gradients, scores = np.concatenate(evaluator.gather(own), axis=1)
    return th.as_tensor(gradients, device=batch.device), th.as_tensor(scores, device=batch.device)


def subtract_optimal_baseline(evaluator: Evaluator, weights: np.ndarray) -> None:
    """Turn the accumulated gradient, of a loss and so of opposite sign, into that with the optimal baseline.

    Source: Greensmith et al. (2004); Peters & Schaal (2008).

    :param evaluator: the policy and the batch
    :param weights: ψ of each step without a baseline, float ``[M]``
    """
    gradients, scores = trajectory_gradients(evaluator, weights)

    def own() -> None:  # the summands of the others are theirs to add
        trajectories = evaluator.batch.own or slice(None)
        correction = (baselines.optimal(gradients, scores) * scores)[trajectories].sum(0) / len(scores)
        parameters = _trainable(evaluator.policy)
        sizes = [parameter.numel() for parameter in parameters]
        for parameter, part in zip(parameters, correction.split(sizes), strict=True):
            if parameter.grad is not None:
                parameter.grad += part.view_as(parameter)

    evaluator.gather(own)  # so that all learn of it if one has no room for m gradients


def step(policy: ActorCriticPolicy, max_grad_norm: float | None) -> float:
    """Step the policy's optimizer along the accumulated gradient, that of all processes, clipped if asked.

    :param policy: with gradients in ``grad`` of its parameters
    :param max_grad_norm: the maximum norm of the gradient, above 0; None: no clipping
    :return: norm of the gradient before clipping
    :raises ValueError: if it is not finite; no step is taken then
    """
    sum_gradients(policy.parameters())
    if max_grad_norm is None:  # spare what clipping to infinity would multiply by 1
        norms = [parameter.grad.norm() for parameter in policy.parameters() if parameter.grad is not None]
        grad_norm = th.stack(norms).norm().item() if norms else 0.0
    else:
        grad_norm = th.nn.utils.clip_grad_norm_(policy.parameters(), max_grad_norm).item()
    if not np.isfinite(grad_norm):
        clear(policy)
        raise ValueError(f"The gradient is not finite (norm {grad_norm}); no step was taken with it.")
    policy.optimizer.step()
    return grad_norm


def _trainable(policy: ActorCriticPolicy) -> list[th.nn.Parameter]:
    return [parameter for parameter in policy.parameters() if parameter.requires_grad]
