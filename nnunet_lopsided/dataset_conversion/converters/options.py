"""How a converted dataset is asked for, and what is said of it when it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nnunet_lopsided.dataset_conversion.converters.orientation import FIRST, direction_of
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
        reorient: bring all images of a case to one orientation without interpolation: ``first`` is that of its first
            channel, else three letters as in ``RAS``; None: leave them as they are.
        resample_channels: interpolate channels that lie on another grid than the label onto its grid.
        label_fixes: by case: label values to be read as others, besides those the converter knows.
        exclude: cases to leave out.
        test_cases: cases or patients to hold out; all cases of the patient go.
        test_fraction: share of the patients to hold out.
        seed: for ``test_fraction`` and the folds.
        overwrite: replace an earlier conversion of the same id and name.
        dry_run: check everything and write nothing.
        n_workers: cases worked on at the same time.
    """

    dataset_id: int
    name: str
    copy: bool = False
    missing_channel: Literal["error", "skip"] = "error"
    fix_geometry: bool = False
    reorient: str | None = None
    resample_channels: bool = False
    label_fixes: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    exclude: frozenset[str] = frozenset()
    test_cases: frozenset[str] = frozenset()
    test_fraction: float | None = None
    seed: int = 0
    overwrite: bool = False
    dry_run: bool = False
    n_workers: int = 2

    def __post_init__(self) -> None:
        """Raise :class:`InputError` where a fraction or an orientation is none, before anything is read."""
        if self.test_fraction is not None:
            check_fraction(self.test_fraction)
        if self.reorient not in (None, FIRST):
            direction_of(self.reorient)


@dataclass(frozen=True, kw_only=True)
class ConvertedCase:
    """One case of a dataset that was written, or would be.

    Attributes:
        name: the case.
        patient: of whom it is.
        time_point: empty if none is known.
        split: the side it is on.
        n_lesions: None without a label.
        changes: what of it is not as in the source: image (a channel or ``label``) and what happened, in words.
    """

    name: str
    patient: str
    time_point: str
    split: Literal["train", "test"]
    n_lesions: int | None
    changes: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was written, or would be.

    Attributes:
        folder: the dataset.
        cases: its cases, in order.
        n_train: training cases.
        n_test: test cases.
        n_lesions: lesions in all labels.
        notes: what the user must know.
    """

    folder: Path
    cases: tuple[ConvertedCase, ...]
    n_train: int
    n_test: int
    n_lesions: int
    notes: tuple[str, ...]
