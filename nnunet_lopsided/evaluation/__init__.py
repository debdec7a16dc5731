"""Lesion-wise evaluation: load, find candidates, match, count."""

from nnunet_lopsided.evaluation.case import CaseResult, evaluate_case
from nnunet_lopsided.evaluation.folder import FolderResult, evaluate_folder
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.evaluation.summary import Counts, Metrics, Summary, summarize

__all__ = [
    "CaseResult",
    "Counts",
    "EvaluationRules",
    "FolderResult",
    "Metrics",
    "Summary",
    "evaluate_case",
    "evaluate_folder",
    "summarize",
]
