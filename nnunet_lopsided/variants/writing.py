"""Variants of a raw nnU-Net dataset: the same images with other labels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import Unpack

from nnunet_lopsided import __version__
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.files.tables import write_table
from nnunet_lopsided.images import write_image
from nnunet_lopsided.nnunet.paths import new_dataset_name, nnunet_path, plain_name
from nnunet_lopsided.nnunet.raw import Case, new_raw_dataset, raw_dataset
from nnunet_lopsided.variants.linking import link_test_files, write_dataset_files
from nnunet_lopsided.variants.planning import CensoringPlan, Choice, MoreOfChoice, plan_censoring

CENSORING_FILE = "censoring.json"
LESIONS_FILE = "censored_lesions.csv"


@dataclass(frozen=True)
class CensoredVariant:
    """What :func:`write_censored_variant` made; ``notes`` is what the user must know."""

    folder: Path
    n_lesions: int
    n_censored: int
    notes: tuple[str, ...] = ()


def write_censored_variant(
    source: int | str,
    output_id: int,
    mode: str | None,
    rate: float | None = None,
    seed: int = 0,
    *,
    name: str | None = None,
    overwrite: bool = False,
    n_workers: int = 2,
    **more: Unpack[MoreOfChoice],
) -> CensoredVariant:
    """Write a dataset whose training labels lack some of the source's lesions.

    The same call gives the same bytes in every file, wherever it writes. The folder appears only when complete.
    Training images are referenced by dataset.json, test images and labels by symbolic links; test labels stay whole,
    unless ``cases="all"``.

    Args:
        source: id or folder name of a dataset below nnUNet_raw; it may itself be a variant.
        output_id: id of the variant, 1 to 999, not in use below any nnU-Net path.
        mode: see :class:`Choice`, as for ``rate`` and ``seed``.
        rate: fraction of lesions to delete, within [0, 1].
        seed: any integer.
        name: folder name after ``DatasetXXX_``; default: the source's name followed by ``Censored`` (without a mode by
            the number of patients).
        overwrite: replace an earlier variant of the same id and name.
        n_workers: how many label files are worked on at the same time.
        **more: the other attributes of :class:`Choice`.

    Returns:
        The folder, and how many lesions there were and how many went.

    Raises:
        InputError: the output id is in use, or see :func:`plan_censoring`.
    """
    choice = Choice(mode=mode, rate=rate, seed=seed, **more)
    choice.check()
    dataset = raw_dataset(source)
    match = re.fullmatch(r"Dataset([0-9]{3})_(.+)", dataset.name)
    if match is None:
        raise InputError(f"source must be a folder named DatasetXXX_NAME, got {dataset.name}")
    # --overwrite would replace the source by its own variant.
    if int(match[1]) == output_id:
        raise InputError(f"output id {output_id} is the id of the source, {dataset.name}")
    name = name or plain_name(f"{match[2]}{'Censored' if mode else f'{choice.n_patients}Patients'}")
    # Links and references are relative to where the folder will lie, not to the hidden name it is written under.
    final = nnunet_path("nnUNet_raw") / new_dataset_name(output_id, name)

    with new_raw_dataset(output_id, name, marker=CENSORING_FILE, overwrite=overwrite) as folder:
        plan = plan_censoring(source, choice, n_workers)
        _write_labels(plan, folder, n_workers)
        link_test_files(plan.dataset, folder, final)
        keep_splits = choice.n_patients is None
        labels = {**plan.dataset.json["labels"], "ignore": plan.replacement} if choice.ignored else None
        write_dataset_files(plan.dataset, plan.training, folder, final, keep_splits=keep_splits, labels=labels)
        if plan.folds:
            write_json(folder / "splits_final.json", plan.folds)
        _write_lesions_csv(folder / LESIONS_FILE, plan)
        write_json(folder / CENSORING_FILE, _record(plan))
    return CensoredVariant(final, len(plan.table), len(plan.censored), tuple(_notes(plan)))


def _notes(plan: CensoringPlan) -> list[str]:
    notes = [str(plan.notes["splits"])] if "splits" in plan.notes else []
    if dropped := plan.notes.get("list_rows_out_of_scope"):
        notes.append(f"{dropped} rows of the list are of cases that are not censored here, and had no effect")
    return notes


def _record(plan: CensoringPlan) -> dict[str, object]:
    n_lesions, n_censored = len(plan.table), len(plan.censored)
    return {
        "tool": "nnunet-lopsided",
        "version": __version__,
        "source_dataset": plan.dataset.name,
        "mode": plan.choice.mode,
        "rate": plan.choice.rate,
        "seed": plan.choice.seed,
        "n_lesions": n_lesions,
        "n_censored": n_censored,
        "realised_fraction": n_censored / n_lesions if n_lesions else 0.0,
        # Only where it was asked for: records of all other variants keep the bytes they had before there was the
        # choice.
        **({"ignored": True} if plan.choice.ignored else {}),
        **plan.notes,
    }


def _write_labels(plan: CensoringPlan, folder: Path, n_workers: int) -> None:
    ids: dict[str, list[int]] = {}
    for case_name, lesion_id in plan.censored:
        ids.setdefault(case_name, []).append(lesion_id)

    def write(item: tuple[str, Case]) -> None:
        labels, case = item
        label = plan.labels[case.name].without(ids.get(case.name, []), plan.replacement)
        write_image(folder / labels / (case.name + plan.dataset.file_ending), label)

    # A training and a test case never share a name (planning refuses it), so plan.labels needs the name alone.
    work = [("labelsTr", case) for case in plan.training] + [("labelsTs", case) for case in plan.test]
    for labels in {labels for labels, _ in work}:
        (folder / labels).mkdir()
    for_each(write, work, n_workers, "labels")


def _write_lesions_csv(path: Path, plan: CensoringPlan) -> None:
    with_contrast = plan.choice.mode == "contrast"
    measures = ["volume_mm3", "diameter_mm", *(["contrast"] if with_contrast else [])]
    rows = (
        [
            row.case,
            row.id,
            *(f"{getattr(row, name):.9g}" for name in measures),
            "censored" if row.key in plan.censored else "kept",
        ]
        for row in plan.table
    )
    write_table(path, ["case", "id", *measures, "status"], rows)
