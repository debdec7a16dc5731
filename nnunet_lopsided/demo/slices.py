"""Example slices: the image, the reference and what every arm finds there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.evaluation.loading import LoadedCase, lesion_class, load_case
from nnunet_lopsided.files.tables import read_table
from nnunet_lopsided.images import read_image
from nnunet_lopsided.nnunet.raw import RawDataset
from nnunet_lopsided.nnunet.results import find_dataset_json, predictions_by_case
from nnunet_lopsided.pages.pictures import orientation, window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_N_ROWS = 4
# As in lopsided-eval, which says what was found.
_THRESHOLD = 0.1
# Those of every page's slices, solid and dashed there: the colour-blind tell them apart.
_REFERENCE, _CANDIDATE = "#56b4e9", "#ffb000"


class _Arm(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...


@dataclass
class _Lesion:
    """One lesion of the test cases.

    Attributes:
        case: name of its case.
        diameter_mm: of the sphere of equal volume.
        z: the slice that its centre is nearest to; None in 2D.
        is_found: by name of the arm.
    """

    case: str
    diameter_mm: float
    z: int | None
    is_found: dict[str, bool] = field(default_factory=dict)


def slice_figure(arms: Sequence[_Arm], folder: Path, dataset: RawDataset) -> Figure:
    """One row per chosen lesion: its slice alone, then with the contours of every arm."""
    from matplotlib.figure import Figure

    rows = _choose(arms, folder)
    figure = Figure(figsize=(2.9 * (len(arms) + 1), 3.0 * max(1, len(rows))), layout="constrained")
    axes = figure.subplots(max(1, len(rows)), len(arms) + 1, squeeze=False)
    for panel in axes.flat:
        panel.set_axis_off()
    if not rows:
        axes[0, 0].text(0, 0.5, "no test lesion")
    # One line of axes is there even without a lesion.
    for line, lesion in zip(axes, rows, strict=False):
        loaded = [_load(folder / "predictions" / arm.name, dataset, lesion.case) for arm in arms]
        reference, geometry = loaded[0].reference, loaded[0].geometry
        # Turned as radiologists read it, as the pictures of the other pages are.
        turned = orientation(geometry.direction)[1]
        at = turned if lesion.z is None else (lesion.z, *turned)
        height, width = geometry.spacing_mm[-2:]
        image = _most_contrast(dataset, lesion.case, reference)[at]
        low, high = window(image)
        titles = [f"{lesion.case}, {lesion.diameter_mm:.1f} mm"]
        titles += [f"{arm.title}: {'found' if lesion.is_found[arm.name] else 'missed'}" for arm in arms]
        for i, (panel, title) in enumerate(zip(line, titles, strict=True)):
            panel.set_title(title, fontsize=6.5)
            panel.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest", aspect=height / width)
            _contour(panel, reference[at], _REFERENCE)
            prediction = loaded[i - 1].prediction if i else None
            if prediction is not None:
                _contour(panel, np.greater_equal(prediction[at], _THRESHOLD), _CANDIDATE, dashed=True)
    return figure


def _choose(arms: Sequence[_Arm], folder: Path) -> list[_Lesion]:
    """Lesions that some arms find and others miss, then the largest; one per case."""
    lesions: dict[tuple[str, str], _Lesion] = {}
    for arm in arms:
        for row in read_table(folder / "evaluation" / arm.name / "lesions.csv"):
            lesion = lesions.setdefault((row["case"], row["lesion"]), _lesion(row))
            lesion.is_found[arm.name] = row["detected"] == "1"
    # What sets the arms apart says more than what all find.
    ranked = sorted(lesions.values(), key=lambda lesion: (_all_agree(lesion), -lesion.diameter_mm))
    chosen: dict[str, _Lesion] = {}
    for lesion in ranked:
        chosen.setdefault(lesion.case, lesion)
    return list(chosen.values())[:_N_ROWS]


def _lesion(row: Mapping[str, str]) -> _Lesion:
    centre = row.get("centroid_z")
    return _Lesion(row["case"], float(row["diameter_mm"]), round(float(centre)) if centre else None)


def _all_agree(lesion: _Lesion) -> bool:
    return len(set(lesion.is_found.values())) == 1


def _load(predictions: Path, dataset: RawDataset, case: str) -> LoadedCase:
    reference = dataset.folder / "labelsTs" / (case + dataset.file_ending)
    target = lesion_class(None, find_dataset_json(predictions, reference.parent))
    return load_case(case, reference, predictions_by_case(predictions).get(case), target)


def _most_contrast(dataset: RawDataset, case: str, lesions: NDArray[np.bool_]) -> NDArray[np.floating]:
    """The channel in which the lesions of this case stand out most from the rest of the image."""
    images = next(c.images for c in dataset.test_cases() if c.name == case)
    channels = [read_image(image).array.astype(np.float32) for image in images]

    def contrast(channel: NDArray[np.floating]) -> float:
        # Zeros are outside the head in skull-stripped images, and would make every channel look alike.
        inside, outside = channel[lesions], channel[~lesions & (channel != 0)]
        return abs(float(inside.mean() - outside.mean())) / (float(outside.std()) + 1e-6) if outside.size else 0.0

    return max(channels, key=contrast)


def _contour(panel: Axes, mask: NDArray[np.bool_], colour: str, dashed: bool = False) -> None:
    # Matplotlib warns of a contour where there is none.
    if mask.any() and not mask.all():
        style = "dashed" if dashed else "solid"
        panel.contour(mask, levels=[0.5], colors=[colour], linewidths=0.9, linestyles=[style])
