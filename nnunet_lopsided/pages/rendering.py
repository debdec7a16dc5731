"""Matplotlib figures as files and as SVG elements of a page, the same bytes for the same numbers."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of a chart of a page in points, and of the box between its axes: left, bottom, width, height.
CHART_SIZE = (430, 300)
AXES_BOX = (50, 40, 370, 236)

# hashsalt: without it every SVG gets random element ids. DejaVu Sans comes with matplotlib, so every machine has it.
# parse_math: names of models and datasets may hold dollar signs, and are not formulas.
STYLE: dict[str, object] = {
    "svg.hashsalt": "lopsided",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}
# What a figure's group id begins with where the group gets a class in the page, see :func:`classed`.
_CLASS = "class:"
_HREF = "{http://www.w3.org/1999/xlink}href"


class Place(NamedTuple):
    """Of a point in a chart's SVG, in its units; y grows downwards."""

    x: float
    y: float


@dataclass(frozen=True)
class Chart:
    """A chart as a page shows it.

    Attributes:
        svg: an ``<svg>`` element. It has no ids, so that any number of charts fit into one page.
        places: where the points asked for lie in it.
    """

    svg: Markup
    places: tuple[Place, ...] = ()


def png(draw: Callable[[], Figure], dpi: int = 150, description: str | None = None) -> bytes:
    """The figure that ``draw`` makes as PNG, without the version and time stamps that would change its bytes.

    Args:
        draw: makes the figure.
        dpi: its resolution.
        description: kept in the file, so that it can be known again.
    """
    about = {"Software": None} if description is None else {"Software": None, "Description": description}
    return _render(draw, "png", about, dpi)


def chart(
    draw: Callable[[Axes], None], marked: Sequence[tuple[float, float]] = (), curve: str = "", label: str = ""
) -> Chart:
    """A single pair of axes for a page.

    Args:
        draw: draws into the axes.
        marked: points of the data, whose places are wanted.
        curve: the name under which the page's script moves a marker on the chart; empty: the chart does not move.
        label: what the chart is, for those who cannot see it; empty: its title, and what is against what.

    Returns:
        The chart. Texts stay texts, colours are those of ``draw``, and fonts are the page's.
    """
    from matplotlib.figure import Figure

    shown: list[Axes] = []

    def one() -> Figure:
        (width, height), (left, bottom, across, up) = CHART_SIZE, AXES_BOX
        # SVG is written with 72 points to the inch.
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        shown.append(figure.add_axes((left / width, bottom / height, across / width, up / height)))
        draw(shown[0])
        return figure

    root = _svg_element(one)
    axes = shown[0]
    name = label or f"{axes.get_title(loc='left')}: {axes.get_ylabel()} against {axes.get_xlabel()}"
    root.attrib.update({"class": "chart", "role": "img", "aria-label": name})
    if curve:
        root.attrib.update({"data-curve": curve, "tabindex": "0"})
        root.append(_marker())
    places = axes.transData.transform(marked) if len(marked) else ()
    return Chart(
        Markup(ElementTree.tostring(root, encoding="unicode")),
        tuple(Place(round(float(x), 1), round(CHART_SIZE[1] - float(y), 1)) for x, y in places),
    )


def classed(name: str) -> str:
    """The group id (``gid``) by which what is drawn gets a class in the page, such as ``classed("bar k1")``."""
    return _CLASS + name


def _svg_element(draw: Callable[[], Figure]) -> ElementTree.Element:
    """Matplotlib's SVG with nothing in it that names, or changes, anything else of the page."""
    text = _render(draw, "svg", {"Date": None, "Creator": None}, 72).decode("utf-8")
    root = ElementTree.fromstring(text)
    definitions = {e.attrib["id"]: e for e in root.iter() if _tag(e) == "path" and "id" in e.attrib}
    view = root.attrib["viewBox"]
    cleaned = _cleaned(root, definitions)
    cleaned.attrib.clear()
    cleaned.attrib["viewBox"] = view
    return cleaned


def _cleaned(element: ElementTree.Element, definitions: Mapping[str, ElementTree.Element]) -> ElementTree.Element:
    """A copy without ids, fonts, clip paths (nothing is drawn outside the axes), metadata and style sheets.

    The style sheet would be that of the whole page; two charts with the same clip path or marker would have one id
    twice.
    """
    tag, attributes = _tag(element), dict(element.attrib)
    if tag == "use":
        return _marker_copy(attributes, definitions[attributes[_HREF].removeprefix("#")])
    name = attributes.pop("id", "")
    if name.startswith(_CLASS):
        attributes["class"] = name.removeprefix(_CLASS)
    for unwanted in ("clip-path", "version", "width", "height", _HREF):
        attributes.pop(unwanted, None)
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    if "d" in attributes:
        attributes["d"] = _short(attributes["d"])
    if tag == "text" and "style" in attributes:
        attributes["style"] = re.sub(r"font-family: [^;]*;? ?", "", attributes["style"])
        attributes["style"] = re.sub(r"(font: [^;']*px) [^;]*", r"\1 system-ui, sans-serif", attributes["style"])
    copy = ElementTree.Element(tag, {key: _rounded(value) for key, value in attributes.items()})
    copy.text = element.text if tag in ("text", "tspan") else None
    # White space, so that the lines of a broken text do not run together where the page is read aloud.
    copy.tail = "\n" if tag == "text" else None
    copy.extend(_cleaned(child, definitions) for child in element if _tag(child) not in ("metadata", "defs"))
    return copy


def _marker_copy(attributes: Mapping[str, str], definition: ElementTree.Element) -> ElementTree.Element:
    style = "; ".join(s for s in (definition.get("style", ""), attributes.get("style", "")) if s)
    x, y = (_rounded(attributes[name]) for name in ("x", "y"))
    return ElementTree.Element(
        "path", {"d": _short(definition.attrib["d"]), "style": style, "transform": f"translate({x} {y})"}
    )


def _marker() -> ElementTree.Element:
    """Two lines to the axes and a ring; the page's script places them."""
    left, bottom = AXES_BOX[0], CHART_SIZE[1] - AXES_BOX[1]
    group = ElementTree.Element("g", {"class": "only-script"})
    ElementTree.SubElement(group, "line", {"class": "cross", "x1": f"{left}"})
    ElementTree.SubElement(group, "line", {"class": "cross", "y2": f"{bottom}"})
    ElementTree.SubElement(group, "circle", {"class": "marker", "r": "6"})
    return group


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _short(path: str) -> str:
    return " ".join(_rounded(path).split())


def _rounded(text: str) -> str:
    """A hundredth of a point is less than a pixel shows, and the last digits would differ between machines."""
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), text)


def _render(draw: Callable[[], Figure], image_format: str, metadata: Mapping[str, str | None], dpi: int) -> bytes:
    from matplotlib import style

    stream = io.BytesIO()
    # Matplotlib leaves points out of long lines; an SVG has all of them, so that it can be read back.
    # From the defaults: nnU-Net, in whose process we may draw, changes the style of all figures.
    with style.context(["default", STYLE, {"path.simplify": image_format != "svg"}]):
        draw().savefig(stream, format=image_format, dpi=dpi, metadata=metadata)
    return stream.getvalue()
