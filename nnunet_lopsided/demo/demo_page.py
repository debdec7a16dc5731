"""The arms of a demo side by side: table.csv, table.md and one self-contained page."""

from __future__ import annotations

import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_lopsided.demo.settings import DemoSettings
from nnunet_lopsided.demo.slices import slice_figure
from nnunet_lopsided.evaluation.report.summary_charts import compared_curves, sensitivity_chart
from nnunet_lopsided.evaluation.summary_json import SummaryContent, flat_metrics, metric_intervals
from nnunet_lopsided.files.json import read_json
from nnunet_lopsided.files.new_files import new_file
from nnunet_lopsided.files.tables import write_table
from nnunet_lopsided.nnunet.raw import RawDataset
from nnunet_lopsided.pages.html import Table, code, number, page
from nnunet_lopsided.pages.rendering import png

_COLUMNS = ("arm", "mAP", "max sensitivity", "precision", "FP per case", "Dice of TP", "entropy, bits", "training, s")


@dataclass(frozen=True)
class Arm:
    """One row of the comparison: a model trained on ``dataset`` by ``trainer``."""

    name: str
    title: str
    dataset: int
    trainer: str


def write_comparison(
    arms: Sequence[Arm],
    folder: Path,
    *,
    dataset: RawDataset,
    settings: DemoSettings,
    configuration: str,
    seconds: Mapping[str, float],
) -> Path:
    """Write ``table.csv``, ``table.md`` and ``index.html`` from the evaluations in ``folder``.

    Args:
        arms: evaluated to ``folder/evaluation/NAME``, predicted to ``folder/predictions/NAME``.
        folder: of the demo.
        dataset: with the test images and labels.
        settings: of the demo.
        configuration: nnU-Net configuration the arms were trained with.
        seconds: wall time of every step.

    Returns:
        The page.
    """
    summaries = [read_json(folder / "evaluation" / arm.name / "summary.json") for arm in arms]
    rows = [_row(arm, summary, seconds) for arm, summary in zip(arms, summaries, strict=True)]
    caution = _caution(summaries, settings)
    with new_file(folder / "table.csv") as unfinished:
        write_table(unfinished, _COLUMNS, rows)
    with new_file(folder / "table.md") as unfinished:
        unfinished.write_text(f"{_markdown(rows)}\n\n{caution}\n", encoding="utf-8")
    target = folder / "index.html"
    contents = {arm.title: summary for arm, summary in zip(arms, summaries, strict=True)}
    slices = png(lambda: slice_figure(arms, folder, dataset), dpi=110)
    # The last arm is one of those that were trained on censored labels.
    censoring = read_json(_folder_of(folder, arms[-1].dataset) / "censoring.json")
    html = page(
        "demo/demo_page.html",
        "nnunet-lopsided: demo",
        what=_what(dataset, censoring, settings, configuration),
        results=Table(_COLUMNS, rows, right=range(1, len(_COLUMNS))),
        caution=caution,
        names=list(contents),
        charts=[compared_curves(contents)[0], sensitivity_chart(contents)],
        # In the page, which is to be one file.
        slices=b64encode(slices).decode(),
        arms=arms,
        commands=_commands(folder, seconds),
    )
    with new_file(target) as unfinished:
        unfinished.write_text(html, encoding="utf-8")
    return target


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    """The table with columns of even width."""
    widths = [max(len(line[i]) for line in (_COLUMNS, *rows)) for i in range(len(_COLUMNS))]
    lines = [_COLUMNS, tuple("-" * width for width in widths), *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _row(arm: Arm, summary: SummaryContent, seconds: Mapping[str, float]) -> tuple[str, ...]:
    metrics, ends = flat_metrics(summary["metrics"]), metric_intervals(summary["metrics"]) | summary["intervals"]
    return (
        arm.title,
        _with_interval(metrics["map"], ends["map_ci95_bootstrap"]),
        _with_interval(metrics["max_sensitivity"], ends.get("max_sensitivity_bootstrap_ci95")),
        number(metrics["precision_at_max_sensitivity"]),
        number(metrics["false_positives_per_case"]),
        number(metrics["tp_dice"]),
        number(metrics["lesion_entropy_bits"]),
        f"{seconds[f'train-{arm.name}']:.0f}",
    )


def _with_interval(value: float | None, ends: Sequence[float] | None) -> str:
    return number(value) + ("" if ends is None else f" ({ends[0]:.2f} to {ends[1]:.2f})")


def _what(dataset: RawDataset, censoring: Mapping[str, object], settings: DemoSettings, configuration: str) -> str:
    source = "Procedural brains" if settings.data is None else f"Dataset {settings.data}"
    n_test = len(dataset.test_cases())
    return (
        f"{source}, {len(dataset.training_cases())} training and {n_test} test cases. From the training labels "
        f"{censoring['n_censored']} of {censoring['n_lesions']} lesions were deleted ({settings.mode}, seed "
        f"{settings.seed}); test labels are whole. Configuration {configuration}, {settings.epochs} epochs of "
        f"{settings.iterations} iterations, alpha {settings.alpha:g}, beta {settings.beta:g}, "
        f"device {settings.device}."
    )


def _caution(summaries: Sequence[SummaryContent], settings: DemoSettings) -> str:
    counts = summaries[0]["counts"]
    # nnU-Net: 1000 epochs of 250.
    iterations = settings.epochs * settings.iterations
    return (
        f"{counts['reference_lesions']} lesions in {counts['cases']} test cases, one run per arm of {iterations} "
        "iterations, where nnU-Net's default is 250000; nnU-Net does not seed its training. In brackets: 95% interval "
        "over test cases. Overlapping intervals decide nothing, and a repeated run gives other numbers."
    )


def _commands(folder: Path, seconds: Mapping[str, float]) -> Table:
    logs = folder / "logs"
    rows = [
        # What was run, also by an earlier version that this one went on from.
        (code(shlex.join(read_json(logs / f"{name}.json")["command"])), f"{duration:.0f}")
        for name, duration in seconds.items()
    ]
    return Table(("command", "seconds"), rows, right=(1,))


def _folder_of(folder: Path, dataset_id: int) -> Path:
    return next((folder / "nnUNet_raw").glob(f"Dataset{dataset_id:03d}_*"))
