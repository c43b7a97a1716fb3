"""REINFORCE with memory."""

from typing import Any, ClassVar, TypeVar

import numpy as np
from sb3_contrib.common.recurrent.policies import (
    RecurrentActorCriticCnnPolicy,
    RecurrentActorCriticPolicy,
    RecurrentMultiInputActorCriticPolicy,
)
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_reinforce.actors import Actor
from sb3_reinforce.actors.lstm import LstmActor, lstm_actor, lstm_agrees, recurrent_policy_actor
from sb3_reinforce.arguments import require
from sb3_reinforce.batch import NOTHING, Batch
from sb3_reinforce.contrib.trajectories import RecurrentEvaluator
from sb3_reinforce.guards import n_observations
from sb3_reinforce.reinforce import REINFORCE

SelfRecurrentREINFORCE = TypeVar("SelfRecurrentREINFORCE", bound="RecurrentREINFORCE")


class _Mended(RecurrentActorCriticPolicy):
    """Saves ``share_features_extractor`` and the LSTM's arguments too, which sb3-contrib leaves out, so that ``load`` makes
    the same policy. Takes MultiDiscrete observations."""

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        extractor = super().make_features_extractor()
        extractor._features_dim = int(extractor.features_dim)  # numpy's for MultiDiscrete, which torch's LSTM refuses
        return extractor

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "share_features_extractor": self.share_features_extractor,
            "lstm_hidden_size": self.lstm_actor.hidden_size,
            "n_lstm_layers": self.lstm_actor.num_layers,
            "shared_lstm": self.shared_lstm,
            "enable_critic_lstm": self.enable_critic_lstm,
            "lstm_kwargs": self.lstm_kwargs,
        }


class MlpLstmPolicy(_Mended):
    """sb3-contrib's ``RecurrentActorCriticPolicy``, loaded as it was made."""


class CnnLstmPolicy(_Mended, RecurrentActorCriticCnnPolicy):
    """sb3-contrib's ``RecurrentActorCriticCnnPolicy``, loaded as it was made."""


class MultiInputLstmPolicy(_Mended, RecurrentMultiInputActorCriticPolicy):
    """sb3-contrib's ``RecurrentMultiInputActorCriticPolicy``, loaded as it was made."""


class RecurrentREINFORCE(REINFORCE):
    r"""REINFORCE with sb3-contrib's recurrent policies, whose LSTM remembers what it has seen of the episode.

    The update evaluates each trajectory from its first step and a zero state, so the gradient goes through all of its steps:

    .. math::
        \hat g = \frac{1}{m} \sum_{i=1}^{m} \sum_{t} \psi_{i,t} \nabla \log \pi_\theta(a_{i,t} \mid s_{i,0}, \ldots, s_{i,t})

    No hidden state is stored, and none is out of date. The arguments are those of ``REINFORCE``. ``batch_size`` bounds the
    steps per pass including those that pad trajectories to the same length; a longer trajectory is a pass of its own.

    Paper: https://doi.org/10.1007/978-3-540-74690-4_71 (Wierstra et al. 2007, Recurrent Policy Gradients)

    :param policy: "MlpLstmPolicy", "CnnLstmPolicy", "MultiInputLstmPolicy", or a subclass of sb3-contrib's
        ``RecurrentActorCriticPolicy``
    :param env: The environment to learn from (if registered in Gym, can be str)
    :raises ValueError: as in ``REINFORCE``, and for a policy without memory
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpLstmPolicy": MlpLstmPolicy,
        "CnnLstmPolicy": CnnLstmPolicy,
        "MultiInputLstmPolicy": MultiInputLstmPolicy,
    }
    policy: RecurrentActorCriticPolicy

    def _check_policy_class(self) -> None:
        recurrent = isinstance(self.policy_class, type) and issubclass(self.policy_class, RecurrentActorCriticPolicy)
        require(recurrent, "`policy` must be a name or a subclass of RecurrentActorCriticPolicy", self.policy_class)
        for name in ("batch_first", "bidirectional", "proj_size"):
            value = (self.policy_kwargs.get("lstm_kwargs") or {}).get(name)
            require(not value, f"`lstm_kwargs` must not have `{name}`, which sb3-contrib's policies do not allow for", value)

    def _make_actor(self) -> Actor:
        act = super()._make_actor()
        # Episodes that were carried over go on with what this policy remembers of them, from their first step.
        for obs, episode_starts in self.rollout_buffer.rows():
            act(obs, episode_starts, NOTHING)
        return act

    def _fast_actor(self) -> LstmActor | None:
        return lstm_actor(self.policy)

    def _policy_actor(self) -> Actor:
        return recurrent_policy_actor(self.policy)

    def _agree(self, fast: LstmActor) -> bool:
        return lstm_agrees(fast, self.policy)

    def _evaluator(self, batch: Batch) -> RecurrentEvaluator:
        return RecurrentEvaluator(self.policy, batch, self.batch_size)

    def learn(
        self: SelfRecurrentREINFORCE,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "RecurrentREINFORCE",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfRecurrentREINFORCE:
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        **given: Any,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """As in ``REINFORCE``.

        :param state: what the last call returned, hidden and cell state, each float ``[n_layers, n_envs, lstm_hidden_size]``;
            None: zeros, as at the beginning of episodes
        :param episode_start: where the state is to be 0, bool ``[n_envs]``; None: nowhere
        :raises ValueError: if they are of another number of environments than the observations
        """
        if state is not None or episode_start is not None:
            n_envs = n_observations(self.policy, observation)
            n_layers, _, size = self.policy.lstm_hidden_state_shape
            for each in state or ():
                rule = f"`state` must be two arrays of shape {(n_layers, n_envs, size)}, for {n_envs} observations"
                require(len(state or ()) == 2 and np.shape(each) == (n_layers, n_envs, size), rule, np.shape(each))
            if episode_start is not None:
                rule = f"`episode_start` must have the shape {(n_envs,)}, for {n_envs} observations"
                require(np.size(episode_start) == n_envs, rule, np.shape(episode_start))
                episode_start = np.reshape(episode_start, n_envs)  # True, of a single environment, is an array now
        return super().predict(observation, state, episode_start, deterministic, **given)
