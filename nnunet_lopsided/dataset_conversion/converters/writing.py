"""The one place that writes a converted dataset: checks every case, links or rewrites its files, splits by patient."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_lopsided import __version__
from nnunet_lopsided.dataset_conversion.converters.bringing import LABEL
from nnunet_lopsided.dataset_conversion.converters.case_checking import check_case
from nnunet_lopsided.dataset_conversion.converters.case_files import FOLDER_SUFFIX, image_names, write_case
from nnunet_lopsided.dataset_conversion.converters.options import Converted, ConvertedCase, Options
from nnunet_lopsided.dataset_conversion.converters.patient_names import numbered_visits, session_question
from nnunet_lopsided.dataset_conversion.converters.release import Release, SourceCase
from nnunet_lopsided.dataset_conversion.converters.volumes import VolumeFile
from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.files.tables import write_table
from nnunet_lopsided.nnunet.paths import check_case_name, check_no_twins, new_dataset_name, nnunet_path
from nnunet_lopsided.nnunet.patients import CASES_FILE
from nnunet_lopsided.nnunet.raw import check_id_is_free, new_raw_dataset
from nnunet_lopsided.nnunet.splitting import choose_test_patients, folds_by_patient, most_lesions

CONVERSION_FILE = "conversion.json"
# Kept if all images of a release have it. Of the others, .nii would cost more in label maps than linking saves, and
# nnU-Net does not read .mhd.
COLOUR_ENDINGS = (".png", ".bmp")
LINKED_ENDINGS = (".nii.gz", ".nrrd", ".mha", *COLOUR_ENDINGS)


@dataclass(frozen=True)
class _Done:
    """A case after its files were checked and written: its lesions, and what was changed."""

    case: SourceCase
    n_lesions: int | None
    geometry_fix: str | None
    changes: Mapping[str, str]


def write_release(release: Release, options: Options, settings: Mapping[str, object]) -> Converted:
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
    if options.dry_run:
        final = nnunet_path("nnUNet_raw") / new_dataset_name(options.dataset_id, options.name)
        check_id_is_free(options.dataset_id, final, options.overwrite)
        return fill_dataset(None, release, options, settings)
    with new_raw_dataset(options.dataset_id, options.name, CONVERSION_FILE, options.overwrite) as folder:
        return fill_dataset(folder, release, options, settings)


def fill_dataset(folder: Path | None, release: Release, options: Options, settings: Mapping[str, object]) -> Converted:
    """What :func:`write_release` does, into the unfinished folder of ``new_raw_dataset``; without one, its checks."""
    problems = [_of_case(case, text) for case, text in release.problems if case not in options.exclude]
    problems += release.general_problems
    release = replace(release, cases=_with_test_cases(release.cases, options))
    cases, notes = _wanted(release, options, problems)
    problems += _patients_on_both_sides(cases)
    if release.patients_unstated:
        names = [case.name for case in cases]
        question = session_question(names)
        problems += [] if question is None else [question]
        notes += [note for note in [numbered_visits(names)] if note is not None and question is None]
    ending = _common_ending(cases)
    for case in cases:
        check_case_name(case.name, case.source, ending)
    check_no_twins((case.name for case in cases), new_dataset_name(options.dataset_id, options.name))
    if release.file_channels and ending not in COLOUR_ENDINGS:
        raise InputError(
            f"images with several channels in one file are merged if all end in one of {' or '.join(COLOUR_ENDINGS)}"
        )
    final = nnunet_path("nnUNet_raw") / new_dataset_name(options.dataset_id, options.name)
    if folder is not None:
        # labelsTr even where all are test cases, so that what is wrong is said below and not by a missing folder.
        for side in sorted({FOLDER_SUFFIX[case.split] for case in cases} | {"Tr"}):
            (folder / f"images{side}").mkdir()
            (folder / f"labels{side}").mkdir()

    def work(case: SourceCase) -> _Done | None:
        try:
            checked = check_case(case, release, options)
        except InputError as error:
            problems.append(_of_case(case.name, str(error)))
            return None
        # Once one case is wrong nothing will be published: the rest is only checked, to name all problems in one run.
        if not problems and folder is not None:
            write_case(checked, release, folder=folder, final=final, ending=ending, copy=options.copy)
        return _Done(case, checked.n_lesions, checked.geometry_fix, checked.changes)

    done = [result for result in for_each(work, cases, options.n_workers, "cases") if result is not None]
    if problems:
        # Cases are checked in any order; the same release gives the same message.
        raise InputErrors(sorted(problems))
    # After reading all labels: the strata are of lesion numbers, which nobody knows before.
    if options.test_fraction is not None:
        done = _hold_out(done, options.test_fraction, options.seed)
    if not any(d.case.split == "train" for d in done):
        raise InputError(f"all {len(done)} cases are test cases: none is left to train on")
    folds, fold_notes = _folds(release, [d for d in done if d.case.split == "train"], options)
    notes += fold_notes
    geometry_fixes = {d.case.name: d.geometry_fix for d in done if d.geometry_fix}
    if geometry_fixes:
        notes.append(f"{len(geometry_fixes)} labels take the geometry of their images: {', '.join(geometry_fixes)}")
    notes += _notes_of_changes(done)
    n_train = sum(d.case.split == "train" for d in done)
    if folder is not None:
        _move_test_cases(folder, cases, done, ending)
        # An empty labelsTs would look as if there were something to evaluate with.
        if not any(d.case.split == "test" and d.case.label is not None for d in done):
            shutil.rmtree(folder / "labelsTs", ignore_errors=True)
        _write_lists(folder, release, done, ending, folds)
        about: dict[str, object] = {
            "tool": "nnunet-lopsided",
            "version": __version__,
            **settings,
            "channels": list(release.channel_names),
            "seed": options.seed,
            "test_fraction": options.test_fraction,
            "n_train": n_train,
            "n_test": len(done) - n_train,
            "geometry_fixes": geometry_fixes,
            "label_fixes": _used_fixes(release, options, done),
            "notes": notes,
        }
        if options.reorient is not None or options.resample_channels:
            about["reorient"], about["resample_channels"] = options.reorient, options.resample_channels
            about["changed_images"] = {d.case.name: dict(d.changes) for d in done if d.changes}
        write_json(folder / CONVERSION_FILE, about)
    return Converted(
        folder=final,
        cases=tuple(
            ConvertedCase(
                name=d.case.name,
                patient=d.case.patient,
                time_point=d.case.time_point,
                split=d.case.split,
                n_lesions=d.n_lesions,
                changes={**d.changes, **({"label": "takes the images' geometry"} if d.geometry_fix else {})},
            )
            for d in done
        ),
        n_train=n_train,
        n_test=len(done) - n_train,
        n_lesions=sum(d.n_lesions or 0 for d in done),
        notes=tuple(notes),
    )


def _of_case(case: str, problem: str) -> str:
    """A problem of a case in one line, with what leaves it out where it names no option."""
    way_out = "" if " --" in problem or "(--" in problem else f" (--exclude {case} leaves it out)"
    return f"case {case}: {problem}{way_out}"


def _notes_of_changes(done: Sequence[_Done]) -> list[str]:
    """A line for each kind of change: how many cases have it, and where it is said in full."""
    notes = []
    for beginning, what in (("turned", "were turned, exactly"), ("resampled", "were resampled")):
        cases = [d.case.name for d in done if any(beginning in words for words in d.changes.values())]
        if cases:
            notes.append(f"images of {len(cases)} cases {what} ({CONVERSION_FILE} says which): {', '.join(cases)}")
    for d in done:
        for channel, words in d.changes.items():
            if "labelled voxels lie outside" in words:
                notes.append(f"case {d.case.name}: channel {channel} does not show all of the label: {words}")
    return notes


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
    problems += [f"case {name}: found {names.count(name)} times" for name in repeated]
    notes = list(release.notes)
    nowhere = _found_nowhere(release)
    problems += nowhere.values()
    kept, skipped = [], []
    for case in sorted(release.cases, key=lambda case: case.name):
        missing = [c for c in release.channels if c not in case.images and c not in nowhere]
        if case.name in options.exclude:
            continue
        if missing and options.missing_channel == "skip":
            skipped.append(case.name)
            continue
        if missing:
            problems.append(
                f"case {case.name}: missing in {case.source}: {', '.join(missing)} (--missing-channel skip leaves out "
                f"cases that lack a channel, --exclude {case.name} this one)"
            )
        if case.label is None and case.split == "train" and LABEL not in nowhere:
            problems.append(
                f"case {case.name}: no label found in {case.source} (--exclude {case.name} leaves it out, --test-cases "
                f"{case.name} makes it a test case)"
            )
        kept.append(case)
    if options.exclude:
        notes.append(f"left out as asked: {', '.join(sorted(options.exclude))}")
    if skipped:
        notes.append(f"left out because a channel is missing: {', '.join(skipped)}")
    if not kept:
        raise InputError("no case is left to convert" if release.cases else "no case found")
    return kept, notes


def _found_nowhere(release: Release) -> dict[str, str]:
    """A problem for each channel that no case has, and for the label if no training case has one."""
    if len(release.cases) < 2 and not release.patterns:
        return {}
    found = {channel for case in release.cases for channel in case.images}
    nowhere = {}
    for channel in release.channels:
        if channel not in found:
            how = release.patterns.get(channel, f"--channels without {channel} does without it")
            nowhere[channel] = f"no case has the channel {channel}: {how}"
    training = [case for case in release.cases if case.split == "train"]
    if training and not any(case.label is not None for case in training):
        how = release.patterns.get(LABEL, "cases without one may be named in --test-cases")
        nowhere[LABEL] = f"no label found in any case: {how}"
    return nowhere


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
    endings = {
        volume.ending if isinstance(volume, VolumeFile) else "" for case in cases for volume in case.images.values()
    }
    # dataset.json has one file_ending for all images and labels.
    return endings.pop() if len(endings) == 1 and endings <= set(LINKED_ENDINGS) else ".nii.gz"


def _hold_out(done: Sequence[_Done], fraction: float, seed: int) -> list[_Done]:
    """The cases, with the training cases of the chosen patients on the test side."""
    lesions = most_lesions((d.case.patient, d.n_lesions or 0) for d in done if d.case.split == "train")
    chosen = choose_test_patients(lesions, fraction, seed)
    return [
        replace(d, case=replace(d.case, split="test")) if d.case.split == "train" and d.case.patient in chosen else d
        for d in done
    ]


def _move_test_cases(folder: Path, cases: Sequence[SourceCase], done: Sequence[_Done], ending: str) -> None:
    """Move the files of cases that have become test cases since they were written."""
    before = {case.name: case.split for case in cases}
    moved = [d.case for d in done if d.case.split != before[d.case.name]]
    for kind in ("images", "labels") if moved else ():
        (folder / f"{kind}Ts").mkdir(exist_ok=True)
    for case in moved:
        for kind, names in (("images", image_names(case, ending)), ("labels", [f"{case.name}{ending}"])):
            for name in names:
                (folder / f"{kind}Tr" / name).rename(folder / f"{kind}Ts" / name)


def _write_lists(
    folder: Path, release: Release, done: Sequence[_Done], ending: str, folds: Sequence[Mapping[str, list[str]]]
) -> None:
    """dataset.json, splits_final.json and cases.csv."""
    training = [d for d in done if d.case.split == "train"]
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {str(i): name for i, name in enumerate(release.channel_names)},
            "labels": dict(release.labels),
            "numTraining": len(training),
            "file_ending": ending,
        },
    )
    if folds:
        write_json(folder / "splits_final.json", folds)
    write_table(
        folder / CASES_FILE,
        ["case", "patient", "time_point", "source", "split", "n_lesions"],
        # None is an empty cell.
        ((c.name, c.patient, c.time_point, c.source, c.split, d.n_lesions) for d in done for c in [d.case]),
    )


def _folds(
    release: Release, training: Sequence[_Done], options: Options
) -> tuple[list[dict[str, list[str]]], list[str]]:
    names = {d.case.name for d in training}
    if release.folds is not None:
        folds = [{side: sorted(names & set(fold[side])) for side in ("train", "val")} for fold in release.folds]
        # Part of a release, or excluded cases, may leave a side empty, with which nnU-Net cannot train.
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
