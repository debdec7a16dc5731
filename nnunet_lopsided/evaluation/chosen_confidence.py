"""Which model of the learned confidence judges the candidates of which case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.confidence import LearnedConfidence
from nnunet_lopsided.evaluation.inputs import Inputs
from nnunet_lopsided.evaluation.learned_confidence import ConfidenceModel, read_model
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.nnunet.results import fold_of_validation


@dataclass(frozen=True)
class ChosenConfidence:
    """The model that judges the candidates, and whether it may have been fitted to them.

    Attributes:
        model: None: there is none.
        label: the class that is evaluated; None: all foreground.
        validation: whether the cases are those of a validation, which the model of all folds may have seen.
    """

    model: ConfidenceModel | None
    label: str | None
    validation: bool

    def __post_init__(self) -> None:
        if self.model is not None:
            self.model.of_class(self.label)  # an InputError where it knows no such class

    @classmethod
    def choose(cls, given: str | Path | None, inputs: Inputs, rules: EvaluationRules) -> ChosenConfidence:
        """The model that was named, or else that of the result folder whose validation is evaluated.

        Args:
            given: file or result folder; None: none was named.
            inputs: what is evaluated.
            rules: whether the confidence is ``learned``.

        Raises:
            InputError: the model is needed and there is none, or it cannot be read.
        """
        folder = _results_folder(inputs)
        model = None
        if given is not None:
            model = read_model(Path(given))
        elif rules.confidence == "learned":
            if folder is None:
                raise InputError(
                    "the confidence learned needs --confidence-model: a file of lopsided-confidence, or the result "
                    "folder of the trainer in which lopsided-confidence -d ID -c CONFIGURATION -tr TRAINER has put it"
                )
            model = read_model(folder)
        return cls(model, inputs.label, folder is not None)

    def of_case(self, case: str) -> LearnedConfidence | None:
        """The confidence for a case: fitted without its fold where that is possible."""
        if self.model is None:
            return None
        # A case that the model was not fitted to may be judged by that of all folds, which has seen more candidates.
        unseen = self.model.unseen(self.label, case) if self.validation else None
        return (unseen or self.model.all_folds[self.model.of_class(self.label)]).confidence

    def has_seen(self, case: str) -> bool:
        """Whether it was fitted to the very candidates that it judges."""
        if self.model is None or not self.validation:
            return False
        return case in self.model.fold_of_case and self.model.unseen(self.label, case) is None


def _results_folder(inputs: Inputs) -> Path | None:
    """The result folder whose validation cases are evaluated; None: the predictions are others."""
    if inputs.folds is not None:
        return inputs.predictions
    return inputs.predictions.absolute().parent.parent if fold_of_validation(inputs.predictions) is not None else None
