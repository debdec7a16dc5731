"""The way of one case's label map through a censoring: read, checked, its lesions measured, some taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nnunet_lopsided.images import Image, read_image
from nnunet_lopsided.lesion_contrast import lesion_contrast
from nnunet_lopsided.lesions import Lesions
from nnunet_lopsided.nnunet.dataset_json import LabelScheme
from nnunet_lopsided.nnunet.label_values import check_label_values
from nnunet_lopsided.nnunet.lesion_labels import SparseLabel, censor_label, label_lesions, sparse_label
from nnunet_lopsided.nnunet.raw import Case, case_images
from nnunet_lopsided.variants.choosing import LesionRow


@dataclass(frozen=True)
class CaseLabel:
    """The label map of a case whose lesions were measured, kept while those of all cases are compared.

    Attributes:
        case: whose.
        rows: its lesions, by id.
        ignore: the value of voxels without annotation, if the dataset has one.
        kept: the label map itself where that takes little memory; None: it is read again.
    """

    case: Case
    rows: tuple[LesionRow, ...]
    ignore: int | None
    kept: SparseLabel | None

    def without(self, ids: Sequence[int], value: int = 0) -> Image:
        """The label map with the lesions of these ids set to background, or to ``value``."""
        if self.kept is not None:
            return self.kept.without(ids, value)
        return censor_label(_read(self.case), self.ignore, ids, value)


def measure_label(case: Case, scheme: LabelScheme, with_contrast: bool) -> CaseLabel:
    """Read the label map of a case and measure its lesions.

    Args:
        case: with a label.
        scheme: the classes of its dataset.
        with_contrast: read its images too, and measure how much the lesions differ from their surroundings.

    Raises:
        InputError: a file cannot be read, or the label map holds a value that dataset.json does not declare.
    """
    label = _read(case)
    lesions = label_lesions(label, scheme.ignore)
    # All cases are measured before any is written (mode size compares the lesions of all), so their labels wait in
    # memory. Lesions fill little of a label map: their voxels alone are a small part of it.
    kept = sparse_label(label, lesions, scheme.ignore)
    assert case.label is not None, "it was read"
    # Checked on the voxels that were kept where there are some: what is left out there is background, always declared.
    check_label_values(scheme, case.name, case.label, label.array if kept is None else kept.values)
    sizes = zip(lesions.n_voxels.tolist(), lesions.volume_mm3.tolist(), lesions.diameter_mm.tolist(), strict=True)
    rows = [
        LesionRow(case=case.name, id=i, n_voxels=n_voxels, volume_mm3=volume, diameter_mm=diameter)
        for i, (n_voxels, volume, diameter) in enumerate(sizes, 1)
    ]
    if with_contrast:
        rows = [replace(row, contrast=c) for row, c in zip(rows, _contrasts(case, label, lesions), strict=True)]
    return CaseLabel(case, tuple(rows), scheme.ignore, kept)


def _contrasts(case: Case, label: Image, lesions: Lesions) -> list[float]:
    # Without a lesion there is nothing to measure: the images need not be read.
    if not len(lesions):
        return []
    contrasts: list[float] = lesion_contrast(case_images(case, label.shape), lesions, label.array != 0).tolist()
    return contrasts


def _read(case: Case) -> Image:
    assert case.label is not None, "training_cases() gives labels"
    return read_image(case.label)
