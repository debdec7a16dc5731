"""What ``make bundle`` writes, and that it installs where no index can be reached."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from nnunet_lopsided import __version__
from release import bundle
from release.bundle import EXTRAS, LEFT_OUT, joining_line, main, needed, split

REPOSITORY = Path(__file__).resolve().parents[1]
CHECK = """
import importlib.metadata, sys
import nnunetv2, torch
import nnunet_lopsided
from isal import isal_zlib
from nnunet_lopsided.evaluation import evaluate_folder
from nnunet_lopsided.nnunet.older_versions import find_trainer as find
for module in (nnunet_lopsided, nnunetv2, isal_zlib):
    assert module.__file__.startswith(sys.prefix), module.__file__
assert find("nnUNetTrainerLopsided").__name__ == "nnUNetTrainerLopsided"
print("installed", importlib.metadata.version("nnunet-lopsided"))
"""


def test_all_that_is_needed_but_pytorch():
    without, whole = needed(with_torch=False), needed(with_torch=True)
    assert {"nnunetv2", "numpy", "simpleitk", "isal", "timm", "einops"} <= without.keys()  # einops: nnU-Net's own
    assert without["numpy"] == metadata.version("numpy")
    assert not [name for name in without if name in LEFT_OUT or name.startswith("nvidia") or name == "triton"]
    assert {"torch", "torchvision", "sympy"} <= whole.keys() - without.keys()
    assert without.items() <= whole.items()
    assert EXTRAS == ("study",)
    assert ("snakemake" in without) == (sys.version_info >= (3, 11))


def test_what_is_not_installed_is_named(monkeypatch, tmp_path, capsys):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", version)
    assert main(["-o", str(tmp_path / "out")]) == 2
    assert re.fullmatch(
        r"bundle: error: \S+ is needed and not installed here; run: make venv\n", capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_parts_of_no_size(tmp_path, capsys):
    assert main(["-o", str(tmp_path / "out"), "--part-mb", "0"]) == 2
    assert "at least one byte, got PART_MB=0" in capsys.readouterr().err


@pytest.mark.parametrize("n_bytes", [1000, 4096, 10_240, 10**6])
def test_parts_make_the_folder_again(tmp_path, n_bytes):
    folder = tmp_path / "made" / "wheels"
    parts = tmp_path / "parts"
    folder.mkdir(parents=True)
    parts.mkdir()
    content = {f"{i}.whl": os.urandom(3000 * i) for i in range(4)}
    for name, data in content.items():
        (folder / name).write_bytes(data)
    split(folder, parts, n_bytes)
    written = sorted(parts.glob("wheels.tar.part-*"))
    assert [part.name for part in written][:2] == [f"wheels.tar.part-{i:03d}" for i in range(2)][: len(written)]
    assert all(part.stat().st_size == n_bytes for part in written[:-1])
    assert 0 < written[-1].stat().st_size <= n_bytes
    sums = dict(reversed(line.split()) for line in (parts / "SHA256SUMS").read_text().splitlines())
    assert sums == {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in written}
    subprocess.run(joining_line("wheels"), shell=True, check=True, cwd=parts)
    assert {path.name: path.read_bytes() for path in (parts / "wheels").iterdir()} == content


def shared_pytorch(site_packages: Path) -> None:
    """What somebody has who has PyTorch: links to that of this environment, and to what it needs."""
    for package in bundle._closure(LEFT_OUT):
        distribution = metadata.distribution(package)
        for top in {Path(str(file)).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            link, target = site_packages / top, Path(str(distribution.locate_file(top)))
            if not link.exists() and target.exists():
                link.symlink_to(target)


@pytest.mark.slow
def test_installs_where_no_index_can_be_reached(tmp_path):
    """The wheels come by pip's own configuration; then everything that could lead pip to an index is cut off."""
    command = [sys.executable, str(REPOSITORY / "release" / "bundle.py"), "-o", str(tmp_path), "--part-mb", "60"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (parts,) = tmp_path.glob("*-parts")
    assert max(part.stat().st_size for part in parts.iterdir()) <= 60 * 10**6
    name = parts.name.removesuffix("-parts")
    received = tmp_path / "received"
    parts.rename(received)
    subprocess.run(joining_line(name), shell=True, check=True, cwd=received)
    assert len((received / name / "README.txt").read_text().splitlines()) == 5

    hidden = ("nnUNet", "NNUNET", "PYTHON", "VIRTUAL_ENV", "PIP_", "HTTP", "http", "ALL_PROXY", "all_proxy")
    cut_off = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    nowhere = "http://127.0.0.1:9"
    cut_off |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere}

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=received, env=cut_off, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    python = received / "environment" / "bin" / "python"
    run(sys.executable, "-m", "venv", received / "environment")
    shared_pytorch(Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()))
    line = next(line for line in (received / name / "README.txt").read_text().splitlines() if "pip install" in line)
    run("/bin/sh", "-c", f"{python} -m {line.strip()} --disable-pip-version-check --quiet")
    assert run(python, "-c", CHECK).strip().endswith(f"installed {__version__}")
    assert "usage: lopsided-eval" in run(python.parent / "lopsided-eval", "--help")
    assert "No broken requirements" in run(python, "-m", "pip", "check", "--disable-pip-version-check")
