"""Writing a sample of candidates: sample.json, sample.csv and the page to read it on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from nnunet_lopsided import __version__
from nnunet_lopsided.audit.candidate_pictures import stored_pictures
from nnunet_lopsided.audit.sample_page import sample_html
from nnunet_lopsided.audit.sampled import COLUMNS, PAGE, RECORD, TABLE, Sample
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.folders import new_output_folder
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.files.tables import write_table

_MARKS = (RECORD, TABLE)


def write_sample(sample: Sample, folder: Path, *, overwrite: bool = False, n_workers: int = 2) -> None:
    """Write ``sample.json``, ``sample.csv`` and the page to read the sample on.

    Args:
        sample: of :func:`sample_candidates`.
        folder: target.
        overwrite: replace an earlier sample there, and nothing else; one whose table was filled stays.
        n_workers: cases whose pictures are drawn at the same time.

    Raises:
        InputError: the target is refused or cannot be written, an image cannot be read, or labels or maps have changed
            since the audit.
    """
    files = (*_MARKS, PAGE)
    with new_output_folder(folder, overwrite, [], _MARKS, "lopsided-audit sample", files) as unfinished:
        # Numbered as they are read, without what the audit thinks of them: that would lead the reader.
        blind = [replace(c, rank=i, score=None, reason="drawn at random") for i, c in enumerate(sample.drawn, 1)]
        pictures = stored_pictures(sample.audit, blind, n_workers)
        if len(pictures) < len(blind):
            raise InputError(f"a page holds the pictures of {len(pictures)} of these candidates; draw at most as many")
        write_json(unfinished / RECORD, _record(sample))
        write_table(unfinished / TABLE, COLUMNS, _rows(sample))
        (unfinished / PAGE).write_text(sample_html(sample, pictures), encoding="utf-8")


def _record(sample: Sample) -> dict[str, object]:
    return {
        "schema_version": 1,
        "tool": "nnunet-lopsided",
        "version": __version__,
        "audit": sample.audit.id,
        "dataset": sample.audit.dataset,
        "seed": sample.seed,
        "candidates": len(sample.population),
        "fainter_candidates_left_out": sample.n_left_out,
        "to_read": len(sample.drawn),
        "strata": [
            {
                "lower_mm": s.lower_mm,
                "upper_mm": s.upper_mm,
                "lowest_probability": s.lowest,
                "highest_probability": s.highest,
                "candidates": len(s.members),
                "sampled": len(s.sampled),
            }
            for s in sample.strata
        ],
    }


def _rows(sample: Sample) -> list[list[object]]:
    stratum, is_drawn = np.zeros(len(sample.population), np.int64), np.zeros(len(sample.population), np.int64)
    for number, s in enumerate(sample.strata, 1):
        stratum[s.members], is_drawn[s.sampled] = number, 1
    return [
        [sample.audit.id, *c.key, stratum[i], f"{sample.probability[i]:.9g}", f"{c.diameter_mm:.6g}", is_drawn[i], ""]
        for i, c in enumerate(sample.population)
    ]
