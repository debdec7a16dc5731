"""Everything a machine without internet needs to install this package, in one folder: what ``make bundle`` runs.

    python release/bundle.py [-o bundle] [--torch] [--part-mb 60]

The folder holds wheels for this Python, system and processor, of the versions of the environment that runs this script
(which ``make venv`` has made from constraints.txt): this package, and all that it and its extra ``study`` need.
PyTorch, torchvision and what only they need are left out unless ``--torch`` is given: they depend on the GPU and its
driver, and take gigabytes. Packages without a wheel on the index are built.

With ``--part-mb`` the folder is also written as parts of a size that a mail or a stick takes, one archive when joined.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import platform
import subprocess
import sys
import tarfile
from collections.abc import Collection, Iterable
from importlib import metadata
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from nnunet_lopsided import __version__
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folders import new_folder

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "nnunet-lopsided"
EXTRAS = ("study",)
# One torchvision fits one torch.
LEFT_OUT = ("torch", "torchvision")
CONSTRAINTS, README = "constraints.txt", "README.txt"
_MB = 10**6


def main(argv: list[str] | None = None) -> int:
    """Make the bundle; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", default="bundle", metavar="FOLDER", help="where the bundle goes (default: %(default)s)")
    parser.add_argument("--torch", action="store_true", help="with PyTorch, torchvision and what they need")
    parser.add_argument("--part-mb", type=float, metavar="MB", help="also as parts of at most so many million bytes")
    arguments = parser.parse_args(argv)
    try:
        if arguments.part_mb is not None and arguments.part_mb * _MB < 1:
            raise InputError(f"a part must have at least one byte, got PART_MB={arguments.part_mb:g}")
        folder = make_bundle(Path(arguments.o), with_torch=arguments.torch)
        print(f"{folder}: {len(list(folder.glob('*.whl')))} wheels, {_megabytes(folder.iterdir())} MB")
        if arguments.part_mb is not None:
            parts = folder.with_name(folder.name + "-parts")
            with new_folder(parts, "SHA256SUMS", overwrite=True) as unfinished:
                split(folder, unfinished, int(arguments.part_mb * _MB))
            print(f"{parts}: {len(list(parts.glob('*.part-*')))} parts; join: {joining_line(folder.name)}")
    except (InputError, subprocess.CalledProcessError) as error:
        print(f"bundle: error: {error}", file=sys.stderr)
        return 2
    return 0


def make_bundle(output: Path, *, with_torch: bool) -> Path:
    """Write ``output/NAME`` with the wheels, ``constraints.txt`` and ``README.txt``; an earlier one is replaced.

    Args:
        output: made if need be.
        with_torch: whether PyTorch and torchvision are in it.

    Returns:
        The folder.

    Raises:
        InputError: this environment lacks a package that is needed.
        subprocess.CalledProcessError: pip failed, and has said why.
    """
    versions = needed(with_torch=with_torch)
    name = f"{PACKAGE}-{__version__}-python{sys.version_info[0]}.{sys.version_info[1]}"
    name += f"-{platform.system()}-{platform.machine()}".lower() + ("-torch" if with_torch else "")
    output.mkdir(parents=True, exist_ok=True)
    with new_folder(output / name, CONSTRAINTS, overwrite=True) as folder:
        isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
        _pip_wheel(folder, *isolation, str(REPOSITORY))
        _pip_wheel(folder, *(f"{package}=={version}" for package, version in versions.items()))
        found = {parse_wheel_filename(wheel.name)[0] for wheel in folder.glob("*.whl")}
        missing = {PACKAGE, *versions} - {str(package) for package in found}
        if missing:
            raise InputError(f"expected a wheel of each package, found none of {', '.join(sorted(missing))}")
        # What the installed PyTorch needs may have the version that it came with.
        free = set() if with_torch else set(_closure(LEFT_OUT))
        lines = [f"{package}=={version}" for package, version in sorted(versions.items()) if package not in free]
        (folder / CONSTRAINTS).write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / README).write_text(_readme(name, with_torch), encoding="utf-8")
    return output / name


def needed(*, with_torch: bool) -> dict[str, str]:
    """Versions, by name, of what this package and its extras need, as they are installed here.

    Raises:
        InputError: something needed is not installed.
    """
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
    return _closure(lines, () if with_torch else LEFT_OUT)


def _closure(requirements: Iterable[str], without: Collection[str] = ()) -> dict[str, str]:
    """Versions, by name, of installed packages that meet the requirements, and of those that they need."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(line, frozenset[str]()) for line in requirements]
    while waiting:
        line, extras_asked = waiting.pop()
        requirement = Requirement(line)
        package, extras = str(canonicalize_name(requirement.name)), frozenset(requirement.extras)
        if package in without or (package, extras) in seen or not _applies(requirement, extras_asked):
            continue
        seen.add((package, extras))
        try:
            distribution = metadata.distribution(package)
        except metadata.PackageNotFoundError:
            raise InputError(f"{package} is needed and not installed here; run: make venv") from None
        versions[package] = distribution.version
        waiting += [(further, extras) for further in distribution.requires or ()]
    return versions


def _applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _pip_wheel(folder: Path, *what: str) -> None:
    # By pip's own configuration: it knows the index.
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--wheel-dir", str(folder), *what], check=True, stdout=sys.stderr)


def _readme(name: str, with_torch: bool) -> str:
    environment = "anything or nothing" if with_torch else "PyTorch 2 and the torchvision that belongs to it"
    system = f"Python {sys.version_info[0]}.{sys.version_info[1]} on {platform.system()} {platform.machine()}"
    return (
        f"{PACKAGE} {__version__} and all that it needs{'' if with_torch else ' but PyTorch and torchvision'}, "
        f"for {system}.\n"
        f"Install, without internet, from the folder that this folder lies in, in an environment with {environment}:\n"
        f"    pip install --no-index --find-links {name} --constraint {name}/{CONSTRAINTS} '{PACKAGE}[study]'\n"
        f"([study] is for lopsided-study.) What is installed and found, or missing, says: lopsided-doctor\n"
        f"Parts are joined, in the folder that they lie in, by: {joining_line(name)}\n"
    )


def joining_line(name: str) -> str:
    """The line that makes a folder of its parts again."""
    return f"cat {name}.tar.part-* | tar -xf -"


def split(folder: Path, parts: Path, n_bytes: int) -> None:
    """Write a folder as one tar archive in parts, with ``SHA256SUMS`` beside them, which ``sha256sum -c`` reads.

    Args:
        folder: what to archive.
        parts: gets ``NAME.tar.part-000`` and so on.
        n_bytes: of every part but the last, at least 1.
    """
    with _Parts(parts / f"{folder.name}.tar", n_bytes) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, f"{folder.name}/{path.name}")
    sums = (f"{_sha256(part)}  {part.name}\n" for part in sorted(parts.glob("*.part-*")))
    (parts / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


class _Parts(io.RawIOBase):
    """A stream that goes on in the next file when one is full."""

    def __init__(self, path: Path, n_bytes: int) -> None:
        self._path, self._n_bytes, self._n_parts, self._left = path, n_bytes, 0, 0
        self._file: io.BufferedWriter | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        rest = memoryview(data)
        while rest:
            if not self._left:
                self._next()
            assert self._file is not None, "opened above"
            n = self._file.write(rest[: self._left])
            self._left -= n
            rest = rest[n:]
        return len(data)

    def _next(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._path.with_name(f"{self._path.name}.part-{self._n_parts:03d}").open("wb")
        self._n_parts, self._left = self._n_parts + 1, self._n_bytes

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _megabytes(files: Iterable[Path]) -> int:
    return round(sum(file.stat().st_size for file in files) / _MB)


if __name__ == "__main__":
    raise SystemExit(main())
