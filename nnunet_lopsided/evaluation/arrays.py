"""Arrays from what other libraries hold images in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class TensorLike(Protocol):
    """A torch tensor, on whatever device."""

    @property
    def dtype(self) -> object: ...

    def detach(self) -> TensorLike: ...

    def cpu(self) -> TensorLike: ...

    def float(self) -> TensorLike: ...


@runtime_checkable
class SimpleItkLike(Protocol):
    """An image of SimpleITK."""

    def GetSpacing(self) -> tuple[float, ...]: ...


ImageLike: TypeAlias = NDArray[np.generic] | TensorLike | SimpleItkLike


def as_array(image: ImageLike) -> NDArray[np.generic]:
    """The voxels, shape (z, y, x) or (y, x).

    Args:
        image: a numpy array, a torch tensor, or an image of SimpleITK.

    Example:
        >>> import torch
        >>> as_array(torch.ones(2, 3, dtype=torch.bfloat16)).dtype
        dtype('float32')
    """
    # Known by what they can do, not by their classes: those would cost the import of both libraries.
    if isinstance(image, SimpleItkLike):
        import SimpleITK

        return np.asarray(SimpleITK.GetArrayFromImage(image))
    if isinstance(image, TensorLike):
        tensor = image.detach().cpu()
        # numpy knows no bfloat16.
        return np.asarray(tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor)
    return np.asarray(image)


def spacing_of(image: ImageLike, spacing_mm: Sequence[float] | None) -> tuple[float, ...]:
    """The voxel size along each array axis: the one given, or the image's own.

    Raises:
        ValueError: none is given, and the image has none.
    """
    if spacing_mm is not None:
        return tuple(spacing_mm)
    if isinstance(image, SimpleItkLike):
        return tuple(reversed(image.GetSpacing()))
    raise ValueError("spacing_mm must be given where the reference is no image of SimpleITK")
