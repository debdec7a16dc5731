"""The page of a study: one self-contained file, also of a study that is not finished."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version

from nnunet_lopsided.evaluation.confidence import TITLES
from nnunet_lopsided.evaluation.report.numbers import title_of
from nnunet_lopsided.evaluation.rules import profile_rules
from nnunet_lopsided.nnunet.paths import new_dataset_name
from nnunet_lopsided.nnunet.patients import patients_of
from nnunet_lopsided.nnunet.raw import RawDataset
from nnunet_lopsided.pages.charts import (
    figures,
    key,
    lines_over,
    probability_histogram,
    sensitivity_by_diameter,
)
from nnunet_lopsided.pages.html import code, interval, number, page, table
from nnunet_lopsided.pages.versions import library_versions
from nnunet_lopsided.study.report_tables import relative
from nnunet_lopsided.study.results import CONFIDENCE_METRICS, FURTHER_METRICS, PAPER_METRICS, Cell, Results

_MAX_HISTOGRAMS = 12
_ENGINE = ("nnunetv2", "torch", "snakemake")


def report_page(results: Results) -> str:
    """The page.

    Args:
        results: of the study, finished or not.

    Returns:
        HTML that asks for no other file.
    """
    study, cells = results.study, results.cells(results.main_cases)
    groups = list(dict.fromkeys((cell.dataset, cell.configuration) for cell in cells))
    sections = [("What is missing", _missing(results))]
    for dataset, configuration in groups:
        chosen = [c for c in cells if (c.dataset, c.configuration) == (dataset, configuration)]
        sections.append((f"{dataset}, {configuration}", _arms(results, chosen, cells) + _over(results, chosen)))
        sections.append((f"{dataset}, {configuration}: certainty and size", _histograms(chosen) + _diameters(chosen)))
    sections += [
        ("Differences from the baseline", _differences(results)),
        ("Lesions the training labels kept and lacked", _kept_and_censored(results)),
        ("Cost", _cost(results)),
        ("Every run", _runs(results)),
        ("To repeat it", _repeat(results)),
    ]
    shown = [(title, content) for title, content in sections if content]
    done = sum(state == "done" for state in results.states.values())
    body = [
        f"<h1>Study: {escape(study.name)}</h1>",
        f'<p class="sub">{len(study.datasets)} dataset{"s" * (len(study.datasets) > 1)}, {len(results.runs)} runs, '
        f"{done} of {len(results.jobs)} jobs done. Baseline: {escape(study.baseline)} with full labels. Numbers are of "
        f"the {results.main_cases} cases. nnU-Net trains without a seed: a repetition gives other numbers.</p>",
        "<nav>" + "".join(f'<a href="#s{i}">{escape(title)}</a>' for i, (title, _) in enumerate(shown)) + "</nav>",
        *(f'<section><h2 id="s{i}">{escape(t)}</h2>\n{content}</section>' for i, (t, content) in enumerate(shown)),
    ]
    return page(f"Study: {study.name}", body)


def _missing(results: Results) -> str:
    states = results.states
    lines = [
        f"<b>failed</b>: {escape(j.name)}: {escape(results.folder.failure(j.name))}"
        for j in results.jobs
        if states[j.name] == "failed"
    ]
    for state, text in (("blocked", "blocked by a failed job"), ("running", "running"), ("waiting", "not yet run")):
        n = sum(s == state for s in states.values())
        if n:
            lines.append(f"{n} job{'s' * (n > 1)} {text}")
    lines += [f"cannot be read: {escape(problem)}" for problem in results.unreadable]
    return "".join(f'<p class="notice">{line}</p>' for line in lines)


def _arms(results: Results, chosen: Sequence[Cell], cells: Sequence[Cell]) -> str:
    header = ["labels", "arm", "runs"]
    for name in PAPER_METRICS:
        header += [title_of(name), "", "of baseline"]
    rows, further = [], []
    for cell in chosen:
        baseline = results.baseline_of(cell, cells)
        row = [escape(cell.labels), escape(cell.arm), f"{len(cell.runs)} / {cell.n_expected}"]
        for name in PAPER_METRICS:
            share = relative(cell, baseline, name)
            mean = cell.mean(name)
            row += ["" if mean is None else number(mean), interval(cell.ends(name)[0]), _percent(share)]
        rows.append(row)
        values = [(cell.mean(name), cell.ends(name)[0]) for name in FURTHER_METRICS]
        shown = [part for mean, ends in values for part in ("" if mean is None else number(mean), interval(ends))]
        further.append([escape(cell.labels), escape(cell.arm), *shown])
    several = any(len(cell.runs) > 1 for cell in chosen)
    note = "In the column beside a metric: 95% bootstrap interval over patients of a single run" + (
        "; smallest and largest value where there are several runs, whose mean is shown." if several else "."
    )
    more = ["labels", "arm", *(part for name in FURTHER_METRICS for part in (title_of(name), ""))]
    ranked = ["labels", "arm", *map(title_of, CONFIDENCE_METRICS)]
    by_confidence = [
        [escape(cell.labels), escape(cell.arm)]
        + ["" if (mean := cell.mean(name)) is None else number(mean) for name in CONFIDENCE_METRICS]
        for cell in chosen
    ]
    return (
        _scroll(table(header, rows, right=range(2, len(header))))
        + f'<p class="why">{note}</p>'
        + _scroll(table(more, further, right=range(2, len(more))))
        + _scroll(table(ranked, by_confidence, right=range(2, len(ranked))))
        + '<p class="why">Average precision with candidates ranked, and matched, by each confidence (means over runs). '
        f"That of the first table: {escape(_confidence(results))}.</p>"
    )


def _confidence(results: Results) -> str:
    rules = results.study.evaluation
    return TITLES[rules.confidence or profile_rules(rules.profile).confidence]


def _over(results: Results, chosen: Sequence[Cell]) -> str:
    """The metrics over the rate of missing lesions and over the number of patients, where the study varies them."""
    arms, shown = [arm.name for arm in results.study.arms], ""
    # Four to a chart: there are four colours.
    for part in (arms[i : i + 4] for i in range(0, len(arms), 4)):
        charts = _charts_over(results, chosen, part)
        shown += key(part) + figures(charts) if charts else ""
    return shown


def _charts_over(results: Results, chosen: Sequence[Cell], arms: Sequence[str]) -> list[str]:
    charts = []
    modes = dict.fromkeys(c.mode for c in results.study.censoring if c.mode is not None and c.rate is not None)
    for mode in modes:
        with_rate = [c for c in results.study.censoring if c.mode is None or (c.mode == mode and c.rate is not None)]
        rates = {c.name: c.rate or 0.0 for c in with_rate}
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


def _lines(chosen: Sequence[Cell], arms: Sequence[str], places: dict[str, float], x_label: str) -> list[str]:
    charts = []
    for metric in PAPER_METRICS:
        lines = {}
        for arm in arms:
            points = []
            for cell in chosen:
                mean = cell.mean(metric)
                if cell.arm == arm and cell.labels in places and mean is not None:
                    points.append((places[cell.labels], mean, cell.ends(metric)[0]))
            lines[arm] = sorted(points, key=lambda point: point[0])
        charts.append(lines_over(title_of(metric), x_label, lines))
    return charts


def _patients(results: Results, cell: Cell, n: int | None) -> float:
    """The number of training patients, counted where all are used."""
    if n is not None:
        return float(n)
    number_ = results.folder.ids()[cell.dataset]
    raw = RawDataset(results.folder.path / "nnUNet_raw" / new_dataset_name(number_, cell.dataset))
    names = [case.name for case in raw.training_cases()]
    patients, _ = patients_of(names, raw.folder, results.study.evaluation.patients_regex)
    return float(len(set(patients.values())))


def _histograms(chosen: Sequence[Cell]) -> str:
    """Which probabilities lesion voxels get, a chart per row of the table: its first run."""
    with_runs = [cell for cell in chosen if cell.runs]
    charts = []
    for cell in with_runs[:_MAX_HISTOGRAMS]:
        chart = probability_histogram(cell.runs[0].evaluation.summary)
        charts.append(f"{chart}<figcaption>{escape(cell.name)}</figcaption>")
    left_out = len(with_runs) - _MAX_HISTOGRAMS
    note = f'<p class="why">{left_out} more are in their own reports.</p>' if left_out > 0 else ""
    return figures(charts) + note if charts else ""


def _diameters(chosen: Sequence[Cell]) -> str:
    charts = []
    for labels in dict.fromkeys(cell.labels for cell in chosen):
        summaries = {c.arm: c.runs[0].evaluation.summary for c in chosen if c.labels == labels and c.runs}
        names = list(summaries)
        for i in range(0, len(names), 4):
            part = names[i : i + 4]
            chart = sensitivity_by_diameter({name: summaries[name] for name in part})
            charts.append(f"{chart}<figcaption>{escape(labels)} {key(part)}</figcaption>")
    return figures(charts) if charts else ""


def _differences(results: Results) -> str:
    rows = []
    for pair in results.differences:
        row = [escape(pair.run), escape(pair.against)]
        for name in PAPER_METRICS:
            d = pair.differences[name]
            low, high = d.interval.low, d.interval.high
            ends = None if low is None or high is None else (low, high)
            sure = ends is not None and ends[0] < ends[1] and (ends[0] > 0 or ends[1] < 0)
            text = "" if d.difference is None else number(d.difference, "+")
            row += [f"<b>{text}</b>" if sure else text, interval(ends, "+")]
        rows.append(row)
    if not rows:
        return ""
    header = ["run", "minus the baseline arm on", *(part for m in PAPER_METRICS for part in (title_of(m), ""))]
    note = (
        "Paired bootstrap over patients, the same repetition of both; 95% intervals beside. Bold: without 0. With many "
        "rows some are by chance, and an interval says nothing of what another training of the same arm would give."
    )
    return _scroll(table(header, rows, right=range(2, len(header)))) + f'<p class="why">{note}</p>'


def _kept_and_censored(results: Results) -> str:
    rows = []
    for cases in results.study.evaluation.cases:
        for cell in results.cells(cases):
            found = results.by_annotation(cell)
            if found:
                shares = [_share(*found.get(group, (0, 0))) for group in ("kept", "censored")]
                rows.append(
                    [escape(x) for x in (cell.dataset, cell.labels, cell.configuration, cell.arm, cases)] + shares
                )
    if not rows:
        return ""
    note = (
        "Cases that were held out of their fold, against whole labels: what the censored labels of that fold kept or "
        "lacked was never trained on, but lesions like it were."
    )
    header = ("dataset", "labels", "configuration", "arm", "cases", "found of those kept", "found of those censored")
    return _scroll(table(header, rows)) + f'<p class="why">{note}</p>'


def _share(detected: int, lesions: int) -> str:
    return f"{detected} / {lesions}" + (f" ({detected / lesions:.2f})" if lesions else "")


def _cost(results: Results) -> str:
    rows, total = [], 0.0
    for cell in results.cells(results.main_cases):
        hours, attempts = results.training_hours(cell)
        total += hours
        rows.append(
            [*map(escape, (cell.dataset, cell.labels, cell.configuration, cell.arm)), f"{hours:.3f}", str(attempts)]
        )
    rows.append(["all", "", "", "", f"{total:.3f}", ""])
    trainings = [job for job in results.jobs if job.kind == "train"]
    known = [attempt for job in trainings for attempt in results.folder.known_attempts(job.name)]
    machines = sorted({f"{a['host']} ({a.get('device', 'unknown')})" for a in known})
    resources = results.study.resources
    what = f"{resources.gpus} GPU{'s' * (resources.gpus > 1)}" if results.study.device == "cuda" else "no GPU"
    note = (
        f"Wall time of all attempts; device {results.study.device}, {what} and {resources.cpus} cores per training, on "
        f"{', '.join(map(escape, machines)) or 'no machine yet'}."
    )
    header = ("dataset", "labels", "configuration", "arm", "hours of training", "attempts")
    return _scroll(table(header, rows, right=(4, 5))) + f'<p class="why">{note}</p>'


def _runs(results: Results) -> str:
    rows = []
    for e in results.evaluated:
        values = [part for m in PAPER_METRICS for part in (number(e.metric(m)), interval(e.interval(m)))]
        hanley = e.evaluation.summary["metrics"]["map_ci95_hanley_mcneil"]
        rows.append([escape(e.run.name), e.cases, *values, interval(hanley), f"{e.training_seconds / 3600:.3f}"])
    header = ["run", "cases", *(part for m in PAPER_METRICS for part in (title_of(m), "95% interval"))]
    header += ["mAP, Hanley-McNeil", "training, h"]
    note = (
        "<p class=why>The report of each, with pictures and curves: <code>evaluations/RUN/CASES/report.html</code>.</p>"
    )
    return _scroll(table(header, rows, right=range(2, len(header)))) + note if rows else ""


def _repeat(results: Results) -> str:
    versions = {**library_versions(), **{name: _version(name) for name in _ENGINE}}
    rows = [(code(name), code(text)) for name, text in versions.items()]
    commands = []
    for job in results.jobs:
        record = results.folder.record(job.name)
        seconds = "" if record is None else f"{record['seconds']:.0f}"
        prefix = "" if job.results == "nnUNet_results" else f"nnUNet_results={job.results} "
        commands.append((code(prefix + shlex.join(job.command)), results.states[job.name], seconds))
    listed = table(("command", "state", "seconds"), commands, right=(2,))
    text = results.folder.study_file.read_text(encoding="utf-8")
    return (
        "<p>All of it again: <code>lopsided-study run study.yaml</code> with this file.</p>"
        f'<pre class="scroll">{escape(text)}</pre>'
        "<p>Or command by command, in the study's folder, with nnUNet_raw, nnUNet_preprocessed and nnUNet_results set "
        f"to the folders of these names in it where nothing else is said:</p>{_scroll(listed)}"
        f"<h3>Versions</h3>{table(('package', 'version'), rows)}"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"


def _scroll(content: str) -> str:
    return f'<div class="scroll">{content}</div>'
