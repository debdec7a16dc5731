"""How a converted dataset is asked for, and what is said of it when it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nnunet_lopsided.nnunet.splitting import check_fraction


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a dataset is written.

    Attributes:
        dataset_id: 1 to 999, not in use below any nnU-Net path.
        name: folder name after ``DatasetXXX_``.
        copy: copy files that would be linked.
        missing_channel: refuse cases that lack a channel, or leave them out.
        fix_geometry: a label of the images' shape takes their geometry where it differs.
        label_fixes: by case: label values to be read as others, besides those the converter knows.
        exclude: cases to leave out.
        test_cases: cases or patients to hold out; all cases of the patient go.
        test_fraction: share of the patients to hold out.
        seed: for ``test_fraction`` and the folds.
        overwrite: replace an earlier conversion of the same id and name.
        n_workers: cases worked on at the same time.
    """

    dataset_id: int
    name: str
    copy: bool = False
    missing_channel: Literal["error", "skip"] = "error"
    fix_geometry: bool = False
    label_fixes: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    exclude: frozenset[str] = frozenset()
    test_cases: frozenset[str] = frozenset()
    test_fraction: float | None = None
    seed: int = 0
    overwrite: bool = False
    n_workers: int = 2

    def __post_init__(self) -> None:
        """Raise :class:`InputError` where the test fraction is out of range, before anything is read."""
        if self.test_fraction is not None:
            check_fraction(self.test_fraction)


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was written.

    Attributes:
        folder: the dataset.
        n_train: training cases.
        n_test: test cases.
        n_lesions: lesions in all labels.
        notes: what the user must know.
    """

    folder: Path
    n_train: int
    n_test: int
    n_lesions: int
    notes: tuple[str, ...]
