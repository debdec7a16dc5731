"""The readers' marks in the XML files of LIDC, and the masks they outline."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Header
from nnunet_lopsided.lesions import find_lesions

N_READERS = 4
_NAMESPACE = "{http://www.nih.gov}"
_MAX_SLICE_ERROR = 0.3  # in slices: beyond it, image and XML are not of one series


@dataclass(frozen=True)
class Contour:
    """One closed outline in one slice.

    Attributes:
        z_mm: physical position of the slice.
        included: whether it encloses nodule, or a part that is none.
        points: (x, y) in pixels.
    """

    z_mm: float
    included: bool
    points: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Nodule:
    """What one reader calls one nodule; below 3 mm it is a single point."""

    name: str
    contours: tuple[Contour, ...]

    @property
    def is_point(self) -> bool:
        """Whether the reader marked a place without outlining anything."""
        return all(len(contour.points) <= 1 for contour in self.contours)


@dataclass(frozen=True)
class Reading:
    """The marks of the readers of one series; a slot holds another person in every file.

    Attributes:
        path: the XML file.
        series: its SeriesInstanceUID.
        slots: the nodules of each reading session, in the order of the file.
    """

    path: Path
    series: str
    slots: tuple[tuple[Nodule, ...], ...]


def read_reading(path: Path) -> Reading | None:
    """The reading sessions of a chest CT; None for XML files of another kind (LIDC has some of radiographs).

    Raises:
        InputError: the file is not XML, or a reading session is not as described by LIDC.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    if root.tag.rpartition("}")[2] != "LidcReadMessage":
        return None
    # ElementTree puts the namespace before every tag, in braces.
    namespace = root.tag[: -len("LidcReadMessage")] or _NAMESPACE
    try:
        series = _text(root, f"{namespace}ResponseHeader/{namespace}SeriesInstanceUid")
        slots = tuple(
            tuple(_nodule(node, namespace) for node in session.findall(f"{namespace}unblindedReadNodule"))
            for session in root.findall(f"{namespace}readingSession")
        )
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    return Reading(path, series, slots)


def _nodule(node: ElementTree.Element, namespace: str) -> Nodule:
    contours = tuple(
        Contour(
            float(_text(roi, f"{namespace}imageZposition")),
            _text(roi, f"{namespace}inclusion").upper() != "FALSE",
            tuple(
                (int(_text(edge, f"{namespace}xCoord")), int(_text(edge, f"{namespace}yCoord")))
                for edge in roi.findall(f"{namespace}edgeMap")
            ),
        )
        for roi in node.findall(f"{namespace}roi")
    )
    return Nodule(_text(node, f"{namespace}noduleID"), contours)


def _text(node: ElementTree.Element, path: str) -> str:
    element = node.find(path)
    if element is None or not (element.text or "").strip():
        raise ValueError(f"no {path.replace(_NAMESPACE, '')} in {node.tag.rpartition('}')[2]}")
    return (element.text or "").strip()


def inside(points: Sequence[tuple[int, int]]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[int, int]]:
    """The pixels that a closed contour encloses, and those of the contour itself.

    Neighbouring points are joined by straight lines. A single point, and a line, enclose nothing.

    Args:
        points: (x, y) of at least one pixel.

    Returns:
        Enclosed pixels and contour pixels, disjoint, both of shape (y, x) of the bounding box, and (y, x) of its first
        pixel.

    Example:
        >>> enclosed, _, corner = inside([(4, 7), (6, 7), (6, 9), (4, 9)])
        >>> np.argwhere(enclosed).tolist(), corner
        ([[1, 1]], (7, 4))
    """
    x, y = np.array(points, np.int64).T
    corner = (int(y.min()), int(x.min()))
    edge = np.zeros((int(y.max()) - corner[0] + 1, int(x.max()) - corner[1] + 1), bool)
    for i in range(len(points)):
        # As many points as the longer side has pixels, so the line has no gap; i - 1 is the last point at first, which
        # closes the contour.
        n = max(abs(int(x[i] - x[i - 1])), abs(int(y[i] - y[i - 1]))) + 1
        rows, columns = np.linspace(y[i - 1], y[i], n), np.linspace(x[i - 1], x[i], n)
        edge[np.rint(rows).astype(int) - corner[0], np.rint(columns).astype(int) - corner[1]] = True
    return ndimage.binary_fill_holes(edge) & ~edge, edge, corner


def encloses_nothing(nodule: Nodule) -> bool:
    """Whether a nodule was outlined, and yet has no voxel, because its contours are too small to enclose one."""
    included = [contour for contour in nodule.contours if contour.included]
    return not nodule.is_point and not any(inside(contour.points)[0].any() for contour in included if contour.points)


def draw_nodule(nodule: Nodule, header: Header, mask: NDArray[np.bool_]) -> int:
    """Set the voxels of a nodule in ``mask``.

    A voxel is nodule if it lies inside a contour with ``inclusion`` TRUE and neither inside nor on one with FALSE. A
    contour is drawn just outside the border, so its own pixels are not nodule.

    Args:
        nodule: what to draw.
        header: of the image.
        mask: shape (z, y, x) of the image; changed.

    Returns:
        How many voxels the nodule has.

    Raises:
        InputError: a contour does not lie in the image.
    """
    slices: dict[int, tuple[list[Contour], list[Contour]]] = {}
    for contour in (c for c in nodule.contours if c.points):
        z = slice_index(contour.z_mm, header)
        slices.setdefault(z, ([], []))[0 if contour.included else 1].append(contour)
    n_voxels = 0
    for z, (included, excluded) in slices.items():
        drawn = np.zeros(header.shape[1:], bool)
        for contour in included:
            enclosed, _, corner = inside(contour.points)
            _window(drawn, enclosed.shape, corner, nodule)[...] |= enclosed
        for contour in excluded:
            enclosed, edge, corner = inside(contour.points)
            _window(drawn, enclosed.shape, corner, nodule)[...] &= ~(enclosed | edge)
        mask[z] |= drawn
        n_voxels += int(drawn.sum())
    return n_voxels


def slice_index(z_mm: float, header: Header) -> int:
    """The slice at a physical z position.

    Raises:
        InputError: there is none, or the slices are not axial.
    """
    geometry = header.geometry
    # The last of the nine cosines: how far the slices' axis points along z.
    if abs(abs(geometry.direction[8]) - 1) > 1e-3:
        raise InputError(f"expected axial slices, found direction {geometry.direction}")
    exact = (z_mm - geometry.origin_mm[2]) / (geometry.spacing_mm[0] * geometry.direction[8])
    if abs(exact - round(exact)) > _MAX_SLICE_ERROR or not 0 <= round(exact) < header.shape[0]:
        raise InputError(f"no slice at z = {z_mm:g} mm: it would be number {exact:.2f} of {header.shape[0]}")
    return round(exact)


def _window(
    plane: NDArray[np.bool_], shape: tuple[int, ...], corner: tuple[int, int], nodule: Nodule
) -> NDArray[np.bool_]:
    y, x = corner
    if y < 0 or x < 0 or y + shape[0] > plane.shape[0] or x + shape[1] > plane.shape[1]:
        raise InputError(f"a contour of nodule {nodule.name} leaves the image of {plane.shape[1]} x {plane.shape[0]}")
    return plane[y : y + shape[0], x : x + shape[1]]


def reader_masks(slots: Iterable[Sequence[Nodule]], header: Header) -> list[NDArray[np.bool_]]:
    """What each reader outlined; nodules marked by a point have no voxels.

    Raises:
        InputError: a contour does not lie in the image.
    """
    masks = []
    for nodules in slots:
        mask = np.zeros(header.shape, bool)
        for nodule in nodules:
            if not nodule.is_point:
                draw_nodule(nodule, header, mask)
        masks.append(mask)
    return masks


def agreed_mask(masks: Sequence[NDArray[np.bool_]], n_readers: int) -> NDArray[np.uint8]:
    """The mask that at least ``n_readers`` readers agree on: voxel by voxel, without losing a lesion they agree on.

    A voxel belongs to it if at least ``n_readers`` readers marked it. Readers who agree that there is a nodule may
    disagree so much on its outline that no voxel has enough votes. That is no omission, so such a lesion stays: of a
    connected component of the union of all masks that at least ``n_readers`` readers touched, the voxels with the most
    votes are kept. Masks for more readers are contained in those for fewer.

    Args:
        masks: one per reader, of one shape.
        n_readers: 1 (any reader) or more.

    Returns:
        0 and 1, of the masks' shape.

    Example:
        >>> one, two = np.array([[1, 1, 0, 0, 0, 1]], bool), np.array([[0, 1, 1, 0, 0, 0]], bool)
        >>> agreed_mask([one, two], 2).tolist()
        [[0, 1, 0, 0, 0, 0]]
        >>> left, right = np.array([[1, 1, 0, 0]], bool), np.array([[0, 0, 1, 1]], bool)
        >>> agreed_mask([left, right], 2).tolist()
        [[1, 1, 1, 1]]
    """
    votes = np.zeros(masks[0].shape, np.uint8)
    for mask in masks:
        votes += mask
    agreed = (votes >= n_readers).astype(np.uint8)
    if n_readers == 1:
        return agreed
    # Nothing is measured here, so that any spacing will do.
    lesions = find_lesions(votes, (1.0,) * votes.ndim)
    flat_votes, flat_agreed = votes.reshape(-1), agreed.reshape(-1)
    touched = np.zeros(len(lesions) + 1, int)
    for mask in masks:
        touched[np.unique(lesions.voxel_ids[mask.reshape(-1)[lesions.voxels]])] += 1
    for lesion in range(1, len(lesions) + 1):
        voxels = lesions.select([lesion])
        if touched[lesion] >= n_readers and not flat_agreed[voxels].any():
            flat_agreed[voxels[flat_votes[voxels] == flat_votes[voxels].max()]] = 1
    return agreed
