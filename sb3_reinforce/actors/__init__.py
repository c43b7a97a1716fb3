"""Choosing actions during a rollout, at the least cost.

REINFORCE needs from a rollout no more than a ~ π(·|s): no value and no log-probability. An *actor* is a function from
observations, episode starts and what else the policy is given to one sampled action for each environment. ``policy_actor``
asks the policy itself and works for every policy. ``mlp_actor`` evaluates a small network with numpy, on views of the policy's
own parameters, which takes a tenth of the time. It exists for the policies that SB3 builds from linear layers and activations
alone. Where the policy is on an accelerator, it is on copies, brought over once a rollout.
Both draw from ``policy.get_distribution(obs)``; ``agrees`` checks that on observations.

``policy_actor`` draws from torch's generator, which SB3 seeds. ``mlp_actor`` draws from a numpy generator of its own, whose
seed torch's generator draws. So an environment that seeds numpy's global generator does not fix the actions.
"""

from sb3_reinforce.actors.agreement import agrees, fingerprint, make_replacement_check
from sb3_reinforce.actors.mlp import MlpActor, mlp_actor
from sb3_reinforce.actors.policy import Actor, environment_actions, is_watched, overrides, policy_actor

__all__ = [
    "Actor",
    "MlpActor",
    "agrees",
    "environment_actions",
    "fingerprint",
    "is_watched",
    "make_replacement_check",
    "mlp_actor",
    "overrides",
    "policy_actor",
]
