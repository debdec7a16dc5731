"""The worst misses and the strongest false positives as image slices with contours."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.case import CaseResult, Components
from nnunet_lopsided.evaluation.folder import FolderResult, load_again
from nnunet_lopsided.evaluation.loading import LoadedCase
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.evaluation.report.outline import outline
from nnunet_lopsided.images import Geometry, Header, difference, read_header, read_image
from nnunet_lopsided.nnunet_layout import label_maps

Kind = Literal["missed", "false positive", "candidate"]
# Half the side of a picture, unless the finding needs more; and the side in pixels beyond which images are shrunk.
_HALF_MM = 22.0
_MAX_PIXELS = 160
# Where the axes of LPS coordinates grow, and the opposite; and the least cosine of an axis that goes by their names.
_AXES = (("L", "R"), ("P", "A"), ("S", "I"))
_ALIGNED = 0.87


@dataclass(frozen=True)
class Finding:
    """A missed lesion or a false positive, by the number of its case and of its component (both from 0)."""

    kind: Kind
    case: int
    component: int


@dataclass(frozen=True)
class Picture:
    """One slice of an image around a finding, ready to be shown.

    Attributes:
        kind: ``missed`` or ``false positive``; ``candidate`` of an audit.
        title: the case.
        caption: what the finding is, plain text.
        png: the slice, 8-bit grey.
        shape: of the shown part in voxels, (h, w); outlines are drawn in these.
        spacing_mm: of the slice, (y, x).
        reference: outline of all lesions in it, as SVG path data.
        candidate: outline of all candidates in it.
        edges: what lies at the left, right, top and bottom: ``R L A P`` ..., or the array's axes.
    """

    kind: Kind
    title: str
    caption: str
    png: bytes
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    reference: str
    candidate: str
    edges: tuple[str, str, str, str] = ("", "", "", "")

    def figure(self) -> str:
        """The picture as HTML."""
        height, width = self.shape
        size = f'width="{width}" height="{height}"'
        # Voxels need not be square: the picture is as wide and high as what it shows.
        tall, wide = height * self.spacing_mm[0], width * self.spacing_mm[1]
        outlines = [
            (kind, path) for kind, path in (("reference", self.reference), ("candidate", self.candidate)) if path
        ]
        # All casings first: where both run along the same edges, the gaps of the dashes show the reference.
        paths = "".join(f'<path class="outline casing" d="{path}"/>' for _, path in outlines)
        paths += "".join(f'<path class="outline {kind}" d="{path}"/>' for kind, path in outlines)
        sides = zip(("left", "right", "top", "bottom"), self.edges, strict=True)
        letters = "".join(f'<span class="edge {side}">{letter}</span>' for side, letter in sides if letter)
        label = escape(f"{self.kind}, {self.title}, {self.caption}")
        return (
            f'<figure><div class="slice"><svg viewBox="0 0 {width} {height}" '
            f'preserveAspectRatio="none" role="img" aria-label="{label}" '
            f'style="aspect-ratio:{wide:g}/{tall:g}"><image {size} preserveAspectRatio="none" '
            f'href="data:image/png;base64,{b64encode(self.png).decode()}"/>{paths}</svg>{letters}</div>'
            f"<figcaption><b>{escape(self.title)}</b><br>{escape(self.caption)}</figcaption></figure>"
        )


@dataclass(frozen=True)
class ImageFolder:
    """One channel of the images of a folder such as imagesTs: ``CASE_CCCC.ending`` for every case.

    Attributes:
        folder: where.
        channel: CCCC.
        files: all images of the folder by name without ending.
    """

    folder: Path
    channel: int
    files: dict[str, Path]

    @classmethod
    def open(cls, folder: Path, channel: int) -> ImageFolder:
        """List a folder.

        Raises:
            InputError: it does not exist, or the channel cannot.
        """
        if not 0 <= channel <= 9999:
            raise InputError(f"image channel must be within 0 to 9999, got {channel}")
        return cls(folder, channel, label_maps(folder))

    def path(self, case: str) -> Path:
        """The image of a case.

        Raises:
            InputError: there is none.
        """
        name = f"{case}_{self.channel:04d}"
        if name not in self.files:
            raise InputError(f"case {case}: no image {name} (and an ending) in {self.folder}")
        return self.files[name]

    def check(self, case: LoadedCase) -> None:
        """Look at the header of a case's image, so that what is wrong with it is found before the pictures are made.

        Raises:
            InputError: it is missing, unreadable, or does not lie where the reference does.
        """
        path = self.path(case.name)
        header = read_header(path, colour=True)
        differing = difference(Header(case.reference.shape, case.geometry), header)
        if differing is not None:
            raise InputError(f"case {case.name}: reference and image {path} differ: {differing}")


def choose(cases: Sequence[CaseResult], n: int) -> list[Finding]:
    """The ``n`` largest missed lesions, then the ``n`` most confident false positives (ties: the larger ones)."""
    missed = [
        (-case.lesions.volume_mm3[k], i, k)
        for i, case in enumerate(cases)
        for k in np.flatnonzero(case.missed).tolist()
    ]
    false = [
        (-case.confidence[k], -case.candidates.volume_mm3[k], i, k)
        for i, case in enumerate(cases)
        for k in np.flatnonzero(case.matches.status == Status.FALSE_POSITIVE).tolist()
    ]
    return [Finding("missed", i, k) for _, i, k in sorted(missed)[:n]] + [
        Finding("false positive", i, k) for _, _, i, k in sorted(false)[:n]
    ]


def gallery(result: FolderResult, images: Path, channel: int = 0, n: int = 6) -> tuple[Picture, ...]:
    """Pictures of the worst misses and the strongest false positives.

    The cases concerned are read once more, one at a time.

    Args:
        result: of ``evaluate_folder``.
        images: folder of nnU-Net images ``CASE_0000.nii.gz``.
        channel: which of them is shown.
        n: pictures of each kind at most.

    Returns:
        Pictures of missed lesions, then of false positives, the worst first.

    Raises:
        InputError: an image is missing, or does not lie where its reference does; ``n`` is negative.
    """
    if n < 0:
        raise InputError(f"the number of pictures must be at least 0, got {n}")
    findings = choose(result.cases, n)
    by_case: dict[int, list[Finding]] = {}
    for finding in findings:
        by_case.setdefault(finding.case, []).append(finding)
    of_cases = ImageFolder.open(images, channel)
    pictures: dict[Finding, Picture] = {}
    for i, of_case in sorted(by_case.items()):
        case = result.cases[i]
        loaded = load_again(result, case.case)
        of_cases.check(loaded)
        image = finite(read_image(of_cases.path(case.case), colour=True).array)
        limits = window(image)
        for finding in of_case:
            pictures[finding] = _picture(finding, case, loaded, image, limits, result.rules.threshold)
    return tuple(pictures[finding] for finding in findings)


def finite(image: NDArray[Any]) -> NDArray[Any]:
    """The image with the lowest of its values in place of NaN and infinity."""
    known = np.isfinite(image)
    return image if known.all() else np.where(known, image, image[known].min() if known.any() else 0)


def window(image: NDArray[Any]) -> tuple[float, float]:
    """Grey values shown as black and white."""
    low, high = np.percentile(image, (0.5, 99.8))
    return float(low), max(float(high), float(low) + 1e-6)


def _picture(
    finding: Finding,
    case: CaseResult,
    loaded: LoadedCase,
    image: NDArray[Any],
    limits: tuple[float, float],
    threshold: float,
) -> Picture:
    components = case.lesions if finding.kind == "missed" else case.candidates
    centre = np.round(components.centroid[finding.component]).astype(int)
    predicted_mask = _mask(loaded, threshold)
    mask = loaded.reference if finding.kind == "missed" else predicted_mask
    if image.ndim == 3:
        centre[0] = _slice(mask, components.boxes[finding.component], centre[0])
    shown = Slice(loaded.geometry, centre, components.boxes[finding.component])
    reference, predicted = shown.of(loaded.reference), shown.of(predicted_mask)
    if loaded.valid is not None:
        valid = shown.of(loaded.valid)
        reference, predicted = reference & valid, predicted & valid
    part = shown.around(image, image.min())
    return Picture(
        finding.kind,
        case.case,
        _caption(finding, case, components, centre, image.shape),
        grey_png(part, limits),
        (part.shape[0], part.shape[1]),
        shown.spacing_mm,
        outline(shown.around_slice(reference, False)),
        outline(shown.around_slice(predicted, False)),
        shown.edges,
    )


@dataclass(frozen=True)
class Slice:
    """What of a volume is shown around a place: one slice, cut to a square, turned as radiologists read it.

    Attributes:
        geometry: of the volume.
        centre: the place, in voxels; its element ``axis`` chooses the slice.
        box: first (inclusive) and last (exclusive) index along each axis of what must fit.
        axis: of the array, across which the slice lies; without meaning in 2D.
    """

    geometry: Geometry
    centre: NDArray[np.integer]
    box: NDArray[np.int64]
    axis: int = 0

    @property
    def _axes(self) -> tuple[int, int]:
        """The array's axes that are rows and columns."""
        rest = [a for a in range(len(self.centre)) if len(self.centre) == 2 or a != self.axis]
        return rest[0], rest[1]

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """Of its rows and columns."""
        rows, columns = self._axes
        return self.geometry.spacing_mm[rows], self.geometry.spacing_mm[columns]

    @property
    def edges(self) -> tuple[str, str, str, str]:
        """What lies at the left, right, top and bottom."""
        return orientation(self.geometry.direction, self.axis)[0]

    def of(self, volume: NDArray[Any]) -> NDArray[Any]:
        """The whole slice of a volume; a 2D image as it is."""
        return volume if volume.ndim == 2 else volume.take(int(self.centre[self.axis]), axis=self.axis)

    def around(self, volume: NDArray[Any], beyond: Any) -> NDArray[Any]:
        """The part of a volume that is shown; ``beyond`` is the value outside of it."""
        return self.around_slice(self.of(volume), beyond)

    def around_slice(self, whole: NDArray[Any], beyond: Any) -> NDArray[Any]:
        """The part of a whole slice that is shown."""
        axes = list(self._axes)
        half_mm = max([_HALF_MM, *(0.75 * np.ptp(self.box[axes], axis=1) * self.spacing_mm)])
        half = ceil(half_mm / self.spacing_mm[0]), ceil(half_mm / self.spacing_mm[1])
        middle = int(self.centre[axes[0]]), int(self.centre[axes[1]])
        return around(whole, middle, half, beyond)[orientation(self.geometry.direction, self.axis)[1]]


def orientation(direction: Sequence[float], axis: int = 0) -> tuple[tuple[str, str, str, str], tuple[slice, slice]]:
    """How a slice is turned to be read as radiologists do.

    The patient's right is at the left of the picture, or else the front; the front, or else the head, is at the top.

    Args:
        direction: cosines, row by row, as in ``Geometry``.
        axis: of the array, at one index of which the slice lies.

    Returns:
        What lies at the left, right, top and bottom of the picture, and the slices that flip rows and columns. Where
        an axis of the array is more than about 30 degrees off the patient's, and in 2D, nothing is flipped, and the
        right and the bottom are named ``+x`` and ``+y``, where the array's axes grow.

    Example:
        >>> orientation((-1, 0, 0, 0, 1, 0, 0, 0, 1))  # columns grow to the patient's right
        (('R', 'L', 'A', 'P'), (slice(None, None, 1), slice(None, None, -1)))
    """
    # The file's axes go x, y, z, the array's the other way round; columns of the slice first.
    in_slice = [i for i in range(3) if i != 2 - axis]
    cosines = np.reshape(direction, (3, 3)).T[in_slice] if len(direction) == 9 else np.zeros((2, 3))
    named = [_AXES[int(np.abs(row).argmax())] for row in cosines]
    if (np.abs(cosines).max(axis=1) < _ALIGNED).any() or named[0] == named[1]:
        return ("", "+x", "", "+y"), (slice(None), slice(None))
    edges, flips = [], []
    for row, (towards, away), last in zip(cosines, named, ("LPS", "PIL"), strict=True):
        grows = row[np.abs(row).argmax()] > 0
        end, start = (towards, away) if towards in last else (away, towards)
        edges += [start, end]
        flips.append(slice(None, None, 1 if grows == (end == towards) else -1))
    return (edges[0], edges[1], edges[2], edges[3]), (flips[1], flips[0])


def _mask(loaded: LoadedCase, threshold: float) -> NDArray[np.bool_]:
    """The voxels of the candidates."""
    prediction = loaded.prediction
    if prediction is None:
        return np.zeros(loaded.reference.shape, bool)
    if np.issubdtype(prediction.dtype, np.floating):
        return prediction >= prediction.dtype.type(threshold)
    return prediction != 0


def _slice(mask: NDArray[np.bool_], box: NDArray[np.int64], centre: int) -> int:
    """The slice nearest to the centre in which something is to be seen; joined lesions have gaps."""
    inside = mask[tuple(slice(low, high) for low, high in box.tolist())]
    filled = box[0, 0] + np.flatnonzero(inside.any(axis=(1, 2)))
    return int(filled[np.abs(filled - centre).argmin()]) if len(filled) else centre


def _caption(
    finding: Finding, case: CaseResult, components: Components, centre: NDArray[np.int64], shape: tuple[int, ...]
) -> str:
    k = finding.component
    noun = "lesion" if finding.kind == "missed" else "candidate"
    parts = [f"{noun} {k + 1}", f"{components.diameter_mm[k]:.1f} mm"]
    if len(shape) == 3:
        parts.append(f"slice {centre[0]} (0 to {shape[0] - 1})")
    if finding.kind == "missed" and not np.isnan(case.mean_probability[k]):
        parts.append(f"mean probability {case.mean_probability[k]:.2f}")
    if finding.kind != "missed" and case.ranked:
        parts.append(f"confidence {case.confidence[k]:.2f}")
    return ", ".join(parts)


def around(array: NDArray[Any], centre: tuple[int, int], half: tuple[int, int], beyond: Any) -> NDArray[Any]:
    """The part of a slice around a pixel, the pixel in its middle; ``beyond`` is the value outside of the slice."""
    part = np.full((2 * half[0] + 1, 2 * half[1] + 1), beyond, array.dtype)
    source, target = [], []
    for middle, reach, size in zip(centre, half, array.shape, strict=True):
        low, high = max(0, middle - reach), min(size, middle + reach + 1)
        source.append(slice(low, high))
        target.append(slice(low - middle + reach, high - middle + reach))
    part[tuple(target)] = array[tuple(source)]
    return part


def grey_png(part: NDArray[Any], limits: tuple[float, float]) -> bytes:
    from PIL import Image

    low, high = limits
    grey = np.clip((part.astype(np.float64) - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    picture = Image.fromarray(grey)
    if max(picture.size) > _MAX_PIXELS:
        picture.thumbnail((_MAX_PIXELS, _MAX_PIXELS))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()
