"""What RL Zoo leaves in the folder of a run: the learning curve, and the last model, evaluated."""

from pathlib import Path

import numpy as np
import pandas as pd
from rl_zoo3 import ALGOS, create_test_env, get_saved_hyperparams
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import load_results

from sb3_reinforce import zoo

zoo.register()


def latest_run(log_folder: str, algo: str, env_id: str) -> Path:
    """The newest folder that ``sb3-reinforce train -f log_folder`` wrote for this algorithm and environment.

    :raises FileNotFoundError: if there is none that holds a saved model
    """
    runs = [path for path in Path(log_folder, algo).glob(f"{env_id}_*") if (path / f"{env_id}.zip").is_file()]
    if not runs:
        raise FileNotFoundError(f"No saved {algo} agent for {env_id} in {log_folder}; train one first.")
    return max(runs, key=lambda path: (path / f"{env_id}.zip").stat().st_mtime)


def evaluate_last_model(run: Path, algo: str, env_id: str, n_episodes: int = 20, seed: int = 10_000) -> np.ndarray:
    """Returns of whole episodes of the saved last model, with deterministic actions, float ``[n_episodes]``.

    :param seed: of the evaluation environment, apart from those of training
    """
    hyperparams, stats_path = get_saved_hyperparams(str(run / env_id), test_mode=True)
    env_kwargs = hyperparams.pop("env_kwargs", {})
    env = create_test_env(
        env_id, stats_path=stats_path, seed=seed, hyperparams=hyperparams, env_kwargs=env_kwargs, should_render=False
    )
    model = ALGOS[algo].load(run / f"{env_id}.zip", device="cpu")
    returns, _ = evaluate_policy(model, env, n_episodes, deterministic=True, return_episode_rewards=True)
    env.close()
    return np.array(returns)


def training_curve(run: Path) -> pd.DataFrame:
    """The episodes of training in order of their end: total steps so far, seconds since the start, return."""
    episodes = load_results(str(run))
    return pd.DataFrame({"steps": episodes["l"].cumsum(), "seconds": episodes["t"], "return": episodes["r"]})
