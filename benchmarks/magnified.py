"""What magnified prediction does to the detection of small and large lesions, by networks that are trained already.

    python benchmarks/magnified.py RESULTS/TRAINER__PLANS__CONFIGURATION --fold all --data nnUNet_raw/DATASET

Predicts the test cases (imagesTs, labelsTs) as they are and by the mean of the image as it is and magnified, as
``lopsided-predict`` does, both without mirroring, and appends a line of JSON for each. What is there
is left out.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from detection import evaluate

from nnunet_lopsided.images import read_image
from nnunet_lopsided.mean_probability import mean_of
from nnunet_lopsided.nnunet.network import Network
from nnunet_lopsided.nnunet.raw import RawDataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--fold", default="0")
    parser.add_argument("--data", type=Path, required=True, help="raw dataset with whole test labels")
    parser.add_argument("--magnify", type=float, nargs="+", default=[1.5, 2.0])
    parser.add_argument("--out", type=Path, default=Path("magnified.jsonl"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = [case for case in RawDataset(arguments.data).test_cases() if case.label is not None]
    for model in arguments.models:
        key = {"model": "/".join(model.absolute().parts[-2:]), "fold": arguments.fold}
        done = arguments.out.read_text().splitlines() if arguments.out.exists() else []
        if any(key.items() <= json.loads(line).items() for line in done):
            continue
        begin = time.process_time()
        network = Network(model, (arguments.fold,), "checkpoint_final.pth", "cpu")
        plain, magnified, labels = [], [], []
        for case in cases:
            assert case.label is not None, "chosen above"
            label, scan = read_image(case.label), network.read(case.images)
            by_factor = [network.probabilities(scan, x)[1:].sum(0) for x in (1.0, *arguments.magnify)]
            plain.append(np.squeeze(by_factor[0]))
            magnified.append(np.squeeze(mean_of(by_factor)))
            labels.append(np.squeeze(label.array) > 0)
            spacing = label.geometry.spacing_mm[-labels[-1].ndim :]
        seconds = round(time.process_time() - begin, 1)
        with arguments.out.open("a") as file:
            for factors, probabilities in (([], plain), (arguments.magnify, magnified)):
                row = {**key, "magnify": factors, **evaluate(probabilities, labels, spacing), "cpu_seconds": seconds}
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
