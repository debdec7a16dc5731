"""agreement.html: how well readers agree, and the candidates that they have still to settle."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_lopsided.audit.agreeing import ALL_WORDS, Agreement
from nnunet_lopsided.audit.candidate_pictures import CandidatePictures
from nnunet_lopsided.audit.decisions import VERDICTS
from nnunet_lopsided.audit.review_page import review_page
from nnunet_lopsided.pages.html import Table, code, interval_or_reason, number, why

_NAMES = {2: "Cohen", 3: "Fleiss"}


def agreement_html(agreement: Agreement, pictures: Sequence[CandidatePictures]) -> str:
    """The page of an agreement.

    Args:
        agreement: of the readers.
        pictures: of the candidates to settle, those with other decisions first.

    Returns:
        HTML, the same for the same arguments. It asks for no other file.
    """
    verdicts = agreement.agreed
    order = {candidate.key: i for i, candidate in enumerate(agreement.to_settle)}
    return review_page(
        "audit/agreement_page.html",
        f"Agreement on {agreement.audit.dataset}",
        sorted(pictures, key=lambda one: order[one.candidate.case, one.candidate.number]),
        data={
            "id": agreement.audit.id,
            "dataset": agreement.audit.dataset,
            "file": "consensus",
            "store": "\n".join([agreement.audit.id, "consensus", *agreement.names]),
            "given": [
                {"case": case, "candidate": n, "decision": word, "reader": ", ".join(agreement.names)}
                for (case, n), word in verdicts.items()
            ],
        },
        said={candidate.key: _said(agreement, candidate.key) for candidate in agreement.to_settle},
        dataset=agreement.audit.dataset,
        id=agreement.audit.id,
        n_agreed=len(verdicts),
        n_disputed=len(agreement.disputed),
        n_partly_read=len(agreement.partly_read),
        n_left_out=len(agreement.to_settle) - len(pictures),
        kappas=_kappas(agreement),
        tables=_tables(agreement),
        readers=_readers(agreement),
        seed=agreement.seed,
        n_replicates=agreement.n_replicates,
    )


def _said(agreement: Agreement, key: tuple[str, int]) -> list[str]:
    """What each reader decided, and why."""
    lines = []
    for reading in agreement.readings:
        comment = reading.decisions.remark(key, "comment")
        word = reading.decisions.verdicts.get(key, "not decided")
        lines.append(f"{reading.name}: {word}" + (f" ({comment})" if comment else ""))
    return lines


def _kappas(agreement: Agreement) -> Table:
    rows = [
        (
            " and ".join(agreement.names[i] for i in kappa.readers),
            told_apart,
            str(kappa.n),
            number(kappa.observed),
            number(kappa.kappa) if kappa.kappa is not None else why(kappa.undefined),
            interval_or_reason(kappa.interval.ends, None if kappa.undefined else kappa.interval.undefined),
            _NAMES[min(len(kappa.readers), 3)],
        )
        for told_apart, kappas in agreement.kappas.items()
        for kappa in kappas
    ]
    header = (
        "readers",
        "decisions",
        "candidates",
        "agreement",
        "kappa",
        "95% interval (bootstrap over patients)",
        "of",
    )
    return Table(header, rows, right=(2, 3, 4))


def _tables(agreement: Agreement) -> list[Table]:
    tables = []
    for kappa in agreement.kappas[ALL_WORDS]:
        if len(kappa.readers) == 2:
            first, second = (agreement.names[i] for i in kappa.readers)
            counts = agreement.table(*kappa.readers)
            rows = [(f"{first}: {word}", *map(str, row)) for word, row in zip(VERDICTS, counts, strict=True)]
            tables.append(Table(("", *(f"{second}: {word}" for word in VERDICTS)), rows, right=(1, 2, 3)))
    return tables


def _readers(agreement: Agreement) -> Table:
    rows = [
        (reading.name, code(reading.path.name), *(str(reading.decisions.count(word)) for word in VERDICTS))
        for reading in agreement.readings
    ]
    return Table(("reader", "file", *VERDICTS), rows, right=(2, 3, 4))
