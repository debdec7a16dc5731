"""Reading audited cases and measuring their components: what an audit takes from files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.audit.classes import channel_means
from nnunet_lopsided.audit.components import MeasuredCase, measure_case
from nnunet_lopsided.audit.inputs import AuditedCase
from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.evaluation.archives import read_channels
from nnunet_lopsided.evaluation.case import check_connectivity
from nnunet_lopsided.evaluation.loading import LesionClass, LoadedCase, check_headers, load_case
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.images import Geometry, Header
from nnunet_lopsided.nnunet.frames import to_file_frame
from nnunet_lopsided.nnunet.raw import case_images
from nnunet_lopsided.nnunet.results import Prediction


@dataclass(frozen=True)
class CaseComponents:
    """A case's components and what is needed to describe them later.

    Attributes:
        case: which.
        components: found and measured.
        geometry: of its label map.
        means: of every channel of the networks over every component, (M, channels); None: there is but one label.
    """

    case: AuditedCase
    components: MeasuredCase
    geometry: Geometry
    means: NDArray[np.float64] | None


def measure_cases(
    cases: Sequence[AuditedCase], target: LesionClass, rules: EvaluationRules, n_workers: int
) -> list[CaseComponents]:
    """Read the predictions, labels and images of all cases and measure their components.

    Raises:
        InputError: files cannot be read or do not fit each other; every case whose headers differ is named.
    """
    # Headers are read fast: every case that does not fit is named before the long work on voxels begins.
    _check_headers(cases)
    measured = for_each(lambda case: _measure(case, target, rules), cases, n_workers, "finding candidates")
    _check_n_channels(measured)
    return measured


def _check_headers(cases: Sequence[AuditedCase]) -> None:
    problems = []
    for case in cases:
        for prediction in case.predictions:
            try:
                check_headers(case.name, case.label, prediction)
            except InputError as error:
                problems.append(str(error))
    if problems:
        raise InputErrors(problems)


def _measure(case: AuditedCase, target: LesionClass, rules: EvaluationRules) -> CaseComponents:
    loaded, predictions = load_predictions(case, target)
    check_connectivity(loaded.reference.ndim, rules.connectivity, case.name)
    images = case_images(case.case, loaded.reference.shape, colour=True)
    components = measure_case(
        loaded.reference,
        predictions=predictions,
        images=images,
        spacing_mm=loaded.spacing_mm,
        rules=rules,
        valid=loaded.valid,
        case=case.name,
    )
    # The channels of several classes are read again, and only where there is a choice between labels.
    means = None
    if len(target.values or ()) > 1 and len(components.components):
        header = Header(loaded.reference.shape, loaded.geometry)
        by_prediction = [channel_means(components.components, _channels(p, header)) for p in case.predictions]
        means = np.mean(by_prediction, axis=0)
    return CaseComponents(case, components, loaded.geometry, means)


def load_predictions(case: AuditedCase, target: LesionClass) -> tuple[LoadedCase, list[NDArray[np.floating]]]:
    """The label map of a case and the lesion probabilities of every prediction."""
    loaded = [load_case(case.name, case.label, prediction, target) for prediction in case.predictions]
    probabilities = []
    for one in loaded:
        assert one.prediction is not None, "every audited case has predictions"
        probabilities.append(cast("NDArray[np.floating]", one.prediction))
    return loaded[0], probabilities


def _channels(prediction: Prediction, header: Header) -> Iterator[NDArray[np.floating]]:
    """All channels of a prediction, as the case's label map lies."""
    assert prediction.array is not None, "probabilities were asked for"
    for channel in read_channels(prediction.array):
        yield to_file_frame(channel, prediction.reader, header)


def _check_n_channels(measured: Sequence[CaseComponents]) -> None:
    """Refuse a case whose number of images is not that of most cases."""
    # One colour image holds several of dataset.json's channels, so that file does not tell how many images a case has.
    usual = Counter(m.components.n_channels for m in measured).most_common(1)[0][0]
    for m in measured:
        if (n := m.components.n_channels) != usual:
            raise InputError(f"case {m.case.name}: expected {usual} images, as most cases have, found {n}")
