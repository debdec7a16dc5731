"""Run the tests with each version of nnU-Net that people have: what ``make versions`` does.

    python tests/nnunet_versions.py  # all tests, with every version of TESTED
    python tests/nnunet_versions.py --nnunet "2.6.4 2.7.0" tests/trainers -m "not slow"

A version is laid over the environment instead of installed into it: a folder of its own holds nnU-Net, and what it
requires in another version than the environment has, and lies first on ``PYTHONPATH`` of pytest and of all commands
that tests start. It is made once, outside of the repository, and takes megabytes: PyTorch is the environment's.

Whatever else is given goes to pytest. Exit code 0: the tests pass with every version; 1: not with each; 2: a version
could not be had.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from nnunet_lopsided.nnunet.older_versions import TESTED

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = Path.home() / ".cache" / "nnunet-lopsided-versions"
_PYTEST = ("-m", "pytest", "-n", "2", "--dist", "loadfile")


class NotToBeHad(Exception):
    """An overlay of a version that cannot be made; the message is one line."""


def main(argv: list[str] | None = None) -> int:
    """Run the tests with each version; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--nnunet", default=" ".join(TESTED), metavar="VERSIONS", help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the overlays (default: %(default)s)")
    arguments, for_pytest = parser.parse_known_args(argv)
    outcomes: dict[str, int] = {}
    for version in arguments.nnunet.split():
        try:
            environment = environment_of(overlay(version, arguments.folder))
        except NotToBeHad as error:
            print(f"versions: error: {error}", file=sys.stderr)
            return 2
        print(f"--- nnU-Net {version}", flush=True)
        command = [sys.executable, *_PYTEST, *for_pytest]
        outcomes[version] = subprocess.run(command, cwd=REPOSITORY, env=environment, check=False).returncode
    for version, code in outcomes.items():
        print(f"nnU-Net {version}: {'passed' if code == 0 else f'pytest ended with {code}'}")
    return 0 if not any(outcomes.values()) else 1


def overlay(version: str, folder: Path) -> Path | None:
    """The folder that makes this version of nnU-Net the one that Python finds; made if need be.

    Args:
        version: of nnU-Net.
        folder: of all overlays.

    Returns:
        None where the environment itself has this version.

    Raises:
        NotToBeHad: pip cannot install it, or what it requires.
    """
    try:
        wanted = Version(version)
    except InvalidVersion:
        raise NotToBeHad(f"expected versions of nnU-Net such as {TESTED[0]}, found {version!r}") from None
    if metadata.version("nnunetv2") == str(wanted):
        return None
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    made = folder / f"nnunetv2-{wanted}-{python}"
    if made.is_dir():
        return made
    unfinished = made.with_name(f"{made.name}.{os.getpid()}")
    try:
        _pip_install(unfinished, f"nnunetv2=={wanted}")
        installed: set[str] = set()
        while missing := sorted(set(unmet(unfinished)) - installed):
            _pip_install(unfinished, *missing)
            installed |= set(missing)
        unfinished.rename(made)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return made


def unmet(folder: Path) -> Iterator[str]:
    """What the packages of an overlay require and neither it nor the environment has, as pip takes it."""
    for package in metadata.distributions(path=[str(folder)]):
        for line in package.requires or ():
            requirement = Requirement(line)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            found = next(iter(metadata.distributions(name=requirement.name, path=[str(folder), *sys.path])), None)
            if found is None or not requirement.specifier.contains(found.version, prereleases=True):
                yield f"{requirement.name}{requirement.specifier}"


def _pip_install(folder: Path, *requirements: str) -> None:
    # Nothing that they require: PyTorch would come along, and the environment has it.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--target", str(folder), *requirements], stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise NotToBeHad(f"pip could not install {' '.join(requirements)} into {folder}")


def environment_of(folder: Path | None) -> dict[str, str]:
    """The variables with which Python, and a shell, find an overlay first; None: those of this process."""
    environment = dict(os.environ)
    if folder is not None:
        for variable, place in (("PYTHONPATH", folder), ("PATH", folder / "bin")):
            environment[variable] = os.pathsep.join([str(place), *filter(None, [environment.get(variable)])])
    return environment


if __name__ == "__main__":
    raise SystemExit(main())
