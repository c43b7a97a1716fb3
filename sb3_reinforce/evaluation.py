"""What an update asks of a policy: log π, entropy and V of the steps of a batch."""

from collections.abc import Callable, Iterator

import numpy as np
import torch as th
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel
from torch import nn

from sb3_reinforce.actors import is_watched, overrides
from sb3_reinforce.batch import Batch, EpisodicRolloutBufferSamples, mapped
from sb3_reinforce.distributed import all_gather, alone

#: Packages whose modules use each parameter once a step, so that the parameters' shapes bound what a pass keeps. Convolutions
#: use theirs at many places.
_WITHOUT_SHARING = (
    "stable_baselines3.",
    "sb3_contrib.",
    "sb3_reinforce.",
    *(f"torch.nn.modules.{name}" for name in ("activation", "container", "flatten", "linear", "rnn")),
)
#: Packages whose modules act alike in training and evaluation mode; ``depends_on_mode`` names the exceptions.
_MODELESS = (*_WITHOUT_SHARING, "torch.nn.modules.conv")
#: Memory that one pass may take where no ``batch_size`` is given, in bytes: what it keeps for the backward pass.
_PASS_NBYTES = 2**26
#: Steps of the trial pass that measures this: several, so that what a pass allocates once, as an LSTM does, adds little.
_N_MEASURED = 16


class Evaluator:
    """A policy and a batch, evaluated part by part, each part by the process that has it.

    :param policy: any actor-critic policy
    :param batch: the trajectories
    :param batch_size: number of steps per pass; None: as many as fit in 64 MiB
    """

    def __init__(self, policy: ActorCriticPolicy, batch: Batch, batch_size: int | None):
        self.policy = policy
        self.batch = batch
        # ``evaluate_actions`` computes V, which is not needed: it is called only where an override or a hook could tell.
        self._calls_evaluate_actions = overrides(
            policy, "evaluate_actions", "get_distribution", "extract_features"
        ) or is_watched(policy)
        #: What a function finds in each process that has a part of the batch.
        self.gather = alone if batch.own is None else all_gather
        self.batch_size = int(batch_size or self._steps_that_fit())

    def parts(self, within: slice | None = None) -> Iterator[EpisodicRolloutBufferSamples]:
        """What this process has of the batch, or the trajectory ``within`` it, in parts that each fit in one pass."""
        return self.batch.parts(self.batch_size, within)

    def _steps_that_fit(self) -> int:
        """Number of steps whose observations and activations fit in the memory of a pass."""
        own = self.batch.own_steps
        n_steps = own.stop - own.start
        if n_steps <= _N_MEASURED:
            return n_steps
        # A pass keeps some numbers for each input or output of a layer. Far from the limit, spare the measurement.
        if all(type(module).__module__.startswith(_WITHOUT_SHARING) for module in self.policy.modules()):
            widths = sum(max(parameter.shape, default=1) for parameter in self.policy.parameters())
            if n_steps * max(self.batch.observation_nbytes, 4 * widths) <= _PASS_NBYTES // 8:
                return n_steps
        return max(1, _PASS_NBYTES // self._step_nbytes())

    def _step_nbytes(self) -> int:
        """What a forward pass keeps for the backward pass, in bytes a step, measured on the first steps of the batch."""
        own, kept = self.batch.own_steps, dict[int, int]()
        sample = self.batch.part(slice(own.start, min(own.stop, own.start + _N_MEASURED)))

        def keep(tensor: th.Tensor) -> th.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        self.policy.set_training_mode(False)  # batch normalisation refuses a single step otherwise
        with th.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            graph = self.log_probs(sample)
        for parameter in self.policy.parameters():
            kept.pop(parameter.untyped_storage().data_ptr(), None)
        del graph  # alive until here: freed storage could give its address to another, and that would not be counted
        return self.batch.observation_nbytes + sum(kept.values()) // len(sample.actions)

    def log_probs(self, part: EpisodicRolloutBufferSamples) -> tuple[th.Tensor, th.Tensor | None]:
        """log π of each action taken and the policy's entropy there, float ``[B]``, with graph.

        The entropy is None where the distribution has none in closed form.

        :param part: B steps of the batch
        """
        if self._calls_evaluate_actions:
            _, log_probs, entropy = self.policy.evaluate_actions(part.observations, part.actions, **part.given)
            return log_probs, entropy
        distribution = self.policy.get_distribution(part.observations, **part.given)
        return distribution.log_prob(part.actions), distribution.entropy()

    def values(self, part: EpisodicRolloutBufferSamples, features: th.Tensor | None = None) -> th.Tensor:
        """V of each step, float ``[B]``, with graph.

        :param part: B steps of the batch
        :param features: of the whole batch, where ``fixed_features`` has computed them
        """
        if features is None:
            return self.policy.predict_values(part.observations).flatten()
        latent = self.policy.mlp_extractor.forward_critic(features[part.steps])
        return self.policy.value_net(latent).flatten()

    def fixed_features(self, fitted: list[nn.Parameter]) -> th.Tensor | None:
        """What the value network's own layers are given at each step, if it stays the same while some parameters are fitted.

        So it is with the features extractor of a ``CnnPolicy``, which the policy shares: once through it is enough.

        :param fitted: these parameters
        :return: float ``[M, F]``, without graph; None where it may change, or costs nothing
        """
        extractor = self.policy.vf_features_extractor
        learned = set(extractor.parameters())
        if not learned or learned & set(fitted) or depends_on_mode(self.policy) or is_watched(self.policy):
            return None
        if overrides(self.policy, "predict_values", "extract_features"):
            return None
        found: th.Tensor | None = None
        with th.no_grad():
            for part in self.parts():
                features = BaseModel.extract_features(self.policy, part.observations, extractor)
                if found is None:  # of steps that another process has, nothing is written or read
                    found = features.new_empty(len(self.batch.order), features.shape[1])
                found[part.steps] = features
        return found

    def all_log_probs(self) -> np.ndarray:
        """log π of each action taken, by the policy as it is, float32 ``[M]``."""
        return self._over_batch(lambda part: self.log_probs(part)[0])

    def all_values(self, features: th.Tensor | None = None) -> np.ndarray:
        """V of each step by the value network as it is, float32 ``[M]``.

        :param features: of the whole batch, where ``fixed_features`` has computed them
        """
        return self._over_batch(lambda part: self.values(part, features))

    def _over_batch(self, evaluate: Callable[[EpisodicRolloutBufferSamples], th.Tensor]) -> np.ndarray:
        """What a function of the parts says of each step, float32 ``[M]``, without graph; in eval mode, as in the rollout."""
        self.policy.set_training_mode(False)

        def own() -> np.ndarray:
            found = np.empty(self.batch.lengths.sum(), dtype=np.float32)
            with th.no_grad():
                for part in self.parts():
                    found[part.steps] = evaluate(part).cpu().numpy()
            return found[self.batch.own_steps]

        return np.concatenate(self.gather(own))

    def last_values(self) -> dict[int, float]:
        """V(s_H) of each trajectory that was cut, by the index of its last step."""
        return {step: value for each in self.gather(self._own_last_values) for step, value in each.items()}

    def _own_last_values(self) -> dict[int, float]:
        last = self.batch.last_observations
        tensors = [self.policy.obs_to_tensor(obs)[0] for obs in last.values()]
        values: list[float] = []
        with th.no_grad():
            for start in range(0, len(tensors), self.batch_size):
                part = mapped(lambda *each: th.cat(each), *tensors[start : start + self.batch_size])
                values += self.policy.predict_values(part).flatten().tolist()
        return dict(zip(last, values, strict=True))


def depends_on_mode(policy: ActorCriticPolicy) -> bool:
    """Whether log π may differ between training and evaluation mode: dropout, batch normalisation, modules not known here."""
    return any(
        not type(module).__module__.startswith(_MODELESS)
        or isinstance(module, nn.RReLU | nn.MultiheadAttention)
        or (isinstance(module, nn.RNNBase) and module.dropout > 0)
        for module in policy.modules()
    )


def cut_graph(distribution: Distribution | th.distributions.Distribution) -> None:
    """Make constants of what a distribution keeps of its last evaluation, but not of parameters, which have no graph.

    A policy's distribution would hold the graph of an update, with all its activations, through the next rollout, and
    ``copy.deepcopy`` of the policy would fail on it.

    :param distribution: ``policy.action_dist``, or one that it consists of
    """
    for name, value in vars(distribution).items():
        if isinstance(value, th.Tensor) and value.grad_fn is not None:
            vars(distribution)[name] = value.detach()
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Distribution | th.distributions.Distribution):
                cut_graph(each)
