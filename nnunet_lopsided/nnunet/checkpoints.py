"""The checkpoints that nnUNetv2_train leaves in the folder of a fold."""

from __future__ import annotations

import zipfile
from pathlib import Path

FINAL = "checkpoint_final.pth"
# In the order in which nnUNetv2_train --c looks for them.
_CHECKPOINTS = (FINAL, "checkpoint_latest.pth", "checkpoint_best.pth")


def whole_checkpoint(fold_folder: Path) -> str:
    """The checkpoint that nnUNetv2_train --c goes on from; one that a kill left half-written is set aside before.

    Args:
        fold_folder: of a fold; need not exist.

    Returns:
        Name of the file; empty: there is none. The final one says that the training is done.
    """
    for name in _CHECKPOINTS:
        file = fold_folder / name
        if file.is_file():
            if zipfile.is_zipfile(file):  # what PyTorch writes; its directory comes last
                return name
            # nnUNetv2_train --c would stop at it every time; an earlier one is asked for in the next turn of the loop.
            file.replace(file.with_name(f"{name}.damaged"))
    return ""
