"""What a censoring would do, for a person to look at before it is done: text and a histogram."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.files.new_files import new_file
from nnunet_lopsided.variants.choosing import LesionRow
from nnunet_lopsided.variants.planning import CensoringPlan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DESCRIPTION = "written by lopsided-censor --dry-run"
# Those of lopsided-eval, so that what is censored and what is detected can be compared range by range.
EDGES_MM = (3.0, 6.0, 10.0, 20.0)
# Blue and orange are told apart with any colour vision.
_COLOURS = {"stay": "#4c72b0", "go": "#dd8452"}


def summary(plan: CensoringPlan) -> str:
    """Counts, diameters, and the rate in every size class and every case, as lines of text.

    Example:
        >>> from nnunet_lopsided.nnunet.raw import Case, RawDataset
        >>> from nnunet_lopsided.variants.planning import Choice
        >>> rows = [
        ...     LesionRow(case="a", id=1, n_voxels=9, volume_mm3=9.0, diameter_mm=2.58),
        ...     LesionRow(case="a", id=2, n_voxels=90, volume_mm3=90.0, diameter_mm=5.56),
        ... ]
        >>> plan = CensoringPlan(
        ...     dataset=RawDataset(Path("Dataset501_X")),
        ...     choice=Choice(mode="size", rate=0.5),
        ...     training=[Case("a", (), None), Case("b", (), None)],
        ...     test=[],
        ...     table=rows,
        ...     censored=frozenset({("a", 1)}),
        ...     labels={},
        ...     notes={},
        ... )
        >>> print(summary(plan))
        Dataset501_X: 2 training cases, 2 lesions, of which 1 would go (50.0%)
        diameter: smallest 2.58 mm, median 4.07 mm, largest 5.56 mm
        <BLANKLINE>
        diameter        lesions    go    rate
        below 3 mm            1     1  100.0%
        3 to 6 mm             1     0    0.0%
        6 to 10 mm            0     0       -
        10 to 20 mm           0     0       -
        20 mm and more        0     0       -
        <BLANKLINE>
        case            lesions    go    rate
        a                     2     1   50.0%
        b                     0     0       -
    """
    diameters = np.array([row.diameter_mm for row in plan.table])
    gone = np.array([row.key in plan.censored for row in plan.table], bool)
    test = f" and {len(plan.test)} test cases" if plan.test else ""
    lines = [
        f"{plan.dataset.name}: {len(plan.training)} training cases{test}, {len(gone)} lesions, of which {gone.sum()} "
        f"would go ({_rate(int(gone.sum()), len(gone)).strip()})"
    ]
    if "expected_rate" in plan.notes:
        lines.append(f"expected rate over all seeds: {plan.notes['expected_rate']:.1%}")
    if len(gone):
        low, middle, high = diameters.min(), np.median(diameters), diameters.max()
        lines.append(f"diameter: smallest {low:.2f} mm, median {middle:.2f} mm, largest {high:.2f} mm")
    cases = [case.name for case in (*plan.training, *plan.test)]
    # 14 is the length of "20 mm and more"; both tables have one width.
    width = max(14, *(len(name) for name in cases))
    # A diameter on an edge belongs above it, as in the evaluation.
    bins = np.searchsorted(EDGES_MM, diameters, side="right")
    lines += ["", f"{'diameter':<{width}}  lesions    go    rate"]
    lines += [_line(name, width, gone[bins == i]) for i, name in enumerate(_bin_names())]
    lines += ["", f"{'case':<{width}}  lesions    go    rate"]
    of_case = np.array([row.case for row in plan.table])
    lines += [_line(name, width, gone[of_case == name]) for name in cases]
    return "\n".join(lines)


def is_histogram(path: Path) -> bool:
    """Whether a file is a picture of :func:`write_histogram`, which a repeated dry run may replace."""
    try:
        with path.open("rb") as file:
            return _DESCRIPTION.encode() in file.read(1024)
    except OSError:
        return False


def write_histogram(plan: CensoringPlan, path: Path) -> None:
    """A picture: how many lesions of each diameter stay and go.

    Args:
        plan: what would be done.
        path: a PNG file; it appears when it is complete.
    """
    # Here, because Matplotlib is slow to import and the text of a summary does not need it.
    from nnunet_lopsided.pages.rendering import png

    picture = png(lambda: histogram_figure(plan), dpi=120, description=_DESCRIPTION)
    with new_file(path) as unfinished:
        unfinished.write_bytes(picture)


def histogram_figure(plan: CensoringPlan) -> Figure:
    """Lesions by diameter in steps of a quarter octave: those that stay, and on top of them those that go."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    groups = {
        "stay": [row.diameter_mm for row in plan.table if row.key not in plan.censored],
        "go": [row.diameter_mm for row in plan.table if row.key in plan.censored],
    }
    axes.hist(
        list(groups.values()),
        bins=_histogram_edges(plan.table),
        stacked=True,
        color=[_COLOURS[name] for name in groups],
        label=[f"{name}: {len(values)}" for name, values in groups.items()],
    )
    axes.set_xscale("log")
    ticks = [tick for tick in (1, 2, 3, 4, 6, 10, 15, 20, 30, 50, 100) if _within(tick, axes.get_xlim())]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("diameter of the sphere of equal volume (2D: circle), mm")
    axes.set_ylabel("lesions")
    axes.set_title(f"{plan.dataset.name}, {_title(plan)}")
    axes.legend()
    return figure


def _title(plan: CensoringPlan) -> str:
    choice = plan.choice
    parts = [f"mode {choice.mode}" if choice.mode else "nothing censored"]
    parts += [f"rate {choice.rate:g}"] if choice.rate is not None else []
    parts += [f"seed {choice.seed}"] if choice.mode in ("stochastic", "reader") or choice.n_patients else []
    parts += [f"{choice.n_patients} patients"] if choice.n_patients else []
    return ", ".join(parts)


def _histogram_edges(table: Sequence[LesionRow]) -> list[float]:
    """Steps of a quarter octave that cover all diameters."""
    # Without a lesion some range is drawn all the same, since an axis of logarithms needs one.
    diameters = [row.diameter_mm for row in table] or [1.0, 10.0]
    # The last edge lies above the largest diameter: on an edge it would begin a step that is not there.
    low, high = np.floor(4 * np.log2(min(diameters))), np.floor(4 * np.log2(max(diameters))) + 1
    edges: list[float] = (2 ** (np.arange(low, high + 1) / 4)).tolist()
    return edges


def _within(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def _bin_names() -> list[str]:
    inner = [f"{low:g} to {high:g} mm" for low, high in itertools.pairwise(EDGES_MM)]
    return [f"below {EDGES_MM[0]:g} mm", *inner, f"{EDGES_MM[-1]:g} mm and more"]


def _line(name: str, width: int, gone: NDArray[np.bool_]) -> str:
    return f"{name:<{width}}  {len(gone):>7}  {gone.sum():>4}  {_rate(int(gone.sum()), len(gone))}"


def _rate(part: int, whole: int) -> str:
    return f"{part / whole:>6.1%}" if whole else f"{'-':>6}"
