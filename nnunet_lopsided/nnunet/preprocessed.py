"""Preprocessed datasets and their plans."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folders import new_folder
from nnunet_lopsided.files.json import read_json, write_json
from nnunet_lopsided.nnunet.paths import names_of_dataset, nnunet_path

# What nnU-Net and lopsided-plan add to a preprocessed dataset, or change in it; all of it can be made again.
_ADDED_BY_NNUNET = ("*.json", "*.b2nd", "*.pkl", "*.npz", "*.npy")


def preprocessed_folder(dataset: int | str) -> Path:
    """The dataset's folder below ``nnUNet_preprocessed``.

    Raises:
        InputError: it does not exist.
    """
    root = nnunet_path("nnUNet_preprocessed")
    names = names_of_dataset(dataset, ("nnUNet_preprocessed",))
    if len(names) != 1:
        raise InputError(
            f"dataset {dataset}: expected one folder below nnUNet_preprocessed={root}, found {names or 'none'}; "
            "run nnUNetv2_plan_and_preprocess first"
        )
    return root / names[0]


def plans_in(folder: Path) -> dict[str, dict[str, Any]]:
    """The plans in a preprocessed folder: content by file name, sorted."""
    files = [path for path in sorted(folder.glob("*.json")) if not path.name.startswith(".")]
    found = {path.name: read_json(path) for path in files}
    return {name: c for name, c in found.items() if isinstance(c, dict) and {"plans_name", "configurations"} <= set(c)}


def preprocessed_cases(folder: Path) -> list[str]:
    """The cases in a folder of preprocessed data, sorted, as nnU-Net lists them.

    Source: ``nnUNetDatasetBlosc2.get_identifiers`` of nnU-Net 2.8.1: every ``.b2nd`` but ``_seg.b2nd`` is a case.
    """
    names = (path.name for path in folder.glob("*.b2nd") if not path.name.endswith("_seg.b2nd"))
    return sorted(name.removesuffix(".b2nd") for name in names)


def add_to_plans(
    plans_file: Path, plans: dict[str, Any], name: str, configuration: dict[str, Any], *, overwrite: bool = False
) -> None:
    """Write plans with one configuration more.

    Args:
        plans_file: where they lie.
        plans: what was read from there; the configuration is added.
        name: of the configuration.
        configuration: its content.
        overwrite: replace another configuration of this name; the same one is no matter.

    Raises:
        InputError: the plans hold another configuration of this name.
    """
    if plans["configurations"].get(name) not in (None, configuration) and not overwrite:
        raise InputError(f"{plans_file}: holds another {name} configuration already; --overwrite replaces it")
    plans["configurations"][name] = configuration
    write_json(plans_file, plans)


@contextmanager
def new_preprocessed_dataset(name: str, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder to build preprocessed data in; it becomes ``nnUNet_preprocessed/NAME`` when the block ends.

    As :func:`new_raw_dataset`, for the preprocessed folder of a dataset that exists below nnUNet_raw.

    Raises:
        InputError: the folder exists and may not be replaced, or another process is writing it.
    """
    final = nnunet_path("nnUNet_preprocessed") / name
    with new_folder(final, marker, overwrite, grows=_ADDED_BY_NNUNET) as folder:
        yield folder
