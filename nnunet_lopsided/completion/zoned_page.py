"""completion.html of zones: what was added, what is ignored, with pictures of the candidates at their borders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_lopsided.audit.stored import StoredAudit, StoredCandidate, check_unchanged
from nnunet_lopsided.completion.completion_page import candidate_picture
from nnunet_lopsided.completion.zoning import AS_GOOD_AS_WHOLE
from nnunet_lopsided.evaluation.loading import lesion_class
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.images import read_image
from nnunet_lopsided.nnunet.raw import Case, case_images, raw_dataset
from nnunet_lopsided.pages.charts import diameter_range
from nnunet_lopsided.pages.html import SortableTable, Table, TableCell, code, interval, page
from nnunet_lopsided.pages.pictures import Picture, window

# Rows of the page's table; all are in completed_lesions.csv.
_MOST_ROWS = 2000
_TITLES = ("Accepted, the least probable", "Ignored, the most probable", "Left as background, the most probable")


@dataclass(frozen=True, kw_only=True)
class ZoneRow:
    """What became of the candidates of a range of diameters.

    Attributes:
        lower_mm: inclusive.
        upper_mm: exclusive; None: no limit.
        n_candidates: in it.
        n_accepted: added to the labels.
        n_doubtful: ignored.
        expected_lesions: sum of all probabilities.
        expected_accepted: sum of those of the accepted.
    """

    lower_mm: float
    upper_mm: float | None
    n_candidates: int
    n_accepted: int
    n_doubtful: int
    expected_lesions: float
    expected_accepted: float


def zone_pictures(
    audit: StoredAudit, shown: Sequence[tuple[StoredCandidate, float]], n_workers: int = 2
) -> list[Picture]:
    """Pictures of candidates with their probabilities, in this order, in the first channel of the images.

    Raises:
        InputError: an image or a label map cannot be read, or has changed since the audit.
    """
    dataset = raw_dataset(audit.dataset)
    training = dataset.training_cases()
    check_unchanged(audit, dataset, training)
    target = lesion_class(audit.record.label, dataset.folder / "dataset.json")

    def draw(case: Case) -> dict[tuple[str, int], Picture]:
        assert case.label is not None, "training_cases() gives labels"
        label = read_image(case.label)
        numbers = audit.read_map(case.name, case.label, label, dataset.file_ending).array.reshape(-1)
        image = case_images(case, label.shape, colour=True)[0]
        annotated, limits = target.mask(label.array), window(image)
        return {
            one.key: candidate_picture(
                case.name,
                image,
                limits,
                np.flatnonzero(numbers == one.number),
                annotated=annotated,
                geometry=label.geometry,
                caption=f"candidate {one.number}, {one.diameter_mm:.1f} mm, probability {p:.2f}",
            )
            for one, p in shown
            if one.case == case.name
        }

    wanted = {one.case for one, _ in shown}
    cases = [case for case in training if case.name in wanted]
    drawn = {
        key: picture for of_case in for_each(draw, cases, n_workers, "pictures") for key, picture in of_case.items()
    }
    return [drawn[one.key] for one, _ in shown]


def zoned_html(
    name: str,
    *,
    record: Mapping[str, object],
    by_diameter: Sequence[ZoneRow],
    rows: Sequence[Sequence[object]],
    pictures: Sequence[Sequence[Picture]],
) -> str:
    """The page of a completion by zones.

    Args:
        name: of the variant.
        record: the content of completion.json.
        by_diameter: what became of candidates, by size.
        rows: of completed_lesions.csv.
        pictures: least probable accepted, most probable ignored, most probable background.

    Returns:
        HTML, the same for the same arguments. It asks for no other file.
    """
    settings = record["settings"]
    assert isinstance(settings, Mapping), "as write_zoned_variant makes it"
    return page(
        "completion/zoned_page.html",
        f"{name}: completed by zones",
        name=name,
        source=settings["source_dataset"],
        found=record,
        guess=_guess(record),
        expected=_expected(record),
        notices=_notices(record),
        by_diameter=_diameter_table(by_diameter),
        galleries=list(zip(_TITLES, pictures, strict=True)),
        candidates=_candidate_table(rows),
        settings=Table(("setting", "value"), [(key, code(value)) for key, value in settings.items()]),
    )


def _guess(record: Mapping[str, object]) -> str:
    about = f"About {record['estimated_missed_lesions']:.0f} of all candidates are missed lesions"
    ends = record["estimated_missed_lesions_ci95"]
    if isinstance(ends, Sequence):
        return f"{about} (95% interval {ends[0]:.0f} to {ends[1]:.0f}), by the candidates that were read."
    rho, of_rho = record["missed_per_annotated"], record["missed_per_annotated_ci95"]
    assert isinstance(rho, float), "without a reader there is an estimate"
    between = f" (95% interval {_share(of_rho[0])} to {_share(of_rho[1])})" if isinstance(of_rho, Sequence) else ""
    by = record["estimated_by"]
    return f"{about}, by their scores. The share of all lesions that is missing is {_share(rho)}{between}, by {by}."


def _share(missed_per_annotated: float) -> str:
    return f"{missed_per_annotated / (1 + missed_per_annotated):.2f}"


def _expected(record: Mapping[str, object]) -> str:
    precision, recall = record["expected_precision"], record["expected_recall"]
    if not isinstance(precision, float):
        return "None is accepted."
    text = f"Of the accepted {precision:.0%} are expected to be lesions"
    ends = record["precision_of_the_rule_ci95"]
    if isinstance(ends, Sequence):
        share = f"{record['precision_of_the_rule']:.0%}, {interval(ends)}"
        text += f" (of candidates as probable, by the sample alone: {share})"
    return f"{text}, {recall:.0%} of the missed lesions that the networks call."


def _notices(record: Mapping[str, object]) -> list[str]:
    lines = []
    if record["nearly_whole"]:
        lines.append(
            f"Less than {AS_GOOD_AS_WHOLE:.0%} of all lesions seem to be missing, so that your labels are as good as "
            "whole, and none was changed: train on them as they are. Sizes of which the audit says nothing are not "
            "counted."
        )
    if record["not_injected"]:
        lines.append(f"Where small lesions were missed the estimate is too low: {record['not_injected']}.")
    left_out = record["not_completed"]
    if isinstance(left_out, Sequence) and left_out:
        lines.append(f"Validated by none of the folds, with their labels as they are: {', '.join(map(str, left_out))}.")
    return lines


def _diameter_table(rows: Sequence[ZoneRow]) -> Table:
    header = ("diameter, mm", "candidates", "accepted", "ignored", "expected lesions", "of these accepted")
    cells: list[tuple[TableCell, ...]] = [
        (
            diameter_range(row.lower_mm, row.upper_mm),
            str(row.n_candidates),
            str(row.n_accepted),
            str(row.n_doubtful),
            f"{row.expected_lesions:.1f}",
            f"{row.expected_accepted:.1f}",
        )
        for row in rows
    ]
    return Table(header, cells, right=range(1, 6))


def _candidate_table(rows: Sequence[Sequence[object]]) -> SortableTable:
    shown = [tuple(map(str, row)) for row in sorted(rows, key=lambda row: -float(str(row[3])))[:_MOST_ROWS]]
    left_out = len(rows) - len(shown)
    return SortableTable(
        name="candidates",
        header=("case", "candidate", "diameter, mm", "probability", "zone", "decided by"),
        rows=shown,
        right=range(1, 4),
        note=f"The other {left_out} are in completed_lesions.csv." if left_out else "",
    )
