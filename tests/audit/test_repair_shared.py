"""The preprocessed folder of a repaired variant, ignore label included, is what nnU-Net itself would have made."""

import json
import shutil

import numpy as np

from nnunet_lopsided.commands import audit, share
from nnunet_lopsided.images import Image, read_image, write_image
from tests.conftest import set_paths
from tests.variants.test_sharing import assert_same, stock_preprocessing


def test_a_repaired_variant_with_ignore_label_shares_its_source(tiny, tmp_path, monkeypatch):
    root = tmp_path / "nnunet"
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.copytree(tiny.root / variable / tiny.name, root / variable / tiny.name)
    set_paths(root, monkeypatch)
    preprocessed, raw = root / "nnUNet_preprocessed" / tiny.name, root / "nnUNet_raw" / tiny.name
    validation = root / "nnUNet_results" / tiny.name / "T__nnUNetPlans__2d" / "fold_0" / "validation"
    validation.mkdir(parents=True)
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
    (preprocessed / "splits_final.json").write_text(json.dumps([{"train": cases[2:], "val": cases[:2]}]))
    for case in cases[:2]:
        label = read_image(raw / "labelsTr" / f"{case}.nii.gz")
        lesion = (np.asarray(label.array) > 0).astype(np.float32)
        middle = lesion[3:9, 10:22, 10:22]
        free = np.argwhere(middle == 0)
        for at, probability in ((free[0], 0.9), (free[-1], 0.4)):
            middle[tuple(at)] = probability
        np.savez_compressed(validation / f"{case}.npz", probabilities=np.stack([1 - lesion, lesion]))
        write_image(validation / f"{case}.nii.gz", Image((lesion > 0.5).astype(np.uint8), label.geometry))
    assert audit.main(["-d", tiny.name, "-tr", "T", "-c", "2d", "--bootstrap", "0"]) == 0
    table = validation.parents[1] / "audit" / "audit.csv"
    first, *rows = table.read_text().splitlines()
    assert rows
    decided = [row + ("accept" if i % 2 else "unsure") for i, row in enumerate(rows)]
    table.write_text("\n".join([first, *decided]) + "\n")
    assert audit.main(["apply", str(table), "-o", "721", "--name", "Fixed", "--unsure", "ignore"]) == 0
    assert share.main(["-d", tiny.name, "-o", "721"]) == 0
    shared = root / "nnUNet_preprocessed" / "Dataset721_Fixed"
    assert json.loads((shared / "dataset.json").read_text())["labels"]["ignore"] == 2
    assert_same(shared, stock_preprocessing(preprocessed, "Dataset721_Fixed", tmp_path / "stock", monkeypatch))
