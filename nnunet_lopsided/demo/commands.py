"""The public commands of a demo, as steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from nnunet_lopsided.demo.arms import CENSORED, FOLDS, FULL, PLANS, Arm, trainings
from nnunet_lopsided.demo.settings import DemoSettings
from nnunet_lopsided.demo.steps import Step
from nnunet_lopsided.nnunet.checkpoints import whole_checkpoint
from nnunet_lopsided.nnunet.raw import raw_dataset

# How lesions are matched and candidates ranked; what README's example takes.
PROFILE = "lesions"
# In procedural brains lesions take up contrast agent; of other images nothing is known.
_CONTRAST_CHANNEL = 1
_BATCH_SIZE = "4"


@dataclass(frozen=True, kw_only=True)
class Commands:
    """What the steps of a demo are made of.

    Attributes:
        settings: of the demo.
        folder: of the demo.
        arms: what is trained.
        parent: nnU-Net's configuration.
        configuration: that or its small version, which is trained.
    """

    settings: DemoSettings
    folder: Path
    arms: tuple[Arm, Arm, Arm]
    parent: str
    configuration: str

    @property
    def recipe(self) -> Arm:
        """The arm whose trainings audit the labels."""
        return self.arms[-1]

    @property
    def n_steps(self) -> int:
        """All of them."""
        return len(self.data) + len(self.planning) + 3 * len(trainings(self.arms)) + len(self.audit) + len(FOLDS)

    @property
    def data(self) -> tuple[Step, ...]:
        """The dataset and its variant that lacks lesions."""
        settings = self.settings
        seed = ("--seed", str(settings.seed))
        phantom = ("python", "-m", "nnunet_lopsided.commands.phantom", "-d", str(FULL), "--overwrite", "-np", "2")
        n_cases = ("--train", str(settings.n_train), "--test", str(settings.n_test), *seed)
        # Few voxels and many lesions, so that a CPU learns from them in minutes.
        drawn = ("--shape", "16", "64", "64", "--spacing", "3", "2", "2", "--lesions", "12")
        # nnU-Net's own step would take half a minute and gigabytes for statistics that it does not use for MRI.
        fingerprint = ("python", "-m", "nnunet_lopsided.commands.fingerprint", "-d", str(FULL))
        censor = ("lopsided-censor", "-d", str(FULL), "-o", str(CENSORED), "--mode", settings.mode)
        made = (Step("phantom", (*phantom, *n_cases, *drawn)), Step("fingerprint", fingerprint))
        rate = ("--rate", str(settings.rate), *seed, "--overwrite")
        return (*(made if settings.data is None else ()), Step("censor", (*censor, *rate)))

    @property
    def planning(self) -> tuple[Step, ...]:
        """nnU-Net's plans, preprocessed for both datasets."""
        preprocess = ("nnUNetv2_plan_and_preprocess", "-d", str(FULL), "-c", self.parent, "-np", "2", "-npfp", "2")
        plan = ("lopsided-plan", "-d", str(FULL), "-c", self.configuration, "--overwrite")
        # Half the time or less for as many steps; enough for images so small.
        plan = (*plan, *(("--batch-size", _BATCH_SIZE) if self.settings.data is None else ()))
        share = ("lopsided-share", "-d", str(FULL), "-o", str(CENSORED), "--overwrite")
        small = (Step("plan", plan),) if self.configuration != self.parent else ()
        return (Step("preprocess", preprocess), *small, Step("share", share))

    def training(self, arm: Arm, fold: int) -> Iterator[Step]:
        """An arm trained on a fold, and what it finds in the test cases."""
        name, test = arm.of_fold(fold), raw_dataset(FULL).folder
        of_training = ("-tr", arm.trainer, "-device", self.settings.device)
        train = ["nnUNetv2_train", str(arm.dataset), self.configuration, str(fold), *of_training]
        # --c goes on from a checkpoint, and begins anew where there is none. The audit needs probabilities (--npz).
        train += ["--c", *(["--npz"] if arm is self.recipe else [])]
        # One that a kill left half-written would stop it every time.
        whole_checkpoint(arm.fold_folder(self.configuration, fold))
        # Without a loading process: beside another training it would only wait for a core.
        alone = (("nnUNet_n_proc_DA", "0"),) if self.settings.device == "cpu" else ()
        yield Step(f"train-{name}", tuple(train), alone)
        predictions = str(self.folder / "predictions" / name)
        predict = ["nnUNetv2_predict", "-i", str(test / "imagesTs"), "-o", predictions, "-d", str(arm.dataset)]
        predict += ["-c", self.configuration, "-f", str(fold), *of_training, "--save_probabilities"]
        # 0: no processes that import PyTorch again.
        predict += ["--disable_tta", "-npp", "0", "-nps", "0"]
        yield Step(f"predict-{name}", tuple(predict))
        evaluate = ("lopsided-eval", "-g", str(test / "labelsTs"), "-p", predictions, "--profile", PROFILE)
        yield Step(f"evaluate-{name}", (*evaluate, "-o", str(self.evaluation(arm, fold)), "--overwrite"))

    @property
    def lanes(self) -> list[Iterator[Step]]:
        """What may run side by side: trainings, and the audit after those that it needs.

        Trainings of one arm follow each other, since they write the same files of its results.
        """
        full, censored, recipe = self.arms
        first, *others = FOLDS
        return [
            chain(*(self.training(recipe, fold) for fold in FOLDS), self.audit),
            chain(self.training(full, first), self.training(censored, first)),
            chain(*(self.training(censored, fold) for fold in others)),
        ]

    def evaluation(self, arm: Arm, fold: int) -> Path:
        """Where a training is evaluated."""
        return self.folder / "evaluation" / arm.of_fold(fold)

    def comparison(self, fold: int) -> Path:
        """Where the arms are compared, of one fold."""
        return self.folder / "comparison" / f"fold_{fold}"

    def compare(self, fold: int) -> Step:
        """The arms of a fold, with pictures."""
        images = raw_dataset(FULL).folder / "imagesTs"
        channel = _CONTRAST_CHANNEL if self.settings.data is None else 0
        arms = [arm for arm in self.arms if fold in arm.folds]
        evaluations = [str(self.evaluation(arm, fold)) for arm in arms]
        names = [arm.title for arm in arms]
        compare = ("lopsided-eval", "compare", *evaluations, "-o", str(self.comparison(fold)), "--names", *names)
        shown = ("--images", str(images), "--image-channel", str(channel), "--overwrite")
        return Step(f"compare-{fold}", (*compare, *shown))

    @property
    def audit_folder(self) -> Path:
        """Where the audit goes."""
        return self.folder / "audit"

    @property
    def audit(self) -> tuple[Step, ...]:
        """What the recipe's trainings see on the halves that they did not train on, and how much of it is missing."""
        audit = ["lopsided-audit", "-d", str(CENSORED), "-tr", self.recipe.trainer, "-c", self.configuration]
        audit += ["-p", PLANS, "-o", str(self.audit_folder), "-device", self.settings.device, "--overwrite"]
        # Without magnified images, which audits predict too by default: they would take a tenth of the demo's time.
        audit += ["--magnify"]
        score = ("lopsided-audit", "score", str(self.audit_folder), "--truth", str(FULL), "--overwrite")
        return Step("audit", tuple(audit)), Step("score", score)
