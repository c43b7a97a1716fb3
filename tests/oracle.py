"""An MDP small enough to enumerate, so that gradients are known exactly and expectations need no sampling.

The same tables drive the enumeration and a real environment. Rewards depend on state and action and are not
constant; when an episode ends depends on the actions, and long ones pay more; the next state is random, so that "the
dynamics drop out" ((7) of the derivation) is tested and not assumed.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.logger import Logger

from sb3_reinforce import REINFORCE

END = -1
#: The next states and their probabilities, by state and action.
TRANSITIONS = {
    (0, 0): {0: 0.4, 1: 0.6},
    (0, 1): {1: 0.75, END: 0.25},
    (1, 0): {0: 1.0},
    (1, 1): {END: 1.0},
}
REWARDS = {(0, 0): 1.5, (0, 1): -0.5, (1, 0): 2.0, (1, 1): 0.25}


class Trajectory(NamedTuple):
    """One way an episode can go."""

    states: tuple[int, ...]
    actions: tuple[int, ...]
    dynamics: float
    """∏ P(s_{t+1} | s_t, a_t): what of P(τ;θ) does not depend on θ."""

    @property
    def rewards(self) -> list[float]:
        return [REWARDS[pair] for pair in zip(self.states, self.actions, strict=True)]


def trajectories(horizon: int) -> list[Trajectory]:
    """Every trajectory of positive probability that starts in state 0 and lasts at most ``horizon`` steps."""

    def continued(states: tuple[int, ...], actions: tuple[int, ...], dynamics: float) -> Iterator[Trajectory]:
        for action in (0, 1):
            taken = (*actions, action)
            if len(taken) == horizon:  # where the last step leads is not part of what is weighted
                yield Trajectory(states, taken, dynamics)
                continue
            for successor, probability in TRANSITIONS[states[-1], action].items():
                if successor == END:
                    yield Trajectory(states, taken, dynamics * probability)
                else:
                    yield from continued((*states, successor), taken, dynamics * probability)

    return list(continued((0,), (), 1.0))


class TabularMDP(gym.Env[int, int]):
    """The same MDP as an environment; it truncates at the horizon."""

    observation_space = gym.spaces.Discrete(2)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, horizon: int = 3):
        self.horizon = horizon

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.n_steps = 0, 0
        return 0, {}

    def step(self, action):
        reward = REWARDS[self.state, int(action)]
        successors = TRANSITIONS[self.state, int(action)]
        drawn = self.np_random.random()  # one number: a generator's ``choice`` would take most of the time of a test
        within = zip(successors, itertools.accumulate(successors.values()), strict=True)
        successor = next(each for each, probability in within if drawn < probability)
        self.n_steps += 1
        terminated = successor == END
        self.state = self.state if terminated else successor
        return self.state, reward, terminated, self.n_steps == self.horizon, {}


def make_model(env=None, **options) -> REINFORCE:
    """REINFORCE with a tabular softmax policy of random parameters, whose update *is* the gradient (SGD, step 1)."""
    policy_kwargs = {"net_arch": [], "optimizer_class": th.optim.SGD}
    arguments = {"policy": "MlpPolicy", "policy_kwargs": policy_kwargs, "n_critic_updates": 1, **options}
    model = REINFORCE(env=env or TabularMDP(), learning_rate=1.0, seed=0, **arguments)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.copy_(th.randn(parameter.shape, generator=th.Generator().manual_seed(parameter.numel())) * 0.5)
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def flat(parameters) -> th.Tensor:
    return th.cat([parameter.detach().flatten().double() for parameter in parameters])


def policy_parameters(model: REINFORCE) -> list[th.nn.Parameter]:
    return list(model.policy.action_net.parameters())


def estimate(model: REINFORCE, batch: tuple[Trajectory, ...]) -> th.Tensor:
    """The update that the shipped buffer and ``train()`` make of a batch; the parameters are put back.

    Trajectory i runs in environment i, so that those that have ended wait for the longest, as in a real rollout.
    """
    buffer = model.rollout_buffer
    buffer.reset()
    for t in range(max(len(trajectory.actions) for trajectory in batch)):
        alive = np.array([t < len(trajectory.actions) for trajectory in batch])
        # An ended trajectory's environment goes on with something that must not be used: here, its last step again.
        states = np.array([trajectory.states[min(t, len(trajectory.states) - 1)] for trajectory in batch])
        actions = np.array([trajectory.actions[min(t, len(trajectory.actions) - 1)] for trajectory in batch])
        rewards = np.array([trajectory.rewards[t] if ok else 99.0 for trajectory, ok in zip(batch, alive, strict=True)])
        buffer.add(states, actions, rewards, np.full(len(batch), t == 0), recorded=alive)
    buffer.compute_returns_and_advantage()
    return update(model)


def update(model: REINFORCE) -> th.Tensor:
    """What ``train()`` adds to the policy's parameters, float64; all parameters and averages are put back."""
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model._average_return = 1.5  # as if there had been earlier batches; this one must not change it for the next
    start = flat(policy_parameters(model))
    model.train()
    difference = flat(policy_parameters(model)) - start
    with th.no_grad():
        for parameter, value in zip(model.policy.parameters(), before, strict=True):
            parameter.copy_(value)
    return difference


def probability(model: REINFORCE, trajectory: Trajectory) -> th.Tensor:
    """P(τ;θ), differentiable in θ."""
    distribution = model.policy.get_distribution(th.tensor(trajectory.states))
    return trajectory.dynamics * distribution.log_prob(th.tensor(trajectory.actions)).double().sum().exp()


def exact_gradient(model: REINFORCE, horizon: int = 3) -> th.Tensor:
    """∇U(θ), by differentiating U(θ) = Σ_τ P(τ;θ) R(τ) itself: line 1 of the derivation."""
    objective = sum(
        probability(model, trajectory) * sum(model.gamma**t * reward for t, reward in enumerate(trajectory.rewards))
        for trajectory in trajectories(horizon)
    )
    return flat(th.autograd.grad(objective, policy_parameters(model)))


def batches(every: list[Trajectory], n_episodes: int) -> Iterator[tuple[int, tuple[Trajectory, ...]]]:
    """Every m-tuple of trajectories, up to order, with the number of its orders: an estimate does not depend on it."""
    for batch in itertools.combinations_with_replacement(every, n_episodes):
        repeats = [math.factorial(count) for count in Counter(batch).values()]
        yield math.factorial(n_episodes) // math.prod(repeats), batch


def expected_estimate(model: REINFORCE, horizon: int = 3) -> th.Tensor:
    """E[ĝ] over all m-tuples of trajectories, each weighted with its probability: no sampling."""
    every = trajectories(horizon)
    probabilities = {trajectory: probability(model, trajectory).item() for trajectory in every}
    return sum(
        n_orders * math.prod(probabilities[trajectory] for trajectory in batch) * estimate(model, batch)
        for n_orders, batch in batches(every, model.n_episodes)
    )
