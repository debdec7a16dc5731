"""What came out of a demo: table.csv, table.md and one self-contained page."""

from __future__ import annotations

import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_lopsided.demo.arms import FOLDS, Arm, missing_in_words, trainings
from nnunet_lopsided.demo.commands import PROFILE, Commands
from nnunet_lopsided.demo.comparisons import Compared, read_comparison
from nnunet_lopsided.demo.outcome import AuditScore, answers
from nnunet_lopsided.demo.settings import DemoSettings
from nnunet_lopsided.demo.slices import slice_figure
from nnunet_lopsided.demo.steps import Spent
from nnunet_lopsided.evaluation.report.summary_charts import compared_curves, sensitivity_chart
from nnunet_lopsided.evaluation.summary_json import SummaryContent, flat_metrics, metric_intervals
from nnunet_lopsided.files.json import read_json
from nnunet_lopsided.files.new_files import new_file
from nnunet_lopsided.files.tables import write_table
from nnunet_lopsided.nnunet.raw import RawDataset, raw_dataset
from nnunet_lopsided.pages.html import Table, TableCell, code, interval, number, page
from nnunet_lopsided.pages.rendering import png

_COLUMNS = (
    *("arm", "training labels", "fold", "average precision", "max sensitivity", "precision", "FP per case"),
    *("Dice of TP", "training, s"),
)
_DIFFERENCES = (
    *("difference", "fold", "average precision", "95% interval", "max sensitivity", "95% interval"),
    *("lesions only the first found", "only the second"),
)
# After so many candidates of an audit its list is read.
_READ = 50
# What is drawn is of one training of every arm.
_SHOWN_FOLD = FOLDS[0]


@dataclass(frozen=True)
class _Shown:
    """One training of an arm, as pictures name it."""

    name: str
    title: str


def write_page(commands: Commands, dataset: RawDataset, spent: Mapping[str, Spent]) -> Path:
    """Write ``table.csv``, ``table.md`` and ``index.html`` from what the steps have written.

    Args:
        commands: all of which have run.
        dataset: with the test images and labels.
        spent: wall time and CPU time of every step.

    Returns:
        The page.
    """
    folder, settings, arms = commands.folder, commands.settings, commands.arms
    summaries: dict[tuple[str, int], SummaryContent] = {
        (arm.name, fold): read_json(commands.evaluation(arm, fold) / "summary.json") for arm, fold in trainings(arms)
    }
    compared = {
        (*pair, fold): of_pair
        for fold in FOLDS
        for pair, of_pair in read_comparison(commands.comparison(fold) / "comparison.json").items()
    }
    rows = [
        _row(arm, fold, summaries[arm.name, fold], spent[f"train-{arm.of_fold(fold)}"]) for arm, fold in trainings(arms)
    ]
    whole, left, recipe = ([_metric(summaries[arm.name, fold], "map") for fold in arm.folds] for arm in arms)
    said = answers(
        missing_in_words(settings).capitalize(),
        whole=whole[0],
        left=left,
        recipe=recipe,
        differences=[compared[arms[1].title, arms[2].title, fold].average_precision for fold in FOLDS],
        audit=_audit_score(commands),
    )
    caution = _caution(summaries[arms[0].name, _SHOWN_FOLD], settings)
    differences = Table(_DIFFERENCES, _differences(compared, arms), right=range(1, len(_DIFFERENCES)))
    with new_file(folder / "table.csv") as unfinished:
        write_table(unfinished, _COLUMNS, rows)
    with new_file(folder / "table.md") as unfinished:
        parts = (*said, _markdown(_COLUMNS, rows), _markdown(differences.header, differences.rows), caution)
        unfinished.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    contents = {arm.title: summaries[arm.name, _SHOWN_FOLD] for arm in arms}
    shown = [_Shown(arm.of_fold(_SHOWN_FOLD), arm.title) for arm in arms]
    slices = png(lambda: slice_figure(shown, folder, dataset), dpi=110)
    html = page(
        "demo/demo_page.html",
        "nnunet-lopsided: demo",
        answers=said,
        what=_what(commands, dataset),
        results=Table(_COLUMNS, rows, right=range(2, len(_COLUMNS))),
        differences=differences,
        caution=caution,
        names=list(contents),
        charts=[*compared_curves(contents), sensitivity_chart(contents)],
        # In the page, which is to be one file.
        slices=b64encode(slices).decode(),
        shown_fold=_SHOWN_FOLD,
        folds=FOLDS,
        evaluations=[(arm.of_fold(fold), f"{arm.title}, fold {fold}") for arm, fold in trainings(arms)],
        commands=_commands(folder, spent),
    )
    target = folder / "index.html"
    with new_file(target) as unfinished:
        unfinished.write_text(html, encoding="utf-8")
    return target


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with columns of even width."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    lines = [header, tuple("-" * width for width in widths), *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _row(arm: Arm, fold: int, summary: SummaryContent, spent: Spent) -> tuple[str, ...]:
    metrics, ends = flat_metrics(summary["metrics"]), metric_intervals(summary["metrics"]) | summary["intervals"]
    return (
        arm.title,
        arm.labels,
        str(fold),
        _with_interval(metrics["map"], ends["map_ci95_bootstrap"]),
        _with_interval(metrics["max_sensitivity"], ends.get("max_sensitivity_bootstrap_ci95")),
        number(metrics["precision_at_max_sensitivity"]),
        number(metrics["false_positives_per_case"]),
        number(metrics["tp_dice"]),
        f"{spent.seconds:.0f}",
    )


def _metric(summary: SummaryContent, name: str) -> float | None:
    return flat_metrics(summary["metrics"])[name]


def _with_interval(value: float | None, ends: Sequence[float] | None) -> str:
    return number(value) + ("" if ends is None else f" ({ends[0]:.2f} to {ends[1]:.2f})")


def _differences(compared: Mapping[tuple[str, str, int], Compared], arms: Sequence[Arm]) -> list[tuple[str, ...]]:
    """What the recipe has more than nnU-Net's loss, and what this lost by labels that lack lesions; by fold."""
    whole, plain, recipe = arms
    rows = []
    for first, second in ((plain, recipe), (whole, plain)):
        for fold in first.folds:
            pair = compared[first.title, second.title, fold]
            cells = [f"{second.title} minus {first.title}", str(fold)]
            for difference in (pair.average_precision, pair.sensitivity):
                cells += [
                    "undefined" if difference.difference is None else number(difference.difference, "+"),
                    interval(difference.ends, "+") or difference.why or "",
                ]
            rows.append((*cells, str(pair.only_second), str(pair.only_first)))
    return rows


def _audit_score(commands: Commands) -> AuditScore | None:
    """How many of the first candidates are deleted lesions; None where there are none to be found."""
    score = read_json(commands.audit_folder / "score" / "audit_score.json")
    read = next((r for r in score["rankings"][0]["reviewed"] if r["asked"] == _READ), None)
    if read is None or read["precision"] is None:
        return None
    rates = score["miss_rates"][0]
    return AuditScore(
        n_missing=score["missed_lesions"],
        n_read=read["n"],
        n_right=round(read["precision"] * read["n"]),
        estimated=rates["estimated"],
        true=rates["true"],
    )


def _what(commands: Commands, dataset: RawDataset) -> str:
    settings = commands.settings
    source = "Procedural brains" if settings.data is None else f"Dataset {settings.data}"
    # The last arm is one of those that were trained on censored labels.
    censoring = read_json(raw_dataset(commands.recipe.dataset).folder / "censoring.json")
    return (
        f"{source}, {len(dataset.training_cases())} training and {len(dataset.test_cases())} test cases. From the "
        f"training labels {censoring['n_censored']} of {censoring['n_lesions']} lesions were deleted ({settings.mode}, "
        f"seed {settings.seed}); test labels are whole. Configuration {commands.configuration}, {settings.epochs} "
        f"epochs of {settings.iterations} iterations, device {settings.device}, evaluated with --profile {PROFILE}. "
        "Each fold learns from one half of the training cases: on labels that lack lesions both losses were trained "
        "on both, on whole labels one was."
    )


def _caution(summary: SummaryContent, settings: DemoSettings) -> str:
    counts = summary["counts"]
    # nnU-Net: 1000 epochs of 250.
    iterations = settings.epochs * settings.iterations
    return (
        f"{counts['reference_lesions']} lesions in {counts['cases']} test cases; {iterations} iterations per training, "
        "where nnU-Net's default is 250000. In brackets: 95% interval, in which the number lies if other test cases "
        "were taken; it does not hold the noise of training again, of which the two folds give an idea."
    )


def _commands(folder: Path, spent: Mapping[str, Spent]) -> Table:
    logs = folder / "logs"
    rows: list[tuple[TableCell, ...]] = [
        # What was run, also by an earlier version that this one went on from.
        (
            code(shlex.join(read_json(logs / f"{name}.json")["command"])),
            f"{of_step.seconds:.0f}",
            f"{of_step.cpu_seconds:.0f}",
        )
        for name, of_step in spent.items()
    ]
    seconds, cpu_seconds = (sum(getattr(one, name) for one in spent.values()) for name in ("seconds", "cpu_seconds"))
    rows.append(("all; some ran side by side", f"{seconds:.0f}", f"{cpu_seconds:.0f}"))
    return Table(("command", "seconds", "CPU seconds"), rows, right=(1, 2))
