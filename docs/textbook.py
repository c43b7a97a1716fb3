"""REINFORCE on one page: (8) of docs/derivation.md, in PyTorch and Gymnasium alone.

    python docs/textbook.py

A test holds its gradient against that of the package, on the same trajectories.
"""

import gymnasium as gym
import torch
from torch import nn
from torch.distributions import Categorical


def play(env, policy):
    """One whole trajectory τ: observations [H, ...], actions [H], rewards [H]."""
    observations, actions, rewards = [], [], []
    (observation, _), done = env.reset(), False
    while not done:
        observations.append(torch.as_tensor(observation))
        with torch.no_grad():
            actions.append(Categorical(logits=policy(observations[-1])).sample())
        observation, reward, terminated, truncated, _ = env.step(actions[-1].item())
        rewards.append(float(reward))
        done = terminated or truncated
    return torch.stack(observations), torch.stack(actions), torch.tensor(rewards)


def loss(policy, trajectories, gamma):
    """A scalar whose gradient is −ĝ, with ĝ = (1/m) Σᵢ Σₜ ∇log π(aₜ|sₜ) R(τᵢ)."""
    total = 0.0
    for observations, actions, rewards in trajectories:
        trajectory_return = (gamma ** torch.arange(len(rewards)) * rewards).sum()
        total = total - Categorical(logits=policy(observations)).log_prob(actions).sum() * trajectory_return
    return total / len(trajectories)


def main(env_id="CartPole-v1", m=16, n_updates=60, gamma=0.99, learning_rate=1e-3):
    env = gym.make(env_id)
    policy = nn.Sequential(nn.Linear(env.observation_space.shape[0], 64), nn.Tanh(), nn.Linear(64, env.action_space.n))
    optimizer = torch.optim.Adam(policy.parameters(), learning_rate)
    for update in range(n_updates):
        trajectories = [play(env, policy) for _ in range(m)]
        optimizer.zero_grad()
        loss(policy, trajectories, gamma).backward()
        optimizer.step()
        print(f"update {update}: mean return {sum(rewards.sum() for _, _, rewards in trajectories) / m:.1f}")


if __name__ == "__main__":
    main()
