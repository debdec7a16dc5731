"""The arms of a demo side by side: table.csv, table.md and one self-contained page."""

from __future__ import annotations

import csv
import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_lopsided.demo.slices import slice_figure
from nnunet_lopsided.evaluation.report.figures import draw_pr_steps, png, svg
from nnunet_lopsided.files.json import read_json
from nnunet_lopsided.nnunet.raw import RawDataset
from nnunet_lopsided.pages.html import code, number, page, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2563a8", "#d97706", "#15803d")
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
    dataset: RawDataset,
    settings: Mapping[str, Any],
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
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([_COLUMNS, *rows])
    widths = [max(len(line[i]) for line in (_COLUMNS, *rows)) for i in range(len(_COLUMNS))]
    lines = [_COLUMNS, tuple("-" * width for width in widths), *rows]
    padded = ("| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines)
    (folder / "table.md").write_text("\n".join(padded) + "\n\n" + _caution(summaries, settings) + "\n")

    censoring = read_json(_folder_of(folder, arms[-1].dataset) / "censoring.json")
    slices = png(lambda: slice_figure(arms, folder, dataset), dpi=110)
    body = [
        "<h1>The main job, on a small scale</h1>",
        f"<p class=sub>{escape(_what(dataset, censoring, settings, configuration))}</p>",
        table(_COLUMNS, [tuple(map(escape, row)) for row in rows], right=range(1, len(_COLUMNS))),
        f"<p>{escape(_caution(summaries, settings))}</p>",
        svg(lambda: _curves(arms, summaries)),
        "<h2>Test slices</h2>",
        "<p class=sub>Lesions on which the arms differ come first. Red: reference. Other colours: probability of at "
        "least 0.10.</p>",
        f'<img alt="test slices with contours" src="data:image/png;base64,{b64encode(slices).decode()}">',
        "<h2>Reports</h2>",
        "<p>" + ", ".join(f'<a href="evaluation/{a.name}/report.html">{escape(a.title)}</a>' for a in arms) + "</p>",
        "<h2>Commands</h2>",
        table(("command", "seconds"), _commands(folder, seconds), right=(1,)),
    ]
    target = folder / "index.html"
    target.write_text(page("nnunet-lopsided: demo", body), encoding="utf-8")
    return target


def _row(arm: Arm, summary: Mapping[str, Any], seconds: Mapping[str, float]) -> tuple[str, ...]:
    metrics, ends = summary["metrics"], summary["intervals"]
    return (
        arm.title,
        _with_interval(metrics["map"], metrics["map_ci95_bootstrap"]),
        _with_interval(metrics["max_sensitivity"], ends.get("max_sensitivity_bootstrap_ci95")),
        number(metrics["precision_at_max_sensitivity"]),
        number(metrics["false_positives_per_case"]),
        number(metrics["tp_dice"]),
        number(metrics["lesion_entropy_bits"]),
        f"{seconds[f'train-{arm.name}']:.0f}",
    )


def _with_interval(value: float | None, ends: Sequence[float] | None) -> str:
    return number(value) + ("" if ends is None else f" ({ends[0]:.2f} to {ends[1]:.2f})")


def _what(dataset: RawDataset, censoring: Mapping[str, Any], settings: Mapping[str, Any], configuration: str) -> str:
    source = "procedural brains" if settings["data"] is None else f"dataset {settings['data']}"
    n_test = len(dataset.test_cases())
    return (
        f"{source}, {len(dataset.training_cases())} training and {n_test} test cases. From the training labels "
        f"{censoring['n_censored']} of {censoring['n_lesions']} lesions were deleted ({settings['mode']}, seed "
        f"{settings['seed']}); test labels are whole. Configuration {configuration}, {settings['epochs']} epochs of "
        f"{settings['iterations']} iterations, alpha {settings['alpha']:g}, beta {settings['beta']:g}, "
        f"device {settings['device']}."
    )


def _caution(summaries: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    counts = summaries[0]["counts"]
    iterations = settings["epochs"] * settings["iterations"]
    return (
        f"{counts['reference_lesions']} lesions in {counts['cases']} test cases, one run per arm of {iterations} "
        "iterations, where nnU-Net's default is 250000; nnU-Net does not seed its training. In brackets: 95% interval "
        "over test cases. Overlapping intervals decide nothing, and a repeated run gives other numbers."
    )


def _commands(folder: Path, seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    logs = folder / "logs"
    return [
        (code(shlex.join(read_json(logs / f"{name}.json")["command"])), f"{duration:.0f}")
        for name, duration in seconds.items()
    ]


def _curves(arms: Sequence[Arm], summaries: Sequence[Mapping[str, Any]]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.4, 4.2), layout="constrained")
    curves, diameters = figure.subplots(1, 2)
    width = 0.8 / len(arms)
    for i, (arm, summary, colour) in enumerate(zip(arms, summaries, COLOURS, strict=True)):
        curve = summary["curves"]["pr"]
        if curve and curve["recall"]:
            draw_pr_steps(curves, curve["recall"], curve["precision"], color=colour, label=arm.title)
            curves.plot(curve["recall"][-1], curve["precision"][-1], "o", color=colour, markersize=5)
        for x, stratum in enumerate(summary["by_diameter"]):
            at = x + (i - (len(arms) - 1) / 2) * width
            if stratum["sensitivity"] is not None:
                diameters.bar(at, stratum["sensitivity"], width=width * 0.92, color=colour)
    strata = summaries[0]["by_diameter"]
    labels = [
        (f"{s['lower_mm']:g}+" if s["upper_mm"] is None else f"{s['lower_mm']:g}\u2013{s['upper_mm']:g}")
        + f"\nn={s['lesions']}"
        for s in strata
    ]
    curves.set(title="Precision and recall", xlabel="recall (lesions)", ylabel="precision (candidates)")
    curves.set(xlim=(0, 1.02), ylim=(0, 1.04))
    if curves.lines:
        curves.legend(fontsize=8, loc="lower left")
    diameters.set_xticks(range(len(strata)), labels)
    diameters.set(title="Sensitivity by diameter", xlabel="lesion diameter, mm", ylabel="sensitivity", ylim=(0, 1.04))
    diameters.grid(False, axis="x")
    return figure


def _folder_of(folder: Path, dataset_id: int) -> Path:
    return next((folder / "nnUNet_raw").glob(f"Dataset{dataset_id:03d}_*"))
