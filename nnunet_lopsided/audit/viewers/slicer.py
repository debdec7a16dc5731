"""3D Slicer's files: lists of points (.mrk.json, schema 1.0.0) and segmentations (.seg.nrrd), written and read again.

Sources: the JSON schema that Slicer's module Markups ships, and the documentation of Slicer's segmentation file format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.stored import StoredCandidate
from nnunet_lopsided.audit.viewers.tiers import Tier
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.json import read_json, write_json
from nnunet_lopsided.images import Geometry, Image, read_layers, write_image

_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.0.json#"
)
_MARK = re.compile(r"candidate[ _-](\d+)\b")


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a list: of which candidate (0: of none), its label, whether it is selected, and its description."""

    number: int
    name: str
    selected: bool
    description: str


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A segment: of which candidate (below 1: of none), its name, and its voxels in the grid of the case."""

    number: int
    name: str
    voxels: NDArray[np.bool_]


def name_of(candidate: StoredCandidate) -> str:
    """What a viewer calls a candidate."""
    score = "" if candidate.score is None else f" ({candidate.score:.2f})"
    return f"candidate {candidate.number}{score}"


def write_points(path: Path, candidates: Sequence[StoredCandidate], tier: Tier) -> None:
    """Write a list with a point at the centroid of each candidate, in LPS as the case's file has it."""
    colour = [value / 255 for value in tier.colour]
    points = [
        {
            "id": f"candidate_{c.number}",
            "label": name_of(c),
            "description": "",
            "associatedNodeID": "",
            "position": list(c.position_mm),
            "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "defined",
        }
        for c in candidates
    ]
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": points,
        "measurements": [],
        "display": {
            "visibility": True,
            "opacity": 1.0,
            "color": [0.4, 0.4, 0.4],  # of points that are not selected
            "selectedColor": colour,
            "activeColor": [0.4, 1.0, 0.0],
            "pointLabelsVisibility": True,
            "textScale": 2.5,
            "glyphType": "Cross2D",
            "glyphScale": 2.0,
        },
    }
    write_json(path, {"@schema": _SCHEMA, "markups": [markup]})


def read_points(path: Path) -> list[Point]:
    """The points of a list, those that a reader has added too.

    Raises:
        InputError: the file is missing or is no list of points.
    """
    content = read_json(path, {"markups": [{}]}, any_number=True)
    points = []
    for i, markup in enumerate(content["markups"]):
        for j, point in enumerate(markup.get("controlPoints") or []):
            number = _number(str(point.get("id", "")), str(point.get("label", "")))
            selected = point.get("selected", True)
            if not isinstance(selected, bool):
                raise InputError(
                    f"{path}: markups[{i}].controlPoints[{j}].selected: expected true or false, found {selected!r}"
                )
            name, text = str(point.get("label", "")), str(point.get("description") or "")
            points.append(Point(number=number, name=name, selected=selected, description=text))
    return points


def _number(*texts: str) -> int:
    """The number of the candidate that the first of the texts names; 0: none of them names one."""
    return next((int(match[1]) for text in texts if (match := _MARK.search(text))), 0)


def write_segments(
    path: Path, numbers: Image, candidates: Sequence[StoredCandidate], tiers: Mapping[tuple[str, int], Tier]
) -> None:
    """Write a segmentation with a named segment for each candidate; values are the candidates' numbers."""
    extent = " ".join(f"0 {size - 1}" for size in reversed(numbers.shape))
    fields = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ConversionParameters": "",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for i, c in enumerate(candidates):
        colour = " ".join(f"{value / 255:.4f}" for value in tiers[c.key].colour)
        fields |= {
            f"Segment{i}_ID": f"candidate_{c.number}",
            f"Segment{i}_Name": name_of(c),
            f"Segment{i}_NameAutoGenerated": "0",
            f"Segment{i}_Color": colour,
            f"Segment{i}_ColorAutoGenerated": "0",
            f"Segment{i}_Extent": extent,
            f"Segment{i}_LabelValue": str(c.number),
            f"Segment{i}_Layer": "0",
            f"Segment{i}_Tags": "Segmentation.Status:inprogress|",
        }
    write_image(path, numbers, {name: value for name, value in fields.items() if value})


def read_segments(path: Path, shape: tuple[int, ...], geometry: Geometry) -> list[Segment]:
    """The segments of candidates, brought into the grid of the case: Slicer writes no more than the part it needs.

    Raises:
        InputError: the file is missing, is no segmentation, or lies in another grid.
    """
    array, found, fields = read_layers(path)
    array = array if array.ndim == 4 else array[..., None]
    offset = _offset(path, found, geometry)
    segments = []
    for i in range(sum(name.endswith("_ID") and name.startswith("Segment") for name in fields)):
        name = fields.get(f"Segment{i}_Name", "")
        number = _number(fields.get(f"Segment{i}_ID", ""), name)
        try:
            value, layer = int(fields[f"Segment{i}_LabelValue"]), int(fields.get(f"Segment{i}_Layer", 0))
            own = array[..., layer] == value
        except (KeyError, ValueError, IndexError):
            raise InputError(
                f"{path}: expected a label value and a layer of segment {name}, found "
                f"{fields.get(f'Segment{i}_LabelValue')} and {fields.get(f'Segment{i}_Layer')}"
            ) from None
        segments.append(Segment(number=number or -1 - i, name=name, voxels=_placed(own, offset, shape)))
    return segments


def _offset(path: Path, found: Geometry, geometry: Geometry) -> NDArray[np.int64]:
    """Where voxel 0 of the file lies in the case's grid, in array order."""
    alike = np.allclose(found.spacing_mm, geometry.spacing_mm, rtol=0, atol=1e-3) and np.allclose(
        found.direction, geometry.direction, rtol=0, atol=1e-3
    )
    direction = np.reshape(geometry.direction, (3, 3))
    along = np.linalg.solve(direction, np.subtract(found.origin_mm, geometry.origin_mm))[::-1] / geometry.spacing_mm
    if not alike or np.abs(along - np.round(along)).max() > 0.02:
        differing = geometry.difference(found)
        raise InputError(f"{path}: expected the voxels of the case's label map, found others: {differing}")
    offset: NDArray[np.int64] = np.round(along).astype(np.int64)
    return offset


def _placed(part: NDArray[np.bool_], offset: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A part of a grid as the whole grid; what lies beyond the grid is left out."""
    whole = np.zeros(shape, bool)
    source, target = [], []
    for at, size, room in zip(offset.tolist(), part.shape, shape, strict=True):
        low, high = max(0, at), min(room, at + size)
        source.append(slice(low - at, max(low, high) - at))
        target.append(slice(low, max(low, high)))
    whole[tuple(target)] = part[tuple(source)]
    return whole
