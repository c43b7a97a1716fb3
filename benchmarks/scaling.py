"""How do time and memory grow with the batch, the number of environments and the network?

Each point is one batch of REINFORCE in a process of its own: an environment with CartPole's observations that never ends
and costs next to nothing, trajectories cut at ``horizon``, gradients accumulated over parts of ``batch_size`` steps, one
torch thread. Time is the processor's, which a busy machine disturbs less than the clock's, per step, split into
collecting and updating. Memory is the peak of the whole process, and its growth since before the batch. Each sweep changes
one thing and fits its exponent, the slope of log y over log x: 0 is flat, 1 is proportional.

    python benchmarks/scaling.py                    # all sweeps, three times; 20 minutes
    python benchmarks/scaling.py --sweep horizon --repeats 1

Rows are appended to ``--output`` as they are measured, and a row that is there is not measured again.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from records import RESULTS, Row, append, provenance, read, show


class Point(NamedTuple):
    n_episodes: int = 8
    horizon: int = 8_000
    n_envs: int = 8
    width: int = 64
    batch_size: int = 4096


#: What each sweep changes, and whether the batch grows with it; it is 64,000 steps where it does not.
SWEEPS: dict[str, list[Point]] = {
    "horizon": [Point(horizon=horizon) for horizon in (1_250, 4_000, 12_500, 40_000, 125_000)],
    "n_episodes": [Point(n_episodes=m, horizon=1_000) for m in (8, 40, 200, 1_000)],
    "n_envs": [Point(n_episodes=64, horizon=1_000, n_envs=n) for n in (1, 4, 16, 64)],
    "width": [Point(width=width) for width in (16, 64, 256, 1_024)],
    "batch_size": [Point(batch_size=size) for size in (250, 1_000, 4_000, 16_000, 64_000)],
}
MIB = 2**20


def peak_memory() -> float:
    """Of this process since it started, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MIB


def measure(point: Point) -> dict[str, float]:
    """One batch. Runs in a process that has done nothing else, since a peak never falls."""
    # Imported here and not by the parent: Linux counts the parent's peak as the child's.
    import gymnasium as gym
    import torch as th
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import DummyVecEnv

    from sb3_reinforce import REINFORCE

    class NeverEnding(gym.Env[np.ndarray, np.int64]):
        """Noise of CartPole's shape."""

        observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        action_space = gym.spaces.Discrete(2)
        noise = np.random.default_rng(0).standard_normal((1024, 4)).astype(np.float32)
        t = 0

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[np.ndarray, dict[str, Any]]:
            super().reset(seed=seed)
            return self.noise[0], {}

        def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            self.t += 1
            return self.noise[self.t % 1024], float(action), False, False, {}

    class Clock(BaseCallback):
        """Seconds from the start of the rollout to its end."""

        def _on_rollout_start(self) -> None:
            self.collecting = -time.process_time()

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            self.collecting += time.process_time()

    def batch(n_episodes: int, horizon: int) -> tuple[float, float]:
        model = REINFORCE(
            "MlpPolicy",
            DummyVecEnv([NeverEnding] * point.n_envs),
            n_episodes=n_episodes,
            horizon=horizon,
            batch_size=point.batch_size,
            policy_kwargs={"net_arch": [point.width, point.width]},
            seed=0,
            device="cpu",
        )
        clock = Clock()
        start = time.process_time()
        model.learn(1, callback=clock)
        assert model.rollout_buffer.lengths.sum() == n_episodes * horizon
        return clock.collecting, time.process_time() - start - clock.collecting

    th.set_num_threads(1)
    batch(point.n_envs, 2)  # what first calls load is no part of the batch
    before = peak_memory()
    collecting, updating = batch(point.n_episodes, point.horizon)
    steps = point.n_episodes * point.horizon
    return {
        "steps": steps,
        "collect_us": round(1e6 * collecting / steps, 3),
        "update_us": round(1e6 * updating / steps, 3),
        "peak_mib": round(peak_memory(), 1),
        "growth_mib": round(peak_memory() - before, 1),
    }


def run(sweeps: list[str], repeats: int, output: Path) -> None:
    """Measure what is not in the file yet, one repeat of everything after the other."""
    done = {(row["sweep"], Point(*(row[name] for name in Point._fields)), row["repeat"]) for row in read(output)}
    origin = provenance()
    for repeat in range(repeats):
        for sweep in sweeps:
            for point in SWEEPS[sweep]:
                if (sweep, point, repeat) in done:
                    continue
                command = [sys.executable, __file__, "--point", json.dumps(point)]
                numbers = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                append(output, {"sweep": sweep, **point._asdict(), "repeat": repeat, **numbers, **origin})
                print(f"{repeat} {sweep} {getattr(point, sweep)}: {numbers}", flush=True)


class Curve(NamedTuple):
    """Medians over the repeats, one entry for each point of a sweep."""

    x: np.ndarray
    collect_us: np.ndarray
    update_us: np.ndarray
    peak_mib: np.ndarray
    growth_mib: np.ndarray


def curve(rows: list[Row], sweep: str) -> Curve:
    rows = [row for row in rows if row["sweep"] == sweep]
    xs = sorted({row[sweep] for row in rows})
    medians = [[np.median([row[name] for row in rows if row[sweep] == x]) for x in xs] for name in Curve._fields[1:]]
    return Curve(np.array(xs), *map(np.array, medians))


def exponent(x: np.ndarray, y: np.ndarray) -> float:
    """Slope of log y over log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def report(rows: list[Row], sweeps: list[str]) -> None:
    for sweep in sweeps:
        found = curve(rows, sweep)
        times = found.collect_us + found.update_us
        print(f"\n{sweep:>12s}  us/step  collect  update  peak MiB  growth MiB")
        for x, total, *rest in zip(found.x, times, *found[1:], strict=True):
            print(f"{x:12,d}  {total:7.2f}  {rest[0]:7.2f}  {rest[1]:6.2f}  {rest[2]:8.0f}  {rest[3]:10.1f}")
        print(f"{'exponent':>12s}  {exponent(found.x, times):7.2f}  {exponent(found.x, found.collect_us):7.2f}", end="")
        print(f"  {exponent(found.x, found.update_us):6.2f}  {'':8s}  {exponent(found.x, found.growth_mib):10.2f}")
        print(f"A step of the last takes {times[-1] / times[0]:.2f} times one of the first.")


def table(rows: list[Row]) -> str:
    """First and last point of each sweep, with the exponents."""
    lines = ["| What grows | from | to | µs per step | exponent | growth of memory, MiB | exponent |", "|---" * 7 + "|"]
    for sweep in (sweep for sweep in SWEEPS if any(row["sweep"] == sweep for row in rows)):
        found = curve(rows, sweep)
        times = found.collect_us + found.update_us
        time_cells = f"{times[0]:.1f} to {times[-1]:.1f} | {exponent(found.x, times):.2f}"
        growth = found.growth_mib
        memory_cells = f"{growth[0]:.0f} to {growth[-1]:.0f} | {exponent(found.x, growth):.2f}"
        lines.append(f"| `{sweep}` | {found.x[0]:,} | {found.x[-1]:,} | {time_cells} | {memory_cells} |")
    return "\n".join(lines)


def chart(rows: list[Row], path: Path) -> None:
    """Above, time per step over what a sweep changes; below, memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sweeps = [sweep for sweep in SWEEPS if any(row["sweep"] == sweep for row in rows)]
    size = (2.7 * len(sweeps) + 0.6, 5.4)
    figure, axes = plt.subplots(2, len(sweeps), figsize=size, sharey="row", squeeze=False, layout="constrained")
    for (above, below), sweep in zip(axes.T, sweeps, strict=True):
        found = curve(rows, sweep)
        times = found.collect_us + found.update_us
        above.plot(found.x, times, "o-", color="#c1272d", label="whole")
        above.plot(found.x, found.collect_us, ".--", color="#0072b2", label="collecting")
        above.plot(found.x, found.update_us, ".:", color="#009e73", label="updating")
        above.set_title(f"{sweep}\nexponent {exponent(found.x, times):.2f}", fontsize=10)
        below.plot(found.x, found.peak_mib, "o-", color="#c1272d", label="peak of the process")
        below.plot(found.x, found.growth_mib, ".--", color="0.5", label="grown in the batch")
        below.set_title(f"exponent of growth {exponent(found.x, found.growth_mib):.2f}", fontsize=10)
        below.set_xlabel(sweep)
        for axis in (above, below):
            axis.set(xscale="log", yscale="log")
            axis.grid(True, color="0.92")
    axes[0, 0].set_ylabel("microseconds per step")
    axes[1, 0].set_ylabel("MiB")
    axes[0, 0].legend(frameon=False, fontsize=8)
    axes[1, 0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", nargs="+", choices=list(SWEEPS), default=list(SWEEPS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "scaling.csv")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.point:
        print(json.dumps(measure(Point(*json.loads(args.point)))))
        return
    run(args.sweep, args.repeats, args.output)
    rows = read(args.output)
    report(rows, args.sweep)
    show("scaling", table(rows), args.output)
    chart(rows, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
