"""What pages say of metrics and of how to cite is what the code and CITATION.cff say."""

from __future__ import annotations

import re

import yaml

from nnunet_lopsided import __version__
from nnunet_lopsided.evaluation.report.numbers import COUNTS, METRICS
from tests.documentation.pages import REPOSITORY

CITATION = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
CITE = (REPOSITORY / "docs/getting-started/cite.md").read_text(encoding="utf-8")


def test_every_metric_is_explained_in_the_words_of_the_report() -> None:
    page = (REPOSITORY / "docs/reference/metrics.md").read_text(encoding="utf-8")
    rows = {row.strip("| ").split(" | ")[1].strip("`"): row for row in page.splitlines() if row.startswith("| ")}
    expected = {key: f"| {title} | `{key}` | {text} |" for key, (title, text) in METRICS.items()}
    expected |= {key: f"| {key.replace('_', ' ')} | `{key}` | {text} |" for key, text in COUNTS.items()}
    assert {key: rows.get(key) for key in expected} == expected


def test_what_to_cite_is_this_version_and_the_same_everywhere() -> None:
    assert CITATION["version"] == __version__
    assert f"version = {{{__version__}}}" in CITE
    without_braces = re.sub("[{}]", "", CITE)
    for reference in CITATION["references"]:
        assert reference["title"] in without_braces
        assert str(reference["year"]) in CITE
        assert reference.get("doi", reference.get("url", "").rsplit("/", 1)[-1]) in CITE
    assert CITATION["repository-code"] in CITE
