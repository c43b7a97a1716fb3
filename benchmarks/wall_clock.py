"""How long does it take from the command to an agent that solves CartPole-v1, with all that Python imports on the way?

Each run is a Python process of its own: it imports the algorithm, makes the environments and the model, and learns until the
mean return of the last 20 training episodes is 475. Hyperparameters are those that ship, here or with RL Zoo. Algorithms
alternate within a seed. Seconds are those of the clock, from the start of the process to its end.

    python benchmarks/wall_clock.py                 # five seeds; a run that has its row is not run again
    python benchmarks/wall_clock.py --report-only

Rows go to ``results/wall_clock.csv``, and the table to the benchmarks' README.
"""

import subprocess
import sys
import time
from statistics import median
from typing import Any

from records import Row, append, command_line, provenance, read, show

from sb3_reinforce import zoo
from sb3_reinforce.zoo.settings import Contestant, settings

PROGRAM = """
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule
from {module} import {name}

class UntilSolved(BaseCallback):
    def _on_step(self):
        if not self.locals["dones"].any():
            return True
        last = self.model.ep_info_buffer
        return len(last) < 20 or sum(info["r"] for info in last) < 20 * 475

torch.set_num_threads(1)
env = "CartPole-v1" if {n_envs} == 1 else make_vec_env("CartPole-v1", {n_envs})
model = {name}("MlpPolicy", env, seed={seed}, device="cpu", stats_window_size=20, {arguments})
model.learn({n_timesteps}, UntilSolved())
print(model.num_timesteps)
"""
IMPORTS = "import torch._dynamo\nfrom {module} import {name}"
MODULES = {"REINFORCE": "sb3_reinforce", "PPO": "stable_baselines3"}


def arguments(hyperparameters: dict[str, Any]) -> str:
    """Those that the class takes, as source; RL Zoo writes a schedule that falls to 0 as ``lin_`` and its first value."""
    of_class = {name: value for name, value in hyperparameters.items() if name not in ("n_envs", "n_timesteps", "policy")}
    return ", ".join(
        f"{name}=LinearSchedule({value[4:]}, 0.0, 1.0)" if str(value).startswith("lin_") else f"{name}={value!r}"
        for name, value in of_class.items()
    )


def timed(program: str) -> tuple[float, str]:
    """Seconds from the start of a Python process to its end, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return time.perf_counter() - start, done.stdout.strip()


def measure(algo: str, seed: int) -> dict[str, Any]:
    taken = settings(Contestant(algo.lower()), "CartPole-v1").hyperparameters
    what = {"module": MODULES[algo], "name": algo}
    imports, _ = timed(IMPORTS.format(**what))
    options = {"n_envs": taken["n_envs"], "n_timesteps": int(taken["n_timesteps"]), "arguments": arguments(taken)}
    seconds, steps = timed(PROGRAM.format(**what, **options, seed=seed))
    solved = int(steps) < taken["n_timesteps"]
    return {"steps": int(steps), "solved": int(solved), "seconds": round(seconds, 3), "imports": round(imports, 3)}


def table(rows: list[Row]) -> str:
    lines = ["| | solved | seconds | of these, imports | × REINFORCE's |", "|---|---|---|---|---|"]
    seconds = {(row["algo"], row["seed"]): row["seconds"] for row in rows}
    for algo in dict.fromkeys(row["algo"] for row in rows):
        own = [row for row in rows if row["algo"] == algo]
        ratios = [row["seconds"] / seconds["REINFORCE", row["seed"]] for row in own]
        spread = "" if algo == "REINFORCE" else f"{median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        times = [f"{median(row[name] for row in own):.1f}" for name in ("seconds", "imports")]
        lines.append(f"| {algo} | {sum(row['solved'] for row in own)} of {len(own)} | {' | '.join(times)} | {spread} |")
    return "\n".join(lines)


def main() -> None:
    args = command_line(__doc__, "wall_clock.csv", 5).parse_args()
    if not args.report_only:
        zoo.register()
        done = {(row["algo"], row["seed"]) for row in read(args.out)}
        for seed in range(100, 100 + args.repeats):  # none of those that settings were chosen on
            for algo in MODULES:
                if (algo, seed) not in done:
                    append(args.out, {"algo": algo, "seed": seed, **measure(algo, seed), **provenance()})
                    print(f"{algo}, seed {seed}: {read(args.out)[-1]['seconds']} s", flush=True)
    show("wall clock", table(read(args.out)), args.out)


if __name__ == "__main__":
    main()
