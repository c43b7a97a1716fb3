"""Evaluate the agent that ``make demo`` trained and draw its learning curve.

python benchmarks/demo.py [-f logs/demo] [--env CartPole-v1] [--out demo.png]
"""

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from sb3_reinforce.zoo.runs import evaluate_last_model, latest_run, training_curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-f", "--log-folder", default="logs/demo")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--out", default="logs/demo/learning_curve.png")
    args = parser.parse_args()

    run = latest_run(args.log_folder, "reinforce", args.env)
    returns = evaluate_last_model(run, "reinforce", args.env)
    curve = training_curve(run)
    print(f"{len(returns)} episodes, deterministic actions: return {returns.mean():.1f} ± {returns.std():.1f}")

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(curve["steps"], curve["return"], ".", markersize=3, alpha=0.35, color="tab:blue", label="training episode")
    axes.plot(curve["steps"], curve["return"].rolling(20, min_periods=1).mean(), color="tab:blue", label="mean of the last 20")
    if (run / "evaluations.npz").is_file():
        evaluations = np.load(run / "evaluations.npz")
        axes.plot(evaluations["timesteps"], evaluations["results"].mean(axis=1), "o-", color="tab:orange", label="evaluation")
    axes.set(
        xlabel="environment steps",
        ylabel="return",
        title=f"REINFORCE on {args.env}: {curve['seconds'].iloc[-1]:.0f} s of training",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(args.out, dpi=150)
    print(f"Learning curve: {args.out}")


if __name__ == "__main__":
    main()
