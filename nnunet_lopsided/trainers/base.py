"""What all our trainers share: hyper-parameters as class attributes, the 2.5d configuration, the foreground prior."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunet_trainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn
from torch._dynamo import OptimizedModule
from tqdm import tqdm

import nnunet_lopsided
from nnunet_lopsided.architectures.deeplabv3_25d import NETWORK_CLASS_NAME, centre_slice
from nnunet_lopsided.errors import InputError, refuse
from nnunet_lopsided.trainers import curves
from nnunet_lopsided.trainers.augmentation_25d import for_slice_stacks
from nnunet_lopsided.trainers.names import NameFlag, NameOption, Option

PRIOR = NameFlag("foreground_prior_bias", "prior", "the last layer starts at the foreground prior")
EPOCHS = NameOption("epochs", "Nepochs", "training epochs", 1, integer=True)
_LARGEST_GRADIENT_NORM = 12  # nnU-Net's
_STEPS_BETWEEN_STATISTICS = 10

ITERATIONS = NameOption("iterations_per_epoch", "Niters", "iterations per epoch", 1, integer=True)
SEED = NameOption("seed", "seedN", "seed of initialisation, sampling and augmentation", 0, integer=True)
# What is drawn from a seed, each a stream of its own.
_INITIALISATION, _EPOCH, _TRAINING_WORKERS, _VALIDATION_WORKERS = range(4)


class LesionTrainer(nnUNetTrainer):
    """Base of our trainers; a subclass names its hyper-parameters and builds a voxel-wise criterion.

    Hyper-parameters are class attributes, because nnU-Net stores only a trainer's name; ``name_options`` says which of
    them a name may set.

    Attributes:
        name_options: what the trainer's name may carry.
        hyperparameters: names of the class attributes that are logged and stored in every checkpoint.
        epochs: training epochs; None: what ``lopsided-plan`` chose for 2.5d, otherwise nnU-Net's 1000.
        iterations_per_epoch: training iterations per epoch, a fifth as many for the online validation; None: as planned
            for 2.5d, otherwise nnU-Net's 250.
        foreground_prior_bias: start the last layer at the foreground prior of the training labels.
        before_there_was: what trainings of earlier versions, whose checkpoints lack a hyper-parameter, were like.
        seed: fixes initialisation, sampling of patches and augmentation as far as the workers' order of batches does
            not decide; None: every training differs, as nnU-Net's.
    """

    name_options: ClassVar[tuple[Option, ...]] = (PRIOR, EPOCHS, ITERATIONS, SEED)
    hyperparameters: ClassVar[tuple[str, ...]] = ("epochs", "iterations_per_epoch", "foreground_prior_bias", "seed")
    epochs: int | None = None
    iterations_per_epoch: int | None = None
    foreground_prior_bias: bool = False
    seed: int | None = None
    before_there_was: ClassVar[dict[str, Any]] = {"seed": None, "gamma": 0.0, "soft_targets": False}
    configuration_manager: ConfigurationManager

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's own signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        planned = self.configuration_manager.configuration.get("lopsided", {})
        self.epochs = self.num_epochs = self.epochs or planned.get("epochs", 1000)
        iterations = self.iterations_per_epoch or planned.get("iterations_per_epoch", 250)
        self.iterations_per_epoch = self.num_iterations_per_epoch = iterations
        self.num_val_iterations_per_epoch = max(1, iterations // 5)
        # nnU-Net keeps a checkpoint every 50 epochs, which a short training that is interrupted never reaches.
        self.save_every = min(50, max(1, self.num_epochs // 10))
        self._resumed = False
        # nnU-Net's predictor and its --c read single keys of init_args; further ones travel along.
        self.my_init_kwargs["lopsided"] = self._describe_hyperparameters()
        if self._is_25d:
            self.enable_deep_supervision = False

    # ---- the loss

    def _build_criterion(self) -> nn.Module:
        """The loss at one resolution: (logits, nnU-Net target) -> scalar."""
        raise NotImplementedError

    def _build_loss(self) -> nn.Module:
        self.criterion: Any = self._build_criterion()
        scales = self._get_deep_supervision_scales()
        if scales is None:
            return self.criterion
        # nnU-Net's weights: halved at each coarser output, the coarsest unused.
        weights = np.array([0.5**i for i in range(len(scales))])
        if len(weights) > 1:
            # DDP without compile complains about parameters without a gradient.
            weights[-1] = 1e-6 if self.is_ddp and not self._do_i_compile() else 0
        return PerResolution([self._criterion_at(scale) for scale in scales], (weights / weights.sum()).tolist())

    def _criterion_at(self, scale: Sequence[float]) -> nn.Module:
        """The criterion of an output whose voxels are 1 / ``scale`` as large, per axis."""
        return self.criterion

    @property
    def _target_format(self) -> dict[str, Any]:
        """How nnU-Net presents targets, as our losses take it."""
        return {
            "sigmoid": self.label_manager.has_regions,
            "ignore_label": self.label_manager.ignore_label,
            "ddp": self.is_ddp,
        }

    # ---- start of training

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """nnU-Net's, in training and prediction; arguments that a 2.5d network refuses are bad input of ours."""
        _keep_to_omp_num_threads()
        arguments = (plans_manager, configuration_manager, num_input_channels, num_output_channels)
        if configuration_manager.network_arch_class_name != NETWORK_CLASS_NAME:
            return nnUNetTrainer.build_network_architecture(*arguments, enable_deep_supervision)
        with _arch_kwargs_of_the_user():
            network = nnUNetTrainer.build_network_architecture(*arguments, enable_deep_supervision)
        network.skip_padding = True
        network.padding_beyond = training_patch(configuration_manager)
        return network

    def initialize(self) -> None:
        if self.seed is not None:
            seed_everything(self.seed, _INITIALISATION)  # the same on every GPU
        super().initialize()
        described = self._describe_hyperparameters()
        self.print_to_log_file("nnunet-lopsided:", ", ".join(f"{k}={v}" for k, v in described.items()))
        self.logger.update_config({"lopsided": described})

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        if self._is_25d and not self._resumed:
            with _arch_kwargs_of_the_user():
                self._bare_network.load_pretrained_encoder()
        super().on_train_start()
        if self.foreground_prior_bias and not self._resumed:
            self._start_at_foreground_prior()
        if self._is_25d:
            self._bare_network.centre_slice_only = True

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        super().load_checkpoint(filename_or_checkpoint)
        self._resumed = True
        stored = self.my_init_kwargs.get("lopsided")
        if stored is not None:  # prediction and nnU-Net's own trainers' checkpoints have none
            self._warn_of_other_defaults(stored)

    def _warn_of_other_defaults(self, stored: dict[str, Any]) -> None:
        """A name stands for the defaults of the version that reads it: a training begun by another one says so."""
        now = self._describe_hyperparameters()
        # What the other version did not know, it did not do.
        before = {name: stored.get(name, self.before_there_was.get(name)) for name in self.hyperparameters}
        changed = [
            f"{name} was {before[name]}, is {now[name]}" for name in self.hyperparameters if before[name] != now[name]
        ]
        self.my_init_kwargs["lopsided"] = {**stored, **now}  # what later checkpoints say is what was trained with
        if changed:
            self.print_to_log_file(
                f"WARNING: this training began with nnunet-lopsided {stored.get('version')}, whose "
                f"{type(self).__name__} meant something else ({'; '.join(changed)}); it goes on with the new values"
            )

    def _start_at_foreground_prior(self) -> None:
        training_cases, _ = self.do_split()
        counts, total = self._count_labels(training_cases)
        if self.label_manager.has_regions:
            groups = [r if isinstance(r, (tuple, list)) else (r,) for r in self.label_manager.foreground_regions]
        else:
            groups = [(label,) for label in self.label_manager.foreground_labels]
        # Half a voxel where a class has none, so that the bias stays finite.
        voxels = [max(sum(counts.get(int(v), 0) for v in group), 0.5) for group in groups]
        priors = [n / max(total, 1.0) for n in voxels]
        if self.label_manager.has_regions:
            bias = [math.log(p / max(1 - p, 1e-6)) for p in priors]
        else:
            rest = math.log(max(1 - sum(priors), 1e-6))
            bias = [0.0] + [math.log(p) - rest for p in priors]
        for layer in last_layers(self._bare_network):
            with torch.no_grad():
                layer.bias.copy_(torch.tensor(bias))
        self.my_init_kwargs["lopsided"]["foreground_prior"] = priors
        self.print_to_log_file(
            f"last-layer bias set to {np.round(bias, 3).tolist()}: foreground prior "
            f"{', '.join(f'{p:.3g}' for p in priors)} of {len(training_cases)} training labels"
        )

    def _count_labels(self, cases: list[str]) -> tuple[dict[int, int], float]:
        """Voxels per label value over the preprocessed labels of ``cases``, and all annotated voxels."""
        dataset = self.dataset_class(self.preprocessed_dataset_folder, list(cases))
        counts: dict[int, int] = {}
        for case in tqdm(dataset.identifiers, desc="foreground prior", disable=self.local_rank != 0):
            # -1 marks voxels outside the nonzero mask: nnU-Net trains on them as background.
            labels = np.maximum(dataset.load_case(case)[1][0], 0)
            for value, count in enumerate(np.bincount(labels.ravel()).tolist()):
                counts[value] = counts.get(value, 0) + count
        counts.pop(self.label_manager.ignore_label, None)
        return counts, float(sum(counts.values()))

    def _describe_hyperparameters(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.hyperparameters}
        return {"version": nnunet_lopsided.__version__, "trainer": type(self).__name__, **values}

    # ---- the 2.5d configuration

    @property
    def _is_25d(self) -> bool:
        return self.configuration_manager.network_arch_class_name == NETWORK_CLASS_NAME

    @property
    def _bare_network(self) -> Any:
        """The network without the wrappers of DDP and torch.compile."""
        network = self.network.module if self.is_ddp else self.network
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        return None if self._is_25d else super()._get_deep_supervision_scales()

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        if not self._is_25d:
            super().set_deep_supervision_enabled(enabled)

    def get_dataloaders(self) -> Any:
        with self._seeded_workers():
            if not self._is_25d:
                return super().get_dataloaders()
            with self._training_patch(), patch.object(nnunet_trainer, "nnUNetDataLoader", _SliceLoader):
                return super().get_dataloaders()

    @contextmanager
    def _training_patch(self) -> Iterator[None]:
        """Patches of exactly the slices one 2.5d prediction sees; the plans' patch is the predictor's."""
        planned = self.configuration_manager
        training = deepcopy(planned.configuration)
        training["patch_size"] = [self._bare_network.n_slices, *training_patch(planned)]
        self.configuration_manager = ConfigurationManager(training)
        try:
            yield
        finally:
            self.configuration_manager = planned

    def get_training_transforms(
        self,
        patch_size: Any,
        rotation: Any,
        deep_supervision_scales: Any,
        *args: Any,
        use_mask_for_norm: Any = None,
        **kwargs: Any,
    ) -> ComposeTransforms:
        """nnU-Net's augmentation; in 2.5d in the plane alone."""
        augmentation = nnUNetTrainer.get_training_transforms(
            patch_size, rotation, deep_supervision_scales, *args, use_mask_for_norm=use_mask_for_norm, **kwargs
        )
        return for_slice_stacks(augmentation, any(use_mask_for_norm or ())) if self._is_25d else augmentation

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:
        rotation, in_plane_only, initial_patch_size, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if self._is_25d:
            in_plane_only, mirror_axes = True, (1, 2)
            initial_patch_size[0] = self.configuration_manager.patch_size[0]
            self.inference_allowed_mirroring_axes = mirror_axes
        return rotation, in_plane_only, initial_patch_size, mirror_axes

    # ---- the seed

    @contextmanager
    def _seeded_workers(self) -> Iterator[None]:
        """The processes that nnU-Net makes batches in, training before validation, each with a stream of its own.

        Streams begin anew with ``--c``, so they depend on the epoch: the patches of the first one do not come again.
        """
        if self.seed is None:
            yield
            return
        purposes = iter((_TRAINING_WORKERS, _VALIDATION_WORKERS))
        seed, where, make = self.seed, (self.current_epoch, self.local_rank), NonDetMultiThreadedAugmenter

        def with_seeds(*args: Any, **kwargs: Any) -> NonDetMultiThreadedAugmenter:
            purpose, n = next(purposes), kwargs["num_processes"]
            return make(*args, **{**kwargs, "seeds": [derived_seed(seed, purpose, *where, i) for i in range(n)]})

        with patch.object(nnunet_trainer, "NonDetMultiThreadedAugmenter", with_seeds):
            yield

    # ---- one training step

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's training step, which also hands the criterion what else it needs and keeps what we report."""
        data = batch["data"].to(self.device, non_blocking=True)
        target, inputs = self._split_target(self._to_device(self._supervised(batch)["target"]))
        self.optimizer.zero_grad(set_to_none=True)
        # As in nnU-Net: CPU autocast is slow, MPS has none.
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
            output = self.network(data)
            loss = self.loss(output, target, **inputs, **self._loss_inputs(data))
        if self.grad_scaler is None:
            loss.backward()
        else:
            self.grad_scaler.scale(loss).backward()
            self.grad_scaler.unscale_(self.optimizer)
        gradient_norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT_NORM)
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        self._after_step()
        if self._n_steps % _STEPS_BETWEEN_STATISTICS == 0:
            self._statistics.append({"gradient_norm": gradient_norm.detach(), **self._describe_output(output, target)})
        self._n_steps += 1
        return {"loss": loss.detach().cpu().numpy()}

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        return super().validation_step(self._supervised(batch))

    def _split_target(self, target: Any) -> tuple[Any, dict[str, Any]]:
        """A training target as the criterion's target and what else it gets by name from the loader."""
        return target, {}

    def _loss_inputs(self, data: torch.Tensor) -> dict[str, Any]:
        """What else the criterion gets by name in training; a list, finest first, with deep supervision."""
        return {}

    def _after_step(self) -> None:
        """Called after every step of the optimizer."""

    def _supervised(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with the part of the target that the network predicts: in 2.5d the centre slice."""
        return {**batch, "target": centre_slice(batch["target"])} if self._is_25d else batch

    def _to_device(self, tensors: Any) -> Any:
        if isinstance(tensors, list):
            return [self._to_device(tensor) for tensor in tensors]
        return tensors.to(self.device, non_blocking=True)

    # ---- what is reported per epoch

    def on_train_epoch_start(self) -> None:
        if self.seed is not None:  # from the epoch alone, so that --c goes on as if it had not stopped
            seed_everything(self.seed, _EPOCH, self.current_epoch, self.local_rank)
        super().on_train_epoch_start()
        self._statistics: list[dict[str, torch.Tensor]] = []
        self._n_steps = 0

    def on_epoch_end(self) -> None:
        epoch = self.current_epoch
        super().on_epoch_end()
        if self.local_rank != 0:
            return
        values: dict[str, float | None] = {"train_loss": float(self.logger.get_value("train_losses", step=-1))}
        for name in self._statistics[0] if self._statistics else ():
            numbers = torch.stack([row[name].float() for row in self._statistics])
            mean = float(numbers.nanmean())
            values[name] = None if math.isnan(mean) else mean
        rows = curves.append_row(Path(self.output_folder), epoch, {**values, **self._describe_epoch(epoch)})
        curves.draw(Path(self.output_folder), rows)

    def _describe_epoch(self, epoch: int) -> dict[str, float | None]:
        """Further columns of the curves."""
        return {}

    @torch.no_grad()
    def _describe_output(self, output: Any, target: Any) -> dict[str, torch.Tensor]:
        """Fraction of background voxels called lesion and mean probability of labelled lesion voxels; NaN if none.

        At the finest resolution, over all classes but background; ignored voxels count in neither.
        """
        logits, labels = (output[0], target[0]) if isinstance(output, (list, tuple)) else (output, target)
        logits = logits.float()
        ignore = self.label_manager.ignore_label
        if self.label_manager.has_regions:
            probability = torch.sigmoid(logits)
            called = logits > 0
            lesion = labels[:, : logits.shape[1]] > 0
            valid = torch.ones_like(lesion) if ignore is None else (labels[:, -1:] == 0).expand_as(lesion)
        else:
            probability = 1 - torch.softmax(logits, 1)[:, 0]
            called = logits.argmax(1) > 0
            lesion = labels[:, 0] > 0
            valid = torch.ones_like(lesion) if ignore is None else labels[:, 0] != ignore
        background, lesion = valid & ~lesion, valid & lesion
        return {
            "flipped_background": (called & background).sum() / background.sum(),
            "lesion_probability": (probability * lesion).sum() / lesion.sum(),
        }

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        if self._is_25d:
            self._bare_network.centre_slice_only = False
        super().perform_actual_validation(save_probabilities)


@contextmanager
def _arch_kwargs_of_the_user() -> Iterator[None]:
    """Turns what a 2.5d network refuses into bad input of ours."""
    try:
        yield
    except (ValueError, TypeError) as error:
        refuse(InputError(f"arch_kwargs of the 2.5d configuration in the plans: {error}"))


def _keep_to_omp_num_threads() -> None:
    """Take back what nnU-Net's commands do on a CPU: a thread per core, whatever ``OMP_NUM_THREADS`` says.

    Several trainings on one machine would wait for each other's threads in oneDNN, seven to ten times as long.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted):
        torch.set_num_threads(int(wanted))


def derived_seed(seed: int, *purpose: int) -> int:
    """A seed below 2**32 for one purpose, independent of those for others.

    Example:
        >>> derived_seed(1, 0) == derived_seed(1, 0), derived_seed(1, 0) == derived_seed(1, 1)
        (True, False)
    """
    return int(np.random.SeedSequence(seed, spawn_key=purpose).generate_state(1)[0])


def seed_everything(seed: int, *purpose: int) -> None:
    """Seed the generators of PyTorch (all devices), NumPy and Python, which nnU-Net and batchgenerators draw from."""
    number = derived_seed(seed, *purpose)
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002 - what nnU-Net's data loader draws from
    random.seed(number)


def training_patch(configuration: ConfigurationManager) -> tuple[int, int]:
    """Height and width of the patches a 2.5d configuration is trained with; the predictor's have margins around.

    Raises:
        InputError: the plans hold something else as ``training_patch``; nnU-Net's commands end.
    """
    height, width = configuration.patch_size[1:]
    planned = configuration.configuration.get("lopsided", {}).get("training_patch", (height, width))
    sides = planned if isinstance(planned, (list, tuple)) else ()
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        refuse(
            InputError(
                "lopsided.training_patch of the 2.5d configuration in the plans: expected two whole numbers of at "
                f"least 1, found {planned!r}"
            )
        )
    return min(sides[0], height), min(sides[1], width)


class _SliceLoader(nnUNetDataLoader):
    """nnU-Net's loader for patches whose centre slice is supervised: every slice of a case can be the centre.

    nnU-Net lets patches reach beyond the volume only as far as augmentation may turn them; here half a patch of slices
    may, so that the first and the last slice are seen with the zeros beside them that prediction gives them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        n_slices = int(args[2][0])
        super().__init__(*args, **{**kwargs, "pad_sides": (n_slices - 1, 0, 0)})


class PerResolution(nn.Module):
    """Criteria for the resolutions of a network with deep supervision, as a weighted sum.

    Args:
        criteria: one per output, finest first, maybe the same; (logits, target, further inputs by name) -> scalar.
        weights: one per output; outputs of weight 0 are not looked at.
    """

    def __init__(self, criteria: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        self.criteria = nn.ModuleList(criteria)
        self.weights = tuple(weights)

    def forward(self, outputs: Sequence[Any], targets: Sequence[Any], **inputs: Sequence[Any]) -> torch.Tensor:
        """Weighted sum; every argument holds one tensor per resolution."""
        return sum(
            weight * self.criteria[i](outputs[i], targets[i], **{name: value[i] for name, value in inputs.items()})
            for i, weight in enumerate(self.weights)
            if weight
        )


def last_layers(network: Any) -> list[Any]:
    """The layers whose outputs are logits: one, or one per resolution with deep supervision.

    Raises:
        ValueError: the network is of a kind whose last layer we do not know, or has no bias there.
    """
    if hasattr(network, "last_layers"):
        layers = list(network.last_layers())
    elif hasattr(network, "decoder") and hasattr(network.decoder, "seg_layers"):
        layers = list(network.decoder.seg_layers)
    else:
        raise ValueError(
            f"foreground_prior_bias needs a network with decoder.seg_layers or last_layers(), got {type(network)}"
        )
    if any(layer.bias is None for layer in layers):
        raise ValueError(f"foreground_prior_bias needs a bias in the last layer of {type(network)}")
    return layers
