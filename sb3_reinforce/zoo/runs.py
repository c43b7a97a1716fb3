"""One run of a comparison, in a process of its own: trained by RL Zoo, then evaluated. And what RL Zoo leaves of a run.

``python -m sb3_reinforce.zoo.runs <Task as JSON>``
"""

import glob
import importlib
import json
import math
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sb3_reinforce.zoo.records import replace, rounded

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

#: Episodes that the last model is evaluated over, unless another number is asked for.
EVAL_EPISODES = 20
#: Points of the curve that is kept of a run.
CURVE_POINTS = 50
#: An evaluation that is longer than the training was, and than this, is given up.
PATIENCE = 200_000


class Task(NamedTuple):
    """What the process is told."""

    key: dict[str, Any]  # columns that say which run it is
    columns: dict[str, Any]  # more columns of its row
    algo: str  # RL Zoo's name
    env_id: str
    train: list[str]  # `train` and its flags
    logs: str  # RL Zoo's log folder
    threshold: float
    eval_episodes: int  # of the last model
    result: str  # the file to write: a row, and the points of the curve


def main() -> None:
    """Run what the command line says; the result is written when it is whole."""
    # A Ctrl-C is for the parent: RL Zoo would take it for the end of training, and the rest for a whole run.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    task = Task(**json.loads(sys.argv[1]))
    # When the first optimizer is made, torch imports its compiler, in a second or two that are no part of learning, and that
    # ARS, which has no optimizer, does not take: so, like every import, before the clock starts.
    importlib.import_module("torch._dynamo")

    from sb3_reinforce.zoo import cli

    sys.argv = ["sb3-reinforce", *task.train]
    cli.main()
    row, curve = _result(task)
    replace(Path(task.result), json.dumps({"row": row, "curve": curve}))


def _end_with_parent() -> None:
    """End this process when the other end of its standard input is closed, however the parent ended."""
    os.read(0, 1)
    os._exit(1)


def _result(task: Task) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The row of a run that has ended, and the rows of its curve."""
    import pandas as pd

    folder = latest_run(task.logs, task.algo, task.env_id)
    curve = training_curve(folder)
    if curve.empty:
        raise ValueError("No episode ended in training. It takes more steps (-n), or a time limit (`max_episode_steps`).")
    patience = max(PATIENCE, int(curve["steps"].iloc[-1]))
    returns = evaluate_last_model(folder, task.algo, task.env_id, task.eval_episodes, patience=patience)
    if not math.isfinite(returns.mean()):
        raise ValueError(f"The last model's returns are not finite: {returns.tolist()}.")
    row = {
        **task.key,
        "steps": int(curve["steps"].iloc[-1]),
        "seconds": rounded(curve["seconds"].iloc[-1]),
        "return_mean": rounded(returns.mean()),
        "return_std": rounded(returns.std()),
        "n_episodes": len(returns),
        **to_threshold(curve, task.threshold),
        **task.columns,
    }
    points = [
        {
            **task.key,
            "steps": int(part["steps"].iloc[-1]),
            "seconds": rounded(part["seconds"].iloc[-1]),
            "return_mean": rounded(part["return"].mean()),
            "n_episodes": len(part),
        }
        for _, part in curve.groupby(pd.cut(curve["steps"], min(CURVE_POINTS, len(curve))), observed=True)
    ]
    return row, points


def to_threshold(curve: "pd.DataFrame", threshold: float) -> dict[str, Any]:
    """When the training returns first reached the threshold, as ``statistics.steps_to`` says.

    :param curve: as ``training_curve`` gives it
    :param threshold: NaN: there is none
    :return: ``steps_to_threshold`` and ``seconds_to_threshold``, None if never
    """
    from sb3_reinforce.zoo.statistics import steps_to

    steps, seconds = steps_to(curve.rename(columns={"return": "return_mean"}).assign(n_episodes=1), threshold)
    if math.isinf(steps):
        return {"steps_to_threshold": None, "seconds_to_threshold": None}
    return {"steps_to_threshold": int(steps), "seconds_to_threshold": rounded(seconds)}


def latest_run(log_folder: str, algo: str, env_id: str) -> Path:
    """The newest folder that ``sb3-reinforce train -f log_folder`` wrote for this algorithm and environment.

    :raises FileNotFoundError: if there is none that holds a saved model
    """
    name = file_name(env_id)
    runs = [path for path in Path(log_folder, algo).glob(f"{name}_*") if (path / f"{name}.zip").is_file()]
    if not runs:
        raise FileNotFoundError(f"No saved {algo} agent for {env_id} in {log_folder}; train one first.")
    return max(runs, key=lambda path: (path / f"{name}.zip").stat().st_mtime)


def file_name(env_id: str) -> str:
    """What RL Zoo calls an environment in names of files."""
    return env_id.replace("/", "-")


def evaluate_last_model(
    run: Path, algo: str, env_id: str, n_episodes: int = EVAL_EPISODES, seed: int = 10_000, patience: int = PATIENCE
) -> "np.ndarray":
    """Returns of whole episodes of the saved last model, with deterministic actions, float ``[n_episodes]``.

    :param seed: of the evaluation environment, apart from those of training
    :param patience: number of actions after which the evaluation is given up
    :raises ValueError: if the episodes have not ended by then
    """
    import numpy as np
    from rl_zoo3 import ALGOS, create_test_env, get_saved_hyperparams

    from sb3_reinforce.zoo.masks import evaluate_policy
    from sb3_reinforce.zoo.registration import register

    register()
    name = file_name(env_id)
    saved, stats_path = get_saved_hyperparams(str(run / name), test_mode=True)
    hyperparams = {key: value for key, value in saved.items() if value is not None}  # None: a wrapper that was taken away
    env_kwargs = hyperparams.pop("env_kwargs", {})
    env = create_test_env(
        env_id, stats_path=stats_path, seed=seed, hyperparams=hyperparams, env_kwargs=env_kwargs, should_render=False
    )
    asks_for_env = "HerReplayBuffer" in str(saved.get("replay_buffer_class"))
    model = ALGOS[algo].load(run / f"{name}.zip", env=env if asks_for_env else None, device="cpu")
    taken = 0

    def count(locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        nonlocal taken
        taken += 1
        if taken > patience:
            raise ValueError(
                f"The last model's {n_episodes} episodes have not ended after {patience} actions: register the environment "
                "with a time limit (`max_episode_steps`)."
            )

    returns, _ = evaluate_policy(model, env, n_episodes, deterministic=True, return_episode_rewards=True, callback=count)
    env.close()
    return np.array(returns)


def training_curve(run: Path) -> "pd.DataFrame":
    """The episodes of training in order of their end: total steps so far, seconds since the start, return."""
    import pandas as pd
    from stable_baselines3.common.monitor import load_results

    episodes = load_results(glob.escape(str(run)))  # in which SB3 takes brackets for a pattern
    return pd.DataFrame({"steps": episodes["l"].cumsum(), "seconds": episodes["t"], "return": episodes["r"]})


if __name__ == "__main__":
    main()
