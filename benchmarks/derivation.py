"""The derivation of REINFORCE as a program: both sides of each step, number against number.

    python benchmarks/derivation.py

On an MDP small enough that every trajectory can be listed, expectations are sums and gradients can be taken of U(θ)
itself. The policy, its log-probabilities and the estimator are the package's own; the numbers in brackets are those of
docs/derivation.md.
"""

import itertools
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch as th

from sb3_reinforce import REINFORCE
from sb3_reinforce.baselines import leave_one_out
from sb3_reinforce.estimator import likelihood_ratio_loss
from sb3_reinforce.ratios import likelihood_ratios
from sb3_reinforce.returns import rewards_to_go, trajectory_returns

HORIZON = 3
#: P(s' | s, a): from the left state, "stay" mostly stays; from the right, "stay" pays and "move" leads back.
DYNAMICS = {(0, 0): {0: 0.8, 1: 0.2}, (0, 1): {1: 0.9, 0: 0.1}, (1, 0): {1: 0.7, 0: 0.3}, (1, 1): {0: 1.0}}
REWARDS = {(0, 0): 0.0, (0, 1): -0.5, (1, 0): 1.0, (1, 1): 0.25}
GAMMA = 0.9


class Trajectory(NamedTuple):
    states: list[int]
    actions: list[int]
    dynamics: float

    @property
    def rewards(self) -> np.ndarray:
        return np.array([REWARDS[pair] for pair in zip(self.states, self.actions, strict=True)])


def every_trajectory() -> list[Trajectory]:
    """All ways that three steps from the left state can go; the last action's outcome is never observed."""
    found = [Trajectory([0], [], 1.0)]
    for t in range(HORIZON):
        found = [
            Trajectory(path.states + ([successor] if t < HORIZON - 1 else []), [*path.actions, action], path.dynamics * p)
            for path in found
            for action in (0, 1)
            for successor, p in (DYNAMICS[path.states[-1], action].items() if t < HORIZON - 1 else [(None, 1.0)])
        ]
    return found


class Corridor(gym.Env[int, int]):
    """Only its spaces are needed: nothing here is sampled."""

    observation_space = gym.spaces.Discrete(2)
    action_space = gym.spaces.Discrete(2)


def main() -> None:
    th.manual_seed(0)
    model = REINFORCE("MlpPolicy", Corridor(), policy_kwargs={"net_arch": []})
    theta = list(model.policy.action_net.parameters())
    for parameter in theta:
        parameter.data = th.randn_like(parameter)
    trajectories = every_trajectory()
    returns = [trajectory_returns(tau.rewards, np.array([HORIZON]), GAMMA)[0] for tau in trajectories]

    def log_probs(tau: Trajectory) -> th.Tensor:
        return model.policy.get_distribution(th.tensor(tau.states)).log_prob(th.tensor(tau.actions))

    def gradient(value: th.Tensor) -> np.ndarray:
        return th.cat([g.flatten() for g in th.autograd.grad(value, theta)]).double().numpy()

    def show(line: str, left: np.ndarray, right: np.ndarray) -> None:
        print(f"\n{line}\n  left  {np.round(left, 6)}\n  right {np.round(right, 6)}")
        print(f"  largest difference {np.abs(left - right).max():.1e}")

    probabilities = [tau.dynamics * log_probs(tau).sum().exp() for tau in trajectories]
    values = [p.item() for p in probabilities]
    print(f"{len(trajectories)} trajectories; their probabilities P(τ;θ) sum to {sum(values):.6f}")
    print(f"U(θ) = Σ P(τ;θ) R(τ) = {np.dot(values, returns):.6f}")

    exact = gradient(sum(p * r for p, r in zip(probabilities, returns, strict=True)))
    of_each = [gradient(trajectory.dynamics * log_probs(trajectory).sum().exp()) for trajectory in trajectories]
    show("(1) = (2)  ∇ Σ P R = Σ ∇P R", exact, sum(g * r for g, r in zip(of_each, returns, strict=True)))
    show(
        "(2) = (4)  Σ ∇P R = Σ P (∇P / P) R",
        sum(g * r for g, r in zip(of_each, returns, strict=True)),
        sum(p * (g / p) * r for p, g, r in zip(values, of_each, returns, strict=True)),
    )
    scores = [gradient(th.log(tau.dynamics * log_probs(tau).sum().exp())) for tau in trajectories]
    show(
        "(4) = (5)  Σ P (∇P / P) R = Σ P ∇log P R, the likelihood ratio",
        sum(p * (g / p) * r for p, g, r in zip(values, of_each, returns, strict=True)),
        sum(p * s * r for p, s, r in zip(values, scores, returns, strict=True)),
    )
    without_model = [gradient(log_probs(tau).sum()) for tau in trajectories]
    show("(6) = (7)  ∇log P(τ;θ) = Σ ∇log π: the dynamics drop out (of one trajectory)", scores[5], without_model[5])
    show(
        "           and E[Σ ∇log π] = 0", sum(p * s for p, s in zip(values, without_model, strict=True)), np.zeros(len(exact))
    )

    def estimate(batch: tuple[int, ...], psi: list[np.ndarray]) -> np.ndarray:
        """(8), by the package's surrogate loss, for a batch of trajectories and their weights."""
        taken = th.cat([log_probs(trajectories[i]) for i in batch])
        return -gradient(likelihood_ratio_loss(taken, th.tensor(np.concatenate(psi), dtype=th.float32), len(batch)))

    def expectation(m: int, psi) -> np.ndarray:
        """E[ĝ] over all batches of m trajectories, with ψ a function from a batch to weights."""
        batches = itertools.product(range(len(trajectories)), repeat=m)
        return sum(np.prod([values[i] for i in batch]) * estimate(batch, psi(batch)) for batch in batches)

    ones, lengths = np.ones(HORIZON), np.array([HORIZON])
    full = expectation(1, lambda batch: [returns[i] * ones for i in batch])
    show("(8)  E[ĝ] = ∇U(θ), with R(τ) at every step", full, exact)

    def discounted_to_go(batch: tuple[int, ...]) -> list[np.ndarray]:
        return [GAMMA ** np.arange(HORIZON) * rewards_to_go(trajectories[i].rewards, lengths, GAMMA) for i in batch]

    show("Causality: γᵗ Gₜ in place of R(τ)", expectation(1, discounted_to_go), exact)
    biased = expectation(1, lambda batch: [rewards_to_go(trajectories[i].rewards, lengths, GAMMA) for i in batch])
    show("Without γᵗ, as in most libraries: another vector, the gradient of no function", biased, exact)

    def compared(batch: tuple[int, ...]) -> list[np.ndarray]:
        own = np.array([returns[i] for i in batch])
        return [weight * ones for weight in own - leave_one_out(own)]

    show("Leave-one-out, over all pairs of trajectories", expectation(2, compared), exact)

    here = [log_probs(tau).detach().numpy() for tau in trajectories]
    old = values
    for parameter in theta:
        parameter.data += 0.3 * th.randn_like(parameter)
    there = gradient(sum(tau.dynamics * log_probs(tau).sum().exp() * r for tau, r in zip(trajectories, returns, strict=True)))
    ratios = [
        likelihood_ratios(log_probs(tau).detach().numpy() - log_prob, lengths)[-1]
        for tau, log_prob in zip(trajectories, here, strict=True)
    ]
    reweighted = sum(p * estimate((i,), [w * returns[i] * ones]) for i, (p, w) in enumerate(zip(old, ratios, strict=True)))
    show("Importance sampling: ∇U at other parameters, from trajectories of the old ones", reweighted, there)


if __name__ == "__main__":
    main()
