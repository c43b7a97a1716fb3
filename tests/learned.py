"""What a model has learned, as copies."""

import numpy as np
import torch as th

from sb3_reinforce import REINFORCE


def parameters(model: REINFORCE) -> np.ndarray:
    return model.policy.parameters_to_vector().copy()


def learned_state(model: REINFORCE) -> list[th.Tensor]:
    """Copies of the parameters, and of what the optimizer remembers of each."""
    remembered = model.policy.optimizer.state_dict()["state"].values()
    return [
        each.detach().clone() for each in (*model.policy.parameters(), *(v for state in remembered for v in state.values()))
    ]
