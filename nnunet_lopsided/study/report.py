"""Writing the report of a study, finished or not: page and tables."""

from __future__ import annotations

from pathlib import Path

from nnunet_lopsided.files.folders import new_folder
from nnunet_lopsided.study.folder import StudyFolder
from nnunet_lopsided.study.report_tables import write_tables
from nnunet_lopsided.study.results import Results
from nnunet_lopsided.study.study_file import read_study
from nnunet_lopsided.study.study_page import report_page


def write_report(folder: StudyFolder) -> Path:
    """Write ``report/index.html`` and the tables beside it; an earlier report is replaced.

    Args:
        folder: of a study that has been run at least once.

    Returns:
        The page.

    Raises:
        InputError: the folder holds no study.
    """
    folder.jobs()  # raises InputError where the folder holds no study
    results = Results(read_study(folder.study_file), folder)
    target = folder.path / "report"
    with new_folder(target, "index.html", overwrite=True) as unfinished:
        write_tables(results, unfinished)
        (unfinished / "index.html").write_text(report_page(results), encoding="utf-8")
    return target / "index.html"
