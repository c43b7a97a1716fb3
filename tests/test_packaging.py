"""What is published is whole: built, installed in a fresh environment, and used outside of the clone."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("build")
pytest.importorskip("rl_zoo3")

ROOT = Path(__file__).parent.parent
FILES = {path.name for path in (ROOT / "hyperparams").glob("*.yml")}
pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the wheel. What it depends on is that of this environment."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    run(sys.executable, "-m", "venv", folder, cwd=built)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    (wheel,) = built.glob("*.whl")
    run(programs / "python", "-m", "pip", "install", "--no-index", "--no-deps", wheel, cwd=built)
    purelib = run(programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=built).strip()
    Path(purelib, "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # adds no editable install that is there
    return programs


def test_the_wheel_has_code_hyperparameters_and_licence_alone(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {Path(name).name for name in names if name.startswith("sb3_reinforce/hyperparams/")} == FILES
    assert {"sb3_reinforce/py.typed", "sb3_reinforce/zoo/compare.py", "sb3_reinforce/contrib/masks.py"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"sb3_reinforce"}


def test_the_sdist_has_what_the_tests_take(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"hyperparams/{name}" for name in FILES} <= names
    assert {"README.md", "CHANGELOG.md", "LICENSE", "docs/textbook.py", "benchmarks/README.md", "tests/envs.py"} <= names
    assert not any(name.startswith((".venv", "logs/", "dist/")) for name in names)


def test_an_agent_is_trained_outside_of_the_clone(installed: Path, tmp_path: Path) -> None:
    """With the hyperparameters of the wheel, and for a user who has registered nothing."""
    where = run(installed / "python", "-c", "import sb3_reinforce; print(sb3_reinforce.__file__)", cwd=tmp_path)
    assert installed.parent in Path(where.strip()).parents
    assert run(installed / "sb3-reinforce", "--version", cwd=tmp_path).startswith("sb3_reinforce ")
    train = ("train", "--env", "CartPole-v1", "-n", 200, "--eval-freq", -1, "-f", "logs", "--num-threads", 1)
    run(installed / "sb3-reinforce", *train, cwd=tmp_path)
    assert (tmp_path / "logs/reinforce/CartPole-v1_1/CartPole-v1.zip").is_file()
    textbook = ("train", "--conf-file", "reinforce_textbook.yml", *train[1:])
    run(installed / "sb3-reinforce", *textbook, cwd=tmp_path)
    assert "n_episodes" not in (tmp_path / "logs/reinforce/CartPole-v1_2/CartPole-v1/config.yml").read_text()
