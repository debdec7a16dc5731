"""Figures and pages of an evaluation."""

from nnunet_lopsided.evaluation.report.figures import curve_figure, figure_png, figure_svg
from nnunet_lopsided.evaluation.report.page import report_html

__all__ = ["curve_figure", "figure_png", "figure_svg", "report_html"]
