"""Arrays from what other libraries hold images in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    def GetOrigin(self) -> tuple[float, ...]: ...

    def GetDirection(self) -> tuple[float, ...]: ...


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


def check_same_place(images: Mapping[str, ImageLike | None], spacing_mm: Sequence[float] | None) -> None:
    """Refuse images of SimpleITK whose voxels do not lie where those of the first of them do, as files are refused.

    Args:
        images: by the name of the argument; arrays and tensors lie nowhere.
        spacing_mm: voxel size along each array axis, if it was given too.

    Raises:
        ValueError: spacing, origin or direction differ by more than 0.001; the first difference is named.
    """
    placed = {name: image for name, image in images.items() if isinstance(image, SimpleItkLike)}
    for name, image in placed.items():
        if spacing_mm is not None and not _near(spacing_mm, image.GetSpacing()[::-1]):
            raise ValueError(f"spacing_mm must be that of {name}, {image.GetSpacing()[::-1]}, got {tuple(spacing_mm)}")
        other_name, other = next(iter(placed.items()))
        for what, mine, theirs in (
            ("spacing", image.GetSpacing(), other.GetSpacing()),
            ("origin", image.GetOrigin(), other.GetOrigin()),
            ("direction", image.GetDirection(), other.GetDirection()),
        ):
            if not _near(mine, theirs):
                raise ValueError(f"{name} must have the {what} of {other_name}, {theirs}, got {mine}")


def _near(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and np.allclose(one, other, rtol=0, atol=1e-3)
