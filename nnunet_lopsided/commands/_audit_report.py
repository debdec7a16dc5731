"""What ``lopsided-audit`` says of an audit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunet_lopsided.audit.auditing import Audit
    from nnunet_lopsided.evaluation.intervals import Interval


def report(audit: Audit, name: str, folder: Path) -> None:
    """Warnings on stderr, the numbers on stdout."""
    from nnunet_lopsided.audit.miss_rate import outside_estimate

    if audit.inputs.left_out:
        print(
            f"lopsided-audit: warning: validated by none of the folds, not audited: {', '.join(audit.inputs.left_out)}",
            file=sys.stderr,
        )
    if audit.inputs.not_magnified:
        print(f"lopsided-audit: warning: images were not magnified: {audit.inputs.not_magnified}", file=sys.stderr)
    if audit.no_model and audit.rank_by == "mean-probability":
        print(f"lopsided-audit: warning: ranked by mean probability: {audit.no_model}", file=sys.stderr)
    fainter = f", and {audit.n_fainter} fainter ones," if audit.n_fainter else ""
    print(
        f"{len(audit.candidates) - audit.n_fainter} candidates{fainter} in {len(audit.inputs.cases)} cases, which have "
        f"{audit.n_annotated} annotated lesions"
    )
    rate = audit.miss_rates[0]
    if audit.withheld:
        print(f"miss rate and scores by likeness are withheld: {audit.withheld}")
    elif rate.rate is None:
        print(f"miss rate undefined: {rate.undefined}")
    else:
        print(
            f"estimated miss rate {rate.rate:.2f}{_ends(rate.interval)}, about {rate.n_missed:.0f} lesions; the page "
            "says what this assumes"
        )
        in_any = audit.miss_rate_in_any
        if in_any is not None and in_any.rate is not None:
            print(f"{in_any.rate:.2f} if the highest probability in any prediction counts, in place of their mean")
        outside = outside_estimate(audit.miss_rates)
        if outside is not None:
            print(
                f"{outside[0]} candidates are of diameters that are hardly annotated, and judged by lesions of others; "
                f"if all of them were missed lesions, the rate would be {outside[1]:.2f}"
            )
    if audit.injected is not None and not audit.withheld:
        by_size = audit.injected
        if by_size.rate is None:
            print(f"no estimate by injected lesions: {by_size.undefined}")
        else:
            print(
                f"by injected lesions the miss rate is {by_size.rate:.2f}{_ends(by_size.interval)}, about "
                f"{by_size.n_missed:.0f} lesions; the page names the sizes of which it says nothing"
            )
    print(f"audit {name} in {folder}: see audit.html")


def _ends(interval: Interval) -> str:
    ends = interval.ends
    return "" if ends is None else f" (95% interval {ends[0]:.2f} to {ends[1]:.2f})"
