"""Slices of the images around every candidate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.auditing import Audit
from nnunet_lopsided.audit.candidates import Candidate
from nnunet_lopsided.audit.inputs import AuditedCase
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.images import Geometry, read_image
from nnunet_lopsided.nnunet.raw import case_images
from nnunet_lopsided.pages.outline import outline
from nnunet_lopsided.pages.pictures import Picture, Slice, nearest_voxel, window

_PLANES = ("axis 0", "axis 1", "axis 2")
# The plane of a slice, by the letters of its four edges: which axes of the body they belong to.
_NAMES = {frozenset("RLAP"): "axial", frozenset("RLSI"): "coronal", frozenset("APSI"): "sagittal"}


@dataclass(frozen=True)
class CandidatePictures:
    """A candidate with its pictures: by channel, one per plane (2D: one)."""

    rank: int
    candidate: Candidate
    channels: tuple[tuple[Picture, ...], ...]


def candidate_pictures(audit: Audit, n: int, n_workers: int = 2) -> tuple[CandidatePictures, ...]:
    """Pictures of the first ``n`` candidates, in their order; the cases concerned are read once more.

    Raises:
        InputError: an image or a label map cannot be read.
    """
    shown = audit.candidates[:n]
    ranks_of: dict[str, list[int]] = {}
    for rank, candidate in enumerate(shown, 1):
        ranks_of.setdefault(candidate.case, []).append(rank)
    cases = [case for case in audit.inputs.cases if case.name in ranks_of]
    names = audit.channel_names

    def draw(case: AuditedCase) -> dict[int, CandidatePictures]:
        label = read_image(case.label)
        annotated = audit.target.mask(label.array)
        # A case is read once for all of its candidates, whatever their ranks.
        images = case_images(case.case, label.shape, colour=True)
        drawn = {}
        for rank in ranks_of[case.name]:
            candidate = shown[rank - 1]
            channels = tuple(
                _planes(
                    image,
                    candidate,
                    limits=window(image),
                    annotated=annotated,
                    geometry=label.geometry,
                    channel=_named(names, i),
                )
                for i, image in enumerate(images)
            )
            drawn[rank] = CandidatePictures(rank, candidate, channels)
        return drawn

    by_rank = {rank: one for of_case in for_each(draw, cases, n_workers, "pictures") for rank, one in of_case.items()}
    return tuple(by_rank[rank] for rank in sorted(by_rank))


def _named(names: list[str], channel: int) -> str:
    return names[channel] if channel < len(names) else f"channel {channel}"


def _planes(
    image: NDArray[np.generic],
    candidate: Candidate,
    *,
    limits: tuple[float, float],
    annotated: NDArray[np.bool_],
    geometry: Geometry,
    channel: str,
) -> tuple[Picture, ...]:
    centre = nearest_voxel(candidate.voxels, candidate.centroid, image.shape)
    own = np.zeros(image.shape, bool)
    own.reshape(-1)[candidate.voxels] = True
    pictures = []
    # Slices of all three planes: a vessel that runs through one is round there, and long in another.
    for axis in range(3) if image.ndim == 3 else (0,):
        shown = Slice(geometry, centre, candidate.box, axis)
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
