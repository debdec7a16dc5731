"""The candidates of an audit: where each lies, what was measured on it, and why it stands where it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.classes import label_values
from nnunet_lopsided.audit.component_table import ComponentTable
from nnunet_lopsided.audit.measuring import CaseComponents
from nnunet_lopsided.evaluation.loading import LesionClass
from nnunet_lopsided.images import Geometry
from nnunet_lopsided.lesions import lesions_of_voxels


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One unexplained component.

    Attributes:
        case: where it lies.
        number: of the candidate in its case, from 1; its value in the label map of candidates.
        patient: whose case it is.
        fold: the fold that predicted it.
        voxels: flat indices of what would be added to the label map, ascending.
        centroid: mean voxel index of these, in array order.
        position_mm: the same in the file's own coordinates (x, y, z; LPS where the file is of a patient).
        box: first (inclusive) and last (exclusive) index along each axis.
        diameter_mm: of the sphere (2D: circle) of equal volume.
        score: probability of being a missed lesion, or another number by which candidates are ranked; None: withheld.
        likeness: probability of being annotated, by a model that did not see its patient; None: there is no model.
        mean_probability: of the whole component.
        max_probability: its highest.
        total: sum of the probabilities of the whole component; 0 when it is fainter.
        root: its mean probability times the root of its voxels; 0 when it is fainter.
        fainter: whether all of it is below the threshold.
        agreement: share of the predictions that find it.
        contrasts: by channel, in robust standard deviations, positive where it is brighter than its surroundings.
        label: the value it would have in the label map.
        reason: the above in words.
    """

    case: str
    number: int
    patient: str
    fold: int
    voxels: NDArray[np.int64]
    centroid: tuple[float, ...]
    position_mm: tuple[float, ...]
    box: NDArray[np.int64]
    diameter_mm: float
    score: float | None
    likeness: float | None
    mean_probability: float
    max_probability: float
    total: float
    root: float
    fainter: bool
    agreement: float
    contrasts: tuple[float, ...]
    label: int
    reason: str


@dataclass(frozen=True)
class Ranking:
    """The order of the candidates.

    Attributes:
        order: rows of the table, the best candidate first.
        score: of every row, (N,); NaN where it is withheld.
        likeness: of every row, (N,); NaN without a model.
    """

    order: NDArray[np.int64]
    score: NDArray[np.float64]
    likeness: NDArray[np.float64]


def describe_candidates(
    measured: Sequence[CaseComponents],
    table: ComponentTable,
    *,
    ranking: Ranking,
    fraction: float,
    target: LesionClass,
    channel_names: Sequence[str] = (),
) -> tuple[Candidate, ...]:
    """The candidates, the best first.

    Args:
        measured: all cases.
        table: their components.
        ranking: the order of the candidates among them.
        fraction: share of its highest probability at which a candidate is cut back.
        target: the class that is audited, whose values a candidate may get.
        channel_names: of the images, for the reasons.
    """
    assert target.scheme is not None, "the dataset has a dataset.json"
    allowed = target.values or (1,)
    labels = [label_values(target.scheme, m.means, allowed, len(m.components.kind)) for m in measured]
    usual, sure = table.usual_contrasts(), table.sure
    total, root = (table.confidence(name) for name in ("sum", "sqrt"))
    numbers: dict[int, int] = {}
    candidates = []
    for row in ranking.order.tolist():
        of_case, index = int(table.case[row]), int(table.index[row])
        case, components = measured[of_case].case, measured[of_case].components
        # Numbered by rank within the case, so that candidate 1 of a map is the best of its case.
        numbers[of_case] = numbers.get(of_case, 0) + 1
        voxels = components.cut_back(index, fraction)
        place = lesions_of_voxels(
            components.components.shape, components.components.spacing_mm, voxels, np.ones(len(voxels), np.int32)
        )
        candidates.append(
            Candidate(
                case=case.name,
                number=numbers[of_case],
                patient=case.patient,
                fold=case.fold,
                voxels=voxels,
                centroid=tuple(place.centroids[0].tolist()),
                position_mm=position_mm(measured[of_case].geometry, place.centroids[0]),
                box=place.boxes[0],
                diameter_mm=float(table.diameter_mm[row]),
                score=_number_or_none(ranking.score[row]),
                likeness=_number_or_none(ranking.likeness[row]),
                mean_probability=float(table.mean_probability[row]),
                max_probability=float(table.max_probability[row]),
                total=float(total[row]),
                root=float(root[row]),
                fainter=not sure[row],
                agreement=float(table.agreement[row]),
                contrasts=tuple(table.contrasts[row].tolist()),
                label=int(labels[of_case][index]),
                reason=_reason(table, row, usual, len(case.predictions), channel_names),
            )
        )
    return tuple(candidates)


def _number_or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def channel_name(names: Sequence[str], channel: int) -> str:
    """The name that dataset.json gives a channel, or its number.

    Example:
        >>> channel_name(["T1", "FLAIR"], 1), channel_name([], 1)
        ('FLAIR', 'channel 1')
    """
    return names[channel] if channel < len(names) else f"channel {channel}"


def position_mm(geometry: Geometry, index: NDArray[np.float64]) -> tuple[float, ...]:
    """Where a voxel index in array order lies, in the file's own coordinates (x, y, z).

    Example:
        >>> geometry = Geometry((2.0, 1.0), (10.0, 20.0), (1.0, 0.0, 0.0, 1.0))
        >>> position_mm(geometry, np.array([3.0, 4.0]))
        (14.0, 26.0)
    """
    n = len(geometry.spacing_mm)
    # Arrays are (z, y, x), a file's origin and direction (x, y, z).
    along = (np.asarray(index) * geometry.spacing_mm)[::-1]
    return tuple((np.asarray(geometry.origin_mm) + np.reshape(geometry.direction, (n, n)) @ along).tolist())


def _reason(
    table: ComponentTable, row: int, usual: NDArray[np.float64], n_predictions: int, channel_names: Sequence[str]
) -> str:
    highest = table.max_probability[row]
    # Fainter candidates would all read 0.00 with two decimals.
    parts = [f"probability up to {highest:{'.2f' if highest >= 0.1 else '.1g'}}, over {table.diameter_mm[row]:.1f} mm"]
    if n_predictions > 1:
        parts.append(f"found by {round(table.agreement[row] * n_predictions)} of {n_predictions} predictions")
    for channel, contrast in enumerate(table.contrasts[row].tolist()):
        low, high = usual[:, channel]
        known = "" if np.isnan(low) else f" (annotated lesions mostly {low:.1f} to {high:.1f})"
        parts.append(f"contrast {contrast:+.1f} in {channel_name(channel_names, channel)}{known}")
    return "; ".join(parts)
