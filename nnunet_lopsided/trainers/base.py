"""What all our trainers share: hyper-parameters as class attributes, the 2.5d configuration, the foreground prior."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray
from torch import nn
from torch._dynamo import OptimizedModule

import nnunet_lopsided
from nnunet_lopsided.architectures.deeplabv3_25d import NETWORK_CLASS_NAME, DeepLabV3For25D, centre_slice
from nnunet_lopsided.errors import InputError, refuse
from nnunet_lopsided.losses.base import TargetFormat
from nnunet_lopsided.nnunet.dataset_json import label_scheme
from nnunet_lopsided.nnunet.older_versions import build_network, called_by_nnunet, log_configuration, logged
from nnunet_lopsided.trainers import curves
from nnunet_lopsided.trainers.augmentation_25d import for_slice_stacks
from nnunet_lopsided.trainers.checkpoints import changed_values, named_if_damaged
from nnunet_lopsided.trainers.deep_supervision import PerResolution, to_device, weights_of_resolutions
from nnunet_lopsided.trainers.foreground_prior import bias_of_priors, foreground_priors, set_bias
from nnunet_lopsided.trainers.host_types import AugmentationOptions, Batch, Dataset, PerLevel
from nnunet_lopsided.trainers.loss_compilation import maybe_compiled
from nnunet_lopsided.trainers.names import NameFlag, NameOption, Option
from nnunet_lopsided.trainers.output_statistics import describe_output, means
from nnunet_lopsided.trainers.seeds import Purpose, seed_everything, seeded_workers
from nnunet_lopsided.trainers.slice_patches import (
    arch_kwargs_of_the_user,
    slice_loaders,
    training_patch,
    with_training_patch,
)
from nnunet_lopsided.trainers.threads import keep_to_omp_num_threads
from nnunet_lopsided.trainers.training_labels import check_consecutive, check_splits, count_labels, summed_voxels

if TYPE_CHECKING:
    from typing_extensions import Unpack

PRIOR = NameFlag("foreground_prior_bias", "prior", "the last layer starts at the foreground prior")
EPOCHS = NameOption(attribute="epochs", form="Nepochs", meaning="training epochs", low=1, integer=True)
ITERATIONS = NameOption(
    attribute="iterations_per_epoch", form="Niters", meaning="iterations per epoch", low=1, integer=True
)
SEED = NameOption(
    attribute="seed", form="seedN", meaning="seed of initialisation, sampling and augmentation", low=0, integer=True
)
_LARGEST_GRADIENT_NORM = 12  # nnU-Net's
# Each takes passes over the whole output; the mean of an epoch needs only some of its steps.
_STEPS_BETWEEN_STATISTICS = 10


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
        before_there_was: values that stand for hyper-parameters a checkpoint lacks because it is of a version without
            them: how that version trained. A subclass adds its own to those of its base.
        seed: fixes initialisation, sampling of patches and augmentation as far as the workers' order of batches does
            not decide; None: every training differs, as nnU-Net's.
    """

    name_options: ClassVar[tuple[Option, ...]] = (PRIOR, EPOCHS, ITERATIONS, SEED)
    hyperparameters: ClassVar[tuple[str, ...]] = ("epochs", "iterations_per_epoch", "foreground_prior_bias", "seed")
    epochs: int | None = None
    iterations_per_epoch: int | None = None
    foreground_prior_bias: bool = False
    seed: int | None = None
    before_there_was: ClassVar[dict[str, object]] = {"seed": None}
    configuration_manager: ConfigurationManager

    def __init__(
        self,
        plans: dict[str, object],
        configuration: str,
        fold: int,
        dataset_json: dict[str, object],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's own signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        planned = self.configuration_manager.configuration.get("lopsided", {})
        self.epochs = self.num_epochs = self.epochs or planned.get("epochs", 1000)
        iterations = self.iterations_per_epoch or planned.get("iterations_per_epoch", 250)
        self.iterations_per_epoch = self.num_iterations_per_epoch = iterations
        # nnU-Net's share: 50 to 250.
        self.num_val_iterations_per_epoch = max(1, iterations // 5)
        # nnU-Net keeps a checkpoint every 50 epochs, which a short training that is interrupted never reaches.
        self.save_every = min(50, max(1, self.num_epochs // 10))
        self._resumed = False
        # nnU-Net's predictor and its --c read single keys of init_args, so a further key is safe in a checkpoint.
        self.my_init_kwargs["lopsided"] = self._describe_hyperparameters()
        if self._is_25d:
            self.enable_deep_supervision = False  # the network has one output

    # ---- the loss

    def _build_criterion(self) -> nn.Module:
        """The loss at one resolution: (logits, nnU-Net target) -> scalar."""
        raise NotImplementedError

    def _build_loss(self) -> nn.Module:
        criterion = self._build_criterion()
        self.criterion = criterion  # without the wrapper below: a warm-up changes its beta and gamma
        scales = self._get_deep_supervision_scales()
        if scales is None:
            return maybe_compiled(criterion, self)
        every_output_counts = self.is_ddp and not self._do_i_compile()
        weights = weights_of_resolutions(len(scales), every_output_counts=every_output_counts)
        return maybe_compiled(PerResolution([self._criterion_at(scale) for scale in scales], weights), self)

    def _criterion_at(self, scale: Sequence[float]) -> nn.Module:
        """The criterion of an output whose voxels are 1 / ``scale`` as large, per axis."""
        return self.criterion

    @property
    def _target_format(self) -> TargetFormat:
        """How nnU-Net presents targets, as our losses take it."""
        return {
            "sigmoid": self.label_manager.has_regions,
            "ignore_label": self.label_manager.ignore_label,
            "ddp": self.is_ddp,
        }

    # ---- start of training

    @staticmethod
    @called_by_nnunet(nnUNetTrainer.build_network_architecture)
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """nnU-Net's, in training and prediction; arguments that a 2.5d network refuses are bad input of ours."""
        keep_to_omp_num_threads()
        managers = (plans_manager, configuration_manager)
        arguments = (*managers, num_input_channels, num_output_channels, enable_deep_supervision)
        of_nnunet = nnUNetTrainer.build_network_architecture
        if configuration_manager.network_arch_class_name != NETWORK_CLASS_NAME:
            return build_network(of_nnunet, *arguments)
        with arch_kwargs_of_the_user():
            of_slices = cast(DeepLabV3For25D, build_network(of_nnunet, *arguments))
        of_slices.skip_padding = True
        of_slices.padding_beyond = training_patch(configuration_manager)
        return of_slices

    def initialize(self) -> None:
        if self.seed is not None:
            seed_everything(self.seed, Purpose.INITIALISATION)  # the same on every GPU
        super().initialize()
        described = self._describe_hyperparameters()
        self.print_to_log_file("nnunet-lopsided:", ", ".join(f"{k}={v}" for k, v in described.items()))
        log_configuration(self.logger, {"lopsided": described})

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        voxels = self._checked_label_voxels()
        self._adapt_to(voxels)
        if self._is_25d and not self._resumed:
            with arch_kwargs_of_the_user():
                self._network_25d.load_pretrained_encoder()
        super().on_train_start()
        if self.foreground_prior_bias and not self._resumed:
            self._start_at_foreground_prior(voxels)
        if self._is_25d:
            self._network_25d.centre_slice_only = True

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's, of a splits_final.json that leaks nothing: nnU-Net itself would only write a line to its log."""
        check_splits(self)
        train, val = super().do_split()
        return train, val

    def _checked_label_voxels(self) -> Counter[int]:
        """Voxels per label value to train on. A value that dataset.json does not declare, in a validation case as well,
        ends the training."""
        source = Path(self.preprocessed_dataset_folder_base) / "dataset.json"
        training_cases, validation_cases = self.do_split()
        cases = sorted({*training_cases, *validation_cases})
        dataset: Dataset = self.dataset_class(self.preprocessed_dataset_folder, cases)
        try:
            scheme = label_scheme(self.dataset_json, source)
            check_consecutive(scheme, source)
            counts = count_labels(dataset, scheme, progress=self.local_rank == 0)
        except InputError as error:
            refuse(error)
        return summed_voxels((counts[case] for case in training_cases), self.label_manager.ignore_label)

    def _adapt_to(self, voxels: Counter[int]) -> None:
        """Called with the voxels per label value of the training cases, before data are loaded."""

    def load_checkpoint(self, filename_or_checkpoint: dict[str, object] | str) -> None:
        with named_if_damaged(filename_or_checkpoint):
            super().load_checkpoint(filename_or_checkpoint)
        self._resumed = True
        stored = self.my_init_kwargs.get("lopsided")
        if stored is not None:  # prediction and nnU-Net's own trainers' checkpoints have none
            self._warn_of_other_defaults(stored)

    def _warn_of_other_defaults(self, stored: dict[str, object]) -> None:
        """Warn where the version that began this training had other defaults for the same name."""
        now = self._describe_hyperparameters()
        changed = changed_values(stored, now, self.hyperparameters, self.before_there_was)
        self.my_init_kwargs["lopsided"] = {**stored, **now}  # for later checkpoints
        if changed:
            self.print_to_log_file(
                f"WARNING: this training began with nnunet-lopsided {stored.get('version')}, whose "
                f"{type(self).__name__} meant something else ({'; '.join(changed)}); it goes on with the new values"
            )

    def _start_at_foreground_prior(self, voxels: Counter[int]) -> None:
        """Set the bias of the last layers by the voxels per label value of the training cases."""
        if self.label_manager.has_regions:
            classes = [r if isinstance(r, (tuple, list)) else (r,) for r in self.label_manager.foreground_regions]
        else:
            classes = [(label,) for label in self.label_manager.foreground_labels]
        priors = foreground_priors(voxels, classes)
        bias = bias_of_priors(priors, regions=self.label_manager.has_regions)
        set_bias(self._bare_network, bias)
        self.my_init_kwargs["lopsided"]["foreground_prior"] = priors
        self.print_to_log_file(
            f"last-layer bias set to {np.round(bias, 3).tolist()}: foreground prior "
            f"{', '.join(f'{p:.3g}' for p in priors)} of {len(self.do_split()[0])} training labels"
        )

    def _describe_hyperparameters(self) -> dict[str, object]:
        values = {name: getattr(self, name) for name in self.hyperparameters}
        return {"version": nnunet_lopsided.__version__, "trainer": type(self).__name__, **values}

    # ---- the 2.5d configuration

    @property
    def _is_25d(self) -> bool:
        return bool(self.configuration_manager.network_arch_class_name == NETWORK_CLASS_NAME)

    @property
    def _bare_network(self) -> nn.Module:
        """The network without the wrappers of DDP and torch.compile."""
        network: nn.Module = self.network.module if self.is_ddp else self.network
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    @property
    def _network_25d(self) -> DeepLabV3For25D:
        """The network of the 2.5d configuration, likewise."""
        return cast(DeepLabV3For25D, self._bare_network)

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        return None if self._is_25d else super()._get_deep_supervision_scales()

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        if not self._is_25d:
            super().set_deep_supervision_enabled(enabled)

    def get_dataloaders(self) -> tuple[object, object]:
        loaders: tuple[object, object]
        with seeded_workers(self.seed, self.current_epoch, self.local_rank):
            if not self._is_25d:
                loaders = super().get_dataloaders()
                return loaders
            # For the loaders alone: the plans' own patch is the predictor's.
            planned = self.configuration_manager
            self.configuration_manager = with_training_patch(planned, self._network_25d.n_slices)
            try:
                with slice_loaders():
                    loaders = super().get_dataloaders()
                return loaders
            finally:
                self.configuration_manager = planned

    def get_training_transforms(
        self,
        patch_size: object,
        rotation: object,
        deep_supervision_scales: list[list[float]] | None,
        *args: object,
        **options: Unpack[AugmentationOptions],
    ) -> ComposeTransforms:
        """nnU-Net's augmentation; in 2.5d in the plane alone."""
        augmentation = nnUNetTrainer.get_training_transforms(
            patch_size, rotation, deep_supervision_scales, *args, **options
        )
        masked_images = any(options.get("use_mask_for_norm") or ())
        return for_slice_stacks(augmentation, masked_images) if self._is_25d else augmentation

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[object, bool, Sequence[int], object]:
        rotation, in_plane_only, initial_patch_size, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if self._is_25d:
            # Across the slices nothing is turned or mirrored: they are channels to the network, the middle one its own.
            in_plane_only, mirror_axes = True, (1, 2)
            initial_patch_size[0] = self.configuration_manager.patch_size[0]
            self.inference_allowed_mirroring_axes = mirror_axes
        return rotation, in_plane_only, initial_patch_size, mirror_axes

    # ---- one training step

    def train_step(self, batch: Batch) -> dict[str, NDArray[np.floating]]:
        """nnU-Net's training step, which also hands the criterion what else it needs and keeps what we report."""
        data = batch["data"].to(self.device, non_blocking=True)
        target, inputs = self._split_target(to_device(self._supervised(batch)["target"], self.device))
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

    def validation_step(self, batch: Batch) -> dict[str, object]:
        outcome: dict[str, object] = super().validation_step(self._supervised(batch))
        return outcome

    def _split_target(self, target: PerLevel) -> tuple[PerLevel, dict[str, PerLevel]]:
        """A training target as the criterion's target and what else it gets by name from the loader."""
        return target, {}

    def _loss_inputs(self, data: torch.Tensor) -> dict[str, PerLevel]:
        """What else the criterion gets by name in training; a list, finest first, with deep supervision."""
        return {}

    def _after_step(self) -> None:
        """Called after every step of the optimizer."""

    def _supervised(self, batch: Batch) -> Batch:
        """The batch with the part of the target that the network predicts: in 2.5d the centre slice."""
        return {**batch, "target": centre_slice(batch["target"])} if self._is_25d else batch

    # ---- what is reported per epoch

    def on_train_epoch_start(self) -> None:
        if self.seed is not None:  # from the epoch alone, so that --c goes on as if it had not stopped
            seed_everything(self.seed, Purpose.EPOCH, self.current_epoch, self.local_rank)
        super().on_train_epoch_start()
        self._statistics: list[dict[str, torch.Tensor]] = []
        self._n_steps = 0

    def on_epoch_end(self) -> None:
        epoch = self.current_epoch
        super().on_epoch_end()
        if self.local_rank != 0:
            return
        values: dict[str, float | None] = {"train_loss": float(logged(self.logger, "train_losses"))}
        values |= means(self._statistics)
        values |= self._describe_epoch(epoch)
        try:
            rows = curves.append_row(Path(self.output_folder), epoch, values, self.print_to_log_file)
            curves.draw(Path(self.output_folder), rows)
        except OSError as error:  # a full disk will end the training where a checkpoint is written, not here
            self.print_to_log_file(f"WARNING: the curves of this epoch could not be written: {error}")

    def _describe_epoch(self, epoch: int) -> dict[str, float | None]:
        """Further columns of the curves."""
        return {}

    def _describe_output(self, output: PerLevel, target: PerLevel) -> dict[str, torch.Tensor]:
        """:func:`describe_output` at the finest resolution."""
        logits = output if isinstance(output, torch.Tensor) else output[0]
        labels = target if isinstance(target, torch.Tensor) else target[0]
        return describe_output(
            logits, labels, regions=self.label_manager.has_regions, ignore_label=self.label_manager.ignore_label
        )

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        if self._is_25d:
            self._network_25d.centre_slice_only = False  # the sliding window predicts every slice
        super().perform_actual_validation(save_probabilities)
