"""The tables of a study as CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nnunet_lopsided.evaluation.summary_json import metric_intervals
from nnunet_lopsided.files.tables import write_table
from nnunet_lopsided.study.results import CONFIDENCE_METRICS, FURTHER_METRICS, PAPER_METRICS, Cell, Results
from nnunet_lopsided.study.schema import Study

METRICS = (*PAPER_METRICS, *FURTHER_METRICS)
_TITLES = {"map": "mAP", "max_sensitivity": "Max sensitivity", "tp_dice": "TP-Dice"}


def write_tables(results: Results, folder: Path) -> None:
    """Write ``runs.csv``, ``arms.csv``, ``differences.csv``, ``jobs.csv`` and ``arms.tex``.

    Args:
        results: of the study.
        folder: an empty one.
    """
    write_table(folder / "runs.csv", _RUN_COLUMNS, _run_rows(results))
    write_table(folder / "arms.csv", _ARM_COLUMNS, _arm_rows(results))
    write_table(folder / "differences.csv", _DIFFERENCE_COLUMNS, _difference_rows(results))
    write_table(folder / "jobs.csv", ("job", "state", "seconds", "attempts", "host", "command"), _job_rows(results))
    (folder / "arms.tex").write_text(latex(results), encoding="utf-8")


_RUN_COLUMNS = (
    "run",
    "cases",
    "dataset",
    "labels",
    "mode",
    "rate",
    "censoring_seed",
    "patients",
    "configuration",
    "arm",
    "trainer",
    "repetition",
    "n_cases",
    "reference_lesions",
    "training_hours",
    "training_attempts",
    *(column for name in METRICS for column in (name, f"{name}_low", f"{name}_high")),
    "map_hanley_mcneil_low",
    "map_hanley_mcneil_high",
    "confidence",
    "min_candidate_voxels",
    *CONFIDENCE_METRICS,
    "magnify",
)


def _run_rows(results: Results) -> Iterator[list[object]]:
    for e in results.evaluated:
        run, variant, counts = e.run, e.run.variant, e.evaluation.summary["counts"]
        row: list[object] = [run.name, e.cases, variant.dataset, variant.labels, variant.censoring.mode or "none"]
        row += [_cell(variant.censoring.rate), variant.seed, _cell(variant.patients), run.configuration, run.arm.name]
        row += [results.trainer(run), run.repetition, counts["cases"], counts["reference_lesions"]]
        row += [f"{e.training_seconds / 3600:.4f}", e.attempts]
        for name in METRICS:
            low, high = e.interval(name) or (None, None)
            row += [_cell(e.metric(name)), _cell(low), _cell(high)]
        low, high = metric_intervals(e.evaluation.summary["metrics"])["map_ci95_hanley_mcneil"] or (None, None)
        rules = e.evaluation.rules
        row += [_cell(low), _cell(high), rules.confidence, rules.min_candidate_voxels]
        yield [*row, *(_cell(e.metric(name)) for name in CONFIDENCE_METRICS), factors_of(results.study, e.cases)]


_ARM_COLUMNS = (
    "cases",
    "dataset",
    "labels",
    "configuration",
    "arm",
    "runs",
    "runs_expected",
    *(column for name in METRICS for column in (name, f"{name}_low", f"{name}_high", f"{name}_relative")),
    "low_and_high",
    "kept_found",
    "kept",
    "censored_found",
    "censored",
    "training_hours",
    *CONFIDENCE_METRICS,
)


def _arm_rows(results: Results) -> Iterator[list[object]]:
    for cases in results.study.evaluation.cases:
        cells = results.cells(cases)
        for cell in cells:
            baseline = results.baseline_of(cell, cells)
            row: list[object] = [cases, cell.dataset, cell.labels, cell.configuration, cell.arm]
            row += [len(cell.runs), cell.n_expected]
            for name in METRICS:
                low, high = cell.ends(name)[0] or (None, None)
                row += [_cell(cell.mean(name)), _cell(low), _cell(high), _cell(relative(cell, baseline, name))]
            counts = results.by_annotation(cell)
            # Empty where no labels were censored.
            shares = [n for group in ("kept", "censored") for n in counts.get(group, ("", ""))]
            row += [cell.ends("map")[1], *shares, f"{results.training_hours(cell)[0]:.4f}"]
            yield [*row, *(_cell(cell.mean(name)) for name in CONFIDENCE_METRICS)]


_DIFFERENCE_COLUMNS = ("run", "baseline", "against", "metric", "value", "baseline_value", "difference", "low", "high")


def _difference_rows(results: Results) -> Iterator[list[object]]:
    for pair in results.differences:
        for name in METRICS:
            d = pair.differences[name]
            numbers = (d.second, d.first, d.difference, d.interval.low, d.interval.high)
            yield [pair.run, pair.baseline, pair.against, name, *map(_cell, numbers)]


def _job_rows(results: Results) -> Iterator[list[object]]:
    for job in results.jobs:
        marker = results.folder.record(job.name)
        known = ("", "", "") if marker is None else (marker["seconds"], marker["attempts"], marker["host"])
        yield [job.name, results.states[job.name], *known, " ".join(job.command)]


def factors_of(study: Study, cases: str) -> str:
    """How many times the images of these cases were magnified, too; empty: predicted as they are alone."""
    return " ".join(f"{factor:g}" for factor in study.evaluation.magnify or ()) if cases == "test" else ""


def relative(cell: Cell, baseline: Cell | None, metric: str) -> float | None:
    """A cell's mean over that of the baseline; None where it is undefined or the baseline's is 0."""
    mine, its = cell.mean(metric), None if baseline is None else baseline.mean(metric)
    return None if mine is None or not its else mine / its


def latex(results: Results) -> str:
    """The table in the paper's form: mAP with its interval, max sensitivity and TP-Dice, each with its share of the
    baseline's in percent. It needs no package.
    """
    cells = results.cells(results.main_cases)
    lines = [
        f"% {results.study.name}: values in percent; in brackets 95% bootstrap interval, or the range of several runs;",
        f"% then percent of the baseline, {results.study.baseline} with full labels. {results.main_cases} cases.",
    ]
    for dataset, configuration in dict.fromkeys((c.dataset, c.configuration) for c in cells):
        chosen = [c for c in cells if (c.dataset, c.configuration) == (dataset, configuration)]
        lines += [
            "",
            f"% {dataset}, {configuration}",
            "\\begin{tabular}{llr" + "rr" * len(PAPER_METRICS) + "}",
            "\\hline",
            "Labels & Arm & Runs & " + " & ".join(f"{_TITLES[m]} & rel." for m in PAPER_METRICS) + " \\\\",
            "\\hline",
        ]
        for cell in chosen:
            baseline = results.baseline_of(cell, cells)
            values = [
                part for m in PAPER_METRICS for part in (_latex_value(cell, m), _percent(relative(cell, baseline, m)))
            ]
            lines.append(" & ".join([_escape(cell.labels), _escape(cell.arm), str(len(cell.runs)), *values]) + " \\\\")
        lines += ["\\hline", "\\end{tabular}"]
    return "\n".join(lines) + "\n"


def _latex_value(cell: Cell, metric: str) -> str:
    mean, (ends, _) = cell.mean(metric), cell.ends(metric)
    if mean is None:
        return "--"
    return f"{100 * mean:.1f}" + ("" if ends is None else f" ({100 * ends[0]:.1f}--{100 * ends[1]:.1f})")


def _percent(value: float | None) -> str:
    return "--" if value is None else f"{100 * value:.0f}"


def _escape(text: str) -> str:
    # No other character that LaTeX takes for a command is allowed in a name.
    return text.replace("_", "\\_")


def _cell(value: float | None) -> str:
    # More digits than float32 computations have, and fewer than would show how a double was rounded.
    return "" if value is None else f"{value:.9g}"
