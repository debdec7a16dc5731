"""Looking back: early in a training the network says on which background voxels its labels may lack a lesion.

Networks learn what lesions look like before they learn by heart which of them are labelled. So for some time a network
judges its own training cases as it would judge unseen ones. At one point in that time it predicts them as they are. A
component that it calls and no annotation explains is a candidate, and rule q of :mod:`nnunet_lopsided.belief` says how
probable it is a missed lesion: near 0 where labels are whole. From then on background labels on a candidate count less,
those of all other voxels fully. So what is doubted is not learned by heart either, and the network looks again, now and
then, when it knows more of what is no lesion. Between two looks nothing changes, and each counts anew, so that it
cannot confirm itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from numpy.typing import NDArray
from torch import distributed

from nnunet_lopsided.belief import LEAST_ANNOTATED, belief, candidates_per_annotated, missed_per_annotated
from nnunet_lopsided.dilation import grown_voxels
from nnunet_lopsided.errors import InputError, refuse
from nnunet_lopsided.lesions import Lesions, find_lesions
from nnunet_lopsided.nnunet.beliefs import to_levels
from nnunet_lopsided.nnunet.preprocessed_case import Properties, StoredArray
from nnunet_lopsided.progress import with_progress
from nnunet_lopsided.soft_target import called_components
from nnunet_lopsided.trainers.host_types import Dataset
from nnunet_lopsided.trainers.instances import DatasetAround, within
from nnunet_lopsided.trainers.looking_times import extent_of_lesions, knows_lesions_at, looks, share_shown
from nnunet_lopsided.trainers.names import NameFlag
from nnunet_lopsided.trainers.pasting import LesionPasting
from nnunet_lopsided.trainers.predicting import predicting
from nnunet_lopsided.trainers.slice_patches import training_patch
from nnunet_lopsided.trainers.soft_targets import ImageWithBelief, SoftTargetData

LOOK_BACK = (
    NameFlag("look_back", "lookback", "background is doubted where the network looked back sees a lesion"),
    NameFlag("look_back", "nolookback", "where it sees one at the moment", False),
)
# A part of a missed lesion that is learned as background takes the rest with it, and its edge is called late.
_GROWN = 1
# Where fewer than LEAST_ANNOTATED are called a tail of the scores must hold half of them, and so many.
_FEWEST_ANNOTATED = 8
_RECORD, _ANSWER = "candidates", "nothing_missing"  # keys in a checkpoint's record
# Candidates for each annotated lesion, below which nothing seems missing (measured: docs/results/recipe.md).
NOTHING_MISSING = 0.4
_KNOWS_LESIONS = 0.5  # share of the annotated lesions that a network calls which can tell


@dataclass(frozen=True)
class SparseMap:
    """A map of one channel that is 0 nearly everywhere; gives crops as an array does.

    Attributes:
        coordinates: of what is not 0, (axes, n).
        levels: its values in whole 255ths, (n,).

    Example:
        >>> sparse = SparseMap(np.array([[0, 1], [1, 2]]), np.array([7, 9], np.uint8))
        >>> sparse[slice(0, 1), slice(1, 2), slice(0, 3)].tolist()
        [[[0, 0, 9]]]
    """

    coordinates: NDArray[np.int32] = field(repr=False)  # nnU-Net writes what a trainer holds to debug.json
    levels: NDArray[np.uint8] = field(repr=False)

    def __getitem__(self, crop: tuple[slice, ...]) -> NDArray[np.uint8]:
        """The crop given by one slice per dimension, the first of which is for channels."""
        patch = np.zeros((1, *(part.stop - part.start for part in crop[1:])), np.uint8)
        inside, at = within(crop[1:], self.coordinates)
        patch[(0, *at)] = self.levels[inside]
        return patch


class WithDoubt(DatasetAround):
    """An nnU-Net dataset whose images bring the doubt in background labels as their last channel.

    Args:
        dataset: nnU-Net's.
        doubt: by case; one that is not there has none.
    """

    def __init__(self, dataset: Dataset, doubt: dict[str, SparseMap]) -> None:
        super().__init__(dataset)
        self._doubt = doubt

    def load_case(self, identifier: str) -> tuple[ImageWithBelief, StoredArray, StoredArray | None, Properties]:
        """Image with doubt, labels, labels of a cascade's previous stage, properties."""
        image, label, previous, properties = self._dataset.load_case(identifier)
        return ImageWithBelief(image, self._doubt.get(identifier), 1), label, previous, properties


@dataclass(frozen=True)
class CalledInCase:
    """What the network called in a training case.

    Attributes:
        explained: score of every component that touches an annotation, (M,).
        unexplained: of every other one, (N,).
        candidates: those, in this order.
        n_labelled: annotated lesions, called or not.
    """

    explained: NDArray[np.float64]
    unexplained: NDArray[np.float64]
    candidates: Lesions
    n_labelled: int = 0


@dataclass(frozen=True)
class Doubt:
    """What came of looking back.

    Attributes:
        n_annotated: annotated lesions that the network called.
        n_candidates: components that it called and no annotation explains.
        missed_per_annotated: an upper bound; None where fewer than 8 were called.
        expected: sum of the candidates' probabilities of being missed lesions.
        maps: by case, where a background label is doubted, and how much.
    """

    n_annotated: int
    n_candidates: int
    missed_per_annotated: float | None
    expected: float
    maps: dict[str, SparseMap]

    def as_record(self) -> dict[str, object]:
        """For a checkpoint: tensors and numbers, which can be read without running a program."""
        maps = {
            case: (torch.from_numpy(sparse.coordinates), torch.from_numpy(sparse.levels))
            for case, sparse in self.maps.items()
        }
        return {**vars(self), "maps": maps}

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Doubt:
        """What :meth:`as_record` gave."""
        maps = {case: SparseMap(*(part.numpy() for part in parts)) for case, parts in record["maps"].items()}
        return cls(**{**record, "maps": maps})


def doubt_of(called: dict[str, CalledInCase]) -> Doubt:
    """Rule q over all cases together; a candidate's q holds for its voxels and the next around.

    Args:
        called: by case.
    """
    explained, unexplained = _scores(called)
    few = len(explained) < LEAST_ANNOTATED
    least = max(_FEWEST_ANNOTATED, math.ceil(len(explained) / 2)) if few else LEAST_ANNOTATED
    rho = missed_per_annotated(explained, unexplained, least)
    q = belief(explained, unexplained, rho or 0.0)
    of_cases = np.split(q, np.cumsum([len(case.unexplained) for case in called.values()])[:-1])
    maps = {name: _map(case.candidates, values) for (name, case), values in zip(called.items(), of_cases, strict=True)}
    return Doubt(
        n_annotated=len(explained),
        n_candidates=len(unexplained),
        missed_per_annotated=rho,
        expected=float(q.sum()),
        maps={name: sparse for name, sparse in maps.items() if len(sparse.levels)},
    )


def _scores(called: Mapping[str, CalledInCase]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of all cases together: of components that touch an annotation, and of all others."""
    cases = called.values()
    return np.concatenate([case.explained for case in cases]), np.concatenate([case.unexplained for case in cases])


def _map(candidates: Lesions, q: NDArray[np.float64]) -> SparseMap:
    voxels, ids = grown_voxels(candidates, _GROWN)
    levels = to_levels(q[None], exclusive=False)[0][ids - 1]
    dense = np.zeros(candidates.shape, np.uint8)
    np.maximum.at(dense.reshape(-1), voxels, levels)  # where two candidates meet the likelier one counts
    doubted = np.nonzero(dense)
    return SparseMap(np.stack(doubted).astype(np.int32), dense[doubted])


class LookingBack(SoftTargetData, LesionPasting):
    """Brings doubt in background labels to the criterion as ``doubt``; mixed in in front of a trainer's base.

    Where lesions are crowded it does not look back by default, but asks once, before it begins to doubt, whether
    anything seems missing at all (:func:`~nnunet_lopsided.belief.candidates_per_annotated`). If not, it never doubts.

    Attributes:
        look_back: whether it looks back; None: where lesions are pasted, as otherwise omissions are learned by heart
            sooner. Never with soft targets, which say where lesions are missing. False: it does not ask either.
    """

    before_there_was: ClassVar = {
        **SoftTargetData.before_there_was, **LesionPasting.before_there_was, "look_back": False
    }  # fmt: skip
    look_back: bool | None = False
    dataloader_train: object
    dataloader_val: object
    _doubt: Doubt | None = None
    _nothing_missing: bool | None = None  # None: not asked
    _passes: float | None = None  # over the training data, in an epoch

    @property
    def _looks_back(self) -> bool:
        """Whether this training does; known once its loaders are there."""
        if self.look_back is None:
            return self._lesions_are_pasted and self._why_not_look_back is None
        return self.look_back

    @property
    def _asks(self) -> bool:
        """Whether it asks once if anything is missing; known once its loaders are there."""
        return self.look_back is None and not (self._looks_back or self._lesions_are_sparse or self._why_not_look_back)

    @property
    def _why_not_look_back(self) -> str | None:
        """What of this trainer does not go with it."""
        if self.soft_targets:
            return "together with _softtargets"
        return "in a cascade" if self.is_cascaded else None

    def _doubts_at(self) -> int:
        """The first epoch in which background labels are doubted."""
        raise NotImplementedError

    @property
    def _travels(self) -> tuple[str, int]:
        return super()._travels if self._doubt is None else ("doubt", 1)

    def _with_what_travels(self, training: Dataset) -> Dataset | DatasetAround:
        return super()._with_what_travels(training) if self._doubt is None else WithDoubt(training, self._doubt.maps)

    def load_checkpoint(self, filename_or_checkpoint: dict[str, object] | str) -> None:
        super().load_checkpoint(filename_or_checkpoint)
        stored = self.my_init_kwargs.get("lopsided", {})
        record = stored.get(_RECORD)
        self._doubt = None if record is None else Doubt.of_record(record)
        self._nothing_missing = stored.get(_ANSWER)

    def on_train_start(self) -> None:
        if self.look_back and self._why_not_look_back:
            refuse(InputError(f"{type(self).__name__}: _lookback cannot be used {self._why_not_look_back}"))
        super().on_train_start()
        if self._looks_back:
            first, *again = self._looks
            passes = "" if self._passes is None else f", after {first * self._passes:.1f} passes over the training data"
            later = ", ".join(map(str, again)) or "none"
            self.print_to_log_file(f"looking back: first before epoch {first}{passes}; again before: {later}")

    def on_train_epoch_start(self) -> None:
        if self._looks_back and self._looks_now():
            self._doubt = doubt_of(self._called_in_training_cases())
            self._say(self._doubt)
            # Checkpoints hold it, so that a training that goes on doubts the same voxels.
            self.my_init_kwargs.setdefault("lopsided", {})[_RECORD] = self._doubt.as_record()
            self._make_loaders_again()
        if self._asks and self._nothing_missing is None and self.current_epoch >= self._doubts_at():
            self._nothing_missing = self._ask(self._called_in_training_cases())
            self.my_init_kwargs.setdefault("lopsided", {})[_ANSWER] = self._nothing_missing
        super().on_train_epoch_start()

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        if self._doubt is not None:
            # Unseen cases have no candidates: their loss is against the labels, as before the first look.
            setattr(self.criterion, "gamma", 0.0)  # noqa: B010 - mypy takes a module's attributes for tensors

    def on_train_end(self) -> None:
        # A model that is handed on need not name the cases that it learned from.
        self.my_init_kwargs.get("lopsided", {}).pop(_RECORD, None)
        super().on_train_end()

    @property
    def _looks(self) -> list[int]:
        """The epochs before which it looks."""
        return looks(self._doubts_at(), self.num_epochs)

    def _looks_now(self) -> bool:
        if self._doubt is None:
            return bool(self.current_epoch >= self._looks[0])
        return self.current_epoch in self._looks

    def _knows_lesions_at(self) -> int:
        """The first epoch in which the network knows lesions, and not yet by heart which of them are labelled."""
        if self._passes is None:
            self._passes = self._passes_per_epoch()
        return knows_lesions_at(self._passes, self.num_iterations_per_epoch, self.num_epochs)

    def _passes_per_epoch(self) -> float:
        training_cases, _ = self.do_split()
        dataset: Dataset = self.dataset_class(self.preprocessed_dataset_folder, training_cases)
        patch = training_patch(self.configuration_manager) if self._is_25d else self.configuration_manager.patch_size
        shapes, extents = [], []
        for case in with_progress(training_cases, title="sizes of cases", unit="case", show=self.local_rank == 0):
            data, _, _, properties = dataset.load_case(case)
            shapes.append(data.shape[1:])
            extents.append(extent_of_lesions(properties["class_locations"]))
        # In a case with few lesions others may be missing where those of other cases are.
        known = [extent for extent in extents if extent is not None]
        largest = np.max(known, axis=0).tolist() if known else None
        shown = [
            share_shown(patch, shape, None if extent is None else largest)
            for shape, extent in zip(shapes, extents, strict=True)
        ]
        # Of all ranks, and as every rank sees it: they must look in the same epoch.
        n_patches = self.num_iterations_per_epoch * self.configuration_manager.batch_size
        return float(n_patches * fmean(shown) / len(shown))

    def _called_in_training_cases(self) -> dict[str, CalledInCase]:
        training_cases, _ = self.do_split()
        dataset: Dataset = self.dataset_class(self.preprocessed_dataset_folder, training_cases)
        rank, n_ranks = (distributed.get_rank(), distributed.get_world_size()) if self.is_ddp else (0, 1)
        mine = with_progress(
            training_cases[rank::n_ranks], title="looking back", unit="case", show=self.local_rank == 0
        )
        called: dict[str, CalledInCase] = {}
        with predicting(self) as predictor:
            for case in mine:
                called[case] = self._called_in(case, dataset, predictor)
                # As nnU-Net's validation: a GPU that waits too long for another gives up.
                if self.is_ddp and len(called) % 20 == 0 and len(called) <= len(training_cases) // n_ranks:
                    distributed.barrier()
        if self.is_ddp:
            of_ranks: list[dict[str, CalledInCase]] = [{} for _ in range(n_ranks)]
            distributed.all_gather_object(of_ranks, called)
            called = {case: found for of_rank in of_ranks for case, found in of_rank.items()}
        return {case: called[case] for case in training_cases}

    def _called_in(self, case: str, dataset: Dataset, predictor: nnUNetPredictor) -> CalledInCase:
        data, stored, _, _ = dataset.load_case(case)
        logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(np.asarray(data[:])))
        of_classes = np.asarray(self.label_manager.apply_inference_nonlin(logits.cpu()))
        regions = self.label_manager.has_regions
        probability = of_classes.max(0) if regions else 1 - of_classes[0]
        label = np.asarray(stored[:])[0]
        called = called_components(probability, label > 0, (1.0,) * label.ndim)
        # Of what lies on ignored voxels nobody knows whether it is a lesion: neither annotated nor a candidate.
        lesion = (label > 0) & (label != self.label_manager.ignore_label)
        scores = called.score[called.touching(lesion)], called.score[~called.explained]
        return CalledInCase(*scores, called.unexplained, len(find_lesions(lesion, (1.0,) * label.ndim)))

    def _ask(self, called: Mapping[str, CalledInCase]) -> bool:
        """Whether nothing seems missing, and say so."""
        explained, unexplained = _scores(called)
        n = sum(case.n_labelled for case in called.values())
        found = f"asked whether anything is missing: {len(explained)} calls on {n} annotated lesions"
        # Before it knows lesions a network may call whole images, or nothing.
        if len(explained) < max(_FEWEST_ANNOTATED, _KNOWS_LESIONS * n):
            self.print_to_log_file(f"{found}, too few to tell, so background labels are doubted")
            return False
        for_each = candidates_per_annotated(explained, unexplained)
        nothing = for_each < NOTHING_MISSING
        self.print_to_log_file(
            f"{found}, and {for_each:.2f} for each of these that score like one and no label explains; "
            + ("nothing seems missing, so background labels count fully; with _nolookback they do not" if nothing
               else "so background labels are doubted")
        )  # fmt: skip
        return nothing

    def _say(self, doubt: Doubt) -> None:
        found = (
            f"looked back at {len(self.do_split()[0])} training cases: {doubt.n_annotated} annotated lesions and "
            f"{doubt.n_candidates} candidates that no label explains"
        )
        if doubt.missed_per_annotated is None:
            again = next((epoch for epoch in self._looks if epoch > self.current_epoch), None)
            if again is not None:
                self.print_to_log_file(
                    f"{found}; fewer than {_FEWEST_ANNOTATED} annotated ones say nothing; it looks again before epoch "
                    f"{again}"
                )
                return
            self.print_to_log_file(
                f"WARNING: {found}; fewer than {_FEWEST_ANNOTATED} annotated ones say nothing, so background labels "
                "count fully; train with _nolookback to doubt them by what the network sees at the moment"
            )
            return
        if doubt.expected < 0.5:
            self.print_to_log_file(
                f"{found}; hardly one scores as annotated ones do ({doubt.missed_per_annotated:.2f} missed for each), "
                "so background labels count fully; missed lesions that are smaller or fainter would not show"
            )
            return
        self.print_to_log_file(
            f"{found}, of which about {doubt.expected:.0f} are missed lesions ("
            f"{doubt.missed_per_annotated:.2f} missed for each annotated one); from now on the label background counts "
            "less there"
        )

    def _make_loaders_again(self) -> None:
        """What travels with a patch is different now."""
        for loader in (self.dataloader_train, self.dataloader_val):
            if hasattr(loader, "_finish"):  # of worker processes
                loader._finish()
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()
