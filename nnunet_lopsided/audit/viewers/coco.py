"""Candidates as COCO: slices as PNG, with boxes and outlines, for CVAT, FiftyOne and whatever else reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PngImage

from nnunet_lopsided.audit.stored import StoredCandidate
from nnunet_lopsided.audit.viewers.slicer import name_of
from nnunet_lopsided.audit.viewers.tiers import TIERS, Tier
from nnunet_lopsided.pages.outline import outline
from nnunet_lopsided.pages.pictures import window

_LOOP = re.compile(r"M(\d+) (\d+)((?:[hv]-?\d+)*)z")
_RUN = re.compile(r"([hv])(-?\d+)")


class RunLengths(TypedDict):
    """Voxels outside and inside by turns, down the columns; ``size`` is (h, w)."""

    counts: list[int]
    size: list[int]


class CocoImage(TypedDict):
    """A slice."""

    id: int
    file_name: str
    width: int
    height: int
    case: str
    slice: int


class CocoAnnotation(TypedDict):
    """A candidate in a slice."""

    id: int
    image_id: int
    category_id: int
    bbox: list[int]
    area: int
    iscrowd: int
    segmentation: list[list[int]] | RunLengths
    attributes: dict[str, object]


class CocoSlices(TypedDict):
    """The slices of a case and what is in them."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]


def categories() -> list[dict[str, object]]:
    """One per tier."""
    return [{"id": i, "name": tier.name, "supercategory": "candidate"} for i, tier in enumerate(TIERS, 1)]


def write_slices(
    folder: Path,
    case: str,
    image: NDArray[np.generic],
    numbers: NDArray[np.generic],
    candidates: Sequence[StoredCandidate],
    tiers: Mapping[tuple[str, int], Tier],
) -> CocoSlices:
    """Write the slices across the first axis that hold a candidate, as the arrays lie; a 2D image as it is.

    Args:
        folder: for the PNG files.
        case: whose.
        image: one channel.
        numbers: label map of the candidates, of the same shape.
        candidates: those to write.
        tiers: of the candidates.

    Returns:
        Images and annotations with ids from 1, which the caller makes unique.
    """
    low, high = window(image)
    slices = [None] if image.ndim == 2 else [int(z) for z in np.flatnonzero((numbers != 0).any(axis=(1, 2)))]
    content: CocoSlices = {"images": [], "annotations": []}
    for z in slices:
        plane, found = (image, numbers) if z is None else (image[z], numbers[z])
        name = f"{case}.png" if z is None else f"{case}_z{z:04d}.png"
        grey = np.clip((plane.astype(np.float64) - low) / (high - low) * 255, 0, 255).astype(np.uint8)
        PngImage.fromarray(grey).save(folder / name, "PNG")
        height, width = plane.shape
        content["images"].append(
            {
                "id": len(content["images"]) + 1,
                "file_name": name,
                "width": width,
                "height": height,
                "case": case,
                "slice": z or 0,
            }
        )
        for c in candidates:
            mask = found == c.number
            if mask.any():
                annotation = _annotation(mask, c, TIERS.index(tiers[c.key]) + 1)
                annotation["id"], annotation["image_id"] = len(content["annotations"]) + 1, len(content["images"])
                content["annotations"].append(annotation)
    return content


def _annotation(mask: NDArray[np.bool_], candidate: StoredCandidate, category: int) -> CocoAnnotation:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return {
        "id": 0,
        "image_id": 0,
        "category_id": category,
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": segmentation(mask),
        "attributes": {
            "case": candidate.case,
            "candidate": candidate.number,
            "name": name_of(candidate),
            "rank": candidate.rank,
            "score": candidate.score,
        },
    }


def segmentation(mask: NDArray[np.bool_]) -> list[list[int]] | RunLengths:
    """Polygons (x, y, x, y ...) along the edges of the pixels; run lengths where there is a hole, which these lack.

    Example:
        >>> segmentation(np.array([[False, True], [False, True]]))
        [[1, 0, 2, 0, 2, 2, 1, 2]]
        >>> segmentation(np.pad(np.zeros((1, 1), bool), 1, constant_values=True))
        {'counts': [0, 4, 1, 4], 'size': [3, 3]}
    """
    polygons = [_corners(match) for match in _LOOP.finditer(outline(mask))]
    # The outline runs clockwise around what is inside, and so the other way around a hole.
    if all(_signed_area(corners) > 0 for corners in polygons):
        return polygons
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    counts = np.diff([0, *changes.tolist(), len(flat)]).tolist()
    return {"counts": [0, *counts] if flat[0] else counts, "size": list(mask.shape)}


def _corners(loop: re.Match[str]) -> list[int]:
    x, y = int(loop[1]), int(loop[2])
    corners = [x, y]
    for axis, length in _RUN.findall(loop[3]):
        x, y = (x + int(length), y) if axis == "h" else (x, y + int(length))
        corners += [x, y]
    return corners


def _signed_area(corners: Sequence[int]) -> float:
    x, y = np.asarray(corners[::2]), np.asarray(corners[1::2])
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)
