"""Choosing actions during a rollout, at the least cost.

REINFORCE needs from a rollout no more than a ~ π(·|s): no value and no log-probability. An *actor* is a function from
the observations of all environments to one sampled action each. ``policy_actor`` asks the policy itself and works
for every policy. ``mlp_actor`` evaluates a small network with numpy, on views of the policy's own parameters, which
takes a tenth of the time; it exists for the policies that SB3 builds from linear layers and activations alone. Where the
policy is on an accelerator, it is on copies, brought over once a rollout.
Both draw from ``policy.get_distribution(obs)``; ``agrees`` checks that on observations.

Random numbers come from torch's generator, which SB3 seeds: at each draw in the one, in the other by way of a numpy
generator of its own that torch seeds, so that an environment that seeds numpy's global one does not fix the actions.
"""

from sb3_reinforce.actors.agreement import agrees, fingerprint
from sb3_reinforce.actors.mlp import MlpActor, mlp_actor
from sb3_reinforce.actors.policy import Actor, environment_actions, is_watched, overrides, policy_actor

__all__ = [
    "Actor",
    "MlpActor",
    "agrees",
    "environment_actions",
    "fingerprint",
    "is_watched",
    "mlp_actor",
    "overrides",
    "policy_actor",
]
