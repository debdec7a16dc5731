"""The look of every page: one self-contained HTML file that asks for no other file and works without a network.

HTML is made by Jinja templates, which escape every text that they are given. Templates are named by their place in the
package, such as ``audit/audit_page.html``, and lie beside the module that fills them.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nnunet_lopsided.pages.charts import SERIES

_PACKAGE = Path(__file__).resolve().parents[1]
# Rows of a table that are printed.
PAPER_ROWS = 40

# Text, which is escaped, or markup of this module.
TableCell = str


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        header: column titles.
        rows: cells.
        right: columns that hold numbers.
        caption: above the header; empty: none.
    """

    header: Sequence[TableCell]
    rows: Sequence[Sequence[TableCell]]
    right: Collection[int] = ()
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class SortableTable:
    """A table that the reader can sort by any column, filter by the text of the first and by the kind of row.

    Attributes:
        name: of the table, and its element id.
        header: column titles.
        rows: cells; numbers as ``float`` reads them, undefined ones empty.
        right: columns with numbers.
        kinds: what each row is, e.g. "missed"; a menu offers these. None: there is no menu.
        note: what was left out, in a sentence; empty: nothing.
    """

    name: str
    header: Sequence[TableCell]
    rows: Sequence[Sequence[TableCell]]
    right: Collection[int]
    kinds: Sequence[str] | None = None
    note: str = ""
    paper_rows: int = PAPER_ROWS


def page(template: str, title: str, style: str = "", script: str | None = None, **content: object) -> str:
    """A whole page.

    Its policy lets the browser load nothing, and run no script but the one of this package: a case name that slips
    through as HTML still could do nothing.

    Args:
        template: extends ``pages/templates/page.html``.
        title: plain text.
        style: further CSS.
        script: in place of the script of the evaluation's pages.
        content: what else the template names; all of it, or Jinja complains.

    Returns:
        HTML, the same for the same arguments.
    """
    style, script = _beside("page.css") + style, _beside("page.js") if script is None else script
    digest = b64encode(sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        _templates()
        .get_template(template)
        .render(title=title, policy=Markup(policy), style=Markup(style), script=Markup(script), **content)
    )


def part(macro: str, *arguments: object) -> Markup:
    """A part of a page, by one of the macros of ``pages/templates/parts.html``."""
    macros = _templates().get_template("pages/templates/parts.html").module
    return Markup(getattr(macros, macro)(*arguments))


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(_PACKAGE),
        autoescape=True,
        extensions=["jinja2.ext.do"],
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.globals["series"] = SERIES
    return templates


@cache
def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def data_block(name: str, content: object) -> Markup:
    """JSON for the page's script, under the element id ``name``; no text in it can end the element."""
    # U+2028 and U+2029 are allowed in JSON, and end a line in older JavaScript.
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup('<script type="application/json" id="{}">{}</script>').format(name, Markup(text))


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


def number_or_empty(value: float | None) -> str:
    """:func:`number` for tables with gaps: nothing where the value is undefined.

    Example:
        >>> number_or_empty(0.5), number_or_empty(None)
        ('0.500', '')
    """
    return "" if value is None else number(value)


def interval(ends: Sequence[float] | None, sign: str = "") -> str:
    """Both ends of an interval, or nothing."""
    return "" if ends is None else f"{number(ends[0], sign)} to {number(ends[1], sign)}"


def interval_or_reason(ends: Sequence[float] | None, reason: str | None, sign: str = "") -> TableCell:
    """Both ends of an interval, or why there is none.

    Example:
        >>> interval_or_reason((0.25, 0.5), None), str(interval_or_reason(None, "one patient"))
        ('0.250 to 0.500', '<span class="why">one patient</span>')
    """
    return interval(ends, sign) if ends is not None else why(reason)


def why(reason: str | None) -> TableCell:
    """A reason as it stands in a table: small; nothing for none."""
    return Markup('<span class="why">{}</span>').format(reason) if reason else ""


def code(value: object) -> Markup:
    """A value as it is typed."""
    return Markup("<code>{}</code>").format(str(value))
