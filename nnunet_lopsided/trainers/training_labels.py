"""The preprocessed labels of a training: how many voxels each value has, and that dataset.json knows it.

nnU-Net preprocesses whatever values it finds. A loss sees a wrong one only when a patch meets it, on a GPU as an
assertion of the device without a case; here every label map is looked at once, before the first step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError, refuse
from nnunet_lopsided.nnunet.dataset_json import LabelScheme
from nnunet_lopsided.nnunet.label_values import check_label_values
from nnunet_lopsided.nnunet.splitting import read_splits
from nnunet_lopsided.progress import with_progress
from nnunet_lopsided.trainers.host_types import Dataset

OUTSIDE = -1  # nnU-Net's mark of voxels outside the nonzero mask, which it trains on as background


def check_consecutive(scheme: LabelScheme, source: Path) -> None:
    """Refuse label values with a gap: nnU-Net's networks have one channel per value, and losses go by the value.

    Regions may be of any values.

    Raises:
        InputError: they do not go from 0 on without a gap.

    Example:
        >>> check_consecutive(LabelScheme({"a": (1,), "b": (3,)}, None, False), Path("dataset.json"))
        Traceback (most recent call last):
        ...
        nnunet_lopsided.errors.InputError: dataset.json: expected label values without a gap to train on, found 0, 1, 3
    """
    values = scheme.label_values
    if not scheme.has_regions and values != tuple(range(len(values))):
        raise InputError(
            f"{source}: expected label values without a gap to train on, found {', '.join(map(str, values))}"
        )


def check_splits(trainer: nnUNetTrainer) -> None:
    """End a training whose splits_final.json leaks or names what is no case, see :func:`read_splits`."""
    splits = Path(trainer.preprocessed_dataset_folder_base) / "splits_final.json"
    folder = trainer.preprocessed_dataset_folder
    if trainer.fold != "all" and splits.is_file():
        of_cases = trainer.dataset_class or infer_dataset_class(folder)
        try:
            read_splits(splits, of_cases.get_identifiers(folder))
        except InputError as error:
            refuse(error)


def count_labels(dataset: Dataset, scheme: LabelScheme, *, progress: bool = False) -> dict[str, Counter[int]]:
    """Voxels per label value of every case, :data:`OUTSIDE` taken for background.

    Args:
        dataset: nnU-Net's dataset of preprocessed cases.
        scheme: the classes of dataset.json.
        progress: show a bar.

    Raises:
        InputError: a label map holds a value that dataset.json does not declare.
    """
    cases: Iterable[str] = with_progress(dataset.identifiers, title="labels", unit="case", show=progress)
    return {case: checked_counts(case, dataset, scheme) for case in cases}


def summed_voxels(counts: Iterable[Counter[int]], ignore_label: int | None) -> Counter[int]:
    """Voxels per label value of some cases, without the ignored, which are of no class.

    Args:
        counts: of :func:`count_labels`, case by case.
        ignore_label: None: there is none.

    Example:
        >>> dict(summed_voxels([Counter({0: 5, 1: 3}), Counter({0: 1, 3: 5})], ignore_label=3))
        {0: 6, 1: 3}
    """
    voxels: Counter[int] = Counter()
    for of_case in counts:
        voxels.update(of_case)
    if ignore_label is not None:
        del voxels[ignore_label]
    return voxels


def lesion_share(voxels: Counter[int]) -> float:
    """Share of labelled voxels that are of any lesion, 0 to 1.

    Args:
        voxels: per label value, without the ignored.

    Example:
        >>> lesion_share(Counter({0: 6, 1: 3, 2: 3}))
        0.5
    """
    return 1 - voxels[0] / voxels.total() if voxels else 0.0


def checked_counts(case: str, dataset: Dataset, scheme: LabelScheme) -> Counter[int]:
    """Voxels per label value of one case.

    Raises:
        InputError: the label map holds a value that dataset.json does not declare.
    """
    label = np.asarray(dataset.load_case(case)[1][:])[0]
    counts = _counts(label)
    counts[0] += counts.pop(OUTSIDE, 0)
    if not counts.keys() <= set(scheme.declared_values):
        try:
            check_label_values(scheme, case, _file_of(case, dataset), label[label != OUTSIDE])
        except InputError as error:
            raise InputError(
                f"{error}; mend the label map in labelsTr, or declare the value in dataset.json, and preprocess again "
                "(nnUNetv2_plan_and_preprocess)"
            ) from error
    return counts


def _counts(label: NDArray[np.generic]) -> Counter[int]:
    if np.issubdtype(label.dtype, np.integer) and label.size:
        low = int(label.min())
        # Counting is several times as fast as the sorting of np.unique; nnU-Net stores 8 or 16 bits.
        numbers = np.bincount(label.ravel().astype(np.int64) - low)
        return Counter({low + i: int(n) for i, n in enumerate(numbers) if n})
    values, numbers = np.unique(label, return_counts=True)
    return Counter(dict(zip(values.tolist(), numbers.tolist(), strict=True)))


def _file_of(case: str, dataset: Dataset) -> Path:
    """The file of the preprocessed label map, for messages."""
    folder = Path(getattr(dataset, "source_folder", ""))
    names = (f"{case}_seg.b2nd", f"{case}.npz", f"{case}_seg.npy")
    return next((folder / name for name in names if (folder / name).is_file()), folder / case)
