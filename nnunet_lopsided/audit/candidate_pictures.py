"""Slices of the images around every candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.auditing import Audit
from nnunet_lopsided.audit.stored import StoredAudit, StoredCandidate, check_unchanged
from nnunet_lopsided.evaluation.lesion_class import LesionClass, lesion_class
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.images import Geometry, Image, read_image
from nnunet_lopsided.lesions import lesions_of_voxels
from nnunet_lopsided.nnunet.raw import Case, case_images, raw_dataset
from nnunet_lopsided.pages.outline import outline
from nnunet_lopsided.pages.pictures import Picture, Slice, nearest_voxel, window

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


@dataclass(frozen=True)
class CandidatePictures:
    """A candidate with its pictures: by channel, one per plane (2D: one)."""

    rank: int
    candidate: Described
    channels: tuple[tuple[Picture, ...], ...]


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

    Args:
        ranked: the candidates.
        cases: with images and label maps; those without candidates are not read.
        voxels_of: see :data:`VoxelsOf`.
        target: what of a label map is annotated.
        channel_names: of the images.
        n_workers: cases read at the same time.
    """
    of_case: dict[str, list[tuple[int, Described]]] = {}
    for rank, candidate in ranked:
        of_case.setdefault(candidate.case, []).append((rank, candidate))

    def draw(case: Case) -> list[CandidatePictures]:
        assert case.label is not None, "an audit is of cases with labels"
        label = read_image(case.label)
        annotated = target.mask(label.array)
        voxels = voxels_of(case.name, label)
        images = [
            (image, window(image), _named(channel_names, i))
            for i, image in enumerate(case_images(case, label.shape, colour=True))
        ]
        drawn = []
        for rank, candidate in of_case[case.name]:
            own = voxels[candidate.number]
            channels = tuple(
                _planes(image, limits, annotated, own, label.geometry, channel) for image, limits, channel in images
            )
            drawn.append(CandidatePictures(rank, candidate, channels))
        return drawn

    concerned = [case for case in cases if case.name in of_case]
    drawn = [one for of_one in for_each(draw, concerned, n_workers, "pictures") for one in of_one]
    return tuple(sorted(drawn, key=lambda one: one.rank))


def _named(names: Sequence[str], channel: int) -> str:
    return names[channel] if channel < len(names) else f"channel {channel}"


def _planes(
    image: NDArray[np.generic],
    limits: tuple[float, float],
    annotated: NDArray[np.bool_],
    voxels: NDArray[np.integer],
    geometry: Geometry,
    channel: str,
) -> tuple[Picture, ...]:
    place = lesions_of_voxels(image.shape, geometry.spacing_mm, voxels, np.ones(len(voxels), np.int32))
    centre = nearest_voxel(voxels, place.centroids[0], image.shape)
    own = np.zeros(image.shape, bool)
    own.reshape(-1)[voxels] = True
    pictures = []
    for axis in range(3) if image.ndim == 3 else (0,):
        shown = Slice(geometry, centre, place.boxes[0], axis)
        plane = _NAMES.get(frozenset(shown.edges), _PLANES[axis])
        where = f"{plane}, slice {centre[axis]} (0 to {image.shape[axis] - 1})" if image.ndim == 3 else ""
        pictures.append(
            shown.picture(
                image,
                limits,
                kind="candidate",
                title=channel,
                caption=where,
                reference=outline(shown.around(annotated, False)),
                candidate=outline(shown.around(own, False)),
            )
        )
    return tuple(pictures)
