"""Writing what several readers agree on: agreement.json, agreement.csv, consensus.csv and agreement.html."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nnunet_lopsided import __version__
from nnunet_lopsided.audit.agreeing import ALL_WORDS, Agreement, consensus
from nnunet_lopsided.audit.decisions import REMARKS, VERDICTS, write_decisions
from nnunet_lopsided.files.folders import new_output_folder
from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.files.tables import write_table

RECORD, TABLE, CONSENSUS, PAGE = "agreement.json", "agreement.csv", "consensus.csv", "agreement.html"


def write_agreement(
    agreement: Agreement, folder: Path, *, overwrite: bool = False, n_shown: int = 200, n_workers: int = 2
) -> None:
    """Write every output to a temporary folder beside ``folder`` and rename it when complete.

    Args:
        agreement: of :func:`read_agreement`.
        folder: target.
        overwrite: replace an earlier output there, and nothing else.
        n_shown: so many of the candidates to settle are on the page.
        n_workers: cases whose pictures are drawn at the same time.

    Raises:
        InputError: the target is refused or cannot be written, an image cannot be read, or labels or maps have changed
            since the audit.
    """
    from nnunet_lopsided.audit.agreement_page import agreement_html
    from nnunet_lopsided.audit.candidate_pictures import stored_pictures

    files = (RECORD, TABLE, CONSENSUS, PAGE)
    with new_output_folder(folder, overwrite, [], (RECORD, TABLE), "lopsided-audit agree", files) as unfinished:
        write_json(unfinished / RECORD, agreement_record(agreement))
        _write_table(agreement, unfinished / TABLE)
        write_decisions(consensus(agreement), unfinished / CONSENSUS)
        pictures = stored_pictures(agreement.audit, agreement.to_settle[:n_shown], n_workers)
        (unfinished / PAGE).write_text(agreement_html(agreement, pictures), encoding="utf-8")


def agreement_record(agreement: Agreement) -> dict[str, object]:
    """The content of agreement.json."""
    return {
        "schema_version": 1,
        "tool": "nnunet-lopsided",
        "version": __version__,
        "audit": agreement.audit.id,
        "dataset": agreement.audit.dataset,
        "readers": [
            {
                "name": reading.name,
                "file": reading.path.name,
                **reading.decisions.origin,
                **{word: reading.decisions.count(word) for word in VERDICTS},
            }
            for reading in agreement.readings
        ],
        "counts": {
            "candidates": len(agreement.audit.candidates),
            "agreed": len(agreement.agreed),
            "disputed": len(agreement.disputed),
            "partly_read": len(agreement.partly_read),
        },
        "kappas": [
            {
                "readers": [agreement.names[i] for i in kappa.readers],
                "kind": "Cohen" if len(kappa.readers) == 2 else "Fleiss",
                "decisions": told_apart,
                "candidates": kappa.n,
                "observed_agreement": kappa.observed,
                "kappa": kappa.kappa,
                "kappa_ci95_bootstrap": kappa.interval.ends,
                "undefined": kappa.undefined or kappa.interval.undefined,
            }
            for told_apart, kappas in agreement.kappas.items()
            for kappa in kappas
        ],
        "tables": [
            {
                "readers": [agreement.names[i] for i in kappa.readers],
                "decisions": list(VERDICTS),
                "candidates": agreement.table(*kappa.readers),
            }
            for kappa in agreement.kappas[ALL_WORDS]
            if len(kappa.readers) == 2
        ],
        "seed": agreement.seed,
        "bootstrap_replicates": agreement.n_replicates,
    }


def _write_table(agreement: Agreement, path: Path) -> None:
    """A row per candidate that anyone decided on: what each reader said, all columns of their files."""
    said = [
        dict.fromkeys([*REMARKS, *(c for row in reading.decisions.remarks.values() for c in row)])
        for reading in agreement.readings
    ]
    columns = [
        f"{column} ({reading.name})"
        for reading, own in zip(agreement.readings, said, strict=True)
        for column in ("decision", *own)
    ]
    settled = {c.key for c in agreement.to_settle} | set(agreement.agreed)

    def rows() -> Iterable[list[object]]:
        for c in agreement.audit.candidates:
            if c.key in settled:
                cells = [
                    cell
                    for reading, own in zip(agreement.readings, said, strict=True)
                    for cell in (
                        reading.decisions.verdicts.get(c.key, ""),
                        *(reading.decisions.remark(c.key, column) for column in own),
                    )
                ]
                yield [agreement.audit.id, c.rank, *c.key, agreement.agreed.get(c.key, ""), *cells]

    write_table(path, ["audit", "rank", "case", "candidate", "consensus", *columns], rows())
