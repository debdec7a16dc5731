"""lopsided-doctor: what is installed, found and missing."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import re
import shlex
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from nnunet_lopsided.commands._cli import Parser, run
from nnunet_lopsided.nnunet import older_versions

_PACKAGES = (
    "nnunet-lopsided", "nnunetv2", "torch", "batchgenerators", "batchgeneratorsv2", "SimpleITK", "numpy", "nibabel",
    "scipy", "scikit-learn", "acvl-utils", "connected-components-3d", "segmentation-models-pytorch", "timm", "blosc2",
    "filelock", "imagecodecs", "isal", "Jinja2", "MarkupSafe", "pydantic", "typing-extensions", "pandas", "matplotlib",
    "pillow", "surface-distance", "tifffile", "tqdm", "PyYAML", "setuptools",
)  # fmt: skip
# The newest versions that the tests have run with (constraints.txt), of packages whose changes may break something.
_TESTED = {
    "nnunetv2": older_versions.TESTED[-1],
    "torch": "2.14.1",
    "batchgenerators": "0.25.5",
    "batchgeneratorsv2": "0.3.6",
    "SimpleITK": "2.5.7",
    "numpy": "2.2.6",
    "scipy": "1.15.3",
    "acvl-utils": "0.2.6",
}
# Packages that only some commands need, those commands, and the extra that brings them.
_OPTIONAL = (
    ("snakemake", "lopsided-study run needs it", "study"),
    ("pydicom", "DICOM needs it", "dicom"),
    ("highdicom", "DICOM needs it", "dicom"),
    ("shtab", "lopsided-env --completion needs it", "completion"),
)
# Dependencies without which everything still works.
_DISPENSABLE = dict.fromkeys(("imagecodecs", "isal"), "without it files are read slower")
_TRAINERS = (
    "nnUNetTrainerLopsided",
    "nnUNetTrainerLopsided_a10_b0p5_w5_100epochs_250iters",
    "nnUNetTrainerClassWeighted",
)


@dataclass(frozen=True)
class Finding:
    """One line of the report; a ``missing`` one makes the command exit with 1, a ``note`` does not."""

    state: Literal["ok", "note", "missing"]
    what: str
    detail: str

    def __str__(self) -> str:
        return f"[{self.state:^7}] {self.what}: {self.detail}"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, or 1 if something needed is missing."""
    parser = Parser(
        prog="lopsided-doctor",
        description="Report versions, nnU-Net's paths, whether nnU-Net finds our trainers, and the GPU. Exits with 1 "
        "if something needed is missing.",
    )
    return run(parser, _report, argv)


def _report(arguments: argparse.Namespace) -> int:
    findings = [*_versions(), *_paths(), *_trainers(), _gpu()]
    for finding in findings:
        print(finding)
    missing = sum(finding.state == "missing" for finding in findings)
    print(f"{missing} thing(s) missing" if missing else "nothing missing")
    return 1 if missing else 0


def _versions() -> list[Finding]:
    findings = [Finding("ok", "Python", platform.python_version())]
    for package in _PACKAGES:
        try:
            findings.append(_version(package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            state: Literal["note", "missing"] = "note" if package in _DISPENSABLE else "missing"
            hint = f"; {_DISPENSABLE[package]}" if package in _DISPENSABLE else ""
            findings.append(Finding(state, package, f"not installed: pip install {package}{hint}"))
    for package, why, extra in _OPTIONAL:
        try:
            findings.append(Finding("ok", package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            hint = f"not installed; {why}: pip install 'nnunet-lopsided[{extra}]'"
            findings.append(Finding("note", package, hint))
    return findings


def _version(package: str, version: str) -> Finding:
    """Whether what is installed is newer than what the tests have seen: in its first two numbers, of nnU-Net in any.

    Of nnU-Net also whether it is one of those that they have run with.
    """
    tested = _TESTED.get(package)
    places = 3 if package == "nnunetv2" else 2
    if package == "nnunetv2" and version not in older_versions.TESTED and _numbers(version) < _numbers(str(tested)):
        known = ", ".join(older_versions.TESTED)
        return Finding("note", package, f"{version} is none of those that the tests have run with: {known}")
    if tested is None or _numbers(version)[:places] <= _numbers(tested)[:places]:
        return Finding("ok", package, version)
    return Finding(
        "note", package, f"{version} is newer than {tested}, the newest version that the tests have run with"
    )


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version.

    Example:
        >>> _numbers("2.13.0+cu130"), _numbers("0.3rc1")
        ((2, 13, 0), (0, 3))
    """
    return tuple(int(part) for part in re.findall(r"(?:(?<=^)|(?<=\.))[0-9]+", version.split("+")[0]))


def _paths() -> list[Finding]:
    from nnunet_lopsided.errors import InputError
    from nnunet_lopsided.nnunet.paths import PATH_VARIABLES, path_if_set

    findings = []
    for variable in PATH_VARIABLES:
        value = os.environ.get(variable)
        try:
            path_if_set(variable)
        except InputError as error:
            findings.append(Finding("missing", variable, str(error).removeprefix(f"{variable} is ")))
            continue
        if not value:
            findings.append(Finding("missing", variable, f"not set: export {variable}=/path/to/{variable}"))
        elif not Path(value).is_dir():
            findings.append(Finding("missing", variable, f"{value} is not a folder: mkdir -p {shlex.quote(value)}"))
        elif not os.access(value, os.W_OK):
            findings.append(Finding("note", variable, f"{value} is not writable"))
        else:
            findings.append(Finding("ok", variable, value))
    return findings


def _trainers() -> list[Finding]:
    from nnunet_lopsided.startup import PLUGIN_FOLDER, SWITCH_OFF, VARIABLE

    folders = os.environ.get(VARIABLE, "").split(os.pathsep)
    if PLUGIN_FOLDER not in folders:
        reason = f"{SWITCH_OFF} is set" if os.environ.get(SWITCH_OFF) else "the start-up hook did not run"
        return [Finding("missing", "trainers", f'not in {VARIABLE} ({reason}): eval "$(lopsided-env)"')]
    return [_trainer(name) for name in _TRAINERS]


def _trainer(name: str) -> Finding:
    """Whether nnU-Net's own look-up gives the very class that an import gives."""
    try:
        from nnunet_lopsided import trainers

        # nnU-Net prints every folder that it looks into.
        with contextlib.redirect_stdout(io.StringIO()):
            class_of_nnunet = older_versions.find_trainer(name)
        # Two classes of one name would break pickles, and a checkpoint would be of a trainer that was not trained.
        if class_of_nnunet is not getattr(trainers, name):
            return Finding("missing", name, f"another class of that name is found first: {class_of_nnunet}")
    except Exception as error:  # whatever breaks the look-up is what the user needs to read
        return Finding("missing", name, f"nnU-Net does not find it: {error}")
    return Finding("ok", name, "found by nnU-Net")


def _gpu() -> Finding:
    """What PyTorch sees; a PyTorch that does not even load, or a broken driver, is what this command is asked about."""
    try:
        import torch
    except Exception as error:  # a library that is missing or of another version: ImportError, OSError and others
        return Finding("missing", "torch", f"cannot be imported ({_one_line(error)}): install it anew")
    try:
        if not torch.cuda.is_available():
            return Finding("note", "GPU", "none; train and predict with -device cpu, slowly")
        properties = torch.cuda.get_device_properties(0)
    except Exception as error:  # drivers fail in many ways
        return Finding("missing", "GPU", f"PyTorch cannot use it ({_one_line(error)})")
    return Finding("ok", "GPU", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
