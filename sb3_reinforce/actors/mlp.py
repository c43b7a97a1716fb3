"""A small network in numpy, on the policy's own parameters."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import (
    BernoulliDistribution,
    CategoricalDistribution,
    DiagGaussianDistribution,
    MultiCategoricalDistribution,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, MlpExtractor
from torch import nn

from sb3_reinforce.actors.policy import has_hooks, has_other_extractor, overrides
from sb3_reinforce.batch import NOTHING, Given, Observations

SomeModule = TypeVar("SomeModule", bound=nn.Module)
Encoder = Callable[[Any], np.ndarray]
ArrayFunction = Callable[[np.ndarray], np.ndarray]
#: From outputs ``[n_envs, n_outputs]``, and what else is given, to actions ``[n_envs, ...]``.
Sample = Callable[..., np.ndarray]
MakeSampler = Callable[[ActorCriticPolicy], Sample | None]

#: Products of more multiplications than this are left to torch. OpenBLAS, which numpy calls, would share them among threads
#: that ``torch.set_num_threads`` does not govern, and on a busy machine these wait for each other longer than they work.
_LARGE = 2**18
#: About so many random numbers are drawn at once.
_BLOCK = 2**10


class MlpActor:
    """A multilayer perceptron and the distribution at its end, in numpy.

    :param encode: from observations to features, float32 ``[n_envs, n_features]``
    :param layers: from features to outputs one after the other; on the CPU they use the policy's parameters in place
    :param sample: from the last layer's outputs to actions ``[n_envs, ...]``
    """

    def __init__(self, encode: Encoder, layers: list[ArrayFunction], sample: Sample):
        self._encode, self._sample, *self._layers = without_underflow([encode, sample, *layers])

    def __call__(self, obs: Observations, episode_starts: np.ndarray | None = None, given: Given = NOTHING) -> np.ndarray:
        return self._sample(self.outputs(obs), **given)

    def outputs(self, obs: Observations) -> np.ndarray:
        """Logits or means, float32 ``[n_envs, n_outputs]``, valid until the next call."""
        x = self._encode(obs)
        for layer in self._layers:
            x = layer(x)
        return x


def without_underflow(functions: list[Any]) -> list[Any]:
    """The functions, in which what is too small to count is 0, and no error where numpy is told to raise one."""
    if np.geterr()["under"] == "ignore":  # numpy's default, where the check in each call would only take time
        return functions
    return [np.errstate(under="ignore")(function) for function in functions]


def mlp_actor(policy: ActorCriticPolicy, make_sampler: MakeSampler | None = None) -> MlpActor | None:
    """The numpy actor of a policy, or None where one cannot be built.

    :param policy: any actor-critic policy
    :param make_sampler: what samples from the policy's distribution, given the last layer's outputs; None: SB3's
        distributions
    """
    if not is_transparent(policy):
        return None
    encode, layers = encoder(policy), layers_of(policy)
    if encode is None or layers is None:
        return None
    sample = (make_sampler or sampler)(policy)
    return None if sample is None else MlpActor(encode, layers, sample)


def is_transparent(policy: ActorCriticPolicy, *more: str) -> bool:
    """Whether the policy's layers, in numpy's reach, say all of what it does.

    :param policy: any actor-critic policy
    :param more: names of methods besides SB3's that lead to its distribution
    """
    leads_to_actions = ("forward", "get_distribution", "_get_action_dist_from_latent", "extract_features", *more)
    in_reach = all(p.dtype == th.float32 and not p.is_meta for p in policy.parameters())
    return in_reach and not overrides(policy, *leads_to_actions) and not (has_hooks(policy) or has_other_extractor(policy))


def on_cpu(module: SomeModule) -> SomeModule:
    """The module itself; or a copy, if it is on an accelerator.

    An actor is of one rollout, and parameters change between rollouts. So they are brought over once, and no action makes
    the trip.
    """
    parameter = next(module.parameters(), None)
    return module if parameter is None or parameter.device.type == "cpu" else copy.deepcopy(module).cpu()


def seeded_by_torch() -> np.random.Generator:
    """A generator whose seed torch's generator draws."""
    return np.random.default_rng(int(th.randint(2**62, ())))


def encoder(policy: ActorCriticPolicy) -> Encoder | None:
    """What ``policy.extract_features`` does with an observation, where that is no more than flattening."""
    space, extractor = policy.observation_space, policy.pi_features_extractor
    if type(extractor) is FlattenExtractor:
        return _space_encoder(space, policy.normalize_images)
    if type(extractor) is CombinedExtractor and all(type(e) is nn.Flatten for e in extractor.extractors.values()):
        assert isinstance(space, spaces.Dict)
        known = {key: _space_encoder(space[key], policy.normalize_images) for key in extractor.extractors}
        encoders = {key: encode for key, encode in known.items() if encode is not None}
        if len(encoders) < len(known):
            return None
        return lambda obs: np.concatenate([encode(obs[key]) for key, encode in encoders.items()], axis=1)
    return None


def _space_encoder(space: spaces.Space[Any], normalize_images: bool) -> Encoder | None:
    """SB3's ``preprocess_obs`` and flattening, for arrays: one-hot for what is discrete, float32 for the rest."""
    if isinstance(space, spaces.Discrete):
        n_values = int(space.n)
        return lambda obs: _one_hot(obs.reshape(-1, 1), n_values)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        offsets, total = np.cumsum(space.nvec) - space.nvec, int(space.nvec.sum())
        return lambda obs: _one_hot(obs + offsets, total)
    if isinstance(space, spaces.MultiBinary) or (
        isinstance(space, spaces.Box) and not (normalize_images and is_image_space(space))
    ):
        return _flat
    return None


def _one_hot(columns: np.ndarray, n_columns: int) -> np.ndarray:
    """Ones in the columns named, ``[n_envs, k]`` of whole numbers in any dtype, of each row; zeros elsewhere."""
    features = np.zeros((len(columns), n_columns), dtype=np.float32)
    features[np.arange(len(columns))[:, None], columns.astype(np.int64, copy=False)] = 1
    return features


def _flat(obs: np.ndarray) -> np.ndarray:
    """As float32 ``[n_envs, n_features]``."""
    if obs.ndim == 2 and obs.dtype == np.float32:  # most often so, and calls that change nothing take time too
        return obs
    return obs.reshape(len(obs), -1).astype(np.float32, copy=False)


def layers_of(policy: ActorCriticPolicy) -> list[ArrayFunction] | None:
    """The linear layers and activations from features to outputs."""
    if type(policy.mlp_extractor) is not MlpExtractor:
        return None
    layers: list[ArrayFunction] = []
    for module in map(on_cpu, (*policy.mlp_extractor.policy_net, policy.action_net)):
        if type(module) is nn.Linear and module.bias is not None:
            layers.append(linear_function(module))
        elif layers and (activation := _activation(module)) is not None:
            layers.append(activation)
        else:
            return None
    return layers


def linear_function(module: nn.Linear) -> ArrayFunction:
    """A linear layer as a function of arrays. What it returns is valid until its next call."""
    # Of two dimensions, the bias needs no broadcasting for one environment, which would cost as much as the sum.
    weight, bias = module.weight.detach().numpy().T, module.bias.detach().numpy()[None]
    through_torch, most_rows = _through_torch(module), _LARGE // weight.size
    y = np.empty((0, module.out_features), dtype=np.float32)

    def linear(x: np.ndarray) -> np.ndarray:
        nonlocal y
        n_rows = len(x)
        if n_rows > most_rows:
            return through_torch(x)
        if n_rows != len(y):
            y = np.empty((n_rows, module.out_features), dtype=np.float32)
        x.dot(weight, y)  # for matrices this small, half the time of @
        return np.add(y, bias, y)

    return linear


def _through_torch(module: nn.Module) -> ArrayFunction:
    """A module as a function of arrays, through tensors that share their memory, at the cost of some microseconds."""

    def through_torch(x: np.ndarray) -> np.ndarray:
        with th.inference_mode():
            return module(th.from_numpy(x)).numpy()

    return through_torch


def _identity(x: np.ndarray) -> np.ndarray:
    return x


def _tanh(x: np.ndarray) -> np.ndarray:
    return np.tanh(x, x)


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0, out=x)


def _activation(module: nn.Module) -> ArrayFunction | None:
    """The activation as a function of arrays, which may write into its argument; in numpy for the common cheap ones."""
    if type(module) is nn.Identity:
        return _identity
    if type(module) is nn.Tanh:
        return _tanh
    if type(module) is nn.ReLU:
        return _relu
    if type(module).__module__ != nn.Tanh.__module__ or isinstance(module, nn.MultiheadAttention):
        return None
    return _through_torch(module)


def sampler(policy: ActorCriticPolicy) -> Sample | None:
    """Sampling from one of SB3's distributions, given the last layer's outputs; None for another one.

    :param policy: any actor-critic policy
    """
    distribution = policy.action_dist
    if not is_one_of(
        distribution, CategoricalDistribution, MultiCategoricalDistribution, BernoulliDistribution, DiagGaussianDistribution
    ):
        return None
    # Only here, so that a policy that acts itself draws no other numbers than SB3's loop does.
    generator = seeded_by_torch()

    if type(distribution) is CategoricalDistribution:
        gumbel = in_blocks(generator.gumbel)
        # The Gumbel-max trick: the argmax of logits plus Gumbel noise has the softmax's distribution.
        return lambda logits: (logits + gumbel(logits.shape)).argmax(1)
    if type(distribution) is MultiCategoricalDistribution:
        gumbel, splits = in_blocks(generator.gumbel), np.cumsum(distribution.action_dims)[:-1]
        return lambda logits: argmax_of_parts(logits + gumbel(logits.shape), splits)
    if type(distribution) is BernoulliDistribution:
        logistic = in_blocks(generator.logistic)
        # A logit plus logistic noise is positive with the probability that the sigmoid gives.
        return lambda logits: (logits + logistic(logits.shape) > 0).astype(np.float32)
    normal, log_std = in_blocks(generator.standard_normal), policy.log_std.detach().cpu().numpy()
    shape = policy.action_space.shape or ()
    return lambda means: (np.exp(log_std) * normal(means.shape) + means).reshape(-1, *shape)


def argmax_of_parts(values: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Where each part of each row is greatest, int64 ``[n_envs, n_parts]``.

    :param values: ``[n_envs, n_values]``
    :param splits: where each part but the first begins, int ``[n_parts - 1]``
    """
    return np.stack([part.argmax(axis=1) for part in np.split(values, splits, axis=1)], axis=1)


def is_one_of(distribution: object, *classes: type) -> bool:
    """Whether a distribution is of one of these classes, with the methods that it has from there."""
    return type(distribution) in classes and not any(callable(value) for value in vars(distribution).values())


def in_blocks(draw: Callable[..., np.ndarray]) -> Callable[[tuple[int, ...]], np.ndarray]:
    """Random numbers, drawn for many steps at once, which takes hardly longer than for one.

    :param draw: method of a generator
    :return: from a shape to an array of it, float32
    """
    block: Iterator[np.ndarray] = iter(())

    def noise(shape: tuple[int, ...]) -> np.ndarray:
        nonlocal block
        row = next(block, None)
        if row is None or row.shape != shape:
            block = iter(draw(size=(1 + _BLOCK // math.prod(shape), *shape)).astype(np.float32))
            row = next(block)
        return row

    return noise
