"""Two machines that train one model: two network namespaces, each with an address of its own, between them a cable."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from torch import distributed as dist

from sb3_reinforce import REINFORCE

CAN = sys.platform == "linux" and dist.is_available() and shutil.which("ip") and os.geteuid() == 0
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CAN, reason="network namespaces need root, and iproute2")]

NAMES, ADDRESSES = ("sb3_reinforce_0", "sb3_reinforce_1"), ("10.77.0.1", "10.77.0.2")
#: Within which both launches have to end once a process was killed, in seconds.
NOTICED = 60

SCRIPT = """
import glob, os, sys
import gymnasium as gym
from stable_baselines3.common.callbacks import CheckpointCallback
from sb3_reinforce import REINFORCE

newest = max(glob.glob("checkpoints/*.zip"), key=os.path.getmtime, default=None)
if newest is None:
    settings = dict(n_episodes=4, gamma=0.999, return_type="reward_to_go", baseline="time_leave_one_out",
                    normalize_advantage=True, learning_rate=lambda left: 0.01 * left, n_epochs=10, min_effective_share=0.9)
    model = REINFORCE("MlpPolicy", "CartPole-v1", seed=0, **settings)
else:
    model = REINFORCE.load(newest, env=gym.make("CartPole-v1"))
print(os.environ["RANK"], os.getpid(), newest, model.num_timesteps, flush=True)
model.learn(60_000 - model.num_timesteps, CheckpointCallback(500, "checkpoints"), reset_num_timesteps=False)
model.save("model")
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def _machines() -> Iterator[None]:
    """Two namespaces, and the two ends of a cable in them."""
    for name in NAMES:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)  # of a test that was killed
    ends = ("sb3r0", "sb3r1")
    try:
        for name in NAMES:
            ip("netns", "add", name)
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for name, end, address in zip(NAMES, ends, ADDRESSES, strict=True):
            ip("link", "set", end, "netns", name)
            for command in (
                ("addr", "add", f"{address}/24", "dev", end),
                ("link", "set", end, "up"),
                ("link", "set", "lo", "up"),
            ):
                ip("-n", name, *command)
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def launch(folder: Path) -> list[subprocess.Popen[Any]]:
    """One process on each machine."""
    launches = []
    for number, name in enumerate(NAMES):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={number}", "--nproc-per-node=1"]
        command = [*torchrun, "--master-addr", ADDRESSES[0], "--master-port", "29511", "script.py"]
        environ = {
            **os.environ,
            "GLOO_SOCKET_IFNAME": f"sb3r{number}",
            "PYTHONPATH": os.getcwd(),
            "OMP_NUM_THREADS": "1",
        }
        with open(folder / f"output{number}.txt", "w") as output:
            launches.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", name, *command], cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT
                )
            )
    return launches


def started(folder: Path, number: int) -> tuple[int, int]:
    """Process id of the process on a machine, and the number of steps from which it goes on."""
    deadline = time.monotonic() + 60
    while True:
        for line in (folder / f"output{number}.txt").read_text().splitlines():
            words = line.split()
            if len(words) == 4 and words[0] == str(number):
                return int(words[1]), int(words[3])
        assert time.monotonic() < deadline, (folder / f"output{number}.txt").read_text()
        time.sleep(0.2)


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.stem.split("_")[-2]) for path in folder.glob("checkpoints/*.zip"))


@pytest.mark.usefixtures("_machines")
def test_one_is_killed_and_training_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    launches = launch(tmp_path)
    try:
        victim, first = started(tmp_path, 1)
        assert first == 0
        while not checkpoints(tmp_path) or checkpoints(tmp_path)[-1] < 10_000:
            assert all(each.poll() is None for each in launches), (tmp_path / "output0.txt").read_text()
            time.sleep(0.1)
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        assert all(each.wait(NOTICED) != 0 for each in launches)
        print(f"both ended {time.monotonic() - killed:.1f} s after one was killed")
        newest = checkpoints(tmp_path)[-1]

        launches = launch(tmp_path)
        assert [started(tmp_path, number)[1] for number in (0, 1)] == [newest, newest]
        assert [each.wait(600) for each in launches] == [0, 0], (tmp_path / "output0.txt").read_text()
    finally:
        for each in launches:
            each.kill()
    model = REINFORCE.load(tmp_path / "model")
    assert model.num_timesteps >= 60_000
    mean, _ = evaluate_policy(model, make_vec_env("CartPole-v1", seed=100), n_eval_episodes=20, warn=False)
    assert mean >= 475
