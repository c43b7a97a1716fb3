"""What RL Zoo is told of REINFORCE: the algorithm, its search space, its hyperparameters.

RL Zoo knows its algorithms by entries of three dictionaries, and looks for hyperparameters in its own package. It is
imported only when ``register`` is called.
"""

from pathlib import Path
from typing import Any

#: Files of hyperparameters that come with this package.
OURS = ("reinforce.yml", "reinforce_mask.yml", "reinforce_lstm.yml", "reinforce_textbook.yml")


def register() -> None:
    """Make ``reinforce``, ``reinforce_mask`` and ``reinforce_lstm`` algorithms of RL Zoo; a second call changes nothing.

    For ``python -m rl_zoo3.train --algo reinforce``, call it in a file ``custom_envs.py`` in the folder that this is run
    from: RL Zoo imports that file before it reads the command line.

    :raises ImportError: if RL Zoo is not installed
    """
    from rl_zoo3 import exp_manager, hyperparams_opt, utils

    from sb3_reinforce import REINFORCE, MaskableREINFORCE, RecurrentREINFORCE
    from sb3_reinforce.zoo import masks, search

    utils.ALGOS |= {"reinforce": REINFORCE, "reinforce_mask": MaskableREINFORCE, "reinforce_lstm": RecurrentREINFORCE}
    samplers = {"reinforce": search.sample, "reinforce_mask": search.sample, "reinforce_lstm": search.sample_with_lstm}
    hyperparams_opt.HYPERPARAMS_SAMPLER |= samplers
    hyperparams_opt.HYPERPARAMS_CONVERTER |= dict.fromkeys(samplers, search.convert)
    masks.mend_evaluations()
    # A program that imports exp_manager first, such as record_video, is here (by custom_envs.py) in the middle of that
    # import, before the class exists. It plays trained agents and reads no hyperparameters.
    if hasattr(exp_manager, "ExperimentManager"):
        _offer_hyperparameters(exp_manager.ExperimentManager, Path(exp_manager.__file__).parent)


def _offer_hyperparameters(manager_class: Any, package: Path) -> None:
    """Where RL Zoo would read a file of ours in its own package, or ``--conf-file`` is one by name, have it read ours, and
    normalise what can be normalised."""
    read = manager_class.read_hyperparameters
    if read.__name__ == "read_offered_hyperparameters":
        return
    ours = {str(folder / name): name for folder in folders(package) for name in OURS}
    ours |= {name: name for name in OURS}

    def read_offered_hyperparameters(manager: Any) -> Any:
        if manager.config in ours and not Path(manager.config).is_file():
            manager.config = str(hyperparams_file(ours[manager.config]))
        hyperparams, saved_hyperparams = read(manager)
        if is_ours(manager.config) and "normalize" not in (manager.custom_hyperparams or {}):
            from sb3_reinforce.zoo import normalization

            kept = normalization.where_possible(hyperparams, manager.env_name.gym_id, manager.env_kwargs)
            for name in hyperparams.keys() - kept.keys():
                print(f"Left out, since observations are discrete, images or a dict: {name}")
                del hyperparams[name], saved_hyperparams[name]
        return hyperparams, saved_hyperparams

    manager_class.read_hyperparameters = read_offered_hyperparameters


def is_ours(file: str | Path) -> bool:
    """Whether a file of hyperparameters is one that comes with this package."""
    return any(Path(file).resolve() == hyperparams_file(name).resolve() for name in OURS)


def folders(package: Path) -> tuple[Path, Path]:
    """Where a package's hyperparameters are: within it or, in a checkout, beside it."""
    return package / "hyperparams", package.parent / "hyperparams"


def hyperparams_file(name: str = "reinforce.yml") -> Path:
    """Path of a file of hyperparameters that comes with this package.

    :param name: name of the file
    :raises FileNotFoundError: if there is none of that name
    """
    for folder in folders(Path(__file__).parents[1]):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"No hyperparameters {name!r} come with sb3_reinforce.")
