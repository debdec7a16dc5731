"""Preprocessed datasets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folders import new_folder
from nnunet_lopsided.nnunet.dataset_json import read_dataset_json
from nnunet_lopsided.nnunet.paths import PATH_VARIABLES, dataset_id, names_of_dataset, nnunet_path
from nnunet_lopsided.nnunet.splitting import Fold, read_splits

# What nnU-Net and lopsided-plan add to a preprocessed dataset, or change in it; all of it can be made again.
_ADDED_BY_NNUNET = ("*.json", "*.b2nd", "*.pkl", "*.npz", "*.npy")


def preprocessed_folder(dataset: int | str) -> Path:
    """The dataset's folder below ``nnUNet_preprocessed``.

    Raises:
        InputError: it does not exist, or the id is that of several datasets, here or below nnU-Net's other paths.
    """
    root = nnunet_path("nnUNet_preprocessed")
    if dataset_id(dataset) is not None and len(all_names := names_of_dataset(dataset)) > 1:
        raise InputError(
            f"dataset {dataset}: expected one dataset of this id, found {' and '.join(all_names)} below "
            f"{', '.join(PATH_VARIABLES)}; nnU-Net refuses that too: give one of them another id"
        )
    names = names_of_dataset(dataset, ("nnUNet_preprocessed",))
    if len(names) != 1:
        raise InputError(
            f"dataset {dataset}: expected one folder below nnUNet_preprocessed={root}, found {names or 'none'}; "
            "run nnUNetv2_plan_and_preprocess first"
        )
    return root / names[0]


def preprocessed_cases(folder: Path) -> list[str]:
    """The cases in a folder of preprocessed data, sorted, as nnU-Net lists them.

    Source: ``nnUNetDatasetBlosc2.get_identifiers`` of nnU-Net 2.8.1: every ``.b2nd`` but ``_seg.b2nd`` is a case.
    """
    names = (path.name for path in folder.glob("*.b2nd") if not path.name.endswith("_seg.b2nd"))
    return sorted(name.removesuffix(".b2nd") for name in names)


def preprocessed_splits(folder: Path) -> list[Fold]:
    """The folds that nnU-Net trains by, which name nothing but cases of the dataset.

    Args:
        folder: of a preprocessed dataset, with ``splits_final.json``. Its cases are those that nnU-Net keeps the labels
            of in ``gt_segmentations``; without that folder they are not known.

    Raises:
        InputError: see :func:`~nnunet_lopsided.nnunet.splitting.read_splits`.
    """
    labels, described = folder / "gt_segmentations", folder / "dataset.json"
    cases = None
    if labels.is_dir() and described.is_file():
        ending = str(read_dataset_json(described).get("file_ending", ""))
        cases = [p.name.removesuffix(ending) for p in labels.iterdir() if p.name.endswith(ending) and ending]
    return read_splits(folder / "splits_final.json", cases or None)


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
