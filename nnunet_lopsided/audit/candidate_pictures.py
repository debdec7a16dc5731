"""Slices of the images around every candidate."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.auditing import Audit
from nnunet_lopsided.audit.candidates import channel_name
from nnunet_lopsided.audit.page_size import planned_pictures
from nnunet_lopsided.audit.stored import StoredAudit, StoredCandidate, check_unchanged
from nnunet_lopsided.evaluation.lesion_class import LesionClass, lesion_class
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.images import Geometry, Image, read_header, read_image
from nnunet_lopsided.lesions import lesions_of_voxels
from nnunet_lopsided.nnunet.raw import Case, case_images, raw_dataset
from nnunet_lopsided.pages.outline import outline
from nnunet_lopsided.pages.pictures import Slice, grey_strip, nearest_voxel, shown_pixels, window

_PLANES = ("axis 0", "axis 1", "axis 2")
# The plane of a slice, by the letters of its four edges: which axes of the body they belong to.
_NAMES = {frozenset("RLAP"): "axial", frozenset("RLSI"): "coronal", frozenset("APSI"): "sagittal"}


class Described(Protocol):
    """What a card says of a candidate: of an audit, or of a written one."""

    @property
    def case(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def score(self) -> float | None: ...
    @property
    def diameter_mm(self) -> float: ...
    @property
    def position_mm(self) -> tuple[float, ...]: ...
    @property
    def reason(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class PlanePictures:
    """Slices around a candidate along one axis, in every channel.

    Attributes:
        name: of the plane; empty in 2D.
        slices: how many the volume has along the axis.
        first: the first one shown.
        centre: which of those shown goes through the candidate.
        shape: of the shown part in voxels, (h, w); outlines are drawn in these.
        aspect: width over height in mm, as CSS has it.
        edges: what lies at the left, right, top and bottom.
        reference: outline of what is annotated in each slice, as SVG path data.
        candidate: outline of the candidate in each slice.
        strips: by channel, all slices below each other, PNG in base64.
    """

    name: str
    slices: int
    first: int
    centre: int
    shape: tuple[int, int]
    aspect: str
    edges: tuple[str, str, str, str]
    reference: tuple[str, ...]
    candidate: tuple[str, ...]
    strips: tuple[str, ...]


@dataclass(frozen=True)
class CandidatePictures:
    """A candidate with its pictures, one per plane (2D: one), and the names of the channels."""

    rank: int
    candidate: Described
    channels: tuple[str, ...]
    planes: tuple[PlanePictures, ...]

    @property
    def content(self) -> dict[str, object]:
        """As the page's script reads it."""
        return {"channels": self.channels, "planes": [asdict(plane) for plane in self.planes]}


# The voxels of the candidates of a case, by number, from its name and its label map: flat indices, ascending.
VoxelsOf = Callable[[str, Image], Mapping[int, NDArray[np.integer]]]


def candidate_pictures(audit: Audit, n: int, n_workers: int = 2) -> tuple[CandidatePictures, ...]:
    """Pictures of the first ``n`` candidates, in their order; the cases concerned are read once more.

    Raises:
        InputError: an image or a label map cannot be read.
    """
    shown = audit.candidates[:n]
    voxels: dict[str, dict[int, NDArray[np.int64]]] = {}
    for candidate in shown:
        voxels.setdefault(candidate.case, {})[candidate.number] = candidate.voxels
    return draw_candidates(
        list(enumerate(shown, 1)),
        [case.case for case in audit.inputs.cases],
        lambda case, _: voxels[case],
        target=audit.target,
        channel_names=audit.channel_names,
        n_workers=n_workers,
    )


def stored_pictures(
    audit: StoredAudit, candidates: Sequence[StoredCandidate], n_workers: int = 2
) -> tuple[CandidatePictures, ...]:
    """Pictures of candidates of a written audit, from its label maps, in the order of their ranks.

    Raises:
        InputError: an image or a map cannot be read, or labels or maps have changed since the audit.
    """
    dataset = raw_dataset(audit.dataset)
    training = dataset.training_cases()
    check_unchanged(audit, dataset, training)
    labels = {case.name: case.label for case in training}

    def voxels_of(case: str, label: Image) -> Mapping[int, NDArray[np.integer]]:
        path = labels[case]
        assert path is not None, "training_cases() gives labels"
        numbers = audit.read_map(case, path, label, dataset.file_ending).array
        return {c.number: np.flatnonzero(numbers == c.number) for c in candidates if c.case == case}

    return draw_candidates(
        [(candidate.rank, candidate) for candidate in candidates],
        training,
        voxels_of,
        target=lesion_class(audit.record.label, dataset.folder / "dataset.json"),
        channel_names=dataset.channel_names,
        n_workers=n_workers,
    )


def draw_candidates(
    ranked: Sequence[tuple[int, Described]],
    cases: Sequence[Case],
    voxels_of: VoxelsOf,
    *,
    target: LesionClass,
    channel_names: Sequence[str],
    n_workers: int,
) -> tuple[CandidatePictures, ...]:
    """Pictures of candidates, each after its rank, in the order of the ranks.

    Where there are too many for a page, they have fewer slices, and the last of them are left out.

    Args:
        ranked: the candidates, in their order.
        cases: with images and label maps; those without candidates are not read.
        voxels_of: see :data:`VoxelsOf`.
        target: what of a label map is annotated.
        channel_names: of the images.
        n_workers: cases read at the same time.
    """
    by_name = {case.name: case for case in cases}
    pixels = {name: _pixels(by_name[name]) for name in dict.fromkeys(c.case for _, c in ranked)}
    n_shown, beside = planned_pictures(
        [pixels[candidate.case][0] for _, candidate in ranked], [pixels[candidate.case][1] for _, candidate in ranked]
    )
    of_case: dict[str, list[tuple[int, Described]]] = {}
    for rank, candidate in ranked[:n_shown]:
        of_case.setdefault(candidate.case, []).append((rank, candidate))

    def draw(case: Case) -> list[CandidatePictures]:
        label = read_image(_label_of(case))
        annotated = target.mask(label.array)
        voxels = voxels_of(case.name, label)
        images = case_images(case, label.shape, colour=True)
        volumes = [(image, window(image), float(image.min())) for image in images]
        names = tuple(channel_name(channel_names, i) for i in range(len(images)))
        return [
            CandidatePictures(
                rank, candidate, names, _planes(volumes, annotated, voxels[candidate.number], label.geometry, beside)
            )
            for rank, candidate in of_case[case.name]
        ]

    concerned = [case for case in cases if case.name in of_case]
    drawn = [one for of_one in for_each(draw, concerned, n_workers, "pictures") for one in of_one]
    return tuple(sorted(drawn, key=lambda one: one.rank))


def _label_of(case: Case) -> Path:
    assert case.label is not None, "an audit is of cases with labels"
    return case.label


def _pixels(case: Case) -> tuple[int, int]:
    """About how many pixels the pictures of a small candidate have, and one further slice, in all channels."""
    spacing = read_header(_label_of(case)).geometry.spacing_mm
    if len(spacing) == 2:
        return len(case.images) * shown_pixels((spacing[0], spacing[1])), 0
    planes = [shown_pixels((spacing[a], spacing[b])) for a, b in ((1, 2), (0, 2), (0, 1))]
    return len(case.images) * sum(planes), len(case.images) * planes[_scrolled_axis(spacing)]


def _scrolled_axis(spacing_mm: Sequence[float]) -> int:
    """The axis with slices around the candidate: the one of the thickest, as the images were taken."""
    return int(np.argmax(spacing_mm))


def _planes(
    volumes: Sequence[tuple[NDArray[np.generic], tuple[float, float], float]],
    annotated: NDArray[np.bool_],
    voxels: NDArray[np.integer],
    geometry: Geometry,
    beside: int,
) -> tuple[PlanePictures, ...]:
    shape = annotated.shape
    place = lesions_of_voxels(shape, geometry.spacing_mm, voxels, np.ones(len(voxels), np.int32))
    centre = nearest_voxel(voxels, place.centroids[0], shape)
    own = np.zeros(shape, bool)
    own.reshape(-1)[voxels] = True
    planes = []
    for axis in range(3) if len(shape) == 3 else (0,):
        reach = beside if len(shape) == 3 and axis == _scrolled_axis(geometry.spacing_mm) else 0
        first, last = max(0, int(centre[axis]) - reach), min(shape[axis] - 1, int(centre[axis]) + reach)
        slices = []
        for index in range(first, last + 1):
            at = centre.copy()
            at[axis] = index if len(shape) == 3 else centre[axis]
            slices.append(Slice(geometry, at, place.boxes[0], axis))
        middle = slices[int(centre[axis]) - first]
        height, width = middle.around(own, False).shape
        rows_mm, columns_mm = middle.spacing_mm
        planes.append(
            PlanePictures(
                name=_NAMES.get(frozenset(middle.edges), _PLANES[axis]) if len(shape) == 3 else "",
                slices=shape[axis] if len(shape) == 3 else 1,
                first=first if len(shape) == 3 else 0,
                centre=int(centre[axis]) - first,
                shape=(height, width),
                aspect=f"{width * columns_mm:g}/{height * rows_mm:g}",
                edges=middle.edges,
                reference=tuple(outline(one.around(annotated, False)) for one in slices),
                candidate=tuple(outline(one.around(own, False)) for one in slices),
                strips=tuple(
                    b64encode(grey_strip([one.around(image, lowest) for one in slices], limits)).decode()
                    for image, limits, lowest in volumes
                ),
            )
        )
    return tuple(planes)
