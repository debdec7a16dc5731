"""nnU-Net's path variables, names of datasets, and the endings of its files."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nnunet_lopsided.errors import InputError

PATH_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
# The longer of two endings that both fit comes first.
IMAGE_ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".gipl", ".png", ".bmp", ".tif", ".tiff")
ARRAY_ENDINGS = (".npz", ".npy")


def nnunet_path(variable: str) -> Path:
    """The folder an nnU-Net path variable names.

    Args:
        variable: ``nnUNet_raw``, ``nnUNet_preprocessed`` or ``nnUNet_results``.

    Raises:
        InputError: the variable is not set, or the folder does not exist.
    """
    value = os.environ.get(variable)
    if not value:
        raise InputError(f"{variable} is not set: export {variable}=/path/to/{variable}")
    if not Path(value).is_dir():
        raise InputError(f"{variable} is set to {value}, which is not a folder")
    return Path(value)


def names_of_dataset(dataset: int | str, variables: tuple[str, ...] = PATH_VARIABLES) -> list[str]:
    """Names of the folders that carry this dataset id (or name) below the set nnU-Net paths, sorted.

    nnU-Net refuses to work when two different names carry one id anywhere below its three paths.
    """
    text = str(dataset)
    pattern = re.compile(rf"Dataset{int(text):03d}_.+" if text.isdigit() else re.escape(text))
    found = set()
    for variable in variables:
        root = os.environ.get(variable)
        if root and Path(root).is_dir():
            found |= {p.name for p in Path(root).iterdir() if p.is_dir() and pattern.fullmatch(p.name)}
    return sorted(found)


def new_dataset_name(dataset_id: int, name: str) -> str:
    """The folder name ``DatasetXXX_NAME``.

    Raises:
        InputError: nnU-Net would not accept the id or the name.
    """
    if not 1 <= dataset_id <= 999:
        raise InputError(f"dataset id must be within 1 to 999, got {dataset_id}")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise InputError(f"dataset name must consist of letters, digits, '_', '-' and '.', got {name!r}")
    return f"Dataset{dataset_id:03d}_{name}"


def plain_name(text: str) -> str:
    """A dataset name made from any text: what :func:`new_dataset_name` does not accept becomes ``_``.

    Example:
        >>> plain_name("mé ta")
        'm__ta'
    """
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)
