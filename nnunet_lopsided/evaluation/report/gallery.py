"""The worst misses and the strongest false positives as image slices with contours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.case_result import CaseResult, Components
from nnunet_lopsided.evaluation.folder import FolderResult, load_again
from nnunet_lopsided.evaluation.loading import LoadedCase
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.evaluation.report.covered import why_missed
from nnunet_lopsided.images import Header, difference, read_header, read_image
from nnunet_lopsided.nnunet.results import label_maps
from nnunet_lopsided.pages.outline import outline
from nnunet_lopsided.pages.pictures import Kind, Picture, Slice, finite, window


@dataclass(frozen=True)
class Finding:
    """A missed lesion or a false positive, by the number of its case and of its component (both from 0)."""

    kind: Kind
    case: int
    component: int


@dataclass(frozen=True)
class ImageFolder:
    """One channel of the images of a folder such as imagesTs: ``CASE_CCCC.ending`` for every case.

    Attributes:
        folder: where.
        channel: CCCC.
        files: all images of the folder by name without ending.
    """

    folder: Path
    channel: int
    files: dict[str, Path]

    @classmethod
    def open(cls, folder: Path, channel: int) -> ImageFolder:
        """List a folder.

        Raises:
            InputError: it does not exist, or the channel cannot.
        """
        if not 0 <= channel <= 9999:
            raise InputError(f"image channel must be within 0 to 9999, got {channel}")
        return cls(folder, channel, label_maps(folder))

    def path(self, case: str) -> Path:
        """The image of a case.

        Raises:
            InputError: there is none.
        """
        name = f"{case}_{self.channel:04d}"
        if name not in self.files:
            raise InputError(f"case {case}: no image {name} (and an ending) in {self.folder}")
        return self.files[name]

    def check(self, case: LoadedCase) -> None:
        """Look at the header of a case's image, so that what is wrong with it is found before the pictures are made.

        Raises:
            InputError: it is missing, unreadable, or does not lie where the reference does.
        """
        path = self.path(case.name)
        header = read_header(path, colour=True)
        differing = difference(Header(case.reference.shape, case.geometry), header)
        if differing is not None:
            raise InputError(f"case {case.name}: reference and image {path} differ: {differing}")


def choose(cases: Sequence[CaseResult], n: int) -> list[Finding]:
    """The ``n`` largest missed lesions, then the ``n`` most confident false positives (ties: the larger ones)."""
    missed = [
        (-case.lesions.volume_mm3[k], i, k)
        for i, case in enumerate(cases)
        for k in np.flatnonzero(case.missed).tolist()
    ]
    return [Finding("missed", i, k) for _, i, k in sorted(missed)[:n]] + false_positives(cases, n)


def false_positives(cases: Sequence[CaseResult], n: int) -> list[Finding]:
    """The ``n`` most confident false positives (ties: the larger ones)."""
    false = [
        (-case.confidence[k], -case.candidates.volume_mm3[k], i, k)
        for i, case in enumerate(cases)
        for k in np.flatnonzero(case.matches.status == Status.FALSE_POSITIVE).tolist()
    ]
    return [Finding("false positive", i, k) for _, _, i, k in sorted(false)[:n]]


def gallery(result: FolderResult, images: Path, channel: int = 0, n: int = 6) -> tuple[Picture, ...]:
    """Pictures of the worst misses and the strongest false positives.

    The cases concerned are read once more, one at a time.

    Args:
        result: of ``evaluate_folder``.
        images: folder of nnU-Net images ``CASE_0000.nii.gz``.
        channel: which of them is shown.
        n: pictures of each kind at most.

    Returns:
        Pictures of missed lesions, then of false positives, the worst first.

    Raises:
        InputError: an image is missing, or does not lie where its reference does; ``n`` is negative.
    """
    if n < 0:
        raise InputError(f"the number of pictures must be at least 0, got {n}")

    def read(i: int) -> tuple[CaseResult, LoadedCase]:
        return result.cases[i], load_again(result, result.cases[i].case)

    return draw_findings(choose(result.cases, n), read, ImageFolder.open(images, channel), result.rules.threshold)


def draw_findings(
    findings: Sequence[Finding],
    read: Callable[[int], tuple[CaseResult, LoadedCase]],
    images: ImageFolder,
    threshold: float,
) -> tuple[Picture, ...]:
    """Pictures of findings, in their order.

    Args:
        findings: what is shown.
        read: gives the tables of a case, with boxes, and its volumes, by the number of the case.
        images: of the cases.
        threshold: of the candidates.

    Raises:
        InputError: an image is missing, or does not lie where its reference does.
    """
    # A case with several findings is read once; the order of the findings comes back at the end.
    by_case: dict[int, list[Finding]] = {}
    for finding in findings:
        by_case.setdefault(finding.case, []).append(finding)
    pictures: dict[Finding, Picture] = {}
    for i, of_case in sorted(by_case.items()):
        case, loaded = read(i)
        images.check(loaded)
        image = finite(read_image(images.path(case.case), colour=True).array)
        limits = window(image)
        for finding in of_case:
            pictures[finding] = _picture(finding, case, loaded, image, limits, threshold)
    return tuple(pictures[finding] for finding in findings)


def _picture(
    finding: Finding,
    case: CaseResult,
    loaded: LoadedCase,
    image: NDArray[np.generic],
    limits: tuple[float, float],
    threshold: float,
) -> Picture:
    components = case.lesions if finding.kind == "missed" else case.candidates
    centre = np.round(components.centroid[finding.component]).astype(int)
    predicted_mask = _mask(loaded, threshold)
    mask = loaded.lesions if finding.kind == "missed" else predicted_mask
    if image.ndim == 3:
        centre[0] = _slice(mask, components.boxes[finding.component], centre[0])
    shown = Slice(loaded.geometry, centre, components.boxes[finding.component])
    reference, predicted = shown.of(loaded.lesions), shown.of(predicted_mask)
    if loaded.valid is not None:
        valid = shown.of(loaded.valid)
        # What is not annotated was not evaluated either, and must not look missed or false.
        reference, predicted = (np.where(valid, labels, False) for labels in (reference, predicted))
    return shown.picture(
        image,
        limits,
        kind=finding.kind,
        title=case.case,
        caption=_caption(finding, case, components, centre, image.shape),
        reference=_outlines(shown.around_slice(reference, False)),
        candidate=_outlines(shown.around_slice(predicted, False)),
    )


def _outlines(labels: NDArray[np.generic]) -> str:
    """Of a mask; of an instance map around every instance, so that those which touch are told apart."""
    if labels.dtype == bool:
        return outline(labels)
    return "".join(outline(labels == value) for value in np.unique(labels[labels != 0]))


def _mask(loaded: LoadedCase, threshold: float) -> NDArray[np.generic]:
    """The voxels of the candidates; of an instance map their numbers."""
    prediction = loaded.prediction
    if prediction is None:
        return np.zeros(loaded.reference.shape, bool)
    if np.issubdtype(prediction.dtype, np.floating):
        return np.asarray(np.greater_equal(prediction, prediction.dtype.type(threshold)))
    return prediction


def _slice(mask: NDArray[np.generic], box: NDArray[np.int64], centre: int) -> int:
    """The slice nearest to the centre in which something is to be seen; joined lesions have gaps."""
    inside = mask[tuple(slice(low, high) for low, high in box.tolist())]
    filled = box[0, 0] + np.flatnonzero((inside != 0).any(axis=(1, 2)))
    return int(filled[np.abs(filled - centre).argmin()]) if len(filled) else centre


def _caption(
    finding: Finding, case: CaseResult, components: Components, centre: NDArray[np.int64], shape: tuple[int, ...]
) -> str:
    k = finding.component
    noun = "lesion" if finding.kind == "missed" else "candidate"
    parts = [f"{noun} {k + 1}", f"{components.diameter_mm[k]:.1f} mm"]
    if len(shape) == 3:
        parts.append(f"slice {centre[0]} (0 to {shape[0] - 1})")
    if finding.kind == "missed" and not np.isnan(case.mean_probability[k]):
        parts.append(f"mean probability {case.mean_probability[k]:.2f}")
    if finding.kind == "missed" and (reason := why_missed(case, k)):
        parts.append(reason)
    if finding.kind != "missed" and case.ranked:
        parts.append(f"confidence {case.confidence[k]:.2f}")
    return ", ".join(parts)
