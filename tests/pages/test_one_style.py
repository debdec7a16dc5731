"""Every figure goes through nnunet_lopsided.pages.rendering, and so has one style, whatever else the process draws."""

import ast
from pathlib import Path

import matplotlib
import pytest

import nnunet_lopsided
from nnunet_lopsided.nnunet.raw import RawDataset
from nnunet_lopsided.trainers import curves
from nnunet_lopsided.variants.choosing import LesionRow
from nnunet_lopsided.variants.planning import CensoringPlan, Choice
from nnunet_lopsided.variants.summary import write_histogram

PACKAGE = Path(nnunet_lopsided.__file__).parent
RENDERING = PACKAGE / "pages" / "rendering.py"
# As seaborn.set() leaves it, which nnU-Net calls in the process in which it trains, and larger.
OTHERS = {
    "font.size": 21,
    "axes.facecolor": "#eaeaf2",
    "axes.spines.top": True,
    "grid.color": "white",
    "patch.edgecolor": "white",
    "patch.force_edgecolor": True,
    "lines.linewidth": 5,
    "legend.fontsize": 30,
}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_rendering_turns_figures_into_files(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    asked_for = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    asked_for |= {name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names}
    found = asked_for & {"savefig", "print_png", "pyplot", "rcParams", "rc_context"}
    assert found == ({"savefig"} if path == RENDERING else set())


def histogram(path):
    rows = [LesionRow(case="a", id=i, n_voxels=9, volume_mm3=9.0, diameter_mm=d) for i, d in enumerate((2.5, 5.5, 5.6))]
    plan = CensoringPlan(
        dataset=RawDataset(Path("Dataset501_X")),
        choice=Choice(mode="size", rate=0.5),
        training=[],
        test=[],
        table=rows,
        censored=frozenset({("a", 0)}),
        labels={},
        notes={},
    )
    write_histogram(plan, path)


def training(path):
    curves.draw(path.parent, [{"epoch": str(i), "train_loss": str(loss)} for i, loss in enumerate((0.9, 0.2))])
    (path.parent / curves.PICTURE).rename(path)


@pytest.mark.parametrize("write", [histogram, training])
def test_the_style_of_others_changes_no_file(tmp_path, write):
    write(tmp_path / "plain.png")
    with matplotlib.rc_context(OTHERS):
        write(tmp_path / "other.png")
        assert matplotlib.rcParams["font.size"] == 21, "theirs is left as it was"
    assert (tmp_path / "other.png").read_bytes() == (tmp_path / "plain.png").read_bytes()
