"""The one place that writes a converted dataset: checks every case, links or rewrites its files, splits by patient."""

from __future__ import annotations

import errno
import gzip
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nnunet_lopsided import __version__
from nnunet_lopsided.dataset_conversion.converters.release import LabelMap, Release, SourceCase
from nnunet_lopsided.dataset_conversion.converters.volumes import Volume, VolumeFile
from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.files.completeness import check_complete
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.files.tables import write_table
from nnunet_lopsided.images import Geometry, Header, Image, difference, write_image
from nnunet_lopsided.nnunet.lesion_labels import label_lesions
from nnunet_lopsided.nnunet.paths import new_dataset_name, nnunet_path
from nnunet_lopsided.nnunet.patients import CASES_FILE
from nnunet_lopsided.nnunet.raw import link_file, new_raw_dataset
from nnunet_lopsided.nnunet.splitting import (
    check_fraction,
    choose_test_patients,
    folds_by_patient,
    most_lesions,
)

CONVERSION_FILE = "conversion.json"
# Kept if all images of a release have it. Of the others, .nii would cost more in label maps than linking saves, and
# nnU-Net does not read .mhd.
LINKED_ENDINGS = (".nii.gz", ".nrrd", ".mha", ".png", ".bmp")
_SUFFIX = {"train": "Tr", "test": "Ts"}


@dataclass(frozen=True)
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
        n_processes: cases worked on at the same time.
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
    n_processes: int = 2

    def __post_init__(self) -> None:
        """Raise :class:`InputError` where the test fraction is out of range, before anything is read."""
        if self.test_fraction is not None:
            check_fraction(self.test_fraction)


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class _Done:
    """A case after its files were checked and written: its lesions, and what was changed."""

    case: SourceCase
    n_lesions: int | None
    geometry_fix: str | None


def write_release(release: Release, options: Options, settings: Mapping[str, Any]) -> Converted:
    """Write ``nnUNet_raw/DatasetXXX_NAME``; it appears only when complete, and the release is never written to.

    Args:
        release: what a converter found.
        options: how to write it.
        settings: what else goes into conversion.json: the converter, the source, its own options.

    Returns:
        The folder, counts and notes.

    Raises:
        InputError: cases are broken (all of them are named), a patient is on both sides, an option does not fit, or
            the id is in use.
        OSError: a file could not be written.
    """
    with new_raw_dataset(options.dataset_id, options.name, CONVERSION_FILE, options.overwrite) as folder:
        return fill_dataset(folder, release, options, settings)


def fill_dataset(folder: Path, release: Release, options: Options, settings: Mapping[str, Any]) -> Converted:
    """What :func:`write_release` does, into the unfinished folder of ``new_raw_dataset``."""
    problems = [f"case {case}: {text}" for case, text in release.problems if case not in options.exclude]
    release = replace(release, cases=_with_test_cases(release.cases, options))
    cases, notes = _wanted(release, options, problems)
    problems += _patients_on_both_sides(cases)
    ending = _common_ending(cases)
    final = nnunet_path("nnUNet_raw") / new_dataset_name(options.dataset_id, options.name)
    for side in sorted({_SUFFIX[case.split] for case in cases} | {"Tr"}):
        (folder / f"images{side}").mkdir()
        (folder / f"labels{side}").mkdir()

    def work(case: SourceCase) -> _Done | None:
        try:
            checked = _check(case, release, options)
        except InputError as error:
            problems.append(f"case {case.name}: {error}")
            return None
        if not problems:
            _write(checked, folder, final, release, ending, options.copy)
        return _Done(case, checked.n_lesions, checked.geometry_fix)

    done = [result for result in for_each(work, cases, options.n_processes, "cases") if result is not None]
    if problems:
        raise InputErrors(sorted(problems))
    if options.test_fraction is not None:
        done = _hold_out(done, folder, ending, options.test_fraction, options.seed)
    if not any(d.case.split == "train" for d in done):
        raise InputError(f"all {len(done)} cases are test cases: none is left to train on")
    if not any(d.case.split == "test" and d.case.label is not None for d in done):
        shutil.rmtree(folder / "labelsTs", ignore_errors=True)
    notes += _write_lists(folder, release, options, done, ending)
    geometry_fixes = {d.case.name: d.geometry_fix for d in done if d.geometry_fix}
    if geometry_fixes:
        notes.append(f"{len(geometry_fixes)} labels take the geometry of their images: {', '.join(geometry_fixes)}")
    n_train = sum(d.case.split == "train" for d in done)
    write_json(
        folder / CONVERSION_FILE,
        {
            "tool": "nnunet-lopsided",
            "version": __version__,
            **settings,
            "channels": list(release.channels),
            "seed": options.seed,
            "test_fraction": options.test_fraction,
            "n_train": n_train,
            "n_test": len(done) - n_train,
            "geometry_fixes": geometry_fixes,
            "label_fixes": _used_fixes(release, options, done),
            "notes": notes,
        },
    )
    return Converted(final, n_train, len(done) - n_train, sum(d.n_lesions or 0 for d in done), tuple(notes))


def _wanted(release: Release, options: Options, problems: list[str]) -> tuple[list[SourceCase], list[str]]:
    """The cases to convert, sorted by name; adds to ``problems``."""
    names = [case.name for case in release.cases]
    for given, known, what in (
        (options.exclude, set(names), "excluded case"),
        (options.test_cases, {*names, *(case.patient for case in release.cases)}, "test case"),
        (options.label_fixes, set(names), "case with label fix"),
    ):
        unknown = sorted(set(given) - known)
        if unknown:
            raise InputError(f"{what} not found in the source: {', '.join(unknown)}")
    repeated = sorted(name for name, n in Counter(names).items() if n > 1)
    problems += [f"case {name}: there {names.count(name)} times" for name in repeated]
    notes = list(release.notes)
    kept, skipped = [], []
    for case in sorted(release.cases, key=lambda case: case.name):
        missing = [channel for channel in release.channels if channel not in case.images]
        if case.name in options.exclude:
            continue
        if missing and options.missing_channel == "skip":
            skipped.append(case.name)
            continue
        if missing:
            problems.append(f"case {case.name}: missing in {case.source}: {', '.join(missing)}")
        if case.label is None and case.split == "train":
            problems.append(f"case {case.name}: no label found in {case.source}")
        kept.append(case)
    if options.exclude:
        notes.append(f"left out as asked: {', '.join(sorted(options.exclude))}")
    if skipped:
        notes.append(f"left out because a channel is missing: {', '.join(skipped)}")
    if not kept:
        raise InputError("no case is left to convert" if release.cases else "no case found")
    return kept, notes


def _with_test_cases(cases: Sequence[SourceCase], options: Options) -> tuple[SourceCase, ...]:
    """The cases with those of ``test_cases`` and all others of their patients on the test side."""
    patients = {case.patient for case in cases if {case.name, case.patient} & options.test_cases}
    return tuple(replace(case, split="test") if case.patient in patients else case for case in cases)


def _patients_on_both_sides(cases: Iterable[SourceCase]) -> list[str]:
    sides: dict[str, dict[str, list[str]]] = {}
    for case in cases:
        sides.setdefault(case.patient, {}).setdefault(case.split, []).append(case.name)
    return [
        f"patient {patient} is in the training set ({', '.join(names['train'])}) and in the test set "
        f"({', '.join(names['test'])})"
        for patient, names in sorted(sides.items())
        if len(names) == 2
    ]


def _common_ending(cases: Iterable[SourceCase]) -> str:
    """The ending all images share if nnU-Net reads it and links pay, else ``.nii.gz``."""
    found = {
        volume.ending if isinstance(volume, VolumeFile) else "" for case in cases for volume in case.images.values()
    }
    return found.pop() if len(found) == 1 and found <= set(LINKED_ENDINGS) else ".nii.gz"


@dataclass(frozen=True)
class _Checked:
    case: SourceCase
    label: Image | None
    label_is_as_in_source: bool
    n_lesions: int | None
    geometry_fix: str | None


def _check(case: SourceCase, release: Release, options: Options) -> _Checked:
    """Read everything of a case.

    Raises:
        InputError: all that is wrong with it, without its name.
    """
    problems: list[str] = []
    headers: dict[str, Header] = {}
    for channel, volume in case.images.items():
        try:
            headers[channel] = volume.header()
        except InputError as error:
            problems.append(f"channel {channel}: {error}")
    label, new_array = None, None
    if case.label is not None:
        try:
            label = case.label.read()
            new_array = _label_map(case, release, options).apply(label.array)
        except InputError as error:
            problems.append(f"label {case.label.path}: {error}" if label is not None else f"label: {error}")
    target, fix = _common_geometry(headers, label, case, options.fix_geometry, problems)
    if problems:
        raise InputError("; ".join(problems))
    if label is None or new_array is None or target is None:
        return _Checked(case, None, False, None, None)
    same = np.issubdtype(label.array.dtype, np.integer) and target is label.geometry
    new = Image(new_array, target)
    n_lesions = len(label_lesions(new, release.labels.get("ignore")))
    return _Checked(case, new, bool(same and np.array_equal(new_array, label.array)), n_lesions, fix)


def _label_map(case: SourceCase, release: Release, options: Options) -> LabelMap:
    return case.label_map.with_fix({**release.label_fixes.get(case.name, {}), **options.label_fixes.get(case.name, {})})


def _common_geometry(
    headers: Mapping[str, Header], label: Image | None, case: SourceCase, fix_geometry: bool, problems: list[str]
) -> tuple[Geometry | None, str | None]:
    """The geometry the label is written with, and how its own differed if that was beyond the tolerance."""
    if not headers:
        return None, None
    first_name, first = next(iter(headers.items()))
    expected, whose = (first, f"channel {first_name}")
    fix = None
    if label is not None:
        own = Header(label.array.shape, label.geometry)
        fix = difference(first, own) if fix_geometry and first.shape == own.shape else None
        if fix is None:
            expected, whose = own, "the label"
    for channel, header in headers.items():
        differing = difference(header, expected)
        if differing is None and not np.allclose(first.geometry.spacing_mm, header.geometry.spacing_mm):
            differing = f"nnU-Net refuses channels of different spacing, {difference(header, first, 0)}"
        if differing:
            problems.append(f"channel {channel} ({case.images[channel].path}) versus {whose}: {differing}")
    if label is None:
        return first.geometry, None
    # nnU-Net compares spacings more strictly than we do.
    close = np.allclose(first.geometry.spacing_mm, expected.geometry.spacing_mm)
    return (label.geometry if fix is None and close else first.geometry), fix


def _write(checked: _Checked, folder: Path, final: Path, release: Release, ending: str, copy: bool) -> None:
    case, side = checked.case, _SUFFIX[checked.case.split]
    for channel, name in zip(release.channels, _image_names(case, ending), strict=True):
        _place(case.images[channel], folder / f"images{side}" / name, final, copy)
    if checked.label is None or case.label is None:
        return
    target = folder / f"labels{side}" / f"{case.name}{ending}"
    linkable = isinstance(case.label, VolumeFile) and case.label.ending == ending
    if linkable and checked.label_is_as_in_source:
        _place(case.label, target, final, copy)
    else:
        write_checked(target, checked.label)


def _image_names(case: SourceCase, ending: str) -> list[str]:
    return [f"{case.name}_{index:04d}{ending}" for index in range(len(case.images))]


def _place(volume: Volume, target: Path, final: Path, copy: bool) -> None:
    ending = volume.ending if isinstance(volume, VolumeFile) else ""
    if ending and target.name.endswith(ending):
        if copy:
            shutil.copyfile(volume.path, target)
        else:
            _link(target, volume.path, final)
    elif ending == ".nii" and target.name.endswith(".nii.gz"):
        # Without a name and a time in the header, so that the same voxels give the same bytes.
        with (
            volume.path.open("rb") as source,
            target.open("wb") as file,
            gzip.GzipFile("", "wb", compresslevel=5, fileobj=file, mtime=0) as zipped,
        ):
            shutil.copyfileobj(source, zipped, 1 << 20)
    else:
        write_checked(target, volume.read())


def _link(link: Path, target: Path, final: Path) -> None:
    try:
        link_file(link, target, final)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise InputError(f"{link.parent} is on a file system without symbolic links: use --copy") from error
        raise


def write_checked(path: Path, image: Image) -> None:
    """Write an image and look whether it is all there: SimpleITK says nothing when the disk is full."""
    try:
        write_image(path, image)
        check_complete(path)
    except (RuntimeError, InputError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise OSError(f"cannot write {path}: the file is incomplete, is the disk full? ({reason})") from error


def _hold_out(done: Sequence[_Done], folder: Path, ending: str, fraction: float, seed: int) -> list[_Done]:
    """Move the training cases of the chosen patients to the test side."""
    lesions = most_lesions((d.case.patient, d.n_lesions or 0) for d in done if d.case.split == "train")
    chosen = choose_test_patients(lesions, fraction, seed)
    for kind in ("images", "labels"):
        (folder / f"{kind}Ts").mkdir(exist_ok=True)
    moved = []
    for d in done:
        if d.case.split == "train" and d.case.patient in chosen:
            for kind, names in (("images", _image_names(d.case, ending)), ("labels", [f"{d.case.name}{ending}"])):
                for name in names:
                    (folder / f"{kind}Tr" / name).rename(folder / f"{kind}Ts" / name)
            d = replace(d, case=replace(d.case, split="test"))
        moved.append(d)
    return moved


def _write_lists(folder: Path, release: Release, options: Options, done: Sequence[_Done], ending: str) -> list[str]:
    """dataset.json, splits_final.json and cases.csv; returns notes."""
    training = [d for d in done if d.case.split == "train"]
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {str(i): name for i, name in enumerate(release.channels)},
            "labels": dict(release.labels),
            "numTraining": len(training),
            "file_ending": ending,
        },
    )
    folds, notes = _folds(release, training, options)
    if folds:
        write_json(folder / "splits_final.json", folds)
    write_table(
        folder / CASES_FILE,
        ["case", "patient", "time_point", "source", "split", "n_lesions"],
        # None is an empty cell.
        ((c.name, c.patient, c.time_point, c.source, c.split, d.n_lesions) for d in done for c in [d.case]),
    )
    return notes


def _folds(
    release: Release, training: Sequence[_Done], options: Options
) -> tuple[list[dict[str, list[str]]], list[str]]:
    names = {d.case.name for d in training}
    if release.folds is not None:
        folds = [{side: sorted(names & set(fold[side])) for side in ("train", "val")} for fold in release.folds]
        if all(fold["train"] and fold["val"] for fold in folds):
            return folds, []
    patients: dict[str, list[str]] = {}
    for d in training:
        patients.setdefault(d.case.patient, []).append(d.case.name)
    lesions = most_lesions((d.case.patient, d.n_lesions or 0) for d in training)
    folds = folds_by_patient(patients, lesions, options.seed)
    if not folds:
        return [], ["only one patient to train on: no splits_final.json is written"]
    return folds, [] if release.folds is None else ["the paper's fold would be empty on one side: folds by patient"]


def _used_fixes(release: Release, options: Options, done: Iterable[_Done]) -> dict[str, dict[str, int]]:
    """The label fixes of the converted cases, for conversion.json."""
    both = {
        d.case.name: {**release.label_fixes.get(d.case.name, {}), **options.label_fixes.get(d.case.name, {})}
        for d in done
    }
    return {name: {str(stray): meant for stray, meant in fix.items()} for name, fix in both.items() if fix}
