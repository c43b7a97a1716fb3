"""A recurrent policy during a rollout: sb3-contrib's LSTM in numpy, and the policy itself."""

from typing import Any

import numpy as np
import torch as th
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.utils import obs_as_tensor
from torch import nn

from sb3_reinforce.actors.agreement import have_distribution, spread
from sb3_reinforce.actors.mlp import (
    ArrayFunction,
    Encoder,
    Sample,
    encoder,
    is_transparent,
    layers_of,
    linear_function,
    on_cpu,
    sampler,
    without_underflow,
)
from sb3_reinforce.actors.policy import Actor, has_replaced_modules, is_watched, overrides
from sb3_reinforce.batch import NOTHING, Given, Observations, arrays


class LstmCell:
    """One layer of an LSTM and the states of all environments, in numpy.

    :param lstm: whose parameters are used in place
    :param layer: which of its layers
    """

    def __init__(self, lstm: nn.LSTM, layer: int):
        self._of_input, self._of_hidden = (_linear_of(lstm, f"{name}_l{layer}") for name in ("ih", "hh"))
        self._size = lstm.hidden_size
        # One tanh serves all four gates, since sigmoid(x) = (1 + tanh(x / 2)) / 2. Of torch's i, f, g, o, the third is a tanh.
        third = np.repeat([False, False, True, False], self._size)
        self._scale = np.where(third, 1.0, 0.5).astype(np.float32)[None]
        self._shift = np.where(third, 0.0, 0.5).astype(np.float32)[None]
        self._hidden = self._cell = np.zeros((0, self._size), dtype=np.float32)

    def __call__(self, x: np.ndarray, episode_starts: np.ndarray) -> np.ndarray:
        """The next hidden states, float32 ``[n_envs, size]``, valid until the next call.

        :param x: input, float32 ``[n_envs, n_inputs]``
        :param episode_starts: where the state is to be 0 before, bool ``[n_envs]``
        """
        if len(x) != len(self._hidden):
            self._hidden, self._cell = np.zeros((2, len(x), self._size), dtype=np.float32)
        elif np.count_nonzero(episode_starts):
            self._hidden[episode_starts] = 0.0
            self._cell[episode_starts] = 0.0
        gates = self._of_input(x)
        gates += self._of_hidden(self._hidden)
        gates *= self._scale
        np.tanh(gates, gates)
        gates *= self._scale
        gates += self._shift
        size = self._size
        self._cell *= gates[:, size : 2 * size]
        self._cell += gates[:, :size] * gates[:, 2 * size : 3 * size]
        np.tanh(self._cell, self._hidden)
        self._hidden *= gates[:, 3 * size :]
        return self._hidden


class LstmActor:
    """A recurrent policy from features to actions, in numpy.

    :param encode: from observations to features, float32 ``[n_envs, n_features]``
    :param cells: the layers of the LSTM
    :param layers: from its outputs to logits or means, one after the other
    :param sample: from these to actions ``[n_envs, ...]``
    """

    def __init__(self, encode: Encoder, cells: list[LstmCell], layers: list[ArrayFunction], sample: Sample):
        self._encode, self._sample, *self._layers = without_underflow([encode, sample, *layers])
        self._cells = without_underflow(cells)

    def __call__(self, obs: Observations, episode_starts: np.ndarray, given: Given = NOTHING) -> np.ndarray:
        return self._sample(self.outputs(obs, episode_starts), **given)

    def outputs(self, obs: Observations, episode_starts: np.ndarray) -> np.ndarray:
        """Logits or means after this step, float32 ``[n_envs, n_outputs]``, valid until the next call."""
        x = self._encode(obs)
        for cell in self._cells:
            x = cell(x, episode_starts)
        for layer in self._layers:
            x = layer(x)
        return x


def lstm_actor(policy: RecurrentActorCriticPolicy) -> LstmActor | None:
    """The numpy actor of a recurrent policy, or None where one cannot be built.

    :param policy: a policy of sb3-contrib, or one that derives from it
    """
    lstm = policy.lstm_actor
    if not is_transparent(policy, "_process_sequence") or type(lstm) is not nn.LSTM or not lstm.bias or lstm.proj_size > 0:
        return None
    encode, layers = encoder(policy), layers_of(policy)
    if encode is None or layers is None:
        return None
    sample = sampler(policy)
    if sample is None:
        return None
    lstm = on_cpu(lstm)
    return LstmActor(encode, [LstmCell(lstm, layer) for layer in range(lstm.num_layers)], layers, sample)


def lstm_agrees(actor: LstmActor, policy: RecurrentActorCriticPolicy) -> bool:
    """Whether actor and policy have the same distribution at the first and the second step of some episodes."""
    if has_replaced_modules(policy):
        return False
    obs = spread(policy.observation_space)
    tensor: Any = obs_as_tensor(obs, policy.device)
    n_envs = len(arrays(obs)[0])
    with th.no_grad():
        states: Any = zero_state(policy, n_envs)
        for first in (True, False):
            distribution, states = policy.get_distribution(tensor, states, th.zeros(n_envs, device=policy.device))
            if not have_distribution(actor.outputs(obs, np.full(n_envs, first)), policy, distribution):
                return False
    return True


def zero_state(policy: RecurrentActorCriticPolicy, n_sequences: int) -> tuple[th.Tensor, th.Tensor]:
    """Hidden and cell state at the beginning of episodes, float ``[n_layers, n_sequences, size]``."""
    n_layers, _, size = policy.lstm_hidden_state_shape
    hidden, cell = th.zeros(2, n_layers, n_sequences, size, device=policy.device)
    return hidden, cell


def recurrent_policy_actor(policy: RecurrentActorCriticPolicy) -> Actor:
    """Sample from the policy itself, without the critic and log π where nobody could notice.

    :param policy: a policy of sb3-contrib, or one that derives from it
    """
    calls_forward = overrides(policy, "forward", "get_distribution", "extract_features") or is_watched(policy)
    states: Any = None

    def act(obs: Observations, episode_starts: np.ndarray, given: Given = NOTHING) -> np.ndarray:
        nonlocal states
        with th.no_grad():
            tensor: Any = obs_as_tensor(obs, policy.device)
            starts = th.as_tensor(episode_starts, dtype=th.float32, device=policy.device)
            if states is None:
                zero = zero_state(policy, len(starts))
                states = RNNStates(zero, zero) if calls_forward else zero
            if calls_forward:
                actions, _, _, states = policy(tensor, states, starts, **given)
            else:
                distribution, states = policy.get_distribution(tensor, states, starts, **given)
                actions = distribution.get_actions()
        return actions.cpu().numpy().reshape(-1, *policy.action_space.shape)  # type: ignore[misc]

    return act


def _linear_of(lstm: nn.LSTM, name: str) -> ArrayFunction:
    """One of an LSTM's two linear maps as a function of arrays, on the LSTM's own parameters."""
    weight = getattr(lstm, f"weight_{name}")
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = weight, getattr(lstm, f"bias_{name}")
    return linear_function(linear)
