"""Logits back on the grid of the image by PyTorch, where that is what nnU-Net's own resampling gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import torch
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

_NNUNETS_OWN = "resample_data_or_seg_to_shape"


def is_linear(configuration: Mapping[str, object]) -> bool:
    """Whether a configuration resamples probabilities as nnU-Net's planner has it: linearly, or between thick slices
    to the nearest one. PyTorch interpolates so, too; what users have set otherwise is left to nnU-Net.

    Args:
        configuration: of the plans, what it inherits resolved.

    Example:
        >>> kwargs = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
        >>> planned = {"resampling_fn_probabilities": "resample_data_or_seg_to_shape"}
        >>> is_linear({**planned, "resampling_fn_probabilities_kwargs": kwargs})
        True
        >>> is_linear({**planned, "resampling_fn_probabilities_kwargs": {**kwargs, "order": 3}})
        False
    """
    kwargs = configuration.get("resampling_fn_probabilities_kwargs")
    return (
        configuration.get("resampling_fn_probabilities") == _NNUNETS_OWN
        and isinstance(kwargs, Mapping)
        and set(kwargs) <= {"is_seg", "order", "order_z", "force_separate_z", "separate_z_anisotropy_threshold"}
        and not kwargs.get("is_seg", False)
        and kwargs.get("order", 3) == 1
        and kwargs.get("order_z", 0) == 0
    )


def resampled(
    logits: torch.Tensor,
    plans: PlansManager,
    configuration: ConfigurationManager,
    properties: Mapping[str, object],
    device: torch.device,
) -> torch.Tensor:
    """Logits on the grid that the image had before it was resampled; nnU-Net's export then finds nothing to resample.

    nnU-Net interpolates on the CPU, in float64, one channel after the other, and rounds to the half precision of the
    logits. This does so on ``device`` in float32 and keeps these: probabilities differ by less than 1e-3.

    Args:
        logits: (classes, z, y, x) of nnU-Net's predictor.
        plans: of the model.
        configuration: of the plans.
        properties: of nnU-Net's preprocessing of the image.
        device: where to interpolate; where its memory does not hold that, nothing is done.

    Returns:
        On the CPU; the logits as they are where :func:`is_linear` says no, or the grid is the same.
    """
    import torch
    from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis

    shape = tuple(cast("Sequence[int]", properties["shape_after_cropping_and_before_resampling"]))
    spacing = cast("Sequence[float]", properties["spacing"])
    if not is_linear(configuration.configuration) or shape == tuple(logits.shape[1:]):
        return logits
    # As nnU-Net's convert_predicted_logits_to_segmentation_with_correct_shape has them.
    target_spacing = [spacing[axis] for axis in plans.transpose_forward]
    current_spacing = list(configuration.spacing)
    if len(current_spacing) != len(shape):
        current_spacing = [target_spacing[0], *current_spacing]
    kwargs = configuration.configuration["resampling_fn_probabilities_kwargs"]
    thresholds = [kwargs[key] for key in ("separate_z_anisotropy_threshold",) if key in kwargs]
    separate, axis = determine_do_sep_z_and_axis(
        kwargs.get("force_separate_z", False), current_spacing, target_spacing, *thresholds
    )
    try:
        on_grid = interpolated(logits.to(device).float(), shape, axis if separate else None)
        result: torch.Tensor = on_grid.cpu()
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return logits
    return result


def interpolated(values: torch.Tensor, shape: Sequence[int], thick_axis: int | None = None) -> torch.Tensor:
    """Linear interpolation between the centres of voxels, constant beyond the outer ones, as scikit-image resizes.

    Args:
        values: (channels, z, y, x).
        shape: the new (z, y, x).
        thick_axis: along this axis of the three the nearest slice is taken instead; of two equally near the later one.

    Example:
        >>> import torch
        >>> interpolated(torch.tensor([[[[0.0, 1.0]]]]), (1, 1, 4)).flatten().tolist()
        [0.0, 0.25, 0.75, 1.0]
        >>> interpolated(torch.tensor([[[[0.0, 1.0]]]]), (1, 1, 4), thick_axis=2).flatten().tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    import torch
    from torch.nn import functional

    if thick_axis is None:
        return functional.interpolate(values[None], tuple(shape), mode="trilinear", align_corners=False)[0]
    in_plane = tuple(size for axis, size in enumerate(shape) if axis != thick_axis)
    slices = functional.interpolate(values.movedim(thick_axis + 1, 1), in_plane, mode="bilinear", align_corners=False)
    # In float64, as SciPy has it: PyTorch's own nearest slices are of float32, and another one where two are as near.
    old, new = values.shape[thick_axis + 1], shape[thick_axis]
    centres = (torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5
    nearest = torch.floor(centres.clamp(0, old - 1) + 0.5).long().to(values.device)
    return slices[:, nearest].movedim(1, thick_axis + 1)
