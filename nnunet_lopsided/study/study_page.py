"""The page of a study: one self-contained file, also of a study that is not finished."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from markupsafe import Markup

from nnunet_lopsided.evaluation.confidence import TITLES
from nnunet_lopsided.evaluation.report.numbers import title_of
from nnunet_lopsided.evaluation.report.summary_charts import histogram_chart, sensitivity_chart
from nnunet_lopsided.evaluation.rules import profile_rules
from nnunet_lopsided.evaluation.summary_json import metric_intervals
from nnunet_lopsided.files.regular import read_text
from nnunet_lopsided.nnunet.paths import new_dataset_name
from nnunet_lopsided.nnunet.patients import patients_of
from nnunet_lopsided.nnunet.raw import RawDataset
from nnunet_lopsided.pages.charts import SERIES, LinePoint, draw_lines
from nnunet_lopsided.pages.html import (
    Table,
    TableCell,
    code,
    interval,
    interval_or_reason,
    number,
    number_or_empty,
    page,
)
from nnunet_lopsided.pages.rendering import Chart, chart
from nnunet_lopsided.pages.versions import library_versions
from nnunet_lopsided.study.answers import answers
from nnunet_lopsided.study.report_tables import factors_of, relative
from nnunet_lopsided.study.results import CONFIDENCE_METRICS, FURTHER_METRICS, PAPER_METRICS, Cell, Evaluated, Results

# A page of every row's would be long: studies have up to hundreds of rows.
_MAX_HISTOGRAMS = 12
_ENGINE = ("nnunetv2", "torch", "snakemake")


@dataclass(frozen=True, kw_only=True)
class Group:
    """What the page shows of the runs on one dataset in one configuration.

    Attributes:
        title: dataset and configuration.
        answers: what missing lesions cost and who won it back, in words.
        arms: the metrics of the paper by labels and arm.
        further: further metrics.
        by_confidence: the average precision by every confidence.
        several: whether any row is of several runs.
        over: arms, and charts of them over what the study varies; as many as there are colours together.
        histograms: which probabilities lesion voxels get, and in which row of the table.
        n_more_histograms: rows whose histogram is left out.
        diameters: sensitivity by diameter, of which labels and which arms.
    """

    title: str
    answers: list[str]
    arms: Table
    further: Table
    by_confidence: Table
    several: bool
    over: list[tuple[list[str], list[Chart]]]
    histograms: list[tuple[Chart, str]]
    n_more_histograms: int
    diameters: list[tuple[Chart, str, list[str]]]


def report_page(results: Results) -> str:
    """The page.

    Args:
        results: of the study, finished or not.

    Returns:
        HTML that asks for no other file.
    """
    study, cells = results.study, results.cells(results.main_cases)
    rules = profile_rules(study.evaluation.profile)
    differences = _differences(results)  # also tells which evaluations cannot be compared
    cost, cost_note = _cost(results)
    return page(
        "study/study_page.html",
        f"Study: {study.name}",
        name=study.name,
        subtitle=_subtitle(results),
        failed=_failed(results),
        missing=_missing(results),
        groups=[
            _group(results, [c for c in cells if (c.dataset, c.configuration) == key], cells)
            for key in dict.fromkeys((cell.dataset, cell.configuration) for cell in cells)
        ],
        confidence=TITLES[study.evaluation.confidence or rules.confidence],
        rule=rules.match_in_words,
        differences=differences,
        kept_and_censored=_kept_and_censored(results),
        cost=cost,
        cost_note=cost_note,
        runs=_runs(results),
        # Not escaped: the text is ours, and nothing of the user's is in it.
        run_note=Markup(
            "The report of each, with pictures and curves: <code>evaluations/RUN/CASES/report.html</code>."
        ),
        study_file=read_text(results.folder.study_file),
        commands=_commands(results),
        versions=_versions(),
    )


def _subtitle(results: Results) -> str:
    study = results.study
    n_done = sum(state == "done" for state in results.states.values())
    return (
        f"{len(study.datasets)} dataset{'s' * (len(study.datasets) > 1)}, {len(results.runs)} runs, {n_done} of "
        f"{len(results.jobs)} jobs done. Baseline: {study.baseline} with full labels. Numbers are of the "
        f"{results.main_cases} cases{_magnified(results)}. nnU-Net trains without a seed: a repetition gives other "
        "numbers."
    )


def _magnified(results: Results) -> str:
    factors = factors_of(results.study, results.main_cases)
    return f", predicted as they are and magnified {factors.replace(' ', ' and ')} times" if factors else ""


def _failed(results: Results) -> list[tuple[str, str]]:
    """Every failed job and the end of its log."""
    return [
        (job.name, results.folder.failure(job.name)) for job in results.jobs if results.states[job.name] == "failed"
    ]


def _missing(results: Results) -> list[str]:
    """Jobs that are not done, and evaluations that cannot be read."""
    lines = []
    for state, text in (("blocked", "blocked by a failed job"), ("running", "running"), ("waiting", "not yet run")):
        n = sum(s == state for s in results.states.values())
        if n:
            lines.append(f"{n} job{'s' * (n > 1)} {text}")
    return lines + [f"cannot be read: {problem}" for problem in results.unreadable]


def _group(results: Results, chosen: Sequence[Cell], cells: Sequence[Cell]) -> Group:
    histograms = list(_histograms(chosen))
    return Group(
        title=f"{chosen[0].dataset}, {chosen[0].configuration}",
        answers=answers(chosen, results.study.baseline),
        arms=_arms(results, chosen, cells),
        further=_further(chosen),
        by_confidence=_by_confidence(chosen),
        several=any(len(cell.runs) > 1 for cell in chosen),
        over=_over(results, chosen),
        histograms=histograms,
        n_more_histograms=sum(bool(cell.runs) for cell in chosen) - len(histograms),
        diameters=list(_diameters(chosen)),
    )


def _arms(results: Results, chosen: Sequence[Cell], cells: Sequence[Cell]) -> Table:
    header = ["labels", "arm", "runs"]
    for name in PAPER_METRICS:
        header += [title_of(name), "", "of baseline"]
    rows = []
    for cell in chosen:
        baseline = results.baseline_of(cell, cells)
        row: list[TableCell] = [cell.labels, cell.arm, f"{len(cell.runs)} / {cell.n_expected}"]
        for name in PAPER_METRICS:
            row += [*_mean_and_ends(cell, name), _percent(relative(cell, baseline, name))]
        rows.append(row)
    return Table(header, rows, right=range(2, len(header)))


def _further(chosen: Sequence[Cell]) -> Table:
    header = ["labels", "arm", *(part for name in FURTHER_METRICS for part in (title_of(name), ""))]
    rows = [
        [cell.labels, cell.arm, *(part for name in FURTHER_METRICS for part in _mean_and_ends(cell, name))]
        for cell in chosen
    ]
    return Table(header, rows, right=range(2, len(header)))


def _by_confidence(chosen: Sequence[Cell]) -> Table:
    header = ["labels", "arm", *map(title_of, CONFIDENCE_METRICS)]
    rows = [
        [cell.labels, cell.arm, *(number_or_empty(cell.mean(name)) for name in CONFIDENCE_METRICS)] for cell in chosen
    ]
    return Table(header, rows, right=range(2, len(header)))


def _mean_and_ends(cell: Cell, metric: str) -> tuple[str, TableCell]:
    """The mean over runs, and the interval of a single run (or why it has none) or the range of several."""
    mean, ends = cell.mean(metric), cell.ends(metric)[0]
    reason = _no_interval(cell.runs[0], metric) if len(cell.runs) == 1 and mean is not None else None
    return number_or_empty(mean), interval_or_reason(ends, reason)


def _no_interval(run: Evaluated, metric: str) -> str | None:
    """Why a metric of a run has no bootstrap interval; None: the evaluation gives no reason."""
    undefined: dict[str, str] = run.evaluation.summary["undefined"]
    return undefined.get(f"{metric}_ci95_bootstrap") or undefined.get(f"{metric}_bootstrap_ci95")


def _over(results: Results, chosen: Sequence[Cell]) -> list[tuple[list[str], list[Chart]]]:
    """The metrics over the rate of missing lesions and over the number of patients, where the study varies them."""
    arms = [arm.name for arm in results.study.arms]
    # No colour is used twice in one chart.
    parts = [arms[i : i + len(SERIES)] for i in range(0, len(arms), len(SERIES))]
    return [(part, charts) for part in parts if (charts := _charts_over(results, chosen, part))]


def _charts_over(results: Results, chosen: Sequence[Cell], arms: Sequence[str]) -> list[Chart]:
    charts = []
    modes = dict.fromkeys(c.mode for c in results.study.censoring if c.mode is not None and c.rate is not None)
    for mode in modes:
        with_rate = [c for c in results.study.censoring if c.mode is None or (c.mode == mode and c.rate is not None)]
        # Full labels lack nothing: a rate of 0.
        rates = {c.name: c.rate or 0.0 for c in with_rate}
        # Two points are no curve: the table says it better.
        if len(rates) > 2:
            charts += _lines(chosen, arms, rates, f"{mode}: share of lesions missing in the labels")
    if len(results.study.patients) > 1:
        for censoring in results.study.censoring:
            counts = {
                censoring.name + ("" if n is None else f"-n{n}"): _patients(results, chosen[0], n)
                for n in results.study.patients
            }
            charts += _lines(chosen, arms, counts, f"{censoring.name}: number of training patients")
    return charts


def _lines(chosen: Sequence[Cell], arms: Sequence[str], places: Mapping[str, float], x_label: str) -> list[Chart]:
    return [_line_chart(metric, x_label, line_points(chosen, arms, places, metric)) for metric in PAPER_METRICS]


def _line_chart(metric: str, x_label: str, lines: Mapping[str, Sequence[LinePoint]]) -> Chart:
    # Shares of 1, all on one scale: charts beside each other are read against each other.
    return chart(lambda axes: draw_lines(axes, title_of(metric), x_label, lines, top=1.0))


def line_points(
    cells: Sequence[Cell], arms: Sequence[str], places: Mapping[str, float], metric: str
) -> dict[str, list[LinePoint]]:
    """A metric of every arm over what was varied.

    Args:
        cells: rows of the table.
        arms: which of them are wanted, in this order.
        places: what was varied, by the name of the labels.
        metric: which.

    Returns:
        By arm, with what was varied ascending; rows without a value are left out.
    """
    lines = {}
    for arm in arms:
        points = [
            LinePoint(places[cell.labels], mean, cell.ends(metric)[0])
            for cell in cells
            if cell.arm == arm and cell.labels in places and (mean := cell.mean(metric)) is not None
        ]
        lines[arm] = sorted(points, key=lambda point: point.x)
    return lines


def _patients(results: Results, cell: Cell, n: int | None) -> float:
    """The number of training patients, counted where all are used."""
    if n is not None:
        return float(n)
    dataset_id = results.folder.ids()[cell.dataset]
    raw = RawDataset(results.folder.path / "nnUNet_raw" / new_dataset_name(dataset_id, cell.dataset))
    names = [case.name for case in raw.training_cases()]
    patients, _ = patients_of(names, raw.folder, results.study.evaluation.patients_regex)
    return float(len(set(patients.values())))


def _histograms(chosen: Sequence[Cell]) -> Iterator[tuple[Chart, str]]:
    """Which probabilities lesion voxels get, a chart per row of the table: its first run."""
    for cell in [cell for cell in chosen if cell.runs][:_MAX_HISTOGRAMS]:
        yield histogram_chart(cell.runs[0].evaluation.summary), cell.name


def _diameters(chosen: Sequence[Cell]) -> Iterator[tuple[Chart, str, list[str]]]:
    """Sensitivity by diameter of the first run of every arm, and of which labels and arms."""
    for labels in dict.fromkeys(cell.labels for cell in chosen):
        contents = {c.arm: c.runs[0].evaluation.summary for c in chosen if c.labels == labels and c.runs}
        arms = list(contents)
        for i in range(0, len(arms), len(SERIES)):
            part = arms[i : i + len(SERIES)]
            yield sensitivity_chart({arm: contents[arm] for arm in part}), labels, part


def _differences(results: Results) -> Table | None:
    """Every run minus its baselines; nothing sets off an interval that leaves out 0."""
    rows = []
    for pair in results.differences:
        row: list[TableCell] = [pair.run, pair.against]
        for name in PAPER_METRICS:
            d = pair.differences[name]
            text = "" if d.difference is None else number(d.difference, "+")
            row += [text, interval_or_reason(d.interval.ends, d.interval.undefined, "+")]
        rows.append(row)
    header = ["run", "minus the baseline arm on", *(part for m in PAPER_METRICS for part in (title_of(m), ""))]
    return Table(header, rows, right=range(2, len(header))) if rows else None


def _kept_and_censored(results: Results) -> Table | None:
    """Lesions found of those that the training labels kept, and of those that they lacked."""
    rows = []
    for cases in results.study.evaluation.cases:
        for cell in results.cells(cases):
            counts = results.by_annotation(cell)
            if counts:
                shares = [_share(*counts.get(group, (0, 0))) for group in ("kept", "censored")]
                rows.append([cell.dataset, cell.labels, cell.configuration, cell.arm, cases, *shares])
    header = ("dataset", "labels", "configuration", "arm", "cases", "found of those kept", "found of those censored")
    return Table(header, rows) if rows else None


def _share(detected: int, lesions: int) -> str:
    return f"{detected} / {lesions}" + (f" ({detected / lesions:.2f})" if lesions else "")


def _cost(results: Results) -> tuple[Table, str]:
    """Hours of training, and on what."""
    rows, total = [], 0.0
    for cell in results.cells(results.main_cases):
        hours, attempts = results.training_hours(cell)
        total += hours
        rows.append([cell.dataset, cell.labels, cell.configuration, cell.arm, f"{hours:.3f}", str(attempts)])
    rows.append(["all", "", "", "", f"{total:.3f}", ""])
    trainings = [job for job in results.jobs if job.kind == "train"]
    known = [attempt for job in trainings for attempt in results.folder.known_attempts(job.name)]
    machines = sorted({f"{a['host']} ({a.get('device', 'unknown')})" for a in known})
    resources = results.study.resources
    what = f"{resources.gpus} GPU{'s' * (resources.gpus > 1)}" if results.study.device == "cuda" else "no GPU"
    note = (
        f"Wall time of all attempts; device {results.study.device}, {what} and {resources.cpus} cores per training, on "
        f"{', '.join(machines) or 'no machine yet'}."
    )
    header = ("dataset", "labels", "configuration", "arm", "hours of training", "attempts")
    return Table(header, rows, right=(4, 5)), note


def _runs(results: Results) -> Table | None:
    """Every evaluated run with its intervals, or why it has none."""
    rows = []
    for e in results.evaluated:
        row: list[TableCell] = [e.run.name, e.cases]
        for name in PAPER_METRICS:
            value = e.metric(name)
            reason = None if value is None else _no_interval(e, name)
            row += [number(value), interval_or_reason(e.interval(name), reason)]
        hanley = metric_intervals(e.evaluation.summary["metrics"])["map_ci95_hanley_mcneil"]
        rows.append([*row, interval(hanley), f"{e.training_seconds / 3600:.3f}"])
    header = ["run", "cases", *(part for m in PAPER_METRICS for part in (title_of(m), "95% interval"))]
    header += ["mAP, Hanley-McNeil", "training, h"]
    return Table(header, rows, right=range(2, len(header))) if rows else None


def _commands(results: Results) -> Table:
    """The command of every job, what became of it and how long it took."""
    rows = []
    for job in results.jobs:
        record = results.folder.record(job.name)
        seconds = "" if record is None else f"{record['seconds']:.0f}"
        # As a user would type it: the folder of a repetition's results is set when the job runs.
        prefix = "" if job.results == "nnUNet_results" else f"nnUNet_results={job.results} "
        rows.append((code(prefix + shlex.join(job.command)), results.states[job.name], seconds))
    return Table(("command", "state", "seconds"), rows, right=(2,))


def _versions() -> Table:
    versions = {**library_versions(), **{name: _version(name) for name in _ENGINE}}
    return Table(("package", "version"), [(code(name), code(text)) for name, text in versions.items()])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"
