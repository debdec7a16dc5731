"""nnU-Net's fingerprint of a dataset, with as many voxels as the dataset can use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_lopsided.files.json import write_json
from nnunet_lopsided.nnunet.paths import nnunet_path
from nnunet_lopsided.nnunet.raw import RawDataset

FINGERPRINT_FILE = "dataset_fingerprint.json"


def write_fingerprint(dataset: RawDataset, n_voxels: int) -> Path:
    """Write ``dataset_fingerprint.json`` as ``nnUNetv2_plan_and_preprocess`` would, which then goes on from it.

    nnU-Net draws 1e8 voxels with replacement, whatever there are, for intensity statistics that only its normalisation
    of CT uses: for a small dataset of MRI minutes and gigabytes for nothing.

    Args:
        dataset: raw dataset with training labels.
        n_voxels: foreground voxels drawn from all cases together.

    Returns:
        The file, in the preprocessed folder.
    """
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    cases = dataset.training_cases()
    reader = determine_reader_writer_from_dataset_json(dataset.json, str(cases[0].images[0]), verbose=False)
    per_case = max(1, n_voxels // len(cases))
    measured = [
        DatasetFingerprintExtractor.analyze_case(list(map(str, case.images)), str(case.label), reader, per_case)
        for case in cases
    ]
    shapes, spacings, intensities, _, sizes = zip(*measured, strict=True)
    target = nnunet_path("nnUNet_preprocessed") / dataset.name / FINGERPRINT_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    channels = [np.concatenate(channel) for channel in zip(*intensities, strict=True)]
    write_json(
        target,
        {
            "spacings": [[float(size) for size in spacing] for spacing in spacings],
            "shapes_after_crop": [[int(n) for n in shape] for shape in shapes],
            "foreground_intensity_properties_per_channel": {
                str(i): _statistics(channel) for i, channel in enumerate(channels)
            },
            "median_relative_size_after_cropping": float(np.median(sizes)),
        },
    )
    return target


def _statistics(values: NDArray[np.floating]) -> dict[str, float]:
    low, median, high = np.percentile(values, (0.5, 50, 99.5))
    return {
        "mean": float(values.mean()),
        "median": float(median),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
        "percentile_99_5": float(high),
        "percentile_00_5": float(low),
    }
