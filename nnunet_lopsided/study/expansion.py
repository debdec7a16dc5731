"""The runs of a study expanded to jobs. Pure: nothing is read or written here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace

from nnunet_lopsided.evaluation.rules import EvaluationRules, profile_rules
from nnunet_lopsided.nnunet.paths import new_dataset_name
from nnunet_lopsided.nnunet.results import results_folder_name
from nnunet_lopsided.study.arms import Completed
from nnunet_lopsided.study.jobs import Job
from nnunet_lopsided.study.runs import Run, Variant, changed_variants_of, runs_of, variants_of
from nnunet_lopsided.study.schema import PARENTS, Dataset, Phantom, Study
from nnunet_lopsided.trainers.names import with_soft_targets


def expand(study: Study, ids: Mapping[str, int]) -> tuple[Job, ...]:
    """Every job of a study, after those it needs.

    Args:
        study: the study.
        ids: dataset id of every variant, of :func:`choose_ids`.
    """
    return _Expansion(study, ids).jobs()


def audit_command(study: Study, ids: Mapping[str, int], run: Run, folder: str) -> tuple[str, ...]:
    """The audit of a run's cross-validation, whose labels were changed by nothing but censoring.

    Args:
        study: the study.
        ids: dataset id of every variant.
        run: the run.
        folder: of the audit, relative to the study's folder.
    """
    return _Expansion(study, ids).audit_command(run, folder)


class _Expansion:
    def __init__(self, study: Study, ids: Mapping[str, int]) -> None:
        self.study, self.ids = study, ids

    def jobs(self) -> tuple[Job, ...]:
        jobs: list[Job] = []
        for dataset in self.study.datasets:
            jobs += self._of_dataset(dataset)
        for variant in variants_of(self.study):
            if not variant.is_source:
                jobs += self._of_variant(variant)
        for variant in changed_variants_of(self.study):
            # Relabelled and completed ones come with their runs, since they need trainings.
            if variant.ignored:
                jobs += self._of_variant(variant)
        for run in runs_of(self.study):
            if run.variant.completed:
                jobs += self._completed(run)
            elif run.variant.teacher:
                jobs += self._relabelled(run)
            jobs += self._of_run(run)
        return tuple({job.name: job for job in jobs}.values())  # arms may share an audit and labels

    # ---- data

    def _of_dataset(self, dataset: Dataset) -> Iterator[Job]:
        number = str(self.ids[dataset.name])
        cpus = self.study.resources.cpus
        if isinstance(dataset.source, Phantom):
            yield Job(f"phantom/{dataset.name}", _phantom(dataset, dataset.source, number, cpus), cpus=cpus)
        # Added configurations use the preprocessed data of their parents, so only these are preprocessed.
        configurations = dict.fromkeys(PARENTS.get(c, c) for c in self.study.configurations)
        planner = () if self.study.planner == "ExperimentPlanner" else ("-pl", self.study.planner)
        # One number per configuration, as nnU-Net wants them.
        processes = ("-npfp", str(cpus), "-np", *[str(cpus)] * len(configurations))
        command = ("nnUNetv2_plan_and_preprocess", "-d", number, *planner, "-c", *configurations, *processes)
        made = self._made(dataset.name)
        resources = self.study.resources
        yield Job(
            f"preprocess/{dataset.name}",
            command,
            needs=made,
            cpus=cpus,
            memory_gb=resources.memory_gb,
            hours=resources.hours,
        )
        ready = f"preprocess/{dataset.name}"
        for configuration in self._added:  # one after the other: all write the same plans
            options = _plan_options(self.study) if configuration == "2.5d" else ["-c", configuration]
            speed = ("-np", str(cpus)) if configuration == "2.5d" else ()
            plan = ("lopsided-plan", "-d", number, *self._plans, *options, "--overwrite", *speed)
            job = Job(self._planned(dataset.name, configuration), plan, needs=(ready,), cpus=cpus)
            ready = job.name
            yield job

    def _of_variant(self, variant: Variant) -> Iterator[Job]:
        source, number = str(self.ids[variant.dataset]), str(self.ids[variant.name])
        censoring, cpus = variant.censoring, self.study.resources.cpus
        command = ["lopsided-censor", "-d", source, "-o", number, "--name", variant.name]
        if censoring.mode is not None:
            command += ["--mode", censoring.mode]
        if censoring.rate is not None:
            command += ["--rate", f"{censoring.rate:g}"]
        command += ["--seed", str(variant.seed)]
        if variant.patients is not None:
            command += ["--patients", str(variant.patients)]
            command += self._patients_regex
        command += ["--ignored"] if variant.ignored else []
        made = self._made(variant.dataset)
        yield Job(f"censor/{variant.name}", (*command, "--overwrite", "-np", str(cpus)), needs=made, cpus=cpus)
        yield self._share(variant, f"censor/{variant.name}")

    def _share(self, variant: Variant, after: str) -> Job:
        source, number, cpus = self.ids[variant.dataset], self.ids[variant.name], self.study.resources.cpus
        share = ("lopsided-share", "-d", str(source), "-o", str(number), "--overwrite", "-np", str(cpus))
        return Job(f"share/{variant.name}", share, needs=(after, self._ready(variant.dataset)), cpus=cpus)

    def _relabelled(self, run: Run) -> Iterator[Job]:
        """The labels of a run, completed by the audit of its teacher's cross-validation."""
        rule, variant, name = run.arm.relabelled, run.variant, run.variant.name
        assert rule is not None, "called for relabelled arms"
        teacher = self._teacher(run)
        # The audit does not depend on who decides: arms that are read and arms that are not share it.
        audit = replace(variant, read=False).name
        resources, folder, results = self.study.resources, f"audits/{audit}", _results(run)
        # All folds: an audit judges every case by the fold that did not train on it.
        trained = tuple(self._train(teacher, fold).name for fold in self.study.folds)
        yield Job(
            f"audit/{audit}",
            self.audit_command(teacher, folder),
            needs=trained,
            results=results,
            cpus=resources.cpus,
            gpus=self._gpus,  # an audit predicts magnified images
            memory_gb=resources.memory_gb,
            hours=resources.hours,
        )
        apply = ["lopsided-audit", "apply"]
        if rule.read is None:
            apply += ["--accept-above", f"{rule.above:g}"]
        else:
            apply += ["--truth", str(self.ids[variant.dataset]), "--first", str(rule.read)]
        apply += ["--audit", folder, "-o", str(self.ids[name]), "--name", name, "--overwrite"]
        apply += ["-np", str(resources.cpus)]
        yield Job(f"apply/{name}", tuple(apply), needs=(f"audit/{audit}",), results=results, cpus=resources.cpus)
        yield self._share(variant, f"apply/{name}")

    def _completed(self, run: Run) -> Iterator[Job]:
        """The completed labels of a run, made of its teacher's cross-validation, and their preprocessed folder."""
        teacher, variant = self._teacher(run), run.variant
        trained = tuple(self._train(teacher, fold).name for fold in self.study.folds)
        more = ["--way", "zones" if variant.zones else "soft"]
        if variant.sample:
            more += ["--sample", str(variant.sample), "--truth", str(self.ids[variant.dataset])]
        if variant.rounds > 1:
            first = variant.first_round
            yield self._complete(teacher, first, ("--way", "soft"), trained)
            # Jobs of their own: a batch system runs them side by side, each within the hours of a training.
            second = [self._second_train(replace(teacher, variant=first), fold) for fold in self.study.folds]
            yield from second
            trained = tuple(job.name for job in second)
            more += ["--rounds", str(variant.rounds), "--first-round", str(self.ids[first.name])]
        yield self._complete(teacher, variant, more, trained)

    def _second_train(self, run: Run, fold: int | str) -> Job:
        """A training of the second cross-validation: the teacher's trainer on the soft targets of the first round."""
        arm = replace(
            run.arm,
            trainer=with_soft_targets(self._trainer(run)),
            completed=Completed(run.arm.name),
        )
        job = self._train(replace(run, arm=arm), fold)
        # An arm of one round may be just this, and then the two would train into one folder.
        same = (self._train(r, fold) for r in runs_of(self.study) if r.variant == run.variant)
        alike = next((other for other in same if other.fold_folder == job.fold_folder), None)
        return alike or replace(job, name=f"train/{run.variant.name}-f{fold}", run="")

    def _complete(self, teacher: Run, variant: Variant, more: Sequence[str], needs: tuple[str, ...]) -> Job:
        name, resources = variant.name, self.study.resources
        command = ["lopsided-complete", "-d", str(self.ids[teacher.variant.name]), "-c", teacher.configuration]
        command += ["-tr", self._trainer(teacher), *self._plans, "-o", str(self.ids[name]), "--name", name, *more]
        command += ["-device", self.study.device, "--overwrite", "-np", str(resources.cpus)]
        return Job(
            f"complete/{name}",
            tuple(command),
            needs=needs,
            results=_results(teacher),
            cpus=resources.cpus,
            gpus=self._gpus,  # it trains the folds that the study does not
            memory_gb=resources.memory_gb,
            hours=resources.hours,
        )

    def _teacher(self, run: Run) -> Run:
        """The run of the same labels, unchanged, whose cross-validation changes those of this one."""
        arm = next(arm for arm in self.study.arms if arm.name == run.arm.teacher)
        return replace(run, variant=run.variant.plain, arm=arm)

    def audit_command(self, run: Run, folder: str) -> tuple[str, ...]:
        command = ["lopsided-audit", "-d", str(self.ids[run.variant.name]), "-tr", self._trainer(run)]
        command += ["-c", run.configuration, *self._plans, "-f", *map(str, self.study.folds), "-o", folder]
        command += [*self._label, *self._patients_regex, "-device", self.study.device, "--overwrite"]
        return (*command, "-np", str(self.study.resources.cpus))

    @property
    def _gpus(self) -> int:
        """How many GPUs a job needs that predicts."""
        return 1 if self.study.device == "cuda" else 0

    @property
    def _label(self) -> list[str]:
        label = self.study.evaluation.label
        return [] if label is None else ["--label", label]

    @property
    def _patients_regex(self) -> list[str]:
        pattern = self.study.evaluation.patients_regex
        return [] if pattern is None else ["--patients-regex", pattern]

    def _made(self, dataset: str) -> tuple[str, ...]:
        """The job that makes the raw dataset, if one does."""
        (source,) = (d.source for d in self.study.datasets if d.name == dataset)
        return (f"phantom/{dataset}",) if isinstance(source, Phantom) else ()

    def _ready(self, dataset: str) -> str:
        """The job after which a dataset is preprocessed and planned."""
        return self._planned(dataset, self._added[-1]) if self._added else f"preprocess/{dataset}"

    @property
    def _added(self) -> list[str]:
        """The configurations that ``lopsided-plan`` adds."""
        return [configuration for configuration in self.study.configurations if configuration in PARENTS]

    @staticmethod
    def _planned(dataset: str, configuration: str) -> str:
        return f"plan/{dataset}" + ("" if configuration == "2.5d" else f"-{configuration}")

    # ---- runs

    @property
    def _plans(self) -> tuple[str, ...]:
        return () if self.study.plans == "nnUNetPlans" else ("-p", self.study.plans)

    def _of_run(self, run: Run) -> Iterator[Job]:
        trains = [self._train(run, fold) for fold in self.study.folds]
        yield from trains
        trained = tuple(job.name for job in trains)
        if self._learns_confidence:
            yield self._confidence(run, trained)
            trained = (*trained, f"confidence/{run.name}")
        if "test" in self.study.evaluation.cases:
            # Predicting does not need the learned confidence, evaluating does.
            yield self._predict(run, trained[: len(trains)])
            raw = f"nnUNet_raw/{self._folder(run.variant.dataset)}"
            which = ("-g", f"{raw}/labelsTs", "-p", f"predictions/{run.name}")
            yield self._evaluate(run, "test", which, (f"predict/{run.name}", *trained[len(trains) :]))
        if "validation" in self.study.evaluation.cases:
            yield self._evaluate(run, "validation", self._validation(run), trained)

    def _train(self, run: Run, fold: int | str) -> Job:
        resources, variant = self.study.resources, run.variant
        command = ["nnUNetv2_train", str(self.ids[variant.name]), run.configuration, str(fold)]
        command += ["-tr", self._trainer(run), *self._plans, "-device", self.study.device]
        # Probabilities of the validation cases take much disk, so they are kept only where something reads them.
        teaches = any(arm.teacher for arm in self.study.arms)
        if "validation" in self.study.evaluation.cases or teaches or self._learns_confidence:
            command.append("--npz")
        gpus = resources.gpus if self.study.device == "cuda" else 0
        if gpus > 1:
            command += ["-num_gpus", str(gpus)]
        made = "complete" if variant.completed else "share"
        ready = self._ready(variant.dataset) if variant.is_source else f"{made}/{variant.name}"
        return Job(
            f"train/{run.name}-f{fold}",
            tuple(command),
            needs=(ready,),
            results=_results(run),
            cpus=resources.cpus,
            gpus=gpus,
            memory_gb=resources.memory_gb,
            hours=resources.hours,
            fold_folder=f"{self._model(run)}/fold_{fold}",
            run=run.name,
        )

    def _predict(self, run: Run, needs: tuple[str, ...]) -> Job:
        resources = self.study.resources
        images = f"nnUNet_raw/{self._folder(run.variant.dataset)}/imagesTs"
        factors = self.study.evaluation.magnify or ()
        command = ["lopsided-predict" if factors else "nnUNetv2_predict", "-i", images, "-o", f"predictions/{run.name}"]
        command += ["-d", str(self.ids[run.variant.name]), "-c", run.configuration, "-tr", self._trainer(run)]
        command += [*self._plans, "-f", *map(str, self.study.folds)]
        command += ["--magnify", *(f"{factor:g}" for factor in factors)] if factors else []
        command += ["-device", self.study.device, "--save_probabilities"]
        # nnU-Net's three processes for either would take more memory and cores than the job has asked for.
        command += [*([] if self.study.mirroring else ["--disable_tta"]), "-npp", "1", "-nps", "1"]
        return Job(
            f"predict/{run.name}",
            tuple(command),
            needs=needs,
            results=_results(run),
            cpus=resources.cpus,
            gpus=self._gpus,
            memory_gb=resources.memory_gb,
            hours=resources.hours,
            run=run.name,
        )

    def _evaluate(self, run: Run, on: str, which: tuple[str, ...], needs: tuple[str, ...]) -> Job:
        rules, cpus = self.study.evaluation, self.study.resources.cpus
        options = [] if rules.profile == "paper" else ["--profile", rules.profile]
        options += [*self._label, *self._patients_regex]
        options += [] if rules.confidence is None else ["--confidence", rules.confidence]
        options += ["--confidence-model", self._model(run)] if self._learns_confidence else []
        command = ("lopsided-eval", *which, "-o", f"evaluations/{run.name}/{on}", *options, "-np", str(cpus))
        name, command = f"evaluate/{run.name}-{on}", (*command, "--overwrite")
        return Job(name, command, needs=needs, results=_results(run), cpus=cpus, run=run.name)

    @property
    def _learns_confidence(self) -> bool:
        return self.study.evaluation.confidence == "learned"

    def _confidence(self, run: Run, needs: tuple[str, ...]) -> Job:
        """The confidence of candidates, learned from the validation cases and the labels that the run trained on."""
        cpus = self.study.resources.cpus
        command = ["lopsided-confidence", "-d", str(self.ids[run.variant.name]), "-c", run.configuration]
        command += ["-tr", self._trainer(run), *self._plans, "-f", *map(str, self.study.folds)]
        # Candidates must be those that the evaluation will rank.
        threshold = profile_rules(self.study.evaluation.profile).threshold
        command += [] if threshold == EvaluationRules().threshold else ["--threshold", f"{threshold:g}"]
        command += ["-np", str(cpus), "--overwrite"]
        name = f"confidence/{run.name}"
        return Job(name, tuple(command), needs=needs, results=_results(run), cpus=cpus, run=run.name)

    def _validation(self, run: Run) -> tuple[str, ...]:
        """Predictions on the validation cases against whole labels, with the censored ones beside them."""
        full = ("-g", f"nnUNet_preprocessed/{self._folder(run.variant.dataset)}/gt_segmentations")
        # Those before anything was marked or added: what counts is which lesions the censoring took away.
        labels = f"nnUNet_preprocessed/{self._folder(run.variant.plain.name)}/gt_segmentations"
        censored = () if run.variant.censoring.mode is None else ("--reference-censored", labels)
        return (*full, "--cv", self._model(run), "--folds", *map(str, self.study.folds), *censored)

    def _model(self, run: Run) -> str:
        names = self._folder(run.variant.name), self._trainer(run), self.study.plans, run.configuration
        return f"{_results(run)}/{results_folder_name(*names)}"

    def _trainer(self, run: Run) -> str:
        return self.study.trainer_of(run.arm, run.repetition)

    def _folder(self, variant: str) -> str:
        return new_dataset_name(self.ids[variant], variant)


def _results(run: Run) -> str:
    """The results folder of a run's repetition: nnU-Net itself would write all repetitions to the same place."""
    return f"nnUNet_results/repetition_{run.repetition}"


def _phantom(dataset: Dataset, phantom: Phantom, number: str, cpus: int) -> tuple[str, ...]:
    command = ["python", "-m", "nnunet_lopsided.commands.phantom", "-d", number, "--name", dataset.name]
    command += ["--train", str(phantom.train), "--test", str(phantom.test), "--seed", str(phantom.seed)]
    command += ["--shape", *map(str, phantom.shape), "--spacing", *(f"{s:g}" for s in phantom.spacing)]
    for option in ("lesions", "diameter", "contrast"):
        value = getattr(phantom, option)
        command += [] if value is None else [f"--{option}", f"{value:g}"]
    return (*command, "--overwrite", "-np", str(cpus))


def _plan_options(study: Study) -> list[str]:
    options: list[str] = []
    for name, value in asdict(study.plan_25d).items():
        if value is not None:
            values = value if isinstance(value, (tuple, list)) else (value,)
            options += [f"--{name.replace('_', '-')}", *(str(v) for v in values)]
    return options
