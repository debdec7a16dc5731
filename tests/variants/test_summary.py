"""nnunet_lopsided.variants.summary: its picture, read back; its text is an example in its docstring."""

from pathlib import Path

import pytest
from matplotlib.colors import to_hex

from nnunet_lopsided.nnunet.raw import RawDataset
from nnunet_lopsided.variants.choosing import LesionRow
from nnunet_lopsided.variants.planning import CensoringPlan, Choice
from nnunet_lopsided.variants.summary import histogram_figure

# Steps of a quarter octave: 2 to 2.38, 2.38 to 2.83, ...
DIAMETERS = {("a", 1): 2.1, ("a", 2): 2.2, ("b", 1): 2.3, ("b", 2): 2.5, ("b", 3): 3.9}


def plan_of(gone: set[tuple[str, int]]) -> CensoringPlan:
    return CensoringPlan(
        dataset=RawDataset(Path("Dataset501_X")),
        choice=Choice(mode="stochastic", rate=0.25, seed=3),
        training=[],
        test=[],
        table=[
            LesionRow(case=case, id=i, n_voxels=1, volume_mm3=1.0, diameter_mm=diameter)
            for (case, i), diameter in DIAMETERS.items()
        ],
        censored=frozenset(gone),
        labels={},
        notes={},
    )


def test_those_that_go_stand_on_those_that_stay() -> None:
    (axes,) = histogram_figure(plan_of({("a", 1), ("b", 3)})).axes
    stay, go = (
        {round(bar.get_x(), 2): (bar.get_y(), bar.get_height()) for bar in bars if bar.get_height()}
        for bars in axes.containers
    )
    # 2.2 and 2.3, and 2.5 stay; 2.1 goes, from the same step as the first two, and 3.9.
    assert stay == {2.0: (0, 2), 2.38: (0, 1)}
    assert go == {2.0: (2, 1), 3.36: (0, 1)}
    last = axes.containers[0][-1]
    assert last.get_x() + last.get_width() == pytest.approx(4)
    names = axes.get_legend_handles_labels()[1]
    colours = {
        name: {to_hex(bar.get_facecolor()) for bar in bars} for name, bars in zip(names, axes.containers, strict=True)
    }
    assert colours == {"stay: 3": {"#4c72b0"}, "go: 2": {"#dd8452"}}
    assert axes.get_xscale() == "log"
    assert axes.get_title() == "Dataset501_X, mode stochastic, rate 0.25, seed 3"
    assert (axes.get_ylabel(), axes.get_xlabel().split(" ")[0]) == ("lesions", "diameter")
    ticks = zip(axes.get_xticks(), (label.get_text() for label in axes.get_xticklabels()), strict=True)
    assert list(ticks) == [(2, "2"), (3, "3"), (4, "4")]


def test_without_lesions_there_is_an_empty_picture() -> None:
    plan = plan_of(set())
    plan.table.clear()
    (axes,) = histogram_figure(plan).axes
    assert {bar.get_height() for bars in axes.containers for bar in bars} == {0}
