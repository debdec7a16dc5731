"""The look of every page: one self-contained HTML file, no script, no external file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

STYLE = """
body {
  font: 15px/1.5 system-ui, sans-serif; color: #1f2937; max-width: 1120px; margin: 2.5rem auto; padding: 0 1.5rem;
}
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
.sub, .why { color: #6b7280; } .why { font-size: .88em; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.4rem 0; }
.card { border: 1px solid #e5e7eb; border-radius: 8px; padding: .7rem 1rem; min-width: 9.5rem; }
.card b { display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums; }
.card span { color: #6b7280; font-size: .86em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .28rem .8rem .28rem 0; border-bottom: 1px solid #e5e7eb; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; } td.n { white-space: nowrap; }
svg, img { max-width: 100%; height: auto; } .scroll { overflow-x: auto; }
code { font-size: .92em; }
"""


def page(title: str, body: Sequence[str]) -> str:
    """A whole page; ``body`` is HTML, piece by piece."""
    head = f"<meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>"
    return f"<!doctype html>\n<html lang=en><head>{head}</head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A table of HTML cells; the columns in ``right`` hold numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{' class=n' if i in right else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))

    body = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table><tr>{line(header, 'th')}</tr>\n{body}</table>"


def number(value: float | None) -> str:
    """Three decimals, or ``undefined``."""
    return "undefined" if value is None else f"{value:.3f}"


def interval(ends: Sequence[float] | None) -> str:
    """Both ends of an interval, or nothing."""
    return "" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def code(value: object) -> str:
    """A value as it is typed."""
    return f"<code>{escape(str(value))}</code>"
