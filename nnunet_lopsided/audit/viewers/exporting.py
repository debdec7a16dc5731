"""Candidates of an audit, written for another viewer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from nnunet_lopsided import __version__
from nnunet_lopsided.audit.decisions import decisions_on
from nnunet_lopsided.audit.stored import TABLE, StoredAudit, StoredCandidate, check_unchanged
from nnunet_lopsided.audit.viewers.coco import CocoAnnotation, CocoImage, categories, write_slices
from nnunet_lopsided.audit.viewers.dicom import series_of_cases, write_dicom
from nnunet_lopsided.audit.viewers.itk_snap import write_descriptions
from nnunet_lopsided.audit.viewers.slicer import write_points, write_segments
from nnunet_lopsided.audit.viewers.tiers import TIERS, Tier, tiers_of
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folders import check_output_folder, new_output_folder
from nnunet_lopsided.files.json import file_digest, write_json
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.images import Image, read_image, write_image
from nnunet_lopsided.nnunet.raw import Case, RawDataset, case_images, raw_dataset

Viewer = Literal["slicer", "itk-snap", "coco", "dicom"]
RECORD, COCO, SCRIPT = "export.json", "coco.json", "open_in_slicer.py"
SEGMENTS, MAP, LABELS = "candidates.seg.nrrd", "candidates.nii.gz", "candidates.txt"


def points_file(case: str, tier: Tier) -> str:
    """Name of a case's list of points."""
    return f"{case}_{tier.name}.mrk.json"


def export_audit(
    audit: StoredAudit,
    folder: Path,
    viewer: Viewer,
    *,
    n_shown: int = 200,
    cases: Sequence[str] = (),
    decisions: Path | None = None,
    channel: int = 0,
    dicom: Path | None = None,
    overwrite: bool = False,
    n_workers: int = 2,
) -> list[StoredCandidate]:
    """Write the best candidates for a viewer, to a temporary folder beside ``folder`` that is renamed when complete.

    Args:
        audit: whose candidates.
        folder: target.
        viewer: for which.
        n_shown: so many of the best candidates.
        cases: those of these cases alone; empty: of all.
        decisions: a file of decisions; all candidates that it accepts, in place of the best ones.
        channel: of the images, for the slices of COCO.
        dicom: for DICOM, any folder above the files that the dataset was converted from.
        overwrite: replace an earlier export there, and nothing else.
        n_workers: cases worked on at the same time.

    Returns:
        The candidates that were written.

    Raises:
        InputError: the target is refused or cannot be written, a case or channel does not exist, there is nothing to
            write, an image is 2D and the viewer takes 3D alone, labels or maps have changed since the audit, decisions
            are of another audit, or ``dicom`` is missing or given for another viewer.
        InputErrors: cases have no DICOM series.
    """
    if viewer == "dicom" and dicom is None:
        raise InputError("--to dicom needs --series: any folder above the DICOM files that cases were converted from")
    if viewer != "dicom" and dicom is not None:
        raise InputError(f"--series is for --to dicom, got --to {viewer}")
    mark = COCO if viewer == "coco" else RECORD
    check_output_folder(folder, overwrite, [], (RECORD, mark), "lopsided-audit export")
    dataset = raw_dataset(audit.dataset)
    training = dataset.training_cases()
    check_unchanged(audit, dataset, training)
    unknown = [case for case in cases if case not in audit.record.label_digests]
    if unknown:
        raise InputError(f"expected cases of audit {audit.id}, got {', '.join(unknown)}")
    shown = [c for c in _chosen(audit, decisions, n_shown) if not cases or c.case in cases]
    if not shown:
        which = (
            f"the {n_shown} best candidates is" if decisions is None else f"the candidates accepted in {decisions} is"
        )
        more = "; --shown asks for more" if decisions is None else ""
        raise InputError(f"none of {which} of {', '.join(cases) or 'any case'}{more}")
    if any(not c.position_mm for c in shown):
        raise InputError(f"{audit.folder / TABLE}: expected the columns x_mm, y_mm and z_mm, which an export needs")
    tiers = tiers_of(audit, shown)
    concerned = [case for case in training if any(c.case == case.name for c in shown)]
    names = dataset.channel_names
    series = {} if dicom is None else series_of_cases(dataset, concerned, dicom)
    with new_output_folder(folder, overwrite, [], (RECORD, mark), "lopsided-audit export") as unfinished:
        if viewer == "coco":
            (unfinished / "images").mkdir()

        def write(case: Case) -> tuple[list[CocoImage], list[CocoAnnotation]]:
            own = [c for c in shown if c.case == case.name]
            numbers = _map_of(audit, case, dataset, own)
            if viewer == "coco":
                images = case_images(case, numbers.shape, colour=True)
                if not 0 <= channel < len(images):
                    raise InputError(f"--channel must be from 0 to {len(images) - 1}, got {channel}")
                content = write_slices(unfinished / "images", case.name, images[channel], numbers.array, own, tiers)
                return content["images"], content["annotations"]
            if numbers.array.ndim != 3:
                raise InputError(f"case {case.name}: expected a 3D image for {viewer}, found 2D; export --to coco")
            (unfinished / case.name).mkdir()
            if viewer == "slicer":
                for tier in TIERS:
                    of_tier = [c for c in own if tiers[c.key] == tier]
                    write_points(unfinished / case.name / points_file(case.name, tier), of_tier, tier)
                write_segments(unfinished / case.name / f"{case.name}_{SEGMENTS}", numbers, own, tiers)
            elif viewer == "dicom":
                write_dicom(unfinished / case.name, case.name, numbers, own, series[case.name])
            else:
                write_image(unfinished / case.name / f"{case.name}_{MAP}", numbers)
                write_descriptions(unfinished / case.name / f"{case.name}_{LABELS}", own, tiers)
            return [], []

        # Warnings of the DICOM libraries are silenced for all threads at once, so that there must be but one.
        slices = for_each(write, concerned, 1 if viewer == "dicom" else n_workers, "cases")
        if viewer == "coco":
            write_json(unfinished / COCO, _coco(audit, slices))
        if viewer == "slicer":
            script = Path(__file__).with_name(f"{SCRIPT}.txt").read_text(encoding="utf-8")
            (unfinished / SCRIPT).write_text(script, encoding="utf-8")
        write_json(unfinished / RECORD, _record(audit, viewer, shown, concerned, unfinished, names))
    return shown


def _chosen(audit: StoredAudit, decisions: Path | None, n_shown: int) -> list[StoredCandidate]:
    """The best candidates, or those that were accepted, the best first."""
    if decisions is None:
        return list(audit.candidates[:n_shown])
    given = decisions_on(audit, decisions)
    return [c for c in audit.candidates if given.verdicts.get(c.key) == "accept"]


def _map_of(audit: StoredAudit, case: Case, dataset: RawDataset, own: Sequence[StoredCandidate]) -> Image:
    """The label map of the candidates that are exported."""
    assert case.label is not None, "training_cases() gives labels"
    numbers = audit.read_map(case.name, case.label, read_image(case.label), dataset.file_ending)
    kept = np.isin(numbers.array, [c.number for c in own])
    highest = max(c.number for c in own)
    array = np.where(kept, numbers.array, 0).astype(np.min_scalar_type(highest))
    return Image(array, numbers.geometry)


def _record(
    audit: StoredAudit,
    viewer: Viewer,
    shown: Sequence[StoredCandidate],
    concerned: Sequence[Case],
    folder: Path,
    channel_names: Sequence[str],
) -> dict[str, object]:
    return {
        "schema_version": 1,
        "tool": "nnunet-lopsided",
        "version": __version__,
        "to": viewer,
        "audit": audit.id,
        "dataset": audit.dataset,
        "cases": {
            case.name: {
                "candidates": [c.number for c in shown if c.case == case.name],
                "position_mm": list(next(c.position_mm for c in shown if c.case == case.name)),
                "images": [str(path.absolute()) for path in case.images],
                "channels": list(channel_names),
                "label": str(case.label.absolute()) if case.label else None,
                "files": {path.name: file_digest(path) for path in sorted((folder / case.name).glob("*"))},
            }
            for case in concerned
        },
    }


def _coco(audit: StoredAudit, slices: Sequence[tuple[list[CocoImage], list[CocoAnnotation]]]) -> dict[str, object]:
    images: list[CocoImage] = []
    annotations: list[CocoAnnotation] = []
    for own_images, own_annotations in slices:
        n_images, n_annotations = len(images), len(annotations)
        images += [{**image, "id": image["id"] + n_images} for image in own_images]
        annotations += [
            {**one, "id": one["id"] + n_annotations, "image_id": one["image_id"] + n_images} for one in own_annotations
        ]
    return {
        "info": {"description": f"candidates of audit {audit.id} of {audit.dataset}", "version": __version__},
        "licenses": [],
        "categories": categories(),
        "images": images,
        "annotations": annotations,
    }
