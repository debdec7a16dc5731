"""What the pages share on which candidates are decided on: cards with pictures, keys, saving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_lopsided.audit.candidate_pictures import CandidatePictures
from nnunet_lopsided.audit.stored import TABLE_COLUMNS
from nnunet_lopsided.pages.html import data_block, page

# Each uses what those before it define.
_SCRIPTS = ("review_table.js", "review_pictures.js", "review.js")


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
            decisions that are saved with those made here, ``store``: under which the browser keeps decisions.
        said: by candidate, what earlier readers decided; empty: nothing.
        content: what else the template names.
    """
    here = Path(__file__)
    style = here.with_name("review.css").read_text(encoding="utf-8")
    script = "\n".join(here.with_name(name).read_text(encoding="utf-8") for name in _SCRIPTS)
    return page(
        template,
        title,
        style,
        script,
        shown=[(one, data_block(f"pictures-{one.rank}", one.content)) for one in pictures],
        said=said,
        file=data["file"],
        data=data_block("audit-data", {**data, "known": [*TABLE_COLUMNS, "reason"]}),
        **content,
    )
