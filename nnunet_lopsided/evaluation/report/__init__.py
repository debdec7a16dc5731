"""Figures and pages of an evaluation."""

from nnunet_lopsided.evaluation.report.evaluation_page import report_html
from nnunet_lopsided.evaluation.report.figures import curve_figure, figure_png, figure_svg

__all__ = ["curve_figure", "figure_png", "figure_svg", "report_html"]
