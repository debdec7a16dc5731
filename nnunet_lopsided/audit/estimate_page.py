"""estimate.html: what the reading of a sample says, in sentences, a table and a chart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnunet_lopsided.audit.sample_estimate import SampleEstimate, SizeEstimate, miss_rate
from nnunet_lopsided.pages.charts import INK, SERIES, diameter_range
from nnunet_lopsided.pages.html import Table, page
from nnunet_lopsided.pages.rendering import chart, classed

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def estimate_html(estimate: SampleEstimate) -> str:
    """The page of an estimate.

    Returns:
        HTML, the same for the same argument. It asks for no other file.
    """
    return page(
        "audit/estimate_page.html",
        f"What {estimate.sample.audit.dataset} lacks",
        dataset=estimate.sample.audit.dataset,
        id=estimate.sample.audit.id,
        total=estimate.total,
        n_annotated=estimate.n_annotated,
        rate=_rate(estimate.total.missed, estimate.total.low, estimate.total.high, estimate.n_annotated),
        n_left_out=estimate.sample.n_left_out,
        zones=estimate.zones,
        precision=estimate.precision,
        doubtful=estimate.doubtful,
        seed=estimate.sample.seed,
        sizes=_sizes(estimate),
        seen=chart(lambda axes: draw_seen(axes, estimate)),
    )


def _rate(missed: float, low: float, high: float, n_annotated: int) -> str:
    rates = [miss_rate(value, n_annotated) for value in (missed, low, high)]
    if rates[0] is None or rates[1] is None or rates[2] is None:
        return "undefined: there are neither annotated lesions nor missed ones"
    return f"{rates[0]:.0%} ({rates[1]:.0%} to {rates[2]:.0%})"


def _sizes(estimate: SampleEstimate) -> Table:
    rows = [
        (
            diameter_range(size.lower_mm, size.upper_mm),
            str(size.n_annotated),
            str(size.total.n_candidates),
            str(size.total.n_read),
            f"{size.total.missed:.0f} ({size.total.low:.0f} to {size.total.high:.0f})",
            _rate(size.total.missed, size.total.low, size.total.high, size.n_annotated),
        )
        for size in estimate.by_size
    ]
    header = (
        "diameter, mm",
        "annotated lesions",
        "candidates",
        "read",
        "of all candidates missed lesions (95%)",
        "share of all lesions that was missed (95%)",
    )
    return Table(header, rows, right=(1, 2, 3, 4, 5))


def draw_seen(axes: Axes, estimate: SampleEstimate) -> None:
    """Draw the share of lesions that the annotators saw, by diameter, with 95% intervals."""
    shown = [size for size in estimate.by_size if size.n_annotated + size.total.high > 0]
    for x, size in enumerate(shown):
        share, least, most = (_seen(size, n) for n in (size.total.missed, size.total.high, size.total.low))
        axes.bar(x, share, width=0.6, color=SERIES[0].colour, alpha=0.8, gid=classed("bar k0"))
        axes.vlines(x, least, most, color=INK, linewidth=1.1, gid=classed("whisker k0"))
    axes.set_xticks(range(len(shown)), [diameter_range(size.lower_mm, size.upper_mm) for size in shown])
    axes.set(title="What the annotators saw", xlabel="lesion diameter, mm", ylabel="share annotated", ylim=(0, 1.05))
    axes.grid(False, axis="x")


def _seen(size: SizeEstimate, missed: float) -> float:
    rate = miss_rate(missed, size.n_annotated)
    return 0.0 if rate is None else 1 - rate
