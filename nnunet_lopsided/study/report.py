"""Writing the report of a study, finished or not: page and tables."""

from __future__ import annotations

import shutil
from pathlib import Path

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
    folder.jobs()  # complains
    results = Results(read_study(folder.study_file), folder)
    target = folder.path / "report"
    # Both are of this study alone, so nothing else can be lost.
    unfinished, former = (folder.path / f".{word}-report" for word in ("unfinished", "former"))
    for left_over in (unfinished, former):
        shutil.rmtree(left_over, ignore_errors=True)
    unfinished.mkdir()
    write_tables(results, unfinished)
    (unfinished / "index.html").write_text(report_page(results), encoding="utf-8")
    if target.is_dir():
        target.rename(former)
    unfinished.rename(target)
    shutil.rmtree(former, ignore_errors=True)
    return target / "index.html"
