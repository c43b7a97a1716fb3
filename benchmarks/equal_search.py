"""The same effort of search for each: random points of RL Zoo's own spaces, and what the best of them does on fresh seeds.

    python benchmarks/equal_search.py                                          # some hours
    python benchmarks/learning.py --algo reinforce_searched a2c_searched ppo_searched

RL Zoo draws the points and trains each once: on one environment, with the same number of steps, and with normalised
observations, but no other wrapper. The result of a trial is the mean return of its last model over some episodes, with
deterministic actions. Trials go to ``results/search.csv``. The best of each becomes an entry of ``searched/<algo>.yml``, which
``learning.py`` runs on seeds that no trial had. A search that was stopped goes on.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import yaml
from learning import SEARCHED_ALGOS, SEARCHED_ENVS
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from records import RESULTS, Row, append, provenance, read
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER

from sb3_reinforce import zoo

N_TRIALS = 20
EVAL_EPISODES = 20
TRIALS = RESULTS / "search.csv"
#: Where ``learning.py`` reads the best.
SEARCHED = RESULTS.parent / "searched"
#: What is not searched.
ENTRY: dict[str, Any] = {
    "policy": "MlpPolicy",
    "n_envs": 1,
    "n_timesteps": 30_000,
    "normalize": "dict(norm_obs=True, norm_reward=False)",
}


def study(algo: str, env_id: str, folder: Path) -> optuna.Study:
    """What RL Zoo keeps of the trials of an algorithm on an environment."""
    storage = JournalStorage(JournalFileBackend(str(_journal(algo, env_id, folder))))
    return optuna.create_study(storage=storage, study_name="equal", direction="maximize", load_if_exists=True)


def _journal(algo: str, env_id: str, folder: Path) -> Path:
    return folder / f"{env_id}-{algo}.log"


def search(algo: str, env_id: str, folder: Path) -> optuna.Study:
    """Have RL Zoo do the trials that are missing. Those that were cut short do not count.

    :param folder: for logs
    """
    known = study(algo, env_id, folder)
    for trial in known.get_trials(states=[TrialState.RUNNING]):
        known.tell(trial.number, state=TrialState.FAIL)
    missing = N_TRIALS - len(_ended(known))
    if missing <= 0:
        return known
    conf_file = folder / f"{env_id}.yml"
    conf_file.write_text(yaml.safe_dump({env_id: ENTRY}))
    command = ["train", "--algo", algo, "--env", env_id, "--conf-file", conf_file, "--optimize-hyperparameters"]
    command += ["--sampler", "random", "--pruner", "none", "--n-trials", missing, "--no-optim-plots"]
    command += ["--storage", _journal(algo, env_id, folder), "--study-name", "equal", "--device", "cpu", "--num-threads", 1]
    command += ["--n-evaluations", 1, "--eval-episodes", EVAL_EPISODES, "--verbose", 0, "-f", folder / "runs"]
    command += ["--seed", len(known.trials)]  # a search that goes on draws other points than it began with
    with (folder / f"{env_id}-{algo}.txt").open("a") as output:
        words = [sys.executable, "-m", "sb3_reinforce.zoo", *map(str, command)]
        subprocess.run(words, check=True, stdout=output, stderr=subprocess.STDOUT)
    return study(algo, env_id, folder)


def _ended(known: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return known.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED])


def rows(algo: str, env_id: str, known: optuna.Study) -> list[Row]:
    """Trials that have ended; those that RL Zoo gave up, because an algorithm refused the point, say, have no return."""
    return [
        {
            "algo": algo,
            "env": env_id,
            "trial": trial.number,
            "return_mean": "" if trial.value is None else round(trial.value, 4),
            "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else "",
            "params": json.dumps(trial.params),
        }
        for trial in _ended(known)[:N_TRIALS]
    ]


def best(trials: list[Row], algo: str, env_id: str) -> Row:
    """The trial with the highest return, the first of them if there are several."""
    own = [row for row in trials if (row["algo"], row["env"]) == (algo, env_id) and row["return_mean"] != ""]
    return max(own, key=lambda row: float(row["return_mean"]))


def entry(algo: str, params: dict[str, Any]) -> dict[str, Any]:
    """The hyperparameters of a trial, as a file of RL Zoo has them."""
    arguments = HYPERPARAMS_CONVERTER[algo](params)
    policy_kwargs = arguments.pop("policy_kwargs")
    activation_fn = policy_kwargs.pop("activation_fn")
    words = [f"{name}={value!r}" for name, value in policy_kwargs.items()] + [f"activation_fn=nn.{activation_fn.__name__}"]
    return {**ENTRY, **arguments, "policy_kwargs": f"dict({', '.join(words)})"}


def searched(trials: list[Row], algo: str) -> str:
    """The file of the best of each environment."""
    entries = {env_id: entry(algo, json.loads(best(trials, algo, env_id)["params"])) for env_id in SEARCHED_ENVS}
    head = f"# The best of {N_TRIALS} random trials each, by benchmarks/equal_search.py, which writes this file.\n"
    return head + yaml.safe_dump(entries, sort_keys=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="searches at a time")
    parser.add_argument("--logs", type=Path, default=Path("logs/search"), help="where RL Zoo keeps the trials")
    args = parser.parse_args()

    zoo.register()
    args.logs.mkdir(parents=True, exist_ok=True)
    done = {(row["algo"], row["env"]) for row in read(TRIALS)}
    due = [(algo, env_id) for env_id, algo in product(SEARCHED_ENVS, SEARCHED_ALGOS) if (algo, env_id) not in done]
    origin = provenance()
    with ThreadPoolExecutor(args.jobs) as pool:
        studies = pool.map(lambda each: search(*each, args.logs), due)
        for (algo, env_id), known in zip(due, studies, strict=True):
            append(TRIALS, *({**row, **origin} for row in rows(algo, env_id, known)))
    SEARCHED.mkdir(exist_ok=True)
    for algo in SEARCHED_ALGOS:
        (SEARCHED / f"{algo}.yml").write_text(searched(read(TRIALS), algo))


if __name__ == "__main__":
    main()
