"""sample.html: the candidates of a random sample, to be read without knowing what the audit thinks of them."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_lopsided.audit.candidate_pictures import CandidatePictures
from nnunet_lopsided.audit.review_page import review_page
from nnunet_lopsided.audit.sampled import Sample


def sample_html(sample: Sample, pictures: Sequence[CandidatePictures]) -> str:
    """The page of a sample.

    Args:
        sample: what was drawn.
        pictures: of every candidate to read, in the order of the reading.

    Returns:
        HTML, the same for the same arguments. It asks for no other file.
    """
    return review_page(
        "audit/sample_page.html",
        f"Sample of {sample.audit.dataset}",
        pictures,
        data={
            "id": sample.audit.id,
            "dataset": sample.audit.dataset,
            "store": f"{sample.audit.id}\nsample {sample.seed} {len(pictures)}",
            "file": "decisions",
            "given": [],
        },
        said={},
        dataset=sample.audit.dataset,
        id=sample.audit.id,
        n=len(pictures),
        n_candidates=len(sample.population),
        seed=sample.seed,
    )
