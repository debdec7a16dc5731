"""What the pages share on which candidates are decided on: cards with pictures, keys, saving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_lopsided.audit.candidate_pictures import CandidatePictures
from nnunet_lopsided.pages.html import data_block, page


def review_page(
    template: str,
    title: str,
    pictures: Sequence[CandidatePictures],
    *,
    data: Mapping[str, object],
    said: Mapping[tuple[str, int], Sequence[str]],
    **content: object,
) -> str:
    """A page on which candidates are decided on.

    Args:
        template: uses the macros of ``audit/review.html``.
        title: plain text.
        pictures: of the candidates, in the order in which they are shown.
        data: for the script: ``id`` and ``dataset`` of the audit, ``file``: the name of what is saved, ``given``:
            decisions that are saved with those made here.
        said: by candidate, what earlier readers decided; empty: nothing.
        content: what else the template names.
    """
    here = Path(__file__)
    style, script = (here.with_name(f"review.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return page(
        template,
        title,
        style,
        script,
        pictures=pictures,
        said=said,
        data=data_block("audit-data", data),
        **content,
    )
