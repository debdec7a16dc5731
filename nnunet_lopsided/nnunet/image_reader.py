"""What this package calls of nnU-Net's image readers, which come without types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class ImageReader(Protocol):
    """A reader of nnU-Net, an instance of a subclass of its ``BaseReaderWriter``.

    Attributes:
        supported_file_endings: of the files that it reads, with their dots.
    """

    supported_file_endings: Sequence[str]

    def read_images(self, image_fnames: Sequence[str]) -> tuple[NDArray[np.generic], object]:
        """The channels of an image, shape (c, z, y, x), and nnU-Net's notes on its geometry."""

    def read_seg(self, seg_fname: str) -> tuple[NDArray[np.generic], object]:
        """A label map, shape (1, z, y, x), and nnU-Net's notes on its geometry."""
