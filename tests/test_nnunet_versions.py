"""What ``make versions`` does, with stand-ins for pip and pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nnunet_lopsided.nnunet.older_versions import TESTED
from tests import nnunet_versions
from tests.nnunet_versions import NotToBeHad, environment_of, main, overlay, unmet

# None of these is installed in the tests' environment.
OTHER = "2.6.99"


def put(folder: Path, name: str, version: str, *requires: str) -> None:
    """A package as pip leaves it."""
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir(parents=True)
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    (place / "METADATA").write_text("\n".join(lines) + "\n")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Requirements of each call of pip; nnU-Net requires a package that requires another, both not there yet."""
    calls: list[list[str]] = []

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        at = command.index("--target")
        assert command[:4] == [sys.executable, "-m", "pip", "install"]
        assert "--no-deps" in command[:at]
        folder, wanted = Path(command[at + 1]), command[at + 2 :]
        calls.append(wanted)
        for requirement in wanted:
            name, _, rest = requirement.partition("==" if "==" in requirement else ">=")
            requires = {"nnunetv2": ["numpy", "lacking-one>=1", "torch!=1.0", "extra-one; extra == 'dev'"]}
            put(folder, name, rest, *requires.get(name, ["lacking-two>=2"] if name == "lacking-one" else []))
        return SimpleNamespace(returncode=1 if "nothing" in str(folder) else 0)

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_an_overlay_holds_nnunet_and_what_the_environment_lacks(pip: list[list[str]], tmp_path: Path) -> None:
    made = overlay(OTHER, tmp_path)
    assert made is not None
    assert pip == [[f"nnunetv2=={OTHER}"], ["lacking-one>=1"], ["lacking-two>=2"]]
    assert [path.name for path in tmp_path.iterdir()] == [made.name]
    assert list(unmet(made)) == []
    assert overlay(OTHER, tmp_path) == made
    assert len(pip) == 3, "it is made once"


def test_no_overlay_for_what_is_installed(pip: list[list[str]], tmp_path: Path) -> None:
    assert overlay(metadata.version("nnunetv2"), tmp_path) is None
    assert pip == []


def test_a_version_that_cannot_be_had(pip: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotToBeHad, match=r"pip could not install nnunetv2==2\.6\.99 into "):
        overlay(OTHER, tmp_path / "nothing")
    assert not list((tmp_path / "nothing").iterdir()), "what was begun is gone"
    assert main(["--nnunet", "newest", "--folder", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "versions: error: expected versions of nnU-Net such as 2.6.4, found 'newest'\n"


def test_an_overlay_is_found_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.setenv("PATH", "/bin")
    environment = environment_of(tmp_path)
    assert environment["PYTHONPATH"] == f"{tmp_path}{os.pathsep}/mine"
    assert environment["PATH"] == f"{tmp_path / 'bin'}{os.pathsep}/bin"
    monkeypatch.delenv("PYTHONPATH")
    assert environment_of(tmp_path)["PYTHONPATH"] == str(tmp_path)
    assert environment_of(None) == dict(os.environ)
    put(tmp_path, "nnunetv2", OTHER)
    program = "from importlib.metadata import version; print(version('nnunetv2'))"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{OTHER}\n"


def test_the_tests_run_with_each_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(nnunet_versions, "overlay", lambda version, folder: folder / version)

    def run(command: list[str], *, env: dict[str, str], **options: Any) -> SimpleNamespace:
        version = Path(env["PYTHONPATH"].split(os.pathsep)[0]).name
        asked.append((version, command[1:]))
        return SimpleNamespace(returncode=0 if version != "2.7.0" else 5)

    monkeypatch.setattr(subprocess, "run", run)
    for_pytest = ["-m", "pytest", "-n", "2", "--dist", "loadfile", "tests/trainers", "-m", "not slow"]
    assert main(["--folder", str(tmp_path), "tests/trainers", "-m", "not slow"]) == 1
    assert asked == [(version, for_pytest) for version in TESTED]
    shown = capsys.readouterr().out.splitlines()[-3:]
    assert shown == ["nnU-Net 2.6.4: passed", "nnU-Net 2.7.0: pytest ended with 5", "nnU-Net 2.8.1: passed"]
    assert main(["--nnunet", "2.6.4 2.8.1", "--folder", str(tmp_path)]) == 0
