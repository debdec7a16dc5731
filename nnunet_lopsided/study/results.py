"""What a study has found so far: the evaluations of its runs, grouped, and compared with the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.comparison import Difference, compare
from nnunet_lopsided.evaluation.confidence import PLAIN
from nnunet_lopsided.evaluation.saved import SavedEvaluation, read_evaluation
from nnunet_lopsided.evaluation.summary_json import metric_intervals
from nnunet_lopsided.study.arms import FULL
from nnunet_lopsided.study.folder import StudyFolder
from nnunet_lopsided.study.jobs import Job, trainer_of_command
from nnunet_lopsided.study.runs import Run, runs_of
from nnunet_lopsided.study.schema import Study

# In the paper's order, and what else a reader asks for.
PAPER_METRICS = ("map", "max_sensitivity", "tp_dice")
FURTHER_METRICS = ("precision_at_max_sensitivity", "false_positives_per_case", "lesion_entropy_bits")
# The average precision by every confidence of candidates, whichever ranked them.
CONFIDENCE_METRICS = tuple(f"map_by_{name}" for name in (*PLAIN, "learned"))
# As lopsided-eval compare draws by default, so that its numbers are those of the report.
_REPLICATES = 2000


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A run whose predictions have been evaluated.

    Attributes:
        run: the run.
        cases: "test" or "validation".
        evaluation: what lopsided-eval wrote.
        training_seconds: of all its folds, attempts that were interrupted included.
        attempts: at all its folds; more than folds where trainings were interrupted.
    """

    run: Run
    cases: str
    evaluation: SavedEvaluation
    training_seconds: float
    attempts: int

    def metric(self, name: str) -> float | None:
        """A metric of summary.json; that by a confidence which it does not tell is undefined."""
        metrics = self.evaluation.metrics
        value = metrics.get(name) if name in CONFIDENCE_METRICS else metrics[name]
        return None if value is None else float(value)

    def interval(self, name: str) -> tuple[float, float] | None:
        """Its 95% bootstrap interval over patients."""
        summary = self.evaluation.summary
        intervals = metric_intervals(summary["metrics"]) | summary["intervals"]
        # The interval of mAP is named in the first way, those of further metrics in the second.
        ends = intervals.get(f"{name}_ci95_bootstrap") or intervals.get(f"{name}_bootstrap_ci95")
        return None if ends is None else (float(ends[0]), float(ends[1]))  # none with few patients


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Runs that differ in seed and repetition alone: one row of a table.

    Attributes:
        dataset: the study's name of it.
        labels: kind of training labels, such as ``full`` or ``size50``.
        configuration: nnU-Net's.
        arm: name of the arm.
        runs: the evaluated ones.
        n_expected: how many there will be.
    """

    dataset: str
    labels: str
    configuration: str
    arm: str
    runs: tuple[Evaluated, ...]
    n_expected: int

    @property
    def name(self) -> str:
        """For figures."""
        return f"{self.labels}, {self.arm}"

    def values(self, metric: str) -> list[float]:
        """The metric of every run where it is defined."""
        return [value for run in self.runs if (value := run.metric(metric)) is not None]

    def mean(self, metric: str) -> float | None:
        """Mean over runs."""
        values = self.values(metric)
        return sum(values) / len(values) if values else None

    def ends(self, metric: str) -> tuple[tuple[float, float] | None, str]:
        """What goes into brackets, and what it is: the interval of a single run, or smallest and largest of several."""
        if len(self.runs) == 1:
            return self.runs[0].interval(metric), "95% interval"
        values = self.values(metric)
        return ((min(values), max(values)) if values else None), f"range of {len(values)} runs"


@dataclass(frozen=True)
class PairedDifference:
    """One run minus a baseline run on the same test cases.

    Attributes:
        run: name of the run.
        baseline: name of the run it is compared with.
        against: "full labels" or "the same labels".
        differences: by metric.
    """

    run: str
    baseline: str
    against: str
    differences: Mapping[str, Difference]


class Results:
    """What is there of a study.

    Attributes:
        study: the study.
        jobs: its jobs.
        evaluated: what has been evaluated, in the order of runs.
        unreadable: evaluations that are there but cannot be read, a line each.
    """

    def __init__(self, study: Study, folder: StudyFolder) -> None:
        self.study, self.folder, self.jobs = study, folder, folder.jobs()
        self.states = folder.states(self.jobs)
        self.runs = runs_of(study)
        self.unreadable: list[str] = []
        self.evaluated = [e for run in self.runs for cases in ("test", "validation") if (e := self._read(run, cases))]

    def _read(self, run: Run, cases: str) -> Evaluated | None:
        if self.states.get(f"evaluate/{run.name}-{cases}") != "done":
            return None
        try:
            evaluation = read_evaluation(self.folder.path / "evaluations" / run.name / cases, run.name)
        except InputError as error:
            self.unreadable.append(str(error))
            return None
        markers = [marker for job in self.trainings(run) if (marker := self.folder.record(job.name)) is not None]
        return Evaluated(
            run=run,
            cases=cases,
            evaluation=evaluation,
            training_seconds=float(sum(marker["seconds"] for marker in markers)),
            attempts=sum(marker["attempts"] for marker in markers),
        )

    def trainings(self, run: Run) -> list[Job]:
        """The trainings of a run, one per fold."""
        return [job for job in self.jobs if job.run == run.name and job.kind == "train"]

    def trainer(self, run: Run) -> str:
        """The trainer that a run was trained with, its seed included."""
        return trainer_of_command(self.trainings(run)[0].command)

    def cells(self, cases: str = "test") -> list[Cell]:
        """Every row of the tables, the ones without results too."""
        grouped: dict[tuple[str, str, str, str], list[Run]] = {}
        for run in self.runs:
            grouped.setdefault(_row_of(run), []).append(run)
        by_name = {e.run.name: e for e in self.evaluated if e.cases == cases}
        return [
            Cell(
                dataset=dataset,
                labels=labels,
                configuration=configuration,
                arm=arm,
                runs=tuple(by_name[run.name] for run in runs if run.name in by_name),
                n_expected=len(runs),
            )
            for (dataset, labels, configuration, arm), runs in grouped.items()
        ]

    @property
    def main_cases(self) -> str:
        """The cases of the main tables: the test set where there is one."""
        return "test" if "test" in self.study.evaluation.cases else "validation"

    def baseline_of(self, cell: Cell, cells: Sequence[Cell]) -> Cell | None:
        """The baseline arm on full labels, all patients; None without a result."""
        wanted = (cell.dataset, FULL, cell.configuration, self.study.baseline)
        return next((c for c in cells if (c.dataset, c.labels, c.configuration, c.arm) == wanted and c.runs), None)

    @cached_property
    def differences(self) -> list[PairedDifference]:
        """Every run minus the baseline arm on full labels, and minus the baseline arm on the same labels."""
        pairs = []
        chosen = [e for e in self.evaluated if e.cases == self.main_cases]
        for e in chosen:
            for against, baseline in (
                ("full labels", self._baseline_run(e, chosen, FULL)),
                ("the same labels", self._baseline_run(e, chosen, e.run.variant.labels)),
            ):
                if baseline is None or baseline is e or (against != "full labels" and e.run.variant.labels == FULL):
                    continue
                try:
                    # Paired by patient, as both predict the same test cases.
                    pair = compare([baseline.evaluation, e.evaluation], _REPLICATES).pairs[0]
                except InputError as error:
                    self.unreadable.append(str(error))
                    continue
                pairs.append(PairedDifference(e.run.name, baseline.run.name, against, pair.differences))
        return pairs

    def _baseline_run(self, e: Evaluated, chosen: Sequence[Evaluated], labels: str) -> Evaluated | None:
        """The baseline run of the same repetition, and where labels are the same kind, of the same labels."""
        for other in chosen:
            mine, its = e.run, other.run
            is_beside = (its.variant.dataset, its.configuration, its.repetition) == (
                mine.variant.dataset,
                mine.configuration,
                mine.repetition,
            )
            is_wanted = its.arm.name == self.study.baseline and its.variant.labels == labels
            # Full labels have no seed of the censoring; on the same labels the baseline lacks the same lesions.
            if is_beside and is_wanted and (labels == FULL or its.variant.plain == mine.variant.plain):
                return other
        return None

    def by_annotation(self, cell: Cell) -> dict[str, tuple[int, int]]:
        """Detected and all lesions that the training labels kept and lacked, summed over a cell's runs."""
        counts: dict[str, tuple[int, int]] = {}
        for e in cell.runs:
            for group in e.evaluation.summary["by_annotation"] or ():
                detected, lesions = counts.get(group["annotation"], (0, 0))
                counts[group["annotation"]] = detected + group["detected"], lesions + group["lesions"]
        return counts

    def training_hours(self, cell: Cell) -> tuple[float, int]:
        """Hours of training of a cell's runs, evaluated or not, and how many attempts they took."""
        seconds, attempts = 0.0, 0
        for run in self.runs:
            if _row_of(run) == (cell.dataset, cell.labels, cell.configuration, cell.arm):
                for job in self.trainings(run):
                    known = self.folder.known_attempts(job.name)
                    seconds, attempts = seconds + sum(a["seconds"] for a in known), attempts + len(known)
        return seconds / 3600, attempts


def _row_of(run: Run) -> tuple[str, str, str, str]:
    """The row of the tables that a run belongs to: runs that differ in seed and repetition alone share one."""
    return run.variant.dataset, run.variant.labels, run.configuration, run.arm.name
