"""The look of every page: one self-contained HTML file that asks for no other file and works without a network."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any


@cache
def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def page(title: str, body: Sequence[str], style: str = "", script: str | None = None) -> str:
    """A whole page.

    Its policy lets the browser load nothing, and run no script but the one of this package: a case name that slips
    through as HTML still could do nothing.

    Args:
        title: plain text.
        body: HTML, piece by piece.
        style: further CSS.
        script: in place of the script of the evaluation's pages.

    Returns:
        HTML, the same for the same arguments.
    """
    style, script = _beside("page.css") + style, _beside("page.js") if script is None else script
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style>"
    )
    inner = "\n".join(body)
    end = f"<script>{script}</script></body></html>\n"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{inner}\n{end}'


def data_block(name: str, content: Any) -> str:
    """JSON for the page's script, under the element id ``name``; no text in it can end the element."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A table of HTML cells; the columns in ``right`` hold numbers."""
    body = "\n".join(f"<tr>{_line(row, 'td', right)}</tr>" for row in rows)
    return f"<table><thead><tr>{_line(header, 'th', right)}</tr></thead>\n<tbody>{body}</tbody></table>"


def _line(cells: Sequence[str], tag: str, right: Sequence[int]) -> str:
    return "".join(f"<{tag}{' class=n' if i in right else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))


def sortable_table(
    name: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[int] = (),
    kinds: Sequence[str] | None = None,
    paper_rows: int = 40,
) -> str:
    """A table that the reader can sort by any column, filter by the text of the first and by the kind of row.

    Args:
        name: of the table, and its element id.
        header: column titles, HTML.
        rows: HTML cells; numbers as ``float`` reads them, undefined ones empty.
        right: columns with numbers.
        kinds: what each row is, e.g. "missed"; a menu offers these. None: there is no menu.
        paper_rows: rows that are printed.

    Returns:
        The table with its controls; all rows show where scripts are off.
    """
    label = escape(name.replace("-", " "))
    menu = ""
    if kinds is not None:
        options = "".join(f"<option>{escape(kind)}</option>" for kind in sorted(set(kinds)))
        menu = f'<label>show <select><option value="">all</option>{options}</select></label> '
    filters = (
        f'<div class="filters only-script" data-for="{name}"><label>filter by case <input type="search" '
        f'spellcheck="false"></label> {menu}<output></output></div>'
    )
    heads = "".join(
        f'<th scope="col"{" class=n" if i in right else ""} aria-sort="none"><button type="button">{cell}</button></th>'
        for i, cell in enumerate(header)
    )
    lines = []
    for i, row in enumerate(rows):
        kind = f' data-kind="{escape(kinds[i])}"' if kinds is not None else ""
        beyond = ' class="beyond-paper"' if i >= paper_rows else ""
        lines.append(f"<tr{kind}{beyond}>{_line(row, 'td', right)}</tr>")
    left_out = (
        f'<p class="only-print why">On paper: {paper_rows} of {len(rows)} rows.</p>' if len(rows) > paper_rows else ""
    )
    return (
        f'{filters}<div class="tall" tabindex="0" role="region" aria-label="{label}">'
        f'<table class="sorts" id="{name}" data-paper-rows="{paper_rows}"><thead><tr>{heads}</tr></thead>\n<tbody>'
        + "\n".join(lines)
        + f"</tbody></table></div>{left_out}"
    )


def number(value: float | None, sign: str = "") -> str:
    """Three decimals, fewer for large numbers, or ``undefined``; ``sign`` "+" shows the sign of positive ones too.

    Example:
        >>> number(0.12345), number(1234.5), number(None), number(0.5, "+"), number(0.0, "+")
        ('0.123', '1234', 'undefined', '+0.500', '0')
    """
    if value is None:
        return "undefined"
    if sign and value == 0:
        return "0"
    return f"{value:{sign}.{3 if abs(value) < 100 else 0}f}"


def interval(ends: Sequence[float] | None, sign: str = "") -> str:
    """Both ends of an interval, or nothing."""
    return "" if ends is None else f"{number(ends[0], sign)} to {number(ends[1], sign)}"


def code(value: object) -> str:
    """A value as it is typed."""
    return f"<code>{escape(str(value))}</code>"
