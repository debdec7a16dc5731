"""completion.html: what was believed, how surely, of which sizes, with pictures of the most and the least believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.inputs import AuditedCase, AuditInputs
from nnunet_lopsided.evaluation.loading import LesionClass
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.images import Geometry, read_image
from nnunet_lopsided.lesions import find_lesions, lesions_of_voxels
from nnunet_lopsided.nnunet.raw import case_images
from nnunet_lopsided.pages.charts import diameter_range
from nnunet_lopsided.pages.html import SortableTable, Table, TableCell, code, number, number_or_empty, page
from nnunet_lopsided.pages.outline import outline
from nnunet_lopsided.pages.pictures import Picture, Slice, nearest_voxel, window
from nnunet_lopsided.soft_target import believes

# Pictures of the most believed, and as many of the least believed.
N_SHOWN = 12
# Rows of the page's table; all are in completed_lesions.csv.
_MOST_ROWS = 2000


@dataclass(frozen=True, kw_only=True)
class CompletedLesion:
    """A candidate that no label explains; a soft target now, as far as it is believed.

    Attributes:
        case: its case.
        lesion_class: name of its label.
        number: of its component among the candidates of its case and class, from 1.
        n_voxels: its size.
        volume_mm3: its volume.
        diameter_mm: of the sphere (2D: the circle) of equal volume.
        mean: mean probability, within (0, 1].
        highest: highest probability, within (0, 1].
        belief: probability of being a missed lesion, within [0, 1].
    """

    case: str
    lesion_class: str
    number: int
    n_voxels: int
    volume_mm3: float
    diameter_mm: float
    mean: float
    highest: float
    belief: float

    @property
    def score(self) -> float:
        """Mean probability times root of voxels; the belief never falls with it."""
        return float(self.mean * np.sqrt(self.n_voxels))


@dataclass(frozen=True, kw_only=True)
class DiameterRow:
    """What was called of a range of diameters.

    Attributes:
        lower_mm: inclusive.
        upper_mm: exclusive; None: no limit.
        n_explained: components that touch an annotated lesion.
        n_candidates: components that touch none.
        believed: how many of these are believed to be missed lesions.
    """

    lower_mm: float
    upper_mm: float | None
    n_explained: int
    n_candidates: int
    believed: float


def shown(lesions: Sequence[CompletedLesion], n: int = N_SHOWN) -> tuple[list[CompletedLesion], list[CompletedLesion]]:
    """The ``n`` candidates that are believed most, then the ``n`` that are believed least; none is in both.

    Example:
        >>> def of(number, mean):
        ...     return CompletedLesion(
        ...         case="a", lesion_class="lesion", number=number, n_voxels=4, volume_mm3=4.0, diameter_mm=2.0,
        ...         mean=mean, highest=mean, belief=0.5)
        >>> most, least = shown([of(1, 0.3), of(2, 0.9), of(3, 0.2)], n=2)
        >>> [lesion.number for lesion in most], [lesion.number for lesion in least]
        ([2, 1], [3])
    """
    most = sorted(lesions, key=lambda lesion: (-lesion.score, lesion.case, lesion.lesion_class, lesion.number))
    # The least ones from what is left, so that few lesions are not shown twice.
    return most[:n], most[n:][-n:][::-1]


def shown_pictures(
    inputs: AuditInputs,
    lesions: Sequence[CompletedLesion],
    file_of: Callable[[str, str], Path],
    n_workers: int = 2,
) -> tuple[list[Picture], list[Picture]]:
    """Pictures of :func:`shown`, in the first channel of the images; the cases concerned are read once more.

    Args:
        inputs: the cases.
        lesions: all candidates.
        file_of: the file of the candidates' probabilities, by case and class.
        n_workers: cases worked on at the same time.

    Raises:
        InputError: an image or a label map cannot be read.
    """
    chosen = shown(lesions)
    wanted: dict[str, list[CompletedLesion]] = {}
    for lesion in [*chosen[0], *chosen[1]]:
        wanted.setdefault(lesion.case, []).append(lesion)

    def draw(audited: AuditedCase) -> dict[CompletedLesion, Picture]:
        label = read_image(audited.label)
        annotated = LesionClass(inputs.dataset.label_scheme).mask(label.array)
        image = case_images(audited.case, label.shape, colour=True)[0]
        limits = window(image)
        # The numbers of candidates are those of the components in this file, so they are found again.
        components = {}
        for name in {lesion.lesion_class for lesion in wanted[audited.name]}:
            components[name] = find_lesions(read_image(file_of(audited.name, name)).array, label.geometry.spacing_mm)
        pictures = {}
        for lesion in wanted[audited.name]:
            voxels = components[lesion.lesion_class].select([lesion.number])
            pictures[lesion] = candidate_picture(
                lesion.case,
                image,
                limits,
                voxels,
                annotated=annotated,
                geometry=label.geometry,
                caption=_caption(lesion),
            )
        return pictures

    cases = [audited for audited in inputs.cases if audited.name in wanted]
    drawn = {lesion: picture for one in for_each(draw, cases, n_workers, "pictures") for lesion, picture in one.items()}
    most, least = ([drawn[lesion] for lesion in part] for part in chosen)
    return most, least


def _caption(lesion: CompletedLesion) -> str:
    return (
        f"candidate {lesion.number}, {lesion.diameter_mm:.1f} mm, believed {lesion.belief:.2f}, mean probability "
        f"{lesion.mean:.2f}"
    )


def candidate_picture(
    case: str,
    image: NDArray[np.generic],
    limits: tuple[float, float],
    voxels: NDArray[np.integer],
    *,
    annotated: NDArray[np.bool_],
    geometry: Geometry,
    caption: str,
) -> Picture:
    """The slice through the middle of a candidate, with its outline and that of annotated lesions.

    Args:
        case: in the title.
        image: the case's, (z, y, x) or (y, x).
        limits: grey values shown black and white.
        voxels: of the candidate, flat indices, ascending.
        annotated: lesions, shape of the image.
        geometry: of the image.
        caption: to which a volume's slice is added.
    """
    own = np.zeros(image.shape, bool)
    own.reshape(-1)[voxels] = True
    lesion = lesions_of_voxels(image.shape, geometry.spacing_mm, voxels, np.ones(len(voxels), np.int64))
    centre = nearest_voxel(voxels, lesion.centroids[0], image.shape)
    part = Slice(geometry, centre, lesion.boxes[0])
    where = f", slice {centre[0]} (0 to {image.shape[0] - 1})" if image.ndim == 3 else ""
    return part.picture(
        image,
        limits,
        kind="candidate",
        title=case,
        caption=caption + where,
        reference=outline(part.around(annotated, False)),
        candidate=outline(part.around(own, False)),
    )


def completion_html(
    name: str,
    *,
    record: Mapping[str, object],
    by_diameter: Sequence[DiameterRow],
    lesions: Sequence[CompletedLesion],
    pictures: tuple[Sequence[Picture], Sequence[Picture]],
) -> str:
    """The page of a completion.

    Args:
        name: of the variant.
        record: the content of completion.json.
        by_diameter: what was called, by size.
        lesions: all candidates.
        pictures: of :func:`shown_pictures`.

    Returns:
        HTML, the same for the same arguments. It asks for no other file.
    """
    settings = record["settings"]
    assert isinstance(settings, Mapping), "as write_variant makes it"
    return page(
        "completion/completion_page.html",
        f"{name}: completed without a reader",
        name=name,
        source=settings["source_dataset"],
        record=record,
        guess=_guess(record),
        believed=believes(record["estimated_missed_lesions"]),
        notices=_notices(record),
        by_diameter=_diameter_table(by_diameter),
        galleries=[("Believed most", pictures[0]), ("Believed least", pictures[1])],
        candidates=_candidate_table(lesions),
        settings=Table(("setting", "value"), [(key, code(value)) for key, value in settings.items()]),
    )


def _guess(record: Mapping[str, object]) -> str:
    estimate = record["estimated_missed_lesions"]
    if not isinstance(estimate, float):
        return "Too few annotated lesions were called to say how many of them are missed lesions."
    whole = "" if believes(estimate) else " If small lesions were annotated too, your labels are whole."
    return f"By the highest scores, about {estimate:.1f} of them are missed lesions.{whole}"


def _notices(record: Mapping[str, object]) -> list[str]:
    lines = []
    if not believes(record["estimated_missed_lesions"]):
        lines.append("No candidate is believed, so the last training is on your labels as they are.")
    left_out = record["not_completed"]
    if isinstance(left_out, Sequence) and left_out:
        lines.append(f"Validated by none of the folds, and not in this dataset: {', '.join(map(str, left_out))}.")
    return lines


def _diameter_table(rows: Sequence[DiameterRow]) -> Table:
    header = (
        "diameter, mm",
        "called, annotated",
        "called, not annotated",
        "ratio",
        "of these believed to be missed lesions",
    )
    cells: list[tuple[TableCell, ...]] = [
        (
            diameter_range(row.lower_mm, row.upper_mm),
            str(row.n_explained),
            str(row.n_candidates),
            number_or_empty(row.n_candidates / row.n_explained if row.n_explained else None),
            f"{row.believed:.1f}",
        )
        for row in rows
    ]
    return Table(header, cells, right=(1, 2, 3, 4))


def _candidate_table(lesions: Sequence[CompletedLesion]) -> SortableTable:
    most = sorted(lesions, key=lambda lesion: (-lesion.score, lesion.case, lesion.lesion_class, lesion.number))
    rows = [
        (
            lesion.case,
            lesion.lesion_class,
            str(lesion.number),
            f"{lesion.diameter_mm:.1f}",
            number(lesion.mean),
            number(lesion.highest),
            number(lesion.score),
            number(lesion.belief),
        )
        for lesion in most[:_MOST_ROWS]
    ]
    left_out = len(lesions) - len(rows)
    return SortableTable(
        name="candidates",
        header=("case", "class", "candidate", "diameter, mm", "mean p", "highest p", "score", "belief"),
        rows=rows,
        right=range(2, 8),
        note=f"The other {left_out} are in completed_lesions.csv." if left_out else "",
    )
