"""A confidence of candidates that is learned from their size, mean and highest probability, and its file.

The model is a logistic regression whose coefficients are at least 0, so that a larger candidate and one of higher
probability never has less confidence. With some weights it ranks as the mean, the maximum, the sum or the mean times
the root of the size do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.nonnegative_logistic import nonnegative_logistic
from nnunet_lopsided.files.json import Shape, read_json

SCHEMA_VERSION = 1
FILE_NAME = "lopsided_confidence.json"
ALL_FOREGROUND = "all foreground"
FEATURES = ("log_volume", "log_mean", "minus_log_1_minus_mean", "log_max", "minus_log_1_minus_max")
# Softmax saturates, and archives in half precision tell nothing within 5e-4 of 1; beyond this, nearness to 1 is noise.
EPSILON = 1e-4
_COEFFICIENTS: Shape = {"intercept": float, "weights": [float]}
_SHAPE: Shape = {
    "schema_version": int,
    "features": [str],
    "epsilon": float,
    "threshold": float,
    "folds": {str: [str]},
    "classes": {str: {"all_folds": _COEFFICIENTS, "without_fold": {str: _COEFFICIENTS}}},
}


class _CoefficientsContent(TypedDict):
    intercept: float
    weights: list[float]


@dataclass(frozen=True)
class Coefficients:
    """A fitted model.

    Attributes:
        intercept: of the log-odds.
        weights: of the features in the order of :data:`FEATURES`, each at least 0.
    """

    intercept: float
    weights: tuple[float, ...]

    def confidence(
        self, volume_mm3: NDArray[np.float64], mean: NDArray[np.float64], highest: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The probability of being a lesion, as far as size and probabilities tell, within [0, 1]; (M,).

        Args:
            volume_mm3: above 0 (2D: mm2), (M,).
            mean: mean probability, above 0, (M,).
            highest: highest probability, above 0, (M,).

        Example:
            >>> as_the_sum = Coefficients(0.0, (1.0, 1.0, 0.0, 0.0, 0.0))
            >>> as_the_sum.confidence(np.array([1.0, 8.0]), np.array([1.0, 0.5]), np.array([1.0, 0.9])).tolist()
            [0.5, 0.8]
        """
        logit = features_of(volume_mm3, mean, highest) @ np.asarray(self.weights) + self.intercept
        # exp overflows beyond 709. Rounded, as the last digits of a product of matrices differ between machines, and
        # equal candidates must tie.
        confidence: NDArray[np.float64] = np.round(1 / (1 + np.exp(-np.clip(logit, -700, 700))), 12)
        return confidence


def features_of(
    volume_mm3: NDArray[np.float64], mean: NDArray[np.float64], highest: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The features of M candidates, (M, 5), each rising with what it is made of; arguments as in
    :meth:`Coefficients.confidence`.
    """
    columns = [np.log(volume_mm3)]
    for p in (mean, highest):
        # Probabilities may exceed 1 by a rounding, and a mean that was rounded to 0 has no logarithm.
        inside = np.clip(p, 1e-9, 1.0)
        columns += [np.log(inside), -np.log(1 - inside + EPSILON)]
    return np.column_stack(columns)


def fit_coefficients(
    volume_mm3: NDArray[np.float64],
    mean: NDArray[np.float64],
    highest: NDArray[np.float64],
    belief: NDArray[np.float64],
) -> Coefficients:
    """Fit the model to candidates of which it is known, or believed, whether they are lesions.

    A candidate that is believed to be a lesion with probability q counts q times as one and 1 - q times as none.

    Args:
        volume_mm3, mean, highest: as in :meth:`Coefficients.confidence`.
        belief: 1 for lesions, 0 for false ones, (M,).

    Raises:
        ValueError: there is nothing to learn: all are lesions for sure, or none can be one.
    """
    features = features_of(volume_mm3, mean, highest)
    # With one kind alone the best intercept is infinite.
    if not 0 < belief.sum() < len(belief):
        raise ValueError("belief must be neither 0 for all candidates nor 1 for all")
    center, deviation = features.mean(axis=0), features.std(axis=0)
    # A feature that is the same for all candidates tells nothing, and would be divided by 0.
    deviation[deviation < 1e-9] = 1.0
    standard = (features - center) / deviation
    rows, weights = np.concatenate([standard, standard]), np.concatenate([belief, 1 - belief])
    positive = np.repeat([True, False], len(belief))
    used = weights > 0
    scaled, intercept = nonnegative_logistic(rows[used], positive[used], weights[used])
    plain = scaled / deviation
    return Coefficients(float(intercept - plain @ center), tuple(plain.tolist()))


@dataclass(frozen=True, kw_only=True)
class ConfidenceModel:
    """What ``lopsided-confidence`` wrote.

    Attributes:
        path: the file.
        threshold: of the candidates it was fitted to.
        all_folds: by class, fitted to all candidates.
        without_fold: by class and fold, fitted to the candidates of the other folds.
        fold_of_case: the fold that validates each case.
    """

    path: Path
    threshold: float
    all_folds: Mapping[str, Coefficients]
    without_fold: Mapping[str, Mapping[int, Coefficients]]
    fold_of_case: Mapping[str, int]

    def of_class(self, label: str | None) -> str:
        """How the file names a class.

        Args:
            label: name of a class or region; None: all foreground.

        Raises:
            InputError: the file has no model of it.
        """
        name = ALL_FOREGROUND if label is None else label
        if name not in self.all_folds:
            raise InputError(f"{self.path}: expected a model of {name}, found those of {', '.join(self.all_folds)}")
        return name

    def unseen(self, label: str | None, case: str) -> Coefficients | None:
        """The model that was fitted without the fold of a case; None where there is none, or the case was not seen."""
        return self.without_fold[self.of_class(label)].get(self.fold_of_case.get(case, -1))


def model_file(path: Path) -> Path:
    """The file that a path means: itself, or the one in a trainer's result folder.

    Raises:
        InputError: there is none.
    """
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"no learned confidence: file not found: {file}; lopsided-confidence -d ID -c CONFIGURATION -tr TRAINER "
            "makes it from a cross-validation, and --confidence-model names another"
        )
    return file


def read_model(path: Path) -> ConfidenceModel:
    """Read a model.

    Args:
        path: the file, or the result folder of a trainer.

    Raises:
        InputError: there is none, or it is not what ``lopsided-confidence`` writes.
    """
    file = model_file(path)
    content = read_json(file, _SHAPE)
    expected = {"schema_version": SCHEMA_VERSION, "features": list(FEATURES), "epsilon": EPSILON}
    for name, value in expected.items():
        if content[name] != value:
            raise InputError(f"{file}: {name}: expected {value}, found {content[name]}; fit it again")
    try:
        return ConfidenceModel(
            path=file,
            threshold=content["threshold"],
            all_folds={name: _coefficients(entry["all_folds"]) for name, entry in content["classes"].items()},
            without_fold={
                name: {int(fold): _coefficients(c) for fold, c in entry["without_fold"].items()}
                for name, entry in content["classes"].items()
            },
            fold_of_case={case: int(fold) for fold, cases in content["folds"].items() for case in cases},
        )
    except ValueError as error:
        raise InputError(f"{file}: {error}") from error


def _coefficients(content: _CoefficientsContent) -> Coefficients:
    weights = tuple(content["weights"])
    if len(weights) != len(FEATURES) or min(weights) < 0:
        raise ValueError(f"weights: expected {len(FEATURES)} numbers of at least 0, found {list(weights)}")
    return Coefficients(content["intercept"], weights)
