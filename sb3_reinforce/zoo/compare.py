"""``sb3-reinforce compare``: algorithms on environments over seeds, with a report. Runs go through RL Zoo's own pipeline."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import importlib
import io
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock, Timeout

from sb3_reinforce.zoo.runs import EVAL_EPISODES

if TYPE_CHECKING:
    from sb3_reinforce.zoo.settings import Contestant, Settings
    from sb3_reinforce.zoo.sweep import Job

#: Files of a comparison's folder.
RESULTS, CURVES, SETTINGS, RUNS = "results.csv", "curves.csv", "settings.json", "runs"
#: Held while a command works in the folder.
LOCK = ".lock"
#: Actions drawn at random are played for this many episodes, or seconds.
RANDOM_EPISODES, RANDOM_SECONDS = 50, 10.0


def main(arguments: list[str]) -> None:
    """Do what the command line says: all that is missing of a comparison, and its report.

    :raises SystemExit: 2 if nothing can be compared so, 1 if a run has failed, 130 after Ctrl-C
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    folder = Path(args.log_folder)
    if args.report_only:
        if not (folder / RESULTS).is_file():
            parser.error(f"--report-only: there is no {RESULTS} in {folder}, which -f names")
        _report(folder)
        return
    if not args.env or not args.algos:
        parser.error("--env and --algos are required, unless --report-only is given")

    try:
        _compare(args, folder, parser)
    except Timeout:
        parser.error(f"another `compare` is at work in {folder}: wait for its end, or take another folder with -f")
    except OSError as error:
        when = "with room" if error.errno == errno.ENOSPC else "once it can be written to"
        sys.exit(f"sb3-reinforce compare: {error}. What was finished is in {folder}; {when}, the same command goes on.")
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on.", file=sys.stderr)
        sys.exit(130)


def _compare(args: argparse.Namespace, folder: Path, parser: argparse.ArgumentParser) -> None:
    """Check what is asked for, run what is missing, and report.

    :raises Timeout: if another command works in the folder
    :raises OSError: if the disk is full, or the folder cannot be written to
    """
    from sb3_reinforce.zoo.registration import register
    from sb3_reinforce.zoo.settings import Contestant, Wrappers

    register()
    _import_environments(args.gym_packages, parser)
    _check_names(args, parser)
    conf_files = _conf_files(args, parser)
    wrappers: Wrappers = "reinforce" if args.same_wrappers else "none" if args.no_wrappers else "own"
    ours = conf_files.get("reinforce")
    contestants = {algo: Contestant(algo, conf_files.get(algo), wrappers, ours) for algo in dict.fromkeys(args.algos)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"-f: {_text(error)}")
    with FileLock(folder / LOCK, timeout=0):
        _work(_plan(args, contestants, folder, parser), args.jobs, folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sb3-reinforce compare",
        description="Train algorithms on environments over seeds, through RL Zoo, each run in a process of its own with one "
        "thread, and report. One folder holds results.csv, curves.csv, settings.json, report.md, curves.png, runs/ and, of "
        "two algorithms or more, profiles.png. "
        "The same command goes on where it was interrupted, and tries again what failed; with more seeds, algorithms or "
        "environments, it runs what is missing.",
    )
    parser.add_argument("--env", nargs="+", metavar="ID", help="environments")
    parser.add_argument(
        "--algos", nargs="+", metavar="ALGO", help="RL Zoo's names: reinforce a2c ppo ...; the first is compared with"
    )
    parser.add_argument(
        "--seeds", type=partial(_whole_number, least=1), default=5, metavar="N", help="number of seeds (default: 5)"
    )
    parser.add_argument(
        "--first-seed", type=partial(_whole_number, least=0), default=0, metavar="SEED",
        help="the first of them; REINFORCE's hyperparameters were chosen on some below 1000 (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "-n", "--n-timesteps", type=partial(_whole_number, least=1), default=0, metavar="STEPS",
        help="steps of the environment in each run; an action that a wrapper holds for k steps counts k "
        "(default: each algorithm's hyperparameters say how many)",
    )  # fmt: skip
    parser.add_argument(
        "--eval-episodes", type=partial(_whole_number, least=1), default=EVAL_EPISODES, metavar="N",
        help=f"episodes that each last model is evaluated over (default: {EVAL_EPISODES})",
    )  # fmt: skip
    parser.add_argument("--gym-packages", nargs="+", default=[], metavar="MODULE", help="modules that register environments")
    parser.add_argument(
        "--jobs", type=partial(_whole_number, least=1), default=_processors(), metavar="N",
        help="runs at a time (default: one a processor)",
    )  # fmt: skip
    parser.add_argument("-f", "--log-folder", default="logs/compare", metavar="FOLDER", help="default: logs/compare")
    parser.add_argument(
        "-conf", "--conf-file", nargs="+", default=[], metavar="[ALGO:]FILE",
        help="YAML file of hyperparameters, of one algorithm or of all",
    )  # fmt: skip
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--same-wrappers",
        action="store_true",
        help="every algorithm with the environment wrappers of REINFORCE's hyperparameters",
    )
    which.add_argument("--no-wrappers", action="store_true", help="every algorithm on the environment as it is")
    parser.add_argument("--report-only", action="store_true", help="run nothing; report on all that the folder holds")
    return parser


def _processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _whole_number(text: str, least: int) -> int:
    try:
        number = int(float(text)) if float(text).is_integer() else -1
    except (ValueError, OverflowError):
        number = -1
    if number < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text}")
    return number


def _import_environments(gym_packages: list[str], parser: argparse.ArgumentParser) -> None:
    """Import what registers environments. RL Zoo imports ``custom_envs``, too, but keeps its errors to itself."""
    for module in [*gym_packages, *(["custom_envs"] if Path("custom_envs.py").is_file() else [])]:
        try:
            importlib.import_module(module)
        except Exception as error:
            if not (isinstance(error, ModuleNotFoundError) and error.name == module):
                traceback.print_exc()
            parser.error(f"{module!r} cannot be imported: {_text(error)}")


def _check_names(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End here if an algorithm or environment is unknown."""
    import gymnasium as gym
    from rl_zoo3.utils import ALGOS

    for kind, names, known in (("algorithm", args.algos, ALGOS), ("environment", args.env, gym.registry)):
        for name in names:
            if name not in known:
                closest = difflib.get_close_matches(name, known, n=1)
                hint = f"maybe you meant {closest[0]!r}?" if closest else ""
                if kind == "algorithm":
                    hint = hint or f"there are {', '.join(ALGOS)}"
                else:
                    hint = hint or "a module that registers it is named with --gym-packages"
                parser.error(f"there is no {kind} {name!r}, {hint}")


def _conf_files(args: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, str]:
    """The file of each algorithm that was given one."""
    files: dict[str, str] = {}
    for word in args.conf_file:
        algo, colon, file = word.partition(":")
        if colon and algo in args.algos:
            files[algo] = file
        elif len(args.conf_file) > 1:
            parser.error(f"--conf-file: of several, each is ALGO:FILE with one of --algos, not {word}")
        elif colon and not Path(word).exists():
            parser.error(f"--conf-file: {algo!r} is not one of --algos, and there is no file {word!r}")
        else:
            files = dict.fromkeys(args.algos, word)
    return files


class _Held(NamedTuple):
    """What a comparison's folder holds from earlier commands. A pair is an algorithm and an environment."""

    rows: dict[tuple[str, str], dict[str, Any]]  # one of each pair
    random_returns: dict[str, float | None]  # of each environment
    arguments: dict[str, dict[str, Any]]  # all that the algorithm was given, of each pair, by "algorithm on environment"


def _held(args: argparse.Namespace, folder: Path, another: str, parser: argparse.ArgumentParser) -> _Held:
    """Read the folder, or end here if it cannot be gone on with.

    :param another: how to say that the folder holds another comparison
    """
    from sb3_reinforce.zoo import records
    from sb3_reinforce.zoo.sweep import Run

    try:
        rows, arguments = records.read(folder / RESULTS), records.read_json(folder / SETTINGS)
    except ValueError as error:
        parser.error(f"{error}: mend it, or take another folder with -f")
    if rows and not {*Run._fields, "random_return", "resolved", "n_episodes"} <= rows[0].keys():
        parser.error(
            f"{folder / RESULTS} is not of a comparison: take another folder with -f (or give it commas again, if another "
            "program has saved it)"
        )
    if budgets := {row["budget"] for row in rows} - {args.n_timesteps}:
        parser.error(f"{another}: it was run with -n {budgets.pop()} (now {args.n_timesteps}; 0: as the hyperparameters say)")
    if n_episodes := {row["n_episodes"] for row in rows} - {args.eval_episodes}:
        parser.error(f"{another}: it was run with --eval-episodes {n_episodes.pop()} (now {args.eval_episodes})")
    pairs = {(row["algo"], row["env"]): row for row in rows}
    return _Held(pairs, {row["env"]: row["random_return"] for row in rows}, arguments)


def _plan(
    args: argparse.Namespace, contestants: dict[str, Contestant], folder: Path, parser: argparse.ArgumentParser
) -> list[Job]:
    """All runs, algorithms by turns, since the speed of a machine drifts. What cannot run, or would be another comparison
    than the folder holds, ends here, before hours are spent."""
    from rl_zoo3.utils import ALGOS

    from sb3_reinforce.zoo import records
    from sb3_reinforce.zoo.settings import digest, resolved, settings, threshold
    from sb3_reinforce.zoo.sweep import Job, Run, description

    another = f"{folder} holds another comparison, take another folder with -f"
    before, random_returns, recorded = _held(args, folder, another, parser)
    env_ids = list(dict.fromkeys(args.env))
    taken, columns, problems = {}, {}, []
    print("Trying each algorithm on each environment ...", flush=True)
    for env_id in env_ids:
        try:
            if env_id not in random_returns:
                random_returns[env_id] = random_return(env_id, _env_kwargs(next(iter(contestants.values())), env_id))
        except Exception as error:  # of the user's environment: any
            traceback.print_exc()
            problems.append(f"{env_id} cannot be played: {_text(error)}")
            continue
        for algo, contestant in contestants.items():
            key, pair = f"{algo} on {env_id}", (algo, env_id)
            try:
                taken[pair] = settings(contestant, env_id, args.n_timesteps)
                full = resolved(ALGOS[contestant.algo], taken[pair], args.n_timesteps)
                if pair not in before:
                    try_out(contestant, env_id, taken[pair])
            except Exception as error:
                if not isinstance(error, ValueError):
                    traceback.print_exc()
                problems.append(f"{key}: {_text(error)}")
                continue
            if pair in before and before[pair]["resolved"] != digest(full):
                was = before[pair]["resolved"]
                differing = _differences(recorded.get(key, {}), full) or f"`resolved` {was} (now {digest(full)})"
                parser.error(f"{another}: {key} was run with {differing}")
            recorded[key] = full
            columns[pair] = description(taken[pair], full, threshold(env_id), random_returns[env_id])
    if problems:
        parser.error("\n".join(["nothing was run, since", *problems]))
    asked = [f"{algo} on {env_id}" for algo, env_id in columns]  # in the order of this command, those of earlier ones after
    ordered = {key: recorded[key] for key in dict.fromkeys([*asked, *recorded])}
    records.replace(folder / SETTINGS, json.dumps(ordered, indent=1) + "\n")
    more = ["--gym-packages", *args.gym_packages] if args.gym_packages else []
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    # Other words may say the same as the folder's, as with another `n_timesteps` in a file, where -n decides.
    digests = {pair: before[pair]["settings"] if pair in before else taken[pair].digest for pair in taken}
    return [
        Job(
            run=Run(algo, env_id, seed, args.n_timesteps, digests[algo, env_id]),
            contestant=contestants[algo],
            settings=taken[algo, env_id],
            columns=columns[algo, env_id],
            threshold=threshold(env_id),
            flags=more,
            eval_episodes=args.eval_episodes,
        )
        for env_id, seed, algo in product(env_ids, seeds, contestants)
    ]


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What two settings differ in; empty if in nothing."""
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return ", ".join(f"{name} {before.get(name)} (now {now.get(name)})" for name in names)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def try_out(contestant: Contestant, env_id: str, taken: Settings) -> None:
    """Have RL Zoo make environments and model, and throw them away: whatever it raises, it would raise in the run."""
    from rl_zoo3.exp_manager import ExperimentManager

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        manager = ExperimentManager(
            argparse.Namespace(algo=contestant.algo), contestant.algo, env_id, folder,
            hyperparams=dict(taken.overrides), eval_freq=-1, config=contestant.conf_file, verbose=0, seed=0, device="cpu",
        )  # fmt: skip
        create = manager.create_envs

        def create_and_close(n_envs: int, **kwargs: Any) -> Any:
            env = create(n_envs, no_log=True)
            stack.callback(env.close)
            return env

        manager.create_envs = create_and_close  # type: ignore[method-assign, assignment]
        manager.setup_experiment()


def _env_kwargs(contestant: Contestant, env_id: str) -> dict[str, Any]:
    """Arguments that its hyperparameters have for the environment."""
    from sb3_reinforce.zoo.settings import entries, entry_for

    try:
        loaded = entries(contestant.algo, contestant.conf_file)
        return loaded[entry_for(env_id, loaded)].get("env_kwargs") or {}
    except ValueError:  # of which the algorithm itself will be told
        return {}


def random_return(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> float | None:
    """Mean return of actions drawn at random; None if the first episode does not end soon.

    :param env_kwargs: arguments of the environment
    """
    import gymnasium as gym

    from sb3_reinforce.zoo.masks import sampler

    env = gym.make(env_id, **(env_kwargs or {}))
    env.action_space.seed(0)
    sample = sampler(env)
    returns: list[float] = []
    end = time.monotonic() + RANDOM_SECONDS
    while len(returns) < RANDOM_EPISODES:
        env.reset(seed=len(returns))
        total, done = 0.0, False
        while not done and time.monotonic() < end:
            _, reward, terminated, truncated, _ = env.step(sample())
            total += float(reward)
            done = terminated or truncated
        if not done:
            break
        returns.append(total)
    env.close()
    return round(sum(returns) / len(returns), 4) if returns else None


def _work(jobs: list[Job], at_a_time: int, folder: Path) -> None:
    """Run what is missing, and report."""
    from sb3_reinforce.zoo.sweep import Sweep, named

    sweep = Sweep(folder / RESULTS, folder / CURVES, folder / RUNS)
    runs = {job.run for job in jobs}
    done = len(runs & sweep.done())
    print(f"{len(jobs) - done} runs to do, {done} done before", flush=True)
    try:
        failed = sweep.work(jobs, at_a_time)
    except ValueError as error:  # of a table that has changed since
        sys.exit(f"sb3-reinforce compare: {error}")
    except KeyboardInterrupt:
        print(
            f"\nInterrupted: {len(runs & sweep.done())} of {len(jobs)} runs are done. The same command goes on.",
            file=sys.stderr,
        )
        sys.exit(130)
    if (folder / RESULTS).is_file():
        _report(folder)
    for run, complaint in failed.items():
        print(f"failed: {named(run)}: {complaint}", file=sys.stderr)
    if failed:
        sys.exit(f"{len(failed)} of {len(jobs)} runs have failed. The same command tries them again.")


def _report(folder: Path) -> None:
    from sb3_reinforce.zoo import report

    try:
        report.write(folder)
    except (OSError, ValueError) as error:
        sys.exit(f"sb3-reinforce compare: there is no report: {_text(error)}")
    print(f"Report: {folder / 'report.md'}")
