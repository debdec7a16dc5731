"""Lesion-wise evaluation: load, find candidates, match, count."""

from nnunet_lopsided.evaluation.case import evaluate_case
from nnunet_lopsided.evaluation.case_result import CaseResult, Components, VoxelCounts
from nnunet_lopsided.evaluation.checking import Skipped
from nnunet_lopsided.evaluation.folder import FolderResult, evaluate_folder
from nnunet_lopsided.evaluation.rules import EvaluationRules, profile_rules
from nnunet_lopsided.evaluation.summary import Counts, Metrics, Summary, summarize

__all__ = [
    "CaseResult",
    "Components",
    "Counts",
    "EvaluationRules",
    "FolderResult",
    "Metrics",
    "Skipped",
    "Summary",
    "VoxelCounts",
    "evaluate_case",
    "evaluate_folder",
    "profile_rules",
    "summarize",
]
