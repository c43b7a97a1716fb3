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
import pytest
import torch as th
from stable_baselines3.common.logger import Logger

from sb3_reinforce import REINFORCE

END = -1


class MDP(NamedTuple):
    """Tables by state and action; a pair that is not in them is not offered."""

    transitions: dict[tuple[int, int], dict[int, float]]
    """The next states and their probabilities."""
    rewards: dict[tuple[int, int], float]
    observed: tuple[int, ...]
    """What is seen of each state."""
    n_actions: int = 2
    masked: bool = False
    """Whether the policy is told what is offered."""

    def offered(self, state: int) -> tuple[bool, ...]:
        return tuple((state, action) in self.rewards for action in range(self.n_actions))


PLAIN = MDP(
    {(0, 0): {0: 0.4, 1: 0.6}, (0, 1): {1: 0.75, END: 0.25}, (1, 0): {0: 1.0}, (1, 1): {END: 1.0}},
    {(0, 0): 1.5, (0, 1): -0.5, (1, 0): 2.0, (1, 1): 0.25},
    observed=(0, 1),
)
#: Of three actions, each state offers two, and not the same.
MASKED = MDP(
    {(0, 0): {0: 0.4, 1: 0.6}, (0, 2): {1: 0.75, END: 0.25}, (1, 1): {0: 1.0}, (1, 2): {END: 1.0}},
    {(0, 0): 1.5, (0, 2): -0.5, (1, 1): 2.0, (1, 2): 0.25},
    observed=(0, 1),
    n_actions=3,
    masked=True,
)
#: Two pairs of states look the same; what was seen before tells more.
PARTLY_OBSERVED = MDP(
    {
        (0, 0): {1: 0.4, 2: 0.6},
        (0, 1): {2: 0.75, END: 0.25},
        (1, 0): {3: 1.0},
        (1, 1): {2: 0.5, END: 0.5},
        (2, 0): {3: 0.5, 0: 0.5},
        (2, 1): {END: 1.0},
        (3, 0): {2: 1.0},
        (3, 1): {END: 1.0},
    },
    {(0, 0): 1.5, (0, 1): -0.5, (1, 0): 2.0, (1, 1): 0.25, (2, 0): -1.0, (2, 1): 0.75, (3, 0): 0.5, (3, 1): 3.0},
    observed=(0, 1, 0, 1),
)


class Trajectory(NamedTuple):
    """One way an episode can go."""

    states: tuple[int, ...]
    actions: tuple[int, ...]
    dynamics: float
    """∏ P(s_{t+1} | s_t, a_t): what of P(τ;θ) does not depend on θ."""
    rewards: tuple[float, ...]
    observations: tuple[int, ...]
    masks: tuple[tuple[bool, ...], ...]
    """What each state offers; nothing where the policy is not told."""


def trajectories(horizon: int, mdp: MDP = PLAIN) -> list[Trajectory]:
    """Every trajectory of positive probability that starts in state 0 and lasts at most ``horizon`` steps."""

    def trajectory(states: tuple[int, ...], actions: tuple[int, ...], dynamics: float) -> Trajectory:
        rewards = tuple(mdp.rewards[pair] for pair in zip(states, actions, strict=True))
        observations = tuple(mdp.observed[state] for state in states)
        masks = tuple(mdp.offered(state) for state in states) if mdp.masked else ()
        return Trajectory(states, actions, dynamics, rewards, observations, masks)

    def continued(states: tuple[int, ...], actions: tuple[int, ...], dynamics: float) -> Iterator[Trajectory]:
        for action in np.flatnonzero(mdp.offered(states[-1])).tolist():
            taken = (*actions, action)
            if len(taken) == horizon:  # where the last step leads is not part of what is weighted
                yield trajectory(states, taken, dynamics)
                continue
            for successor, probability in mdp.transitions[states[-1], action].items():
                if successor == END:
                    yield trajectory(states, taken, dynamics * probability)
                else:
                    yield from continued((*states, successor), taken, dynamics * probability)

    return list(continued((0,), (), 1.0))


class TabularMDP(gym.Env[int, int]):
    """The same MDP as an environment; it truncates at the horizon."""

    observation_space = gym.spaces.Discrete(2)

    def __init__(self, horizon: int = 3, mdp: MDP = PLAIN):
        self.horizon = horizon
        self.mdp = mdp
        self.action_space = gym.spaces.Discrete(mdp.n_actions)

    def action_masks(self):
        return np.array(self.mdp.offered(self.state))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.n_steps = 0, 0
        return 0, {}

    def step(self, action):
        reward = self.mdp.rewards[self.state, int(action)]
        successors = self.mdp.transitions[self.state, int(action)]
        drawn = self.np_random.random()  # one number: a generator's ``choice`` would take most of the time of a test
        within = zip(successors, itertools.accumulate(successors.values()), strict=True)
        successor = next(each for each, probability in within if drawn < probability)
        self.n_steps += 1
        terminated = successor == END
        self.state = self.state if terminated else successor
        return self.mdp.observed[self.state], reward, terminated, self.n_steps == self.horizon, {}


def make_model(env=None, model_class=REINFORCE, policy="MlpPolicy", policy_kwargs=None, **options) -> REINFORCE:
    """REINFORCE with a tabular softmax policy of random parameters, whose update *is* the gradient (SGD, step 1)."""
    policy_kwargs = {"net_arch": [], "optimizer_class": th.optim.SGD, **(policy_kwargs or {})}
    options = {"n_critic_updates": 1, **options}  # of the value network, whose parameters are put back anyway
    model = model_class(policy, env or TabularMDP(), learning_rate=1.0, policy_kwargs=policy_kwargs, seed=0, **options)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.copy_(th.randn(parameter.shape, generator=th.Generator().manual_seed(parameter.numel())) * 0.5)
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def flat(parameters) -> th.Tensor:
    return th.cat([parameter.detach().flatten().double() for parameter in parameters])


def policy_parameters(model: REINFORCE) -> list[th.nn.Parameter]:
    """What log π depends on."""
    of_critic = ("value_net", "lstm_critic", "critic")
    return [parameter for name, parameter in model.policy.named_parameters() if not name.startswith(of_critic)]


def estimate(model: REINFORCE, batch: tuple[Trajectory, ...]) -> th.Tensor:
    """The update that the shipped buffer and ``train()`` make of a batch; the parameters are put back.

    Trajectory i runs in environment i, so that those that have ended wait for the longest, as in a real rollout.
    """
    buffer = model.rollout_buffer
    buffer.reset()
    for t in range(max(len(trajectory.actions) for trajectory in batch)):
        alive = np.array([t < len(trajectory.actions) for trajectory in batch])
        # An ended trajectory's environment goes on with something that must not be used: here, its last step again.
        now = [min(t, len(trajectory.actions) - 1) for trajectory in batch]
        observations, actions, masks = (
            np.array(
                [getattr(trajectory, name)[k] for trajectory, k in zip(batch, now, strict=True) if getattr(trajectory, name)]
            )
            for name in ("observations", "actions", "masks")
        )
        rewards = np.array([trajectory.rewards[t] if ok else 99.0 for trajectory, ok in zip(batch, alive, strict=True)])
        given = {"action_masks": masks} if masks.size else {}
        buffer.add(observations, actions, rewards, np.full(len(batch), t == 0), recorded=alive, given=given)
    buffer.compute_returns_and_advantage()
    return update(model)


def update(model: REINFORCE) -> th.Tensor:
    """What ``train()`` adds to the policy's parameters, float64; all parameters and averages are put back."""
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model._average_return = 1.5  # as if there had been earlier batches; this one must not change it for the next
    start = flat(policy_parameters(model))
    model.train()
    difference = flat(policy_parameters(model)) - start
    put(model, before)
    return difference


def put(model: REINFORCE, parameters: list[th.Tensor]) -> None:
    """Give the policy these parameters."""
    with th.no_grad():
        for parameter, value in zip(model.policy.parameters(), parameters, strict=True):
            parameter.copy_(value)


def probability(model: REINFORCE, trajectory: Trajectory) -> th.Tensor:
    """P(τ;θ), differentiable in θ."""
    return trajectory.dynamics * log_probs(model, trajectory).double().sum().exp()


def log_probs(model: REINFORCE, trajectory: Trajectory) -> th.Tensor:
    """log π of each action, asked one step after the other where the policy has a memory."""
    observations, actions = th.tensor(trajectory.observations), th.tensor(trajectory.actions)
    if not hasattr(model.policy, "lstm_actor"):
        given = {"action_masks": th.tensor(trajectory.masks)} if trajectory.masks else {}
        return model.policy.get_distribution(observations, **given).log_prob(actions)
    state, found = (th.zeros(model.policy.lstm_hidden_state_shape),) * 2, []
    for t in range(len(actions)):
        distribution, state = model.policy.get_distribution(observations[t : t + 1], state, th.zeros(1))
        found.append(distribution.log_prob(actions[t : t + 1]))
    return th.cat(found)


def exact_gradient(model: REINFORCE, horizon: int = 3, mdp: MDP = PLAIN) -> th.Tensor:
    """∇U(θ), by differentiating U(θ) = Σ_τ P(τ;θ) R(τ) itself: line 1 of the derivation."""
    objective = sum(
        probability(model, trajectory) * sum(model.gamma**t * reward for t, reward in enumerate(trajectory.rewards))
        for trajectory in trajectories(horizon, mdp)
    )
    return flat(th.autograd.grad(objective, policy_parameters(model)))


def batches(every: list[Trajectory], n_episodes: int) -> Iterator[tuple[int, tuple[Trajectory, ...]]]:
    """Every m-tuple of trajectories, up to order, with the number of its orders: an estimate does not depend on it."""
    for batch in itertools.combinations_with_replacement(every, n_episodes):
        repeats = [math.factorial(count) for count in Counter(batch).values()]
        yield math.factorial(n_episodes) // math.prod(repeats), batch


def expected_estimate(model: REINFORCE, horizon: int = 3, mdp: MDP = PLAIN) -> th.Tensor:
    """E[ĝ] over all m-tuples of trajectories, each weighted with its probability: no sampling."""
    every = trajectories(horizon, mdp)
    probabilities = {trajectory: probability(model, trajectory).item() for trajectory in every}
    return sum(
        n_orders * math.prod(probabilities[trajectory] for trajectory in batch) * estimate(model, batch)
        for n_orders, batch in batches(every, model.n_episodes)
    )


class Jump(th.optim.SGD):
    """An optimizer whose first step goes to a point of its own, whatever the gradient."""

    jumped = False

    def step(self, closure=None):
        if self.jumped:
            return super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.mul_(-0.5).add_(0.2)
        self.jumped = True
        return None


def expected_second_estimate(model: REINFORCE, horizon: int, mdp: MDP = PLAIN) -> tuple[th.Tensor, th.Tensor]:
    """E of the second step of ``n_epochs=2``, far from the policy that collected, and ∇U there, where the model is left."""
    model.policy.optimizer.__class__ = Jump
    old = [parameter.detach().clone() for parameter in model.policy.parameters()]
    every = trajectories(horizon, mdp)
    probabilities = {trajectory: probability(model, trajectory).item() for trajectory in every}
    model.policy.optimizer.step()
    jumped_to = [parameter.detach().clone() for parameter in model.policy.parameters()]
    landed = flat(policy_parameters(model))
    exact = exact_gradient(model, horizon, mdp)
    ratios = [probability(model, trajectory).item() / before for trajectory, before in probabilities.items()]
    assert max(ratios) > 1.2 * min(ratios)  # far indeed

    expected = th.zeros_like(exact)
    for n_orders, batch in batches(every, model.n_episodes):
        put(model, old)
        model.policy.optimizer.jumped = False
        start = flat(policy_parameters(model))
        step = start + estimate(model, batch) - landed
        expected += n_orders * math.prod(probabilities[trajectory] for trajectory in batch) * step
    put(model, jumped_to)
    return expected, exact


def horizon_for(n_episodes: int) -> int:
    """Pairs of trajectories are many: two steps are enough for them to differ in length, states and rewards."""
    return 3 if n_episodes == 1 else 2


#: A case of each row of the family that is unbiased: m and the options.
UNBIASED = [
    (1, {"gamma": 0.7}),
    (2, {"gamma": 0.7}),
    (2, {"gamma": 0.7, "baseline": "leave_one_out"}),
    (2, {"gamma": 0.7, "baseline": "moving_average"}),
    (2, {"gamma": 0.7, "baseline": "optimal"}),
    (2, {"gamma": 0.7, "baseline": "value", "batch_size": 2}),
    (1, {"gamma": 1.0, "return_type": "reward_to_go"}),
    (1, {"gamma": 0.7, "return_type": "reward_to_go", "exact_discounting": True, "baseline": "value"}),
    (2, {"gamma": 0.7, "return_type": "reward_to_go", "exact_discounting": True, "baseline": "leave_one_out"}),
    (2, {"gamma": 0.7, "return_type": "reward_to_go", "exact_discounting": True, "baseline": "time_leave_one_out"}),
    (2, {"gamma": 1.0, "return_type": "reward_to_go", "baseline": "optimal", "batch_size": 1}),
    (2, {"gamma": 0.0, "return_type": "reward_to_go", "exact_discounting": True, "baseline": "time_leave_one_out"}),
]
#: The same where masks or a memory change how a batch is evaluated and not how it is weighted.
UNBIASED_WHEREVER = [
    pytest.param(
        *case, marks=[] if case[1].get("baseline") in ("optimal", "value") or len(case[1]) == 1 else [pytest.mark.slow]
    )
    for case in UNBIASED
]
#: And of those that are unbiased away from the policy that collected.
UNBIASED_FROM_ANOTHER = [
    (1, {"gamma": 0.7}),
    (2, {"gamma": 0.7, "baseline": "leave_one_out"}),
    (1, {"gamma": 0.7, "return_type": "reward_to_go", "exact_discounting": True, "baseline": "value"}),
    (2, {"gamma": 1.0, "return_type": "reward_to_go", "baseline": "time_leave_one_out"}),
]
