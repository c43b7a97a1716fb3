"""Which estimator buys how many trajectories? The measured variance of ĝ.

    python benchmarks/variance.py                # all three environments: about half an hour
    python benchmarks/variance.py --env CartPole-v1 --batches 50 --output variance.csv

For a policy that is held fixed, rollouts are collected as in training, and every estimator makes its ĝ of the same
batches. The variance is that of ĝ summed over parameters, with a bootstrap interval over batches; the bias, where the
gradient is known exactly, is that of the mean of ĝ in standard errors. Rows that are there are not measured again.
"""

import argparse
from pathlib import Path

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import records
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger

from sb3_reinforce import REINFORCE
from sb3_reinforce.critic import fit
from sb3_reinforce.evaluation import Evaluator
from sb3_reinforce.weights import Family, targets

ESTIMATORS = {
    "R(τ)": {},
    "R(τ), leave-one-out": {"baseline": "leave_one_out"},
    "R(τ), optimal": {"baseline": "optimal"},
    "R(τ), moving average": {"baseline": "moving_average"},
    "R(τ), value": {"baseline": "value"},
    "Gₜ": {"return_type": "reward_to_go"},
    "Gₜ, leave-one-out": {"return_type": "reward_to_go", "baseline": "leave_one_out"},
    "Gₜ, time leave-one-out": {"return_type": "reward_to_go", "baseline": "time_leave_one_out"},
    "Gₜ, optimal": {"return_type": "reward_to_go", "baseline": "optimal"},
    "Gₜ, value": {"return_type": "reward_to_go", "baseline": "value"},
}
SIZES = (2, 4, 8, 16, 32)
HORIZONS = (10, 20, 40, 80)


class Chain(gym.Env[int, int]):
    """Five states in a row. Going right costs, the last state pays; one step in ten goes the other way. 10 steps."""

    observation_space = gym.spaces.Discrete(5)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[int, dict]:
        super().reset(seed=seed)
        self.state, self.n_steps = 0, 0
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        right = bool(action) != (self.np_random.random() < 0.1)
        self.state = min(self.state + 1, 4) if right else max(self.state - 1, 0)
        self.n_steps += 1
        reward = (2.0 if self.state == 4 else 0.5) - 0.2 * action
        return self.state, reward, False, self.n_steps == 10, {}


def exact_gradient(model: REINFORCE) -> np.ndarray:
    """∇U(θ) of the chain, by dynamic programming through the policy's own probabilities, for all its parameters."""
    probabilities = model.policy.get_distribution(th.arange(5)).distribution.probs.double()
    state, objective = th.eye(5, dtype=th.float64)[0], th.zeros((), dtype=th.float64)
    goes_right = probabilities[:, 1] * 0.9 + probabilities[:, 0] * 0.1
    up, down = th.eye(5, dtype=th.float64)[[1, 2, 3, 4, 4]], th.eye(5, dtype=th.float64)[[0, 0, 1, 2, 3]]
    pays = th.tensor([0.5, 0.5, 0.5, 0.5, 2.0], dtype=th.float64)
    for t in range(10):
        cost = 0.2 * (state * probabilities[:, 1]).sum()
        state = (state * goes_right) @ up + (state * (1 - goes_right)) @ down
        objective = objective + model.gamma**t * (state @ pays - cost)
    gradients = th.autograd.grad(objective, list(model.policy.parameters()), allow_unused=True)
    filled = [th.zeros_like(p) if g is None else g for p, g in zip(model.policy.parameters(), gradients, strict=True)]
    return th.cat([gradient.flatten() for gradient in filled]).double().numpy()


ENVIRONMENTS = {
    "Chain": (Chain, {"gamma": 1.0, "policy_kwargs": {"net_arch": []}}, 2_000),
    "CartPole-v1": ("CartPole-v1", {"gamma": 1.0, "horizon": 100}, 8_000),
    "Pendulum-v1": ("Pendulum-v1", {"gamma": 1.0, "horizon": 50}, 8_000),
}


def fixed_policy(env: str, horizon: int | None) -> REINFORCE:
    """A policy trained a little, its value network and moving average fitted, to be held fixed from here on."""
    make, options, steps = ENVIRONMENTS[env]
    options = {**options, "horizon": horizon} if horizon else options
    vec_env = make_vec_env(make, n_envs=1, seed=0)
    training = {"n_episodes": 8, "return_type": "reward_to_go", "baseline": "value", "normalize_advantage": True}
    model = REINFORCE("MlpPolicy", vec_env, learning_rate=1e-3, seed=0, **training, **options)
    model.learn(steps)
    model.normalize_advantage = False
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def fit_value(model: REINFORCE, callback) -> None:
    """Fit V to what the estimator at hand multiplies ∇log π with, on pilot batches that are not measured."""
    model.n_episodes = 32
    # The value network's own parameters, which share nothing with the policy here.
    own = [*model.policy.mlp_extractor.value_net.parameters(), *model.policy.value_net.parameters()]
    for _ in range(10):
        model.collect_rollouts(model.env, callback, model.rollout_buffer, 0)
        for group in model.policy.optimizer.param_groups:
            group["lr"] = 1e-2
        batch = model.rollout_buffer.batch()
        expected = targets(batch.rewards, batch.lengths, Family(model.gamma, model.return_type))
        fit(Evaluator(model.policy, batch, None), expected, own, 100, model.vf_coef, model.max_grad_norm)


def gradients(model: REINFORCE, sizes: tuple[int, ...], n_batches: int) -> dict[tuple[str, int], np.ndarray]:
    """ĝ of each estimator for ``n_batches`` batches of each size, float64 ``[n_batches, P]``."""
    _, callback = model._setup_learn(1)
    values = {}
    for return_type in ("trajectory", "reward_to_go"):
        model.return_type = return_type
        fit_value(model, callback)
        values[return_type] = [parameter.detach().clone() for parameter in model.policy.parameters()]
    collected: dict[tuple[str, int], list[np.ndarray]] = {}
    for size in sizes:
        model.n_episodes = size
        for _ in range(n_batches):
            model.collect_rollouts(model.env, callback, model.rollout_buffer, 0)
            for name, options in ESTIMATORS.items():
                model.return_type = options.get("return_type", "trajectory")
                model.baseline = options.get("baseline")
                with th.no_grad():
                    for parameter, value in zip(model.policy.parameters(), values[model.return_type], strict=True):
                        parameter.copy_(value)
                estimates, _ = model.trajectory_estimates()
                collected.setdefault((name, size), []).append(estimates.double().mean(0).numpy())
    return {key: np.array(batches) for key, batches in collected.items()}


def summary(batches: np.ndarray, exact: np.ndarray | None, generator: np.random.Generator) -> dict[str, float]:
    """Variance of ĝ summed over parameters, its 95 % interval over batches, and the bias in standard errors."""
    deviations = ((batches - batches.mean(0)) ** 2).sum(1) * len(batches) / (len(batches) - 1)
    resampled = generator.choice(deviations, size=(2000, len(batches))).mean(1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    row = {"variance": deviations.mean(), "low": low, "high": high}
    if exact is not None:
        error = batches.std(0, ddof=1) / np.sqrt(len(batches))
        known = error > 0
        row["bias_z"] = np.abs((batches.mean(0) - exact)[known] / error[known]).max()
    return row


def measure(env: str, horizon: int | None, sizes: tuple[int, ...], n_batches: int, output: Path) -> None:
    model = fixed_policy(env, horizon)
    exact = exact_gradient(model) if env == "Chain" else None
    generator = np.random.default_rng(0)
    for (name, size), batches in gradients(model, sizes, n_batches).items():
        measured = {"variance": 0.0, "low": 0.0, "high": 0.0, "bias_z": float("nan"), **summary(batches, exact, generator)}
        key = {"env": env, "horizon": model.horizon or 10, "estimator": name, "m": size, "batches": n_batches}
        records.append(output, {**key, **{k: float(f"{v:.6g}") for k, v in measured.items()}, **records.provenance()})


def chart(rows: pd.DataFrame, path: Path) -> None:
    """Variance against m for each environment, and against the horizon for CartPole-v1, each with a policy trained at it."""
    envs = environments(rows)
    n_panels = len(envs) + ("CartPole-v1" in envs)
    figure, axes = plt.subplots(1, n_panels, figsize=(4.5 * n_panels, 5), layout="constrained", squeeze=False)
    colours = dict(zip(ESTIMATORS, plt.get_cmap("tab10").colors, strict=True))
    panels = [(env, "m", rows[(rows["env"] == env) & (rows["horizon"] == base_horizon(env))]) for env in envs]
    if "CartPole-v1" in envs:
        panels.append(("CartPole-v1, m = 16", "horizon", rows[(rows["env"] == "CartPole-v1") & (rows["m"] == 16)]))
    for axis, (title, x, part) in zip(axes[0], panels, strict=True):
        for name, of_one in part.groupby("estimator", sort=False):
            of_one = of_one.sort_values(x)
            style = "-" if name.startswith("R") else "--"
            axis.plot(of_one[x], of_one["variance"], style, marker="o", markersize=3, color=colours[name], label=name)
            axis.fill_between(of_one[x], of_one["low"], of_one["high"], color=colours[name], alpha=0.15)
        axis.set(xscale="log", yscale="log", title=title, xlabel="m, trajectories" if x == "m" else "H, steps")
        axis.set_xticks(sorted(part[x].unique()), [str(value) for value in sorted(part[x].unique())], minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("variance of ĝ, summed over parameters")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    figure.savefig(path, dpi=130)


def base_horizon(env: str) -> int:
    return ENVIRONMENTS[env][1].get("horizon", 10)


def environments(rows: pd.DataFrame) -> list[str]:
    return [env for env in ENVIRONMENTS if env in set(rows["env"])]


def table(rows: pd.DataFrame) -> str:
    """At m = 16: how many trajectories of the textbook estimator one trajectory of each estimator is worth; and the slope of
    log variance over log m, from m = 4."""
    envs = environments(rows)
    lines = ["| | " + " | ".join(envs) + " | slope in m |", "|---" * (len(envs) + 2) + "|"]
    for name in ESTIMATORS:
        cells, slopes = [], []
        for env in envs:
            part = rows[(rows["env"] == env) & (rows["horizon"] == base_horizon(env))]
            of_one = part[part["estimator"] == name].sort_values("m")
            at_16 = part[part["m"] == 16].set_index("estimator")
            plain, own = at_16.loc["R(τ)"], at_16.loc[name]
            worth = [plain["variance"] / own[bound] for bound in ("variance", "high", "low")]
            cells.append("{:.1f} ({:.1f} to {:.1f})".format(*worth))
            large = of_one[of_one["m"] >= 4]
            slopes.append(np.polyfit(np.log(large["m"]), np.log(large["variance"]), 1)[0])
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {min(slopes):.2f} to {max(slopes):.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", nargs="+", choices=ENVIRONMENTS, default=list(ENVIRONMENTS))
    parser.add_argument("--batches", type=int, default=100, help="batches of each size; rows of other numbers are not shown")
    parser.add_argument("--output", type=Path, default=records.RESULTS / "variance.csv")
    args = parser.parse_args()
    th.set_num_threads(1)

    done = {(row["env"], row["horizon"], row["batches"]) for row in records.read(args.output)}
    work = [(env, None, base_horizon(env), SIZES) for env in args.env]
    if "CartPole-v1" in args.env:
        work += [("CartPole-v1", horizon, horizon, (16,)) for horizon in HORIZONS]
    for env, horizon, effective, sizes in work:
        if (env, effective, args.batches) not in done:
            print(f"{env}, horizon {effective}", flush=True)
            measure(env, horizon, sizes, args.batches, args.output)
    rows = pd.DataFrame(records.read(args.output))
    rows = rows[rows["batches"] == args.batches]
    chart(rows, args.output.with_suffix(".png"))
    records.show("variance", table(rows), args.output)


if __name__ == "__main__":
    main()
