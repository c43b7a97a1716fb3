"""How many processes pay? One update of data-parallel REINFORCE, from measured costs, for up to 1,024 processes.

Measured on this machine, in ``results/distributed.csv``: the lengths of trajectories, and what a step of a rollout takes.
Here: what an update takes for the batch and for each step; what weighing takes for each step, which every process does for
all of them; what it takes to pack and unpack what one process tells. Stated: latency and bandwidth of a network.

- A rollout lasts as long as that of the slowest process: trajectories have the measured lengths, each process runs its
  share of the m one after the other, and nothing is shifted from one process to another.
- Messages go round a ring, as gloo sends them: K - 1 latencies for a gathering, 2 (K - 1) for a sum. An update takes three
  gatherings of two messages each (the rollout's end, the batch, the log-probabilities) and one sum of the gradients.

    python benchmarks/simulation.py                  # seconds

The table goes to the benchmarks' README, the chart beside the rows.
"""

import argparse
import pickle
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch as th
from distributed import SHARE, Setup
from records import RESULTS, Row, read, show

from sb3_reinforce import REINFORCE
from sb3_reinforce.weights import Family, weights

N_PROCESSES = [2**k for k in range(11)]
#: Trajectories of an update: as many for each process, and as many in all.
EACH, TOTAL = 16, 1024
N_UPDATES = 100


class Network(NamedTuple):
    latency: float
    """Seconds from one process to the next."""
    bandwidth: float
    """Bytes a second."""


NETWORKS = {"10 Gbit/s, 50 µs": Network(50e-6, 1.25e9), "100 Gbit/s, 5 µs": Network(5e-6, 12.5e9)}


class Costs(NamedTuple):
    """Seconds."""

    step: float
    """Of a rollout."""
    update: float
    """Of an update, however small."""
    update_step: float
    """Of an update, for each step of a process's own."""
    weighing_step: float
    """Of an update, for each step of all."""
    told: float
    """To pack or unpack what one process tells the others, besides what its bytes take."""
    told_byte: float
    n_parameters: int


def costs(env: str, step: float) -> Costs:
    """What an update takes, measured here, in CPU seconds.

    :param env: id of the environment
    :param step: seconds of a step of a rollout
    """

    def train(n_episodes: int) -> tuple[int, float]:
        model = REINFORCE("MlpPolicy", env, n_episodes=n_episodes, learning_rate=0.0, seed=0, device="cpu")
        model.learn(1)
        repeats = []
        for _ in range(20):
            start = time.process_time()
            model.train()
            repeats.append(time.process_time() - start)
        return int(model.rollout_buffer.lengths.sum()), float(np.median(repeats))

    (few, seconds_few), (many, seconds_many) = train(2), train(256)
    update_step = (seconds_many - seconds_few) / (many - few)

    def seconds_of_weights(n_steps: int) -> float:
        lengths = np.full(n_steps // 40, 40)
        start = time.process_time()
        for _ in range(5):
            weights(np.ones(lengths.sum(), dtype=np.float32), lengths, Family(0.99, "reward_to_go", baseline="leave_one_out"))
        return (time.process_time() - start) / 5

    weighing_step = (seconds_of_weights(1_000_000) - seconds_of_weights(100_000)) / 900_000

    def seconds_of_telling(n_bytes: int) -> float:
        told = (None, (np.zeros(16, dtype=np.int64), np.zeros(n_bytes // 4, dtype=np.float32)))
        start = time.process_time()
        for _ in range(200):
            pickle.loads(pickle.dumps(told))
        return (time.process_time() - start) / 200

    told_byte = (seconds_of_telling(4_000_000) - seconds_of_telling(40_000)) / 3_960_000
    n_parameters = sum(p.numel() for p in REINFORCE("MlpPolicy", env, device="cpu").policy.parameters())
    update = seconds_few - few * update_step
    return Costs(step, update, update_step, weighing_step, seconds_of_telling(0), told_byte, n_parameters)


class Update(NamedTuple):
    """Seconds of one update, and its steps."""

    working: float
    """The mean process in its rollout."""
    waiting: float
    """For the slowest."""
    talking: float
    updating: float
    steps: float

    @property
    def seconds(self) -> float:
        return self.working + self.waiting + self.talking + self.updating


def simulate(n_processes: int, n_episodes: int, cost: Costs, network: Network, quantiles: np.ndarray) -> Update:
    """The mean of some updates.

    :param quantiles: of the lengths of trajectories, equally spaced from least to greatest
    """
    rng = np.random.default_rng(0)
    at = np.linspace(0, 1, len(quantiles))
    lengths = np.interp(rng.random((N_UPDATES, n_episodes)), at, quantiles)
    shares = np.stack([part.sum(1) for part in np.array_split(lengths, n_processes, axis=1)])  # [K, updates]
    steps = lengths.sum(1).mean()
    others = n_processes - 1
    own_bytes = 12 * shares.max(0).mean()  # rewards, earlier and own log-probabilities, padded to the longest
    gathering = 6 * others * network.latency + others * own_bytes / network.bandwidth
    unpacking = 3 * n_processes * cost.told + n_processes * own_bytes * cost.told_byte if others else 0.0
    reducing = 2 * others * (network.latency + 4 * cost.n_parameters / n_processes / network.bandwidth)
    slowest = cost.step * shares.max(0).mean()
    working = cost.step * shares.mean()
    updating = cost.update + cost.update_step * shares.max(0).mean() + cost.weighing_step * steps
    return Update(working, slowest - working, gathering + unpacking + reducing, updating, steps)


class Curve(NamedTuple):
    env: str
    network: str
    weak: list[Update]
    strong: list[Update]


def pays_until(updates: list[Update]) -> int:
    """The number of processes from which twice as many are less than 1.2 times as fast."""
    speeds = [each.steps / each.seconds for each in updates]
    for n, slower, faster in zip(N_PROCESSES, speeds, speeds[1:], strict=False):
        if faster < 1.2 * slower:
            return n
    return N_PROCESSES[-1]


def curves(rows: list[Row]) -> list[Curve]:
    found = []
    for env in dict.fromkeys(row["env"] for row in rows):
        alone = [row for row in rows if Setup(*(row[name] for name in Setup._fields)) == Setup(env, 1, SHARE, "timed")]
        step = float(np.median([row["collecting"] * row["seconds"] / row["steps"] for row in alone]))
        quantiles = np.mean([[float(q) for q in row["lengths"].split()] for row in alone], axis=0)
        cost = costs(env, step)
        print(env, {name: f"{value:.3g}" for name, value in cost._asdict().items()})
        for name, network in NETWORKS.items():
            weak = [simulate(n, EACH * n, cost, network, quantiles) for n in N_PROCESSES]
            strong = [simulate(n, TOTAL, cost, network, quantiles) for n in N_PROCESSES]
            found.append(Curve(env, name, weak, strong))
    return found


def table(found: list[Curve]) -> str:
    shown = [2, 8, 64, 256, 1024]
    lines = [
        "| | network | m | " + " | ".join(f"{n:,}" for n in shown) + " | pays until | waiting, talking there |",
        "|---|---|---|" + "---|" * len(shown) + "---|---|",
    ]
    for curve in found:
        for m, updates in ((f"{EACH} each", curve.weak), (f"{TOTAL:,}", curve.strong)):
            speeds = {n: each.steps / each.seconds for n, each in zip(N_PROCESSES, updates, strict=True)}
            until = pays_until(updates)
            there = updates[N_PROCESSES.index(until)]
            ratios = " | ".join(f"{speeds[n] / speeds[1]:,.{int(n < 8)}f}" for n in shown)
            shares = f"{there.waiting / there.seconds:.0%}, {there.talking / there.seconds:.0%}"
            lines.append(f"| {curve.env} | {curve.network} | {m} | {ratios} | {until:,} | {shares} |")
    return "\n".join(lines)


def chart(found: list[Curve], path: Path) -> None:
    """Speed over the number of processes, as much work for each and as much in all; a ring where more stop paying."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.9), sharey=True, layout="constrained")
    colors = dict(zip(dict.fromkeys(each.env for each in found), ("#c1272d", "#0072b2"), strict=False))
    styles = dict(zip(NETWORKS, ("-", "--"), strict=True))
    for axis, kind, title in zip(
        axes, ("weak", "strong"), (f"{EACH} trajectories for each", f"{TOTAL:,} in all"), strict=True
    ):
        axis.plot(N_PROCESSES, N_PROCESSES, color="0.7", label="ideal")
        for curve in found:
            updates = getattr(curve, kind)
            speeds = np.array([each.steps / each.seconds for each in updates])
            ratios = speeds / speeds[0]
            label = f"{curve.env}, {curve.network}"
            axis.plot(N_PROCESSES, ratios, styles[curve.network], color=colors[curve.env], label=label)
            until = pays_until(updates)
            axis.plot(until, ratios[N_PROCESSES.index(until)], "o", mfc="white", color=colors[curve.env])
        axis.set(xscale="log", yscale="log", xlabel="processes", title=title)
        axis.set_xticks(N_PROCESSES[::2], [f"{n:,}" for n in N_PROCESSES[::2]])
        axis.minorticks_off()
        axis.grid(True, color="0.92")
    axes[0].set_ylabel("times the steps a second of one")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=RESULTS / "distributed.csv", help="what distributed.py has measured")
    args = parser.parse_args()
    th.set_num_threads(1)
    found = curves(read(args.rows))
    show("simulation", table(found), args.rows)
    chart(found, args.rows.with_name("simulation.png"))


if __name__ == "__main__":
    main()
