"""Whether an actor and the policy have the same distribution."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor

from sb3_reinforce.actors.mlp import MlpActor
from sb3_reinforce.actors.policy import has_replaced_modules
from sb3_reinforce.batch import Observations

#: Observations to compare at.
_N_PROBES = 4
#: Modules of SB3's and sb3-contrib's policies that no action depends on.
_CRITIC = ("value_net", "mlp_extractor.value_net", "lstm_critic", "critic")


def agrees(actor: MlpActor, policy: ActorCriticPolicy, obs: Observations | None = None) -> bool:
    """Whether actor and policy have the same distribution at some observations, to the rounding of float32.

    They do not agree where a module was given another ``forward``, even one that changes nothing: it may be there to watch.

    :param actor: the numpy actor
    :param policy: the policy it is of
    :param obs: where to compare, ``[n, ...]``; None: at observations drawn far apart. An environment's first ones may
        all be nearly 0, and there different layers have nearly the same outputs
    """
    if has_replaced_modules(policy):
        return False
    obs = spread(policy.observation_space) if obs is None else obs
    with th.no_grad():
        expected = policy.get_distribution(obs_as_tensor(obs, policy.device))
        return have_distribution(actor.outputs(obs), policy, expected)


def have_distribution(outputs: np.ndarray, policy: ActorCriticPolicy, expected: Distribution) -> bool:
    """Whether these logits or means, float32 ``[n, n_outputs]``, are those of a distribution of the policy."""
    parameters = _parameters(expected)  # read first: the next call may overwrite `expected`
    log_std = [policy.log_std] if isinstance(policy.action_dist, DiagGaussianDistribution) else []
    actual = _parameters(policy.action_dist.proba_distribution(th.as_tensor(outputs, device=policy.device), *log_std))
    return all(
        e.shape == a.shape and th.allclose(e, a, rtol=1e-4, atol=1e-5, equal_nan=True)
        for e, a in zip(parameters, actual, strict=True)
    )


def fingerprint(policy: ActorCriticPolicy) -> int:
    """A number that changes when a module, a parameter object or a method of the policy is replaced."""
    return hash(
        tuple(
            (id(module), type(module).forward, len(vars(module)), *map(id, module._parameters.values()))
            for module in policy.modules()
        )
    )


def make_replacement_check(model: BaseAlgorithm) -> Callable[[], bool]:
    """A function that says whether, since now, a model's policy, one of its modules or the memory of a parameter was replaced.

    An actor that uses them in place looks at what was there before.

    :param model: with the policy as it is now. Its value network is left out, and so are parameters that are added later
    """
    acting = [module for name, module in model.policy.named_modules() if not name.startswith(_CRITIC)]
    modules = [module._modules.values() for module in acting if module._modules]  # views, which show what comes later
    owners = [(module._parameters, name) for module in acting for name, each in module._parameters.items() if each is not None]

    def parts() -> list[object]:
        return [
            model.policy,
            *chain.from_iterable(modules),
            *[parameters[name].data_ptr() for parameters, name in owners],
        ]

    before = parts()
    return lambda: parts() != before


def spread(space: spaces.Space[Any]) -> Any:
    """A few observations that differ in every component, the same at each call.

    :param space: observation space
    :return: ``[n, ...]``, or an array for each key of a Dict
    """
    if isinstance(space, spaces.Dict):
        return {key: spread(each) for key, each in space.items()}
    generator = np.random.default_rng(0)
    size = (_N_PROBES, *(space.shape or ()))
    if isinstance(space, spaces.Discrete):
        return generator.integers(space.n, size=size)
    if isinstance(space, spaces.MultiDiscrete):
        return generator.integers(space.nvec, size=size)
    if isinstance(space, spaces.MultiBinary):
        return generator.integers(2, size=size, dtype=np.int8)
    return (3 * generator.standard_normal(size)).astype(space.dtype)


def _parameters(distribution: Distribution) -> list[th.Tensor]:
    parts: Any = getattr(distribution, "distributions", None) or distribution.distribution
    parts = parts if isinstance(parts, list) else [parts]
    return [p for part in parts for p in ((part.mean, part.stddev) if hasattr(part, "loc") else (part.logits,))]
