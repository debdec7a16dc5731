"""Label maps for viewing: what was found, what was missed and what is false, voxel by voxel."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.folder import LoadedAndEvaluated
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.images import Geometry, Image, write_image
from nnunet_lopsided.lesions import Lesions
from nnunet_lopsided.nnunet.paths import IMAGE_ENDINGS

# Instead of formats that keep their voxels in a second file, know no direction, or are written in colour.
_WRITTEN_AS = {".mhd": ".mha", ".gipl": ".mha", ".bmp": ".png"}


class Outcome(IntEnum):
    """The value of a voxel. 3 and 6 together are the missed lesions: none is ever hidden by a candidate."""

    BACKGROUND = 0
    TRUE_POSITIVE = 1
    FALSE_POSITIVE = 2
    MISSED = 3
    DUPLICATE = 4
    DETECTED_UNCOVERED = 5
    MISSED_COVERED = 6
    NOT_COUNTED = 7


# Colours of the Okabe-Ito palette, which colour-blind people can tell apart.
DESCRIPTIONS: dict[Outcome, tuple[str, tuple[int, int, int]]] = {
    Outcome.TRUE_POSITIVE: ("true positive candidate", (0, 158, 115)),
    Outcome.FALSE_POSITIVE: ("false positive candidate", (230, 159, 0)),
    Outcome.MISSED: ("missed lesion", (213, 94, 0)),
    Outcome.DUPLICATE: ("duplicate candidate of a detected lesion", (240, 228, 66)),
    Outcome.DETECTED_UNCOVERED: ("detected lesion outside of candidates", (86, 180, 233)),
    Outcome.MISSED_COVERED: ("missed lesion inside a candidate", (204, 121, 167)),
    Outcome.NOT_COUNTED: ("not counted (below the volume cut)", (153, 153, 153)),
}
_OF_STATUS = {
    Status.TRUE_POSITIVE: Outcome.TRUE_POSITIVE,
    Status.FALSE_POSITIVE: Outcome.FALSE_POSITIVE,
    Status.DUPLICATE: Outcome.DUPLICATE,
}


def outcome_map(
    lesions: Lesions,
    candidates: Lesions,
    status: NDArray[np.int8],
    *,
    detected: NDArray[np.bool_],
    missed: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """The outcome of every voxel.

    Args:
        lesions: K components of the reference.
        candidates: M components of the prediction, of the same shape.
        status: :class:`Status` of every candidate, (M,).
        detected: whether each lesion was detected, (K,).
        missed: whether each lesion was missed, (K,); a lesion that is neither was not counted.

    Returns:
        Values of :class:`Outcome`, of the shape of both. A candidate's voxels say what the candidate is, except inside
        missed lesions; a lesion's voxels outside of candidates say what the lesion is.

    Example:
        >>> from nnunet_lopsided.lesions import find_lesions
        >>> lesions = find_lesions(np.array([[1, 1, 0, 0, 1, 0, 0]]), (1, 1))
        >>> candidates = find_lesions(np.array([[0, 1, 0, 0, 0, 0, 1]]), (1, 1))
        >>> yes, no = np.array([True, False]), np.array([False, True])
        >>> outcome_map(lesions, candidates, np.array([1, 0], np.int8), detected=yes, missed=no).tolist()
        [[5, 1, 0, 0, 3, 0, 2]]
    """
    # Index 0 is never used: ids count from 1.
    of_candidate = np.full(len(candidates) + 1, Outcome.NOT_COUNTED, np.uint8)
    for value, outcome in _OF_STATUS.items():
        of_candidate[1:][status == value] = outcome
    of_lesion = np.full(len(lesions) + 1, Outcome.NOT_COUNTED, np.uint8)
    of_lesion[1:][detected] = Outcome.DETECTED_UNCOVERED
    of_lesion[1:][missed] = Outcome.MISSED
    values: NDArray[np.uint8] = np.zeros(int(np.prod(lesions.shape)), np.uint8)
    values[lesions.voxels] = of_lesion[lesions.voxel_ids]
    inside = values[candidates.voxels]
    values[candidates.voxels] = np.where(
        inside == Outcome.MISSED, np.uint8(Outcome.MISSED_COVERED), of_candidate[candidates.voxel_ids]
    )
    return values.reshape(lesions.shape)


def map_path(folder: Path, case: str, reference: Path) -> Path:
    """Where the map of a case goes: with the reference's ending, or another for .mhd, .gipl (.mha) and .bmp (.png)."""
    ending = next(e for e in IMAGE_ENDINGS if reference.name.lower().endswith(e))
    return folder / (case + _WRITTEN_AS.get(ending, ending))


def write_outcome_map(folder: Path, case: str, reference: Path, values: NDArray[np.uint8], geometry: Geometry) -> Path:
    """Write the map of a case where its reference lies in space, in the reference's file format.

    Args:
        folder: created where it does not exist.
        case: name of the map.
        reference: file of the reference label map; its ending is taken over.
        values: of :func:`outcome_map`.
        geometry: of the reference.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = map_path(folder, case, reference)
    write_image(path, Image(values, geometry))
    return path


def write_map(folder: Path, case: LoadedAndEvaluated) -> None:
    """Write the outcome map of a case while its volumes are in memory; for ``evaluate_folder(..., on_case=...)``.

    Args:
        folder: created where it does not exist.
        case: what ``on_case`` is called with.
    """
    evaluated, result = case.evaluated, case.evaluated.result
    values = outcome_map(
        evaluated.lesions,
        evaluated.candidates,
        result.matches.status,
        detected=result.detected,
        missed=result.missed,
    )
    write_outcome_map(folder, case.files.name, case.files.reference, values, case.loaded.geometry)


def write_descriptions(folder: Path) -> None:
    """Write names and colours of the values: ``itk-snap-labels.txt`` and ``slicer-colors.ctbl``.

    ITK-SNAP: Segmentation, Import Label Descriptions. 3D Slicer: add the colour table as data, then choose it for the
    label map.
    """
    folder.mkdir(parents=True, exist_ok=True)
    snap = ['    0     0    0    0        0  0  0    "background"']
    slicer = ["0 background 0 0 0 0"]
    for value, (name, (red, green, blue)) in DESCRIPTIONS.items():
        snap.append(f'{value:5d} {red:5d} {green:4d} {blue:4d}        1  1  1    "{name}"')
        slicer.append(f"{value:d} {_one_word(name)} {red} {green} {blue} 255")
    head = "# Values of the outcome maps of lopsided-eval.\n"
    (folder / "itk-snap-labels.txt").write_text(head + "\n".join(snap) + "\n", encoding="utf-8")
    (folder / "slicer-colors.ctbl").write_text(head + "\n".join(slicer) + "\n", encoding="utf-8")


def _one_word(name: str) -> str:
    return name.replace(" ", "_")
