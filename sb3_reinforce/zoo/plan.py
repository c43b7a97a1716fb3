"""What a comparison will run. Whatever cannot run is refused here, before hours are spent."""

import argparse
import difflib
import importlib
import json
import sys
import traceback
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
from rl_zoo3.utils import ALGOS

from sb3_reinforce.zoo import records
from sb3_reinforce.zoo.names import pair_name
from sb3_reinforce.zoo.settings import (
    Contestant,
    Settings,
    Wrappers,
    digest,
    entries,
    entry_for,
    resolved,
    settings,
    threshold,
)
from sb3_reinforce.zoo.sweep import Job, Run, description
from sb3_reinforce.zoo.tryout import RANDOM_SECONDS, random_return, try_out

#: An algorithm and an environment.
Pair = tuple[str, str]


class RefusedError(ValueError):
    """A comparison that cannot be run as it was asked for. The message says why."""


def import_environments(gym_packages: list[str]) -> None:
    """Import what registers environments. RL Zoo imports ``custom_envs``, too, but keeps its errors to itself.

    :raises RefusedError: if a module cannot be imported
    """
    for module in [*gym_packages, *(["custom_envs"] if Path("custom_envs.py").is_file() else [])]:
        try:
            importlib.import_module(module)
        except Exception as error:
            if not (isinstance(error, ModuleNotFoundError) and error.name == module):
                traceback.print_exc()
            raise RefusedError(f"{module!r} cannot be imported: {_text(error)}") from error


def contestants(args: argparse.Namespace) -> dict[str, Contestant]:
    """The sides of the comparison, by their algorithms.

    :raises RefusedError: if an algorithm, an environment or a file is unknown
    """
    _check_names(args)
    conf_files = _conf_files(args)
    wrappers: Wrappers = "reinforce" if args.same_wrappers else "none" if args.no_wrappers else "own"
    ours = conf_files.get("reinforce")
    return {algo: Contestant(algo, conf_files.get(algo), wrappers, ours) for algo in dict.fromkeys(args.algos)}


def _check_names(args: argparse.Namespace) -> None:
    for kind, names, known in (("algorithm", args.algos, ALGOS), ("environment", args.env, gym.registry)):
        for name in names:
            if name not in known:
                closest = difflib.get_close_matches(name, known, n=1)
                hint = f"maybe you meant {closest[0]!r}?" if closest else ""
                if kind == "algorithm":
                    hint = hint or f"there are {', '.join(ALGOS)}"
                else:
                    hint = hint or "a module that registers it is named with --gym-packages"
                raise RefusedError(f"there is no {kind} {name!r}, {hint}")


def _conf_files(args: argparse.Namespace) -> dict[str, str]:
    """The file of each algorithm that was given one."""
    files: dict[str, str] = {}
    for word in args.conf_file:
        algo, colon, file = word.partition(":")
        if colon and algo in args.algos:
            files[algo] = file
        elif len(args.conf_file) > 1:
            raise RefusedError(f"--conf-file: of several, each is ALGO:FILE with one of --algos, not {word}")
        elif colon and not Path(word).exists():
            raise RefusedError(f"--conf-file: {algo!r} is not one of --algos, and there is no file {word!r}")
        else:
            files = dict.fromkeys(args.algos, word)
    return files


def jobs(args: argparse.Namespace, contestants: dict[str, Contestant], folder: Path) -> list[Job]:
    """All runs, algorithms by turns, since the speed of a machine drifts.

    :param folder: of the comparison; all arguments are written there
    :raises RefusedError: if something cannot run, or would be another comparison than the folder holds
    """
    another = f"{folder} holds another comparison, take another folder with -f"
    earlier = _earlier(args, folder, another)
    taken, random_returns = _tried(args, contestants, earlier)
    _check_same(taken, earlier, another)
    # In the order of this command, those of earlier ones after.
    recorded = {pair_name(*pair): own.arguments for pair, own in taken.items()}
    recorded |= {key: own for key, own in earlier.arguments.items() if key not in recorded}
    records.replace(folder / records.SETTINGS, json.dumps(recorded, indent=1) + "\n")
    # Other words may say the same as the folder's, as with another `n_timesteps` in a file, where -n decides.
    digests = {pair: earlier.rows[pair]["settings"] if pair in earlier.rows else taken[pair].settings.digest for pair in taken}
    return [
        Job(
            run=Run(algo, env_id, seed, args.n_timesteps, digests[pair]),
            contestant=contestants[algo],
            settings=taken[pair].settings,
            columns=description(*taken[pair], threshold(env_id), random_returns[env_id]),
            threshold=threshold(env_id),
            flags=["--gym-packages", *args.gym_packages] if args.gym_packages else [],
            eval_episodes=args.eval_episodes,
        )
        for env_id in random_returns
        for seed, algo in product(range(args.first_seed, args.first_seed + args.seeds), contestants)
        for pair in [(algo, env_id)]
    ]


class _Earlier(NamedTuple):
    """What a comparison's folder holds from earlier commands."""

    rows: dict[Pair, records.Row]  # one of each pair
    random_returns: dict[str, float | None]  # of each environment
    arguments: dict[str, dict[str, Any]]  # all that the algorithm was given, of each pair, by its name


class _Taken(NamedTuple):
    """What a pair would be run with."""

    settings: Settings
    arguments: dict[str, Any]  # all that the algorithm is given


def _earlier(args: argparse.Namespace, folder: Path, another: str) -> _Earlier:
    """Read the folder.

    :param another: how to say that the folder holds another comparison
    :raises RefusedError: if it cannot be gone on with
    """
    try:
        rows, curves = records.read_runs(folder / records.RESULTS), records.read_curves(folder / records.CURVES)
    except ValueError as error:
        raise RefusedError(str(error)) from error
    try:
        arguments, _ = (records.read_json(folder / name) for name in (records.SETTINGS, records.FAILED))
    except ValueError as error:
        raise RefusedError(f"{error}: mend it, or take another folder with -f") from error
    if rows and not curves:
        raise RefusedError(f"there is no {records.CURVES} in {folder}. {records.REMEDY}")
    if budgets := {row["budget"] for row in rows} - {args.n_timesteps}:
        now = f"now {args.n_timesteps}; 0: as the hyperparameters say"
        raise RefusedError(f"{another}: it was run with -n {budgets.pop()} ({now})")
    if n_episodes := {row["n_episodes"] for row in rows} - {args.eval_episodes}:
        raise RefusedError(f"{another}: it was run with --eval-episodes {n_episodes.pop()} (now {args.eval_episodes})")
    pairs = {(row["algo"], row["env"]): row for row in rows}
    return _Earlier(pairs, {row["env"]: row["random_return"] for row in rows}, arguments)


def _tried(
    args: argparse.Namespace, contestants: dict[str, Contestant], earlier: _Earlier
) -> tuple[dict[Pair, _Taken], dict[str, float | None]]:
    """Try each algorithm on each environment, those that the folder does not hold.

    :return: what each pair is run with, and the return of random actions on each environment
    :raises RefusedError: naming all that cannot run
    """
    print("Trying each algorithm on each environment ...", flush=True)
    taken: dict[Pair, _Taken] = {}
    random_returns: dict[str, float | None] = {}
    problems = []
    for env_id in dict.fromkeys(args.env):
        try:
            if env_id in earlier.random_returns:
                random_returns[env_id] = earlier.random_returns[env_id]
            else:
                random_returns[env_id] = random_return(env_id, _env_kwargs(next(iter(contestants.values())), env_id))
            if random_returns[env_id] is None:
                print(
                    f"{env_id}: no episode of random actions ended in {RANDOM_SECONDS:.0f} seconds. A run in which none ends "
                    "has no result: should the environment be registered with a time limit (`max_episode_steps`)?",
                    file=sys.stderr,
                )
        except Exception as error:  # of the user's environment: any
            traceback.print_exc()
            problems.append(f"{env_id} cannot be played: {_text(error)}")
            continue
        for algo, contestant in contestants.items():
            pair = algo, env_id
            try:
                own = settings(contestant, env_id, args.n_timesteps)
                taken[pair] = _Taken(own, resolved(ALGOS[contestant.algo], own, args.n_timesteps))
                if pair not in earlier.rows:
                    try_out(contestant, env_id, own)
            except Exception as error:
                if not isinstance(error, ValueError):
                    traceback.print_exc()
                problems.append(f"{pair_name(*pair)}: {_text(error)}")
    if problems:
        raise RefusedError("\n".join(["nothing was run, since", *problems]))
    return taken, random_returns


def _check_same(taken: dict[Pair, _Taken], earlier: _Earlier, another: str) -> None:
    """Refuse arguments that differ from those of the folder's runs."""
    for pair, (_, now) in taken.items():
        if pair in earlier.rows and earlier.rows[pair]["resolved"] != digest(now):
            was = earlier.rows[pair]["resolved"]
            differing = (
                _differences(earlier.arguments.get(pair_name(*pair), {}), now) or f"`resolved` {was} (now {digest(now)})"
            )
            raise RefusedError(f"{another}: {pair_name(*pair)} was run with {differing}")


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What two settings differ in; empty if in nothing."""
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return ", ".join(f"{name} {before.get(name)} (now {now.get(name)})" for name in names)


def _env_kwargs(contestant: Contestant, env_id: str) -> dict[str, Any]:
    """Arguments that its hyperparameters have for the environment."""
    try:
        loaded = entries(contestant.algo, contestant.conf_file)
        return loaded[entry_for(env_id, loaded)].get("env_kwargs") or {}
    except ValueError:  # of which the algorithm itself will be told
        return {}


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
