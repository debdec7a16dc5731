"""Ignored candidates grow by a voxel, by hand: not into labels, nor into other candidates."""

from pathlib import Path

import numpy as np

from nnunet_lopsided.audit.decisions import Decisions
from nnunet_lopsided.audit.repair import write_repaired_variant
from nnunet_lopsided.audit.stored import StoredAudit, StoredCandidate, map_digest
from nnunet_lopsided.audit.stored_record import AuditRecord
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.files.json import file_digest, write_json
from nnunet_lopsided.images import Geometry, Image, read_image, write_image

GEOMETRY = Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))


def candidate(number: int) -> StoredCandidate:
    return StoredCandidate(
        case="a",
        number=number,
        rank=number,
        score=0.5,
        mean_probability=0.5,
        max_probability=0.5,
        label=1,
        patient="a",
        position_mm=(),
        diameter_mm=1.0,
        reason="",
    )


def test_a_ring_by_hand(nnunet_paths: Path) -> None:
    """1 is unsure, 2 accepted, 3 undecided, 4 unsure; their rings meet, and the second counts what is left."""
    numbers = np.array(
        [
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0, 1, 0, 2, 2, 0, 0, 0],
            [0, 0, 3, 0, 0, 0, 0, 4],
            [0, 0, 0, 0, 0, 0, 0, 0],
        ],
        np.uint8,
    )
    label = np.array(
        [
            [1, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 1],
        ],
        np.uint8,
    )
    raw, audit = nnunet_paths / "nnUNet_raw" / "Dataset501_A", nnunet_paths / "audit"
    for folder in (raw / "imagesTr", raw / "labelsTr", audit / "maps"):
        folder.mkdir(parents=True)
    for path, array in (
        (raw / "imagesTr" / "a_0000.nii.gz", label.astype(np.float32)),
        (raw / "labelsTr" / "a.nii.gz", label),
        (audit / "maps" / "a.nii.gz", numbers),
    ):
        write_image(path, Image(array, GEOMETRY))
    content = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "lesion": 1}, "numTraining": 1}
    write_json(raw / "dataset.json", {**content, "file_ending": ".nii.gz"})
    record = AuditRecord(
        id="x",
        dataset="Dataset501_A",
        trainers=("t",),
        n_candidates=4,
        ranked_by="likeness",
        withheld="",
        label=None,
        rules=EvaluationRules(),
        miss_rate={},
        label_digests={"a": file_digest(raw / "labelsTr" / "a.nii.gz")},
        map_digests={"a": map_digest(numbers)},
    )
    stored = StoredAudit(audit, record, tuple(map(candidate, (1, 2, 3, 4))))
    decisions = Decisions("x", {("a", 1): "unsure", ("a", 2): "accept", ("a", 4): "unsure"}, {})
    found = {}
    for grow, number in ((0, 510), (1, 511)):
        made = write_repaired_variant(stored, decisions, number, unsure="ignore", name=f"G{grow}", grow=grow)
        found[grow] = np.asarray(read_image(made.folder / "labelsTr" / "a.nii.gz").array)
    np.testing.assert_array_equal(
        found[0],
        [
            [1, 0, 0, 0, 0, 0, 0, 0],
            [0, 2, 0, 1, 1, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 2],
            [0, 0, 0, 0, 0, 0, 0, 1],
        ],
    )
    np.testing.assert_array_equal(
        found[1],
        [
            [1, 2, 2, 0, 0, 0, 0, 0],
            [2, 2, 2, 1, 1, 0, 2, 2],
            [2, 2, 0, 0, 0, 0, 2, 2],
            [0, 0, 0, 0, 0, 0, 2, 1],
        ],
    )
