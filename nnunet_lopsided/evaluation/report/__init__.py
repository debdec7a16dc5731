"""Figures and pages of an evaluation."""

from nnunet_lopsided.evaluation.report.evaluation_page import report_html
from nnunet_lopsided.evaluation.report.figures import curve_figure, figure_png

__all__ = ["curve_figure", "figure_png", "report_html"]
