"""Where does the time of a training run on CartPole-v1 go? Sampled from outside by py-spy, which slows it little.

pip install py-spy
python benchmarks/profile_steps.py --n-envs 1 8
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

PROGRAM = """
import torch
from stable_baselines3.common.env_util import make_vec_env
from sb3_reinforce import REINFORCE
torch.set_num_threads(1)
env = make_vec_env("CartPole-v1", {n_envs})
REINFORCE("MlpPolicy", env, n_episodes={n_episodes}, device="cpu", seed=0).learn({steps})
"""
#: A part of a run, and the functions called by ``learn`` or ``_collect`` that it consists of.
PARTS = {
    "environments": "step",
    "choosing actions": "__call__|act|environment_actions|<lambda>",
    "update": "train",
    "storing": "add|_finish",
    "callback": "update_locals|on_step",
}


def shares(n_envs: int, steps: int) -> dict[str, float]:
    """Share of the samples inside ``learn`` by part of the run; the rest is the loop itself and the ends of episodes."""
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder, "stacks")
        program = PROGRAM.format(n_envs=n_envs, n_episodes=max(16, 2 * n_envs), steps=steps)
        command = ["py-spy", "record", "--rate", "500", "--format", "raw", "--output", str(stacks), "--"]
        subprocess.run([*command, sys.executable, "-c", program], check=True, capture_output=True)
        samples = Counter[str]()
        for line in stacks.read_text().splitlines():
            stack, count = line.rsplit(" ", 1)
            functions = [frame.split(" (")[0].rsplit(".", 1)[-1] for frame in stack.split(";")]
            if "learn" in functions:
                samples[part_of(functions)] += int(count)
    return {part: count / samples.total() for part, count in samples.items()}


def part_of(functions: list[str]) -> str:
    """The part of a run that a stack is in.

    :param functions: names of the functions, the outermost first, with ``learn`` among them
    """
    functions = [name for name in functions if name != "inner"]  # numpy's, around what ``np.errstate`` decorates
    # What the innermost loop calls: ``learn`` calls ``train``, and ``_collect`` the rest.
    last = max(i for i, name in enumerate(functions) if name in ("learn", "_collect"))
    called = functions[last + 1] if last + 1 < len(functions) else ""
    return next((part for part, names in PARTS.items() if re.fullmatch(names, called)), "the rest")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-envs", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--steps", type=int, default=150_000)
    args = parser.parse_args()
    found = [shares(n_envs, args.steps) for n_envs in args.n_envs]
    print(f"{'environments at once':20s}" + "".join(f"{n_envs:>7d}" for n_envs in args.n_envs))
    for part in (*PARTS, "the rest"):
        print(f"{part:20s}" + "".join(f"{share.get(part, 0.0):>7.0%}" for share in found))


if __name__ == "__main__":
    main()
