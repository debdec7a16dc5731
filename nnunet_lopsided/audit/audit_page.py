"""audit.html: one file in which a reader decides on the candidates, offline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nnunet_lopsided.audit.auditing import Audit
from nnunet_lopsided.audit.candidate_pictures import CandidatePictures
from nnunet_lopsided.audit.missed_by_size import LEAST
from nnunet_lopsided.audit.record_content import AuditContent
from nnunet_lopsided.audit.review_page import review_page
from nnunet_lopsided.audit.seen_chart import shown_seen
from nnunet_lopsided.evaluation.confidence import TITLES
from nnunet_lopsided.pages.charts import diameter_range
from nnunet_lopsided.pages.html import Table, TableCell, code, interval, interval_or_reason, number, number_or_empty

_RANKED_BY = {
    "likeness": "the probability of being a missed lesion",
    "mean-probability": TITLES["mean"],
    **{name: TITLES[name] for name in ("max", "sum", "sqrt", "learned")},
}


class RateInAny(NamedTuple):
    """The miss rate by the highest probability in any prediction, and its interval or why there is none."""

    rate: str
    interval: str


class RateOutside(NamedTuple):
    """Candidates of hardly annotated diameters, and the miss rate if all of them were missed lesions."""

    candidates: int
    rate: str


class ShownInjected(NamedTuple):
    """What the networks see of injected lesions, the estimate by them, and the diameters that have none."""

    lesions: int
    per_case: int
    seed: int
    rate: str
    interval: str
    missed: str
    undefined: str
    by_diameter: Table
    unsaid: str


class ShownLikeness(NamedTuple):
    """The model that ranks candidates: how well it tells them from lesions, its weights and its calibration."""

    separation: str
    weights: Table
    calibration: Table


def audit_html(
    audit: Audit, record: AuditContent, pictures: Sequence[CandidatePictures], channel_names: Sequence[str] = ()
) -> str:
    """The page of an audit.

    Args:
        audit: the annotated lesions and the candidates.
        record: the content of audit.json.
        pictures: of the candidates to decide on, in their order.
        channel_names: of the images; audit.json numbers them.

    Returns:
        HTML, the same for the same arguments. It asks for no other file.
    """
    return review_page(
        "audit/audit_page.html",
        f"Audit of {record['dataset']}",
        pictures,
        data={
            "id": record["id"],
            "dataset": record["dataset"],
            "store": record["id"],
            "file": "decisions",
            "given": [],
        },
        said={},
        subtitle=_subtitle(record),
        id=record["id"],
        notices=_notices(record),
        n_left_out=len(audit.candidates) - len(pictures),
        miss_rates=_miss_rates(record),
        in_any=_in_any(record),
        outside=_outside(record),
        seen=shown_seen(record),
        injected=_injected(record),
        detector=None if record["detector"]["sensitivity"] is None else record["detector"],
        ranked_by=_RANKED_BY[record["ranked_by"]],
        fainter_below=f"{record['settings']['threshold']:g}" if record["counts"]["fainter_candidates"] else "",
        likeness=_likeness(record, channel_names),
        settings=_settings(record),
    )


def _subtitle(record: AuditContent) -> str:
    counts, threshold = record["counts"], f"{record['settings']['threshold']:g}"
    fainter = f", {counts['fainter_candidates']} of them below {threshold}" if counts["fainter_candidates"] else ""
    return (
        f"{record['dataset']}: {counts['cases']} cases, {counts['annotated_lesions']} annotated lesions, of which the "
        f"models find {counts['annotated_lesions_found']}, and {counts['candidates']} candidates that no annotation "
        f"explains{fainter}; {_models(record)}"
    )


def _models(record: AuditContent) -> str:
    names = [f"{m['trainer']}, {m['plans']}, {m['configuration']}" for m in record["models"]]
    folds, factors = ", ".join(map(str, record["folds"])), " and ".join(f"{x:g}" for x in record["settings"]["magnify"])
    magnified = f"; images as they are and magnified {factors} times" if factors else ""
    return f"{'; '.join(names)}; folds {folds}{magnified}"


def _notices(record: AuditContent) -> list[str]:
    lines = []
    if record["not_audited"]:
        lines.append(f"Validated by none of the folds, and not audited: {', '.join(record['not_audited'])}.")
    if record["not_magnified"]:
        lines.append(f"Images were not magnified: {record['not_magnified']}.")
    if record["withheld"]:
        lines.append(f"Miss rates and scores are withheld: {record['withheld']}.")
    if record["no_likeness"] and record["ranked_by"] == "mean-probability":
        lines.append(f"Ranked by mean probability: {record['no_likeness']}.")
    return lines


def _miss_rates(record: AuditContent) -> Table:
    rows = []
    for rate in (record["miss_rate"], *record["miss_rate_by_diameter"]):
        # By identity: with a single range of diameters its numbers can equal those of the whole data set.
        whole = rate is record["miss_rate"]
        rows.append(
            (
                "all" if whole else diameter_range(rate["lower_mm"], rate["upper_mm"]),
                f"{rate['annotated_lesions_found']} / {rate['annotated_lesions']}",
                str(rate["candidates"]),
                "" if rate["missed_lesions"] is None else f"{rate['missed_lesions']:.0f}",
                number(rate["miss_rate"]),
                interval_or_reason(rate["miss_rate_ci95_bootstrap"], rate["undefined"]),
            )
        )
    header = (
        "diameter, mm",
        "annotated lesions found",
        "candidates",
        "missed lesions, estimate",
        "share of all lesions that was missed",
        "95% interval (bootstrap over patients)",
    )
    return Table(header, rows, right=(1, 2, 3, 4))


def _in_any(record: AuditContent) -> RateInAny | None:
    rate = record["miss_rate_in_any_prediction"]
    if rate is None or rate["miss_rate"] is None:
        return None
    return RateInAny(
        number(rate["miss_rate"]), interval(rate["miss_rate_ci95_bootstrap"]) or rate["undefined"] or "undefined"
    )


def _outside(record: AuditContent) -> RateOutside | None:
    outside = record["outside_miss_rate"]
    return None if outside is None else RateOutside(outside["candidates"], number(outside["miss_rate_if_missed"]))


def _injected(record: AuditContent) -> ShownInjected | None:
    injected = record["injected"]
    if injected is None:
        return None
    rows = [
        (
            diameter_range(of["lower_mm"], of["upper_mm"]),
            str(of["injected"]),
            str(of["found"]),
            number_or_empty(of["recall"]),
            str(of["annotated_lesions"]),
            "" if of["missed_lesions"] is None else f"{of['missed_lesions']:.0f}",
            number_or_empty(of["seen"]),
            interval(of["seen_ci95_bootstrap"]),
        )
        for of in injected["by_diameter"]
    ]
    header = (
        "diameter, mm",
        "injected lesions",
        "found",
        "share found",
        "annotated lesions",
        "missed lesions, estimate",
        "share that your annotators saw",
        "95% interval (bootstrap over patients)",
    )
    # Of sizes that are hardly annotated few are injected, which says nothing of what the networks see.
    # Where there is no estimate at all the page says why.
    unsaid = [
        f"{diameter_range(of['lower_mm'], of['upper_mm'])} mm ({of['found']} of {of['injected']})"
        for of in injected["by_diameter"]
        if of["missed_lesions"] is None and of["injected"] >= LEAST and not injected["undefined"]
    ]
    missed = injected["missed_lesions"]
    return ShownInjected(
        lesions=injected["lesions"],
        per_case=injected["per_case"],
        seed=injected["seed"],
        rate="" if injected["miss_rate"] is None else number(injected["miss_rate"]),
        interval=interval(injected["miss_rate_ci95_bootstrap"]),
        missed="" if missed is None else f"{missed:.0f}",
        undefined=injected["undefined"] or "",
        by_diameter=Table(header, rows, right=range(1, 7)),
        unsaid=", ".join(unsaid),
    )


def _likeness(record: AuditContent, channel_names: Sequence[str]) -> ShownLikeness | None:
    likeness = record["likeness"]
    if likeness is None:
        return None
    named = {f"contrast, channel {i}": f"contrast, {name}" for i, name in enumerate(channel_names)}
    weights = [(named.get(name, name), number(value, "+")) for name, value in likeness["coefficients"].items()]
    bins = [(number(b["predicted"]), number(b["observed"]), str(b["n"])) for b in likeness["reliability"]]
    return ShownLikeness(
        number(likeness["separation_auc"]),
        Table(("feature, standardised", "weight"), weights, right=(1,)),
        Table(("probability of being annotated", "share annotated", "components"), bins, right=(0, 1, 2)),
    )


def _in_words(name: str, value: object) -> object:
    """A setting as a reader may meet it; None is what the audit chose by itself, or all."""
    if value is None:
        return {"label": "all foreground", "connectivity": "26 in 3D, 8 in 2D"}.get(name, "none")
    return (", ".join(f"{x:g}" for x in value) or "none") if isinstance(value, list) else value


def _settings(record: AuditContent) -> Table:
    cut = record["cut_back"]
    dice = cut["mean_dice_of_annotated"]
    rows: list[tuple[TableCell, TableCell]] = [
        ("cut back at, of the highest probability", code(cut["fraction"])),
        ("mean Dice of annotated lesions so cut back", code("undefined" if dice is None else f"{dice:.3f}")),
        *((name, code(_in_words(name, value))) for name, value in record["settings"].items()),
        ("version", code(record["version"])),
    ]
    return Table(("setting", "value"), rows)
