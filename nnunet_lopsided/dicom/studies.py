"""Which case a DICOM study is, and its series by what they are called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from nnunet_lopsided.dicom.series import Series
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.paths import plain_name


@dataclass(frozen=True, kw_only=True)
class Study:
    """One visit of one patient.

    Attributes:
        case: the name it has in a dataset: the patient's, with the date where there are several studies.
        patient: the PatientID, as a plain name.
        date: YYYYMMDD, or empty.
        series: its series.
    """

    case: str
    patient: str
    date: str
    series: tuple[Series, ...]

    def one_of(self, pattern: str, segmentations: bool) -> Series | None:
        """The one series whose description, or number, a pattern fits, upper and lower case being the same.

        Args:
            pattern: with ``*`` for anything.
            segmentations: look among DICOM SEG files, not among the others.

        Returns:
            None where no series is such.

        Raises:
            InputError: several are.
        """
        found = [s for s in self.series if s.is_segmentation == segmentations and is_called(s, [pattern])]
        if len(found) > 1:
            raise InputError(
                f"several series for {pattern!r}: {'; '.join(series.name for series in found)} (a pattern that fits "
                "one of them, or --ignore NUMBER, DESCRIPTION or UID)"
            )
        return found[0] if found else None


def is_called(series: Series, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns fits a series' description, number or UID."""
    names = (series.description.lower(), series.number, series.uid)
    return any(fnmatchcase(name, pattern.lower()) for pattern in patterns for name in names)


def studies_of(series: Sequence[Series]) -> list[Study]:
    """The studies of these series, in the order of patients and dates; patients are told apart by their PatientID.

    Raises:
        InputError: a series has no PatientID, or two patients become one name.
    """
    by_patient: dict[str, dict[str, list[Series]]] = {}
    names: dict[str, str] = {}
    for one in series:
        if not one.patient:
            raise InputError(f"{one.path}: no PatientID: whose is it?")
        name = plain_name(one.patient)
        if names.setdefault(name, one.patient) != one.patient:
            raise InputError(f"patients {names[name]!r} and {one.patient!r} would both be called {name}")
        by_patient.setdefault(name, {}).setdefault(one.study, []).append(one)
    studies = []
    for patient, own in sorted(by_patient.items()):
        dates = [group[0].date or "undated" for group in own.values()]
        for i, (date, group) in enumerate(zip(dates, own.values(), strict=True)):
            case = patient if len(own) == 1 else f"{patient}_{date}"
            if len(own) > 1 and dates.count(date) > 1:
                case += f"_{dates[: i + 1].count(date)}"
            studies.append(Study(case=case, patient=patient, date=group[0].date, series=tuple(group)))
    return studies
