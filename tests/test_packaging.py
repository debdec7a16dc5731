"""The built wheel in a fresh environment: nnU-Net finds our trainers without anything being set.

The editable install is the environment the tests run in: see trainers/test_lookup.py.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from nnunet_lopsided import __version__

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[1]
NAMES = ("nnUNetTrainerLopsided", "nnUNetTrainerLopsided_a10_b0p5_w5_100epochs_250iters")
CHECK = """
import multiprocessing, os, pickle, sys
import nnunet_lopsided
from nnunet_lopsided import trainers
from nnunet_lopsided.nnunet.older_versions import find_trainer as find

def main(home, names):
    print("package", nnunet_lopsided.__file__)
    print("variable", os.environ["nnUNet_extTrainer"])
    assert nnunet_lopsided.__file__.startswith(home), nnunet_lopsided.__file__
    classes = [find(name) for name in names]
    for name, found in zip(names, classes):
        assert found is getattr(trainers, name)
        assert pickle.loads(pickle.dumps(found)) is found
        assert sys.modules[found.__mro__[1].__module__].__file__.startswith(home)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(find, names) == classes
    print("resolved", *names)

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Output of a command that knows nothing of this test's environment."""
    hidden = ("nnUNet", "NNUNET", "PYTHON", "VIRTUAL_ENV", "PIP_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build needs of the repository, copied, so that no build output lands in it."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "nnunet_lopsided.pth"):
        shutil.copy(REPOSITORY / name, folder)
    shutil.copytree(
        REPOSITORY / "nnunet_lopsided", folder / "nnunet_lopsided", ignore=shutil.ignore_patterns("__pycache__")
    )
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source, cwd=folder)
    (built,) = folder.iterdir()
    return built


def test_the_index_shows_links_that_lead_somewhere(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert [link for link in links if not link.startswith("https://")] == []
    assert any(link.endswith("/blob/main/docs/explanation/when-it-helps.md") for link in links)
    assert any("raw." in link and link.endswith("/main/docs/assets/answer.svg") for link in links)
    assert "Project-URL: Repository, https://" in text


def fresh_environment(folder: Path) -> Path:
    """A new environment that borrows the heavy packages of this one; gives its Python.

    A line in a .pth file only extends sys.path: the borrowed folder's own .pth files, our editable install among them,
    are not processed, and its place is behind the new environment's site-packages. Before it comes the nnU-Net of these
    tests, which need not be the environment's (tests/nnunet_versions.py).
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    site_packages = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    (nnunet,) = importlib.import_module("nnunetv2").__path__
    (site_packages / "zz_borrowed.pth").write_text(f"{Path(nnunet).parent}\n{sysconfig.get_path('purelib')}\n")
    return python


def install(python: Path, *what: str | Path) -> None:
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "--quiet")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, *what, cwd=python.parent)


def check_trainers(python: Path, home: Path, tmp_path: Path) -> str:
    (tmp_path / "check.py").write_text(CHECK)
    return run(python, "check.py", home, *NAMES, cwd=tmp_path)


def test_content_of_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name == f"nnunet_lopsided-{__version__}-py3-none-any.whl"
    assert "nnunet_lopsided.pth" in names
    assert "nnunet_lopsided/trainers/plugin/nnunet_lopsided_trainers.py" in names
    assert "nnunet_lopsided/py.typed" in names
    files = [p for p in (REPOSITORY / "nnunet_lopsided").rglob("*") if p.suffix in (".py", ".css", ".js", ".yaml")]
    files.append(REPOSITORY / "nnunet_lopsided" / "study" / "Snakefile")
    sources = {p.relative_to(REPOSITORY).as_posix() for p in files}
    assert sources <= set(names)
    top = {name.split("/")[0] for name in names}
    assert top == {"nnunet_lopsided", "nnunet_lopsided.pth", f"nnunet_lopsided-{__version__}.dist-info"}
    # nnU-Net imports every module of the folder: there must be no other.
    plugin = [name for name in names if name.startswith("nnunet_lopsided/trainers/plugin/")]
    assert plugin == ["nnunet_lopsided/trainers/plugin/nnunet_lopsided_trainers.py"]


def test_the_wheel_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    python = fresh_environment(tmp_path / "venv")
    show = "import os; print(os.environ.get('nnUNet_extTrainer'))"
    assert run(python, "-c", show, cwd=tmp_path) == "None\n"
    install(python, wheel)
    out = check_trainers(python, tmp_path / "venv", tmp_path)
    assert out.splitlines()[-1] == f"resolved {' '.join(NAMES)}"
    assert f"variable {tmp_path / 'venv'}" in out
    for command in ("convert", "censor", "share", "soften", "plan", "eval", "study", "demo", "env", "doctor"):
        assert (python.parent / f"lopsided-{command}").is_file()
    line = run(python.parent / "lopsided-env", cwd=tmp_path)
    assert line.startswith(f"export nnUNet_extTrainer={tmp_path / 'venv'}")

    run(sys.executable, "-m", "pip", "--python", python, "uninstall", "-y", "-q", "nnunet-lopsided", cwd=tmp_path)
    assert run(python, "-c", show, cwd=tmp_path) == "None\n"
