"""The figures of measured results in the documentation, from the files in benchmarks/results.

python benchmarks/study_figures.py      # writes docs/assets/*.svg
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

import arms_tables
import matplotlib as mpl
from matplotlib.figure import Figure

ASSETS = Path(__file__).parents[1] / "docs" / "assets"
# Okabe and Ito's colours, which people who are colour-blind can tell apart; each has a mark of its own, too.
STYLES = {
    arms_tables.PLAIN: ("#0072B2", "o"),
    arms_tables.RECIPE: ("#D55E00", "D"),
}
# The same data give the same bytes: neither a date nor random names in the file.
PLAIN_SVG = {"svg.hashsalt": "nnunet-lopsided", "svg.fonttype": "path", "font.size": 11}


def answer() -> Figure:
    """Average precision: a mark for every set of cases, a line for their mean."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    lacks = [k for k in arms_tables.LACK if any(arm.by_set for arm in arms_tables.reported(k).values())]
    for place, labels in enumerate(lacks):
        for aside, (name, arm) in zip((-0.12, 0.12), arms_tables.reported(labels).items(), strict=True):
            values, (colour, mark) = arm.values("ap_sqrt"), STYLES[name]
            if values:
                shown = arms_tables.SHOWN[name] if place == 0 else None
                axes.plot([place + aside] * len(values), values, mark, color=colour, alpha=0.6, label=shown)
                axes.hlines(fmean(values), place + aside - 0.08, place + aside + 0.08, color=colour, linewidth=3)
    axes.set_xticks(range(len(lacks)), [f"labels lack\n{arms_tables.LACK[labels]}" for labels in lacks])
    axes.set_ylabel("average precision")
    axes.set_ylim(0, 1)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(STYLES), frameon=False)
    return figure


FIGURES = {"answer": answer}


def write_figures(folder: Path = ASSETS) -> None:
    """Write every figure as ``NAME.svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        # From matplotlib's own defaults: the style of a user's machine is not in the repository's pictures.
        with mpl.rc_context({**mpl.rcParamsDefault, **PLAIN_SVG, "backend": "svg"}):
            draw().savefig(folder / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write_figures()
