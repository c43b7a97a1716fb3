"""What do two processes that train one model gain, and where does their time go?

REINFORCE with its defaults and 64 trajectories an update, one environment in each process, ``torchrun`` on this machine: weak
scaling, with 64 for each process, and strong, with 64 in all. Time is the clock's, from the second rollout on, for a fixed
number of updates from scratch. All setups alternate within a repeat, and ratios are taken within one.

"Watched" runs take the time of each part: before every message the processes wait for each other, so that waiting and
talking are told apart. What that costs is not in the speeds, which other runs measure.

    python benchmarks/distributed.py                 # three repeats; a setup that has its row is not run again
    python benchmarks/distributed.py --report-only

Rows go to ``results/distributed.csv``, and the table to the benchmarks' README. ``simulation.py`` goes on from them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch as th
from records import Row, append, command_line, provenance, read, show
from stable_baselines3.common.callbacks import BaseCallback
from torch import distributed as dist

from sb3_reinforce import REINFORCE, distributed

#: Trajectories of one process.
SHARE = 64
UPDATES = {"CartPole-v1": 30, "Hopper-v5": 10}
#: Of the lengths of trajectories, as many as a curve needs.
N_QUANTILES = 33


class Setup(NamedTuple):
    env: str
    n_processes: int
    n_episodes: int
    kind: str
    """Either timed or watched."""


SETUPS = [
    Setup(env, n_processes, n_episodes, kind)
    for kind in ("timed", "watched")
    for env in UPDATES
    for n_processes, n_episodes in ((1, SHARE), (2, SHARE), (2, 2 * SHARE))
]


class Clock(BaseCallback):
    """Time, steps and lengths from the second rollout on, and the end after a number of updates."""

    def __init__(self, n_updates: int):
        super().__init__()
        self.n_updates = n_updates
        self.collecting = 0.0
        self.lengths: list[int] = []

    def _on_step(self) -> bool:
        return self.model._n_updates <= self.n_updates

    def _on_rollout_start(self) -> None:
        if self.model._n_updates == 1:
            parts.clear()
            self.collecting, self.lengths = 0.0, []
            self.start, self.first_step = time.perf_counter(), self.num_timesteps
        if self.model._n_updates == self.n_updates + 1:
            self.seconds = time.perf_counter() - self.start
            self.steps = self.num_timesteps - self.first_step
        self.begun = time.perf_counter() - parts.total()

    def _on_rollout_end(self) -> None:
        self.collecting += time.perf_counter() - parts.total() - self.begun
        self.lengths += self.model.rollout_buffer.lengths.tolist()


#: Seconds of messages, by what they do.
parts: Counter[str] = Counter()


def watch_messages() -> None:
    """Take the time of each message, after all are there."""
    talk = distributed._talk
    names = {dist.all_gather_object: "gathering", dist.all_reduce: "reducing"}

    def watched(collective: Any, *arguments: Any) -> None:
        start = time.perf_counter()
        dist.barrier()
        all_there = time.perf_counter()
        talk(collective, *arguments)
        parts["waiting"] += all_there - start
        parts[names.get(collective, "starting")] += time.perf_counter() - all_there

    distributed._talk = watched


def train(setup: Setup, seed: int) -> Row | None:
    """One run from scratch, in each of the processes; what process 0 has seen."""
    th.set_num_threads(1)
    if setup.kind == "watched" and setup.n_processes > 1:
        watch_messages()
    n_updates = UPDATES[setup.env]
    clock = Clock(n_updates)
    model = REINFORCE("MlpPolicy", setup.env, n_episodes=setup.n_episodes, seed=seed, device="cpu")
    model.learn(10**9, clock)
    if distributed.rank() > 0:
        return None
    numbers = {name: round(parts[name] / clock.seconds, 4) for name in ("waiting", "gathering", "reducing")}
    return {
        "updates": n_updates,
        "steps": clock.steps,
        "seconds": round(clock.seconds, 4),
        "steps_per_second": round(clock.steps / clock.seconds, 1),
        "collecting": round(clock.collecting / clock.seconds, 4),
        **(numbers if setup.kind == "watched" else dict.fromkeys(numbers, "")),
        "lengths": " ".join(f"{q:.0f}" for q in np.quantile(clock.lengths, np.linspace(0, 1, N_QUANTILES))),
    }


def launch(setup: Setup, seed: int) -> Row:
    """The run, by ``torchrun``, or in one process without."""
    task = json.dumps([setup, seed])
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={setup.n_processes}"]
    command = [*(start if setup.n_processes > 1 else [sys.executable]), __file__, "--task", task]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: list[Row]) -> str:
    """Medians: of the ratios of speed to one process, and of the shares of time in the watched runs."""
    found: dict[Setup, dict[int, Row]] = {}
    for row in rows:
        found.setdefault(Setup(*(row[name] for name in Setup._fields)), {})[row["repeat"]] = row

    def median(setup: Setup, name: str) -> float:
        return float(np.median([row[name] for row in found[setup].values()]))

    lines = [
        "| | processes | m | steps/s | times one process | updates/s | collecting | waiting | gathering | reducing |",
        "|" + "---|" * 10,
    ]
    for setup in SETUPS:
        alone, watched = setup._replace(n_processes=1, n_episodes=SHARE), setup._replace(kind="watched")
        if setup.kind == "watched" or setup not in found or watched not in found:
            continue
        at = found[setup].keys() & found[alone].keys()
        ratio = np.median([found[setup][i]["steps_per_second"] / found[alone][i]["steps_per_second"] for i in at])
        shares = [f"{median(watched, name):.1%}" for name in ("collecting", "waiting", "gathering", "reducing")]
        cells = [
            setup.env,
            setup.n_processes,
            setup.n_episodes,
            f"{median(setup, 'steps_per_second'):,.0f}",
            f"{ratio:.2f}",
            f"{np.median([row['updates'] / row['seconds'] for row in found[setup].values()]):.2f}",
            *(shares if setup.n_processes > 1 else [shares[0], "", "", ""]),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = command_line(__doc__, "distributed.csv", 3)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        setup, seed = json.loads(args.task)
        row = train(Setup(*setup), seed)
        if row is not None:
            print(json.dumps(row))
        return
    done = {(*(row[name] for name in Setup._fields), row["repeat"]) for row in read(args.out)}
    missing = [] if args.report_only else [(r, s) for r in range(args.repeats) for s in SETUPS if (*s, r) not in done]
    for repeat, setup in missing:
        numbers = launch(setup, repeat)
        append(args.out, {**setup._asdict(), "repeat": repeat, **numbers, **provenance()})
        print(repeat, *setup, {name: value for name, value in numbers.items() if name != "lengths"}, flush=True)
    show("distributed", table(read(args.out)), args.out)


if __name__ == "__main__":
    main()
