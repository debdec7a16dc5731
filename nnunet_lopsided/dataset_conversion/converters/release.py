"""What a converter says of a release: its cases, channels, labels and splits; and how files are found."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.dataset_conversion.converters.volumes import Volume, VolumeFile
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.label_values import unknown_label_values

Split = Literal["train", "test"]
TARGETS = ("ET", "TC", "WT")


@dataclass(frozen=True)
class LabelMap:
    """Which label values a release may hold, and what becomes of them; 0 stays 0.

    Attributes:
        values: new value of every known value; None: every positive whole number becomes 1.
        fixes: values that are read as others, see :meth:`with_fix`.

    Example:
        >>> LabelMap({1: 1, 2: 0, 3: 1}).apply(np.array([0, 1, 2, 3])).tolist()
        [0, 1, 0, 1]
        >>> LabelMap({1: 1}).apply(np.array([0, 6]))
        Traceback (most recent call last):
        ...
        nnunet_lopsided.errors.InputError: unknown label value 6 in 1 voxels, expected 0, 1
    """

    values: Mapping[int, int] | None
    fixes: Mapping[int, int] = field(default_factory=dict)

    def apply(self, array: NDArray[np.generic]) -> NDArray[np.uint8]:
        """The new label map, of the same shape.

        Raises:
            InputError: the array holds a value that is not known; without ``values`` one that is no positive whole
                number: a resampled mask holds fractions, a field of view may be filled with -1024.
        """
        not_fixed = array[~np.isin(array, list(self.fixes))] if self.fixes else array
        problem = unknown_label_values(not_fixed, None if self.values is None else {*self.values, *self.fixes})
        if problem:
            raise InputError(problem)
        # Into a new array: with changes in place, a value just written could be taken for an old one.
        new = np.zeros(array.shape, np.uint8)
        if self.values is None:
            new[np.greater(array, 0)] = 1
            meanings = {stray: int(meant != 0) for stray, meant in self.fixes.items()}
        else:
            meanings = {**self.values, **{stray: self.values.get(meant, 0) for stray, meant in self.fixes.items()}}
        for value, meaning in meanings.items():
            if value != 0:
                new[array == value] = meaning
        return new

    def with_fix(self, fix: Mapping[int, int]) -> LabelMap:
        """The same map for a case in which the values ``fix`` are read as others, say a stray 6 as 0.

        Raises:
            InputError: one is to be read as a value that is neither 0 nor known.

        Example:
            >>> POSITIVE.with_fix({6: 0}).apply(np.array([0, 1, 6])).tolist()
            [0, 1, 0]
        """
        for stray, meant in fix.items():
            if meant != 0 and self.values is not None and meant not in self.values:
                known = ", ".join(map(str, sorted({0, *self.values})))
                raise InputError(f"label value {stray} cannot be read as {meant}, which is unknown: expected {known}")
        return replace(self, fixes={**self.fixes, **fix})


BINARY = LabelMap({1: 1})
POSITIVE = LabelMap(None)


def brats_labels(target: str) -> LabelMap:
    """The lesion of the BraTS-METS labels: 1 NETC, 2 SNFH, 3 ET and, since 2025, 4 resection cavity (never lesion).

    Args:
        target: ``ET`` (3), ``TC`` (1 and 3) or ``WT`` (1, 2 and 3).
    """
    lesion = {"ET": {3}, "TC": {1, 3}, "WT": {1, 2, 3}}.get(target)
    if lesion is None:
        raise InputError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")
    return LabelMap({value: int(value in lesion) for value in (1, 2, 3, 4)})


@dataclass(frozen=True, kw_only=True)
class SourceCase:
    """One case of a release.

    Attributes:
        name: unique in the dataset to be written.
        patient: cases of one patient stay together in every split.
        source: the folder it was found in, relative to the release.
        images: what was found, by channel; channels may be missing.
        label: None for a test case without label.
        label_map: how the label is read.
        time_point: empty if the release has none.
        split: which side the release has it on.
    """

    name: str
    patient: str
    source: str
    images: Mapping[str, Volume]
    label: Volume | None
    label_map: LabelMap = BINARY
    time_point: str = ""
    split: Split = "train"


@dataclass(frozen=True, kw_only=True)
class Release:
    """What was found below a folder.

    Attributes:
        channels: their names in dataset.json, in order.
        cases: in any order.
        labels: as in dataset.json.
        label_fixes: by case: label values that are known to be wrong, and what they are read as.
        problems: (case, what is wrong) as far as it shows without reading; refused with what reading finds.
        general_problems: what is wrong, and not with a single case.
        patterns: the option by which files of a channel, or of the label (key ``label``), were looked for, as given.
        patients_unstated: whether nothing but the cases' names says whose they are, so that sessions are asked for.
        notes: what the user must know.
        folds: folds that belong to the release or its paper, of case names; None: five folds by patient.
        file_channels: what the one image of every case holds, where it is a colour image of several channels.
    """

    channels: tuple[str, ...]
    cases: tuple[SourceCase, ...]
    labels: Mapping[str, int] = field(default_factory=lambda: {"background": 0, "lesion": 1})
    label_fixes: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    problems: tuple[tuple[str, str], ...] = ()
    general_problems: tuple[str, ...] = ()
    patterns: Mapping[str, str] = field(default_factory=dict)
    patients_unstated: bool = False
    notes: tuple[str, ...] = ()
    folds: tuple[Mapping[str, list[str]], ...] | None = None
    file_channels: tuple[str, ...] = ()

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channels that nnU-Net will read, for dataset.json."""
        return self.file_channels or self.channels


def files_below(source: Path) -> list[Path]:
    """Every file below a folder, at any depth, sorted, without hidden files, ``._*`` and ``__MACOSX``.

    Links to folders are followed, each folder once.

    Raises:
        InputError: the folder does not exist.
    """
    if not source.is_dir():
        raise InputError(f"source folder not found: {source}")
    paths: list[Path] = []
    # A link to a folder above would be walked through for ever.
    seen = {os.path.realpath(source)}
    for folder, subfolders, files in os.walk(source, followlinks=True):
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not name.startswith(".") and name != "__MACOSX" and _first_visit(os.path.join(folder, name), seen)
        )
        paths += [Path(folder) / name for name in files if not name.startswith(".")]
    return sorted(paths)


def _first_visit(folder: str, seen: set[str]) -> bool:
    real = os.path.realpath(folder)
    new = real not in seen
    seen.add(real)
    return new


@dataclass(kw_only=True)
class Gatherer:
    """Collects the files of each case by role (a channel or the label), and what is wrong with them.

    A file for a role that is taken is a problem, unless one of the two comes from an override: then it wins. ``advice``
    says what mends it.
    """

    source: Path
    is_override: Callable[[Path], bool] = lambda path: False
    advice: str = "keep one of them below the folder you name"
    files: dict[str, dict[str, Path]] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, case: str, role: str, path: Path) -> None:
        """Note that ``path`` is the ``role`` of ``case``."""
        try:
            # Python reads any bytes as a name, but JSON and CSV cannot hold it.
            str(path).encode("utf-8")
        except UnicodeEncodeError:
            self.problems.append((case, f"the name of {self.shown(path)!a} is not UTF-8: rename the file"))
            return
        roles = self.files.setdefault(case, {})
        other = roles.get(role)
        if other is None:
            roles[role] = path
            return
        corrected = [file for file in (other, path) if self.is_override(file.relative_to(self.source))]
        # With two corrections, or none, nobody knows which file is meant.
        if len(corrected) == 1:
            roles[role] = corrected[0]
            replaced = other if corrected[0] == path else path
            self.notes.append(f"{self.shown(corrected[0])} is used instead of {self.shown(replaced)}")
        else:
            self.problems.append(
                (case, f"two files for {role}: {self.shown(other)} and {self.shown(path)} ({self.advice})")
            )

    def shown(self, path: Path) -> str:
        """The path relative to the release."""
        return path.relative_to(self.source).as_posix()

    def folder_of(self, case: str, role: str) -> str:
        """Where a case is said to come from: the folder of its ``role``, or of any of its files."""
        roles = self.files[case]
        return self.shown(roles.get(role, next(iter(roles.values()))).parent)


def visits(
    gathered: Gatherer,
    names: Mapping[str, tuple[str, str]],
    channels: Iterable[str],
    *,
    label_role: str,
    label_map: LabelMap,
) -> tuple[SourceCase, ...]:
    """The cases of a release whose names tell patient and time point; one without label in a test folder is for test.

    Args:
        gathered: their files. A case none of whose files can be used is among its problems alone.
        names: patient and time point by case.
        channels: those wanted.
        label_role: of the file that holds the label.
        label_map: how it is read.
    """
    chosen, cases = tuple(channels), []
    for name, (patient, time_point) in sorted(names.items()):
        files = gathered.files.get(name)
        if files is None:
            continue
        label, folder = files.get(label_role), gathered.folder_of(name, label_role)
        cases.append(
            SourceCase(
                name=name,
                patient=patient,
                source=folder,
                images=volumes(files, chosen),
                label=None if label is None else VolumeFile(label),
                label_map=label_map,
                time_point=time_point,
                split="test" if label is None and split_by_folder(folder) == "test" else "train",
            )
        )
    return tuple(cases)


def volumes(files: Mapping[str, Path], channels: Iterable[str]) -> dict[str, Volume]:
    """The files of these channels, as far as they are there."""
    return {channel: VolumeFile(files[channel]) for channel in channels if channel in files}


def split_by_folder(folder: str) -> Split | None:
    """The side a folder's name stands for, the innermost name that says so; None if none does.

    Example:
        >>> split_by_folder("brainmetshare-3/test1/Mets_300"), split_by_folder("UCSF_BrainMetastases_TRAIN/100101A")
        ('test', 'train')
    """
    for part in reversed(Path(folder).parts):
        # BraTS calls its cases without labels validation data.
        if re.search(r"(^|[_-])(test\d*|validation(data)?)$", part, re.IGNORECASE):
            return "test"
        if re.search(r"(^|[_ -])train(ing(data)?)?$", part, re.IGNORECASE):
            return "train"
    return None


def selected_channels(
    wanted: Iterable[str] | None, default: tuple[str, ...], all_channels: Iterable[str]
) -> tuple[str, ...]:
    """The channels the user wants, spelled as the release spells them.

    Raises:
        InputError: one does not exist in this release, or is named twice.
    """
    if wanted is None:
        return default
    known = {name.lower(): name for name in all_channels}
    chosen = []
    for name in wanted:
        if name.lower() not in known:
            raise InputError(f"channel must be one of {', '.join(known.values())}, got {name!r}")
        chosen.append(known[name.lower()])
    if len(set(chosen)) < len(chosen):
        raise InputError(f"channels must differ, got {', '.join(chosen)}")
    return tuple(chosen)
