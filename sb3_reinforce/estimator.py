"""The likelihood-ratio surrogate: scalars whose gradients are what ``REINFORCE.train`` accumulates.

Each is a sum over steps divided by the number of trajectories m, so that the losses of the parts of a batch add
up to the loss of the whole, whatever the size of the parts.
"""

import torch as th


def likelihood_ratio_loss(log_probs: th.Tensor, weights: th.Tensor, n_episodes: int) -> th.Tensor:
    r"""Scalar whose gradient is minus the likelihood-ratio estimate of ∇U(θ), (8) of docs/derivation.md.

    .. math:: \hat g = \frac{1}{m} \sum_{i=1}^{m} \sum_{t} \psi_{i,t} \, \nabla \log \pi_\theta(a_{i,t} \mid s_{i,t})

    Divided by trajectories, not by steps: the number of steps depends on the policy, and dividing by it would bias
    the estimate. The scalar itself means nothing; its value goes up and down with the returns.

    Source: Williams (1992), doi:10.1007/BF00992696, Theorem 1.

    :param log_probs: log-probability of each action taken, float ``[B]``, with graph
    :param weights: ψ, what multiplies each ∇log π, float ``[B]``; no gradient flows through it
    :param n_episodes: m, number of trajectories in the whole batch, at least 1
    :return: scalar tensor
    """
    return -(log_probs * weights.detach()).sum() / n_episodes


def entropy_loss(
    log_probs: th.Tensor, entropy: th.Tensor | None, n_episodes: int, ratios: th.Tensor | float = 1.0
) -> th.Tensor:
    r"""Minus the entropy of the policy, summed over steps and averaged over trajectories.

    .. math:: -\frac{1}{m} \sum_{i=1}^{m} \sum_{t} H(\pi_\theta(\cdot \mid s_{i,t}))

    Summed over steps like the policy's loss, so that ``ent_coef`` weighs one step's entropy against one step's
    ψ log π, as it does in A2C and PPO, where both are averaged over steps.

    Where the distribution has no closed form of H, as a squashed one, it is estimated by -log π of the action taken. The
    gradient of that has mean zero whatever the policy is, so the score function's is taken in its place (Williams 1992):

    .. math:: \nabla H(\pi_\theta) = -E_{a \sim \pi_\theta}[\log \pi_\theta(a) \, \nabla \log \pi_\theta(a)]

    Of actions that another policy has taken, each is weighted with its likelihood ratio.

    :param log_probs: log-probability of each action taken, float ``[B]``, with graph
    :param entropy: entropy of the policy at each step, float ``[B]``, with graph; None: there is no closed form
    :param n_episodes: m, number of trajectories in the whole batch, at least 1
    :param ratios: likelihood ratio of each action to the policy that took it, float ``[B]``; 1 where it was this one
    :return: scalar tensor
    """
    if entropy is None:
        score = ratios * log_probs.detach() * (log_probs - log_probs.detach())  # 0, with the gradient log π ∇log π
        return (log_probs.detach() + score).sum() / n_episodes
    return -entropy.sum() / n_episodes
