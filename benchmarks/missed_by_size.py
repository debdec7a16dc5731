"""How many lesions of which size were missed, told by injected lesions, against the truth.

    python benchmarks/missed_by_size.py make faint_size faint_random faint_full --out DATA
    python benchmarks/missed_by_size.py table --out DATA

``make DATA_LABELS``: the small network of ``screen.py`` (the recipe, 1500 iterations) trains on 20 patients of a
phantom (``faint``, ``clear``) whose labels lack half of the lesions (``size``, ``random``, ``read``, ``full``: none),
and predicts 50 others as they are and magnified 1.5 and 2 times. Then annotated lesions of these, shrunk to 2.8 mm (a
voxel) and more, are injected where no prediction sees anything, and predicted as well. ``table`` compares estimates of
the miss rate.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from screen import predict, train
from screen_arms import ARMS

from nnunet_lopsided.audit.auditing import best_fraction
from nnunet_lopsided.audit.components import MeasuredCase, measure_case
from nnunet_lopsided.audit.injecting import SEEN, case_generator, find_donors, inject
from nnunet_lopsided.audit.miss_rate import Scored, mixture_share
from nnunet_lopsided.audit.missed_by_size import LEAST, InjectedLesions, MissedBySize, estimate_by_size, tail
from nnunet_lopsided.dataset_conversion.phantom import PhantomSettings, case_seed, make_phantom
from nnunet_lopsided.evaluation.confidence import highest_by_component
from nnunet_lopsided.evaluation.rules import EvaluationRules
from nnunet_lopsided.lesions import equivalent_diameter_mm, find_lesions
from nnunet_lopsided.variants.choosing import LesionRow, choose_lesions

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Mask = NDArray[np.bool_]
SPACING, N_TRAIN, N_CASES, MAGNIFY = (3.0, 2.0, 2.0), 20, 70, (1.0, 1.5, 2.0)
EDGES = (0.0, *EvaluationRules().diameter_edges_mm, math.inf)
RULES = EvaluationRules(threshold=0.03)
MODES = {"random": "stochastic", "size": "size", "read": "reader"}
PHANTOMS = {
    "faint": (100, PhantomSettings(n_lesions_mean=12.0)),
    "clear": (102, PhantomSettings(n_lesions_mean=12.0, diameter_median_mm=9.0, contrast=1.5)),
    # Other patients of both, on which nothing was chosen.
    "faint2": (104, PhantomSettings(n_lesions_mean=12.0)),
    "clear2": (106, PhantomSettings(n_lesions_mean=12.0, diameter_median_mm=9.0, contrast=1.5)),
}
PER_CASE = 8


# ---- data


def drawn(data: str) -> list[tuple[Images, Mask]]:
    """Images (4, z, y, x) of mean 0 and deviation 1, and whole labels."""
    seed, settings = PHANTOMS[data]
    found = [make_phantom((16, 64, 64), SPACING, case_seed(seed, "Tr", i), settings) for i in range(N_CASES)]
    axes = (1, 2, 3)
    images = [d.images.astype(np.float32) for d in found]
    scaled = [(x - x.mean(axes, keepdims=True)) / x.std(axes, keepdims=True) for x in images]
    return [(x, d.label > 0) for x, d in zip(scaled, found, strict=True)]


def censored(whole: Sequence[Mask], labels: str) -> list[Mask]:
    """The labels without half of their lesions."""
    if labels == "full":
        return list(whole)
    lesions = [find_lesions(label, SPACING) for label in whole]
    rows = [
        LesionRow(
            case=f"c{c:03d}",
            id=i + 1,
            n_voxels=int(of_case.n_voxels[i]),
            volume_mm3=float(of_case.volume_mm3[i]),
            diameter_mm=float(of_case.diameter_mm[i]),
        )
        for c, of_case in enumerate(lesions)
        for i in range(len(of_case))
    ]
    gone = choose_lesions(rows, MODES[labels], 0.5, 0)
    left = []
    for c, (label, of_case) in enumerate(zip(whole, lesions, strict=True)):
        kept = label.copy()
        kept.reshape(-1)[of_case.select([i for name, i in gone if name == f"c{c:03d}"])] = False
        left.append(kept)
    return left


def predictions(net: torch.nn.Module, image: Images) -> list[Images]:
    """Probabilities (z, y, x) by the image as it is and magnified in the plane."""
    found = [np.asarray(predict(net, image), np.float32)]
    slices = torch.from_numpy(np.ascontiguousarray(image)).movedim(1, 0)
    for factor in MAGNIFY[1:]:
        size = [math.ceil(n * factor / 8) * 8 for n in image.shape[2:]]
        larger = torch.nn.functional.interpolate(slices, size=size, mode="bicubic", align_corners=False)
        with torch.no_grad():
            p = torch.softmax(net(larger), 1)[:, 1:2]
        back = torch.nn.functional.interpolate(p, size=image.shape[2:], mode="bilinear", align_corners=False)
        found.append(back[:, 0].numpy())
    return found


# ---- components


def rows(measured: MeasuredCase, by_view: Sequence[Images], case: int, fraction: float) -> list[list[float]]:
    """Columns: case, lesion's diameter, kind, diameter, mean, highest, level, any, agreement, by view, contrasts."""
    views = [highest_by_component(measured.components, p.reshape(-1)[measured.components.voxels]) for p in by_view]
    voxel = float(np.prod(SPACING))
    found = []
    for i, of in enumerate(measured.lesion_of_component.tolist()):
        volume = np.array([len(measured.cut_back(i, fraction)) * voxel])
        numbers = (measured.mean_probability, measured.max_probability, measured.level, measured.any_probability)
        found.append(
            [
                case,
                float(measured.lesion_diameter_mm[of]) if of >= 0 else math.nan,
                float(measured.kind[i]),
                float(equivalent_diameter_mm(volume, 3)[0]),
                *(float(column[i]) for column in numbers),
                float(measured.agreement[i]),
                *(float(view[i]) for view in views),
                *measured.contrasts[i].tolist(),
            ]
        )
    return found


def make(name: str, out: Path, arm: str) -> None:
    """Train, predict, inject, predict again, and keep the components."""
    data, labels = name.split("_")
    cases = drawn(data)
    left = censored([whole for _, whole in cases], labels)
    images = torch.from_numpy(np.stack([image for image, _ in cases[:N_TRAIN]]))
    targets = torch.from_numpy(np.stack(left[:N_TRAIN]).astype(np.int16))
    net = train(ARMS[arm], images, targets, 0, iterations=1500)
    unseen, annotated = [image for image, _ in cases[N_TRAIN:]], left[N_TRAIN:]
    donors = [donor for i, a in zip(unseen, annotated, strict=True) for donor in find_donors(list(i), a, SPACING)]
    real: list[list[float]] = []
    injected: list[list[float]] = []
    lesions: dict[str, list[tuple[float, float]]] = {"truth": [], "annotated": [], "injected": []}
    by_view = [predictions(net, image) for image in unseen]

    def measured(label: Mask, views: Sequence[Images], image: Images) -> MeasuredCase:
        return measure_case(label, predictions=views, images=list(image), spacing_mm=SPACING, rules=RULES)

    found = [measured(*arguments) for arguments in zip(annotated, by_view, unseen, strict=True)]
    fraction, _ = best_fraction([m.dice[m.level >= RULES.threshold] for m in found])
    for c, (m, views, image) in enumerate(zip(found, by_view, unseen, strict=True)):
        real += rows(m, views, c, fraction)
        whole = find_lesions(cases[N_TRAIN + c][1], SPACING)
        labelled = np.bincount(
            whole.voxel_ids, weights=annotated[c].reshape(-1)[whole.voxels], minlength=len(whole) + 1
        )
        lesions["truth"] += zip(whole.diameter_mm.tolist(), (labelled[1:] > 0).astype(float).tolist(), strict=True)
        lesions["annotated"] += zip(
            m.lesion_diameter_mm.tolist(), m.lesion_detected.astype(float).tolist(), strict=True
        )
        blocked = (np.max(views, axis=0) >= SEEN) | annotated[c]
        channels, mask = inject(case_generator(1, f"c{c:03d}"), list(image), blocked, donors, SPACING, PER_CASE)
        if mask.any():
            changed = np.stack(channels)
            own_views = predictions(net, changed)
            own = measured(mask, own_views, changed)
            injected += [row for row in rows(own, own_views, c, fraction) if not math.isnan(row[1])]
            lesions["injected"] += zip(
                own.lesion_diameter_mm.tolist(), own.lesion_detected.astype(float).tolist(), strict=True
            )
    out.mkdir(parents=True, exist_ok=True)
    truth, known, given_back = (np.array(values) for values in lesions.values())
    np.savez(
        out / f"{name}.npz",
        real=np.array(real),
        pasted=np.array(injected),
        truth=truth,
        annotated=known,
        injected=given_back,
    )


# ---- estimates


def features(table: Floats) -> Floats:
    """Of a classifier: logits of probabilities, agreement, contrasts, the logarithm of the diameter."""
    inside = np.clip(table[:, [4, 5, 9, 10, 11]], 1e-4, 1 - 1e-4)
    return np.column_stack([np.log(inside / (1 - inside)), table[:, 8], table[:, 12:], np.log(table[:, 3])])


def cross_fitted(components: Floats, seen: Floats, known: Mask, fitted: Mask) -> Floats:
    """How much every component is like the known ones, as a classifier of other cases says it.

    Args:
        components: the first column is the case.
        seen: what the classifier sees of each.
        known: which are.
        fitted: which it is fitted to.
    """
    from sklearn.linear_model import LogisticRegression

    seen = (seen - seen.mean(axis=0)) / (seen.std(axis=0) + 1e-9)
    part, score = components[:, 0].astype(int) % 5, np.zeros(len(components))
    for k in np.unique(part):
        own, here = part == k, fitted & (part != k)
        model = LogisticRegression(C=0.3, class_weight="balanced").fit(seen[here], known[here])
        score[own] = model.decision_function(seen[own])
    return score


def by_classifier(injected: Floats, n_injected: int, unknown: Floats) -> float | None:
    """The tail of a classifier that tells injected lesions from unexplained components."""
    if min(len(injected), len(unknown)) < 2 * LEAST:
        return tail(injected[:, 5], n_injected, unknown[:, 5])
    both = np.concatenate([injected, unknown])
    given = np.arange(len(both)) < len(injected)
    score = cross_fitted(both, features(both), given, np.ones(len(both), bool))
    return tail(score[given], n_injected, score[~given])


def likeness(known: Floats, unknown: Floats, injected: Floats) -> tuple[Floats, Floats]:
    """How much unknown and injected components are like annotated ones, size left out."""
    everything = np.concatenate([known, unknown, injected])
    at, n = np.arange(len(everything)), len(known) + len(unknown)
    score = cross_fitted(everything, features(everything)[:, :-1], at < len(known), at < n)
    return score[len(known) : n], score[n:]


def estimates(data: dict[str, Floats]) -> dict[str, list[float | None]]:
    """By method, missed lesions in each range of diameters."""
    real, injected, truth = data["real"], data["pasted"], data["truth"]
    sure, annotated_mm = real[:, 6] >= RULES.threshold, truth[truth[:, 1] > 0, 0]
    known, unknown = real[sure & (real[:, 2] == 1)], real[sure & (real[:, 2] == 0)]
    given = injected[injected[:, 6] >= RULES.threshold]
    of_unknown, of_given = likeness(known, unknown, given)
    names = ("tail by diameter", "injected", "injected, likeness", "injected, the lesser", "injected, classifier")
    found: dict[str, list[float | None]] = {name: [] for name in names}
    for low, high in pairwise(EDGES):

        def inside(column: Floats, low: float = low, high: float = high) -> Mask:
            return (column >= low) & (column < high)

        own, u = known[inside(known[:, 1])], unknown[inside(unknown[:, 3])]
        found["tail by diameter"].append(tail(own[:, 5], int(inside(annotated_mm).sum()), u[:, 5]))
        own, n = given[inside(given[:, 1])], int(inside(data["injected"][:, 0]).sum())
        bounds = (
            tail(own[:, 5], n, u[:, 5]),
            tail(of_given[inside(given[:, 1])], n, of_unknown[inside(unknown[:, 3])]),
        )
        for name, bound in zip(("injected", "injected, likeness"), bounds, strict=True):
            found[name].append(bound)
        found["injected, the lesser"].append(min((b for b in bounds if b is not None), default=None))
        found["injected, classifier"].append(by_classifier(own, n, u))
    share = mixture_share(known[:, 5], unknown[:, 5])
    found["as lopsided-audit"] = [share * len(unknown) / len(known) * len(annotated_mm)]
    found["as lopsided-audit --inject"] = [r.n_missed for r in by_size(data).ranges]
    return found


def by_size(data: dict[str, Floats]) -> MissedBySize:
    """What the audit says of the same components."""
    real, injected, truth = data["real"], data["pasted"], data["truth"]
    sure = real[:, 6] >= RULES.threshold
    known, unknown = (real[sure & (real[:, 2] == kind)] for kind in (1, 0))
    given = injected[injected[:, 6] >= RULES.threshold]
    annotated_mm = truth[truth[:, 1] > 0, 0]
    scored = Scored(
        annotated_mm=annotated_mm,
        annotated_patient=np.zeros(len(annotated_mm), np.int64),
        found_mm=known[:, 1],
        found_score=known[:, 5],
        found_patient=known[:, 0].astype(np.int64),
        candidate_mm=unknown[:, 3],
        candidate_score=unknown[:, 5],
        candidate_patient=unknown[:, 0].astype(np.int64),
        n_patients=N_CASES - N_TRAIN,
    )
    lesions = InjectedLesions(
        per_case=PER_CASE,
        seed=1,
        diameter_mm=data["injected"][:, 0],
        patient=np.zeros(len(data["injected"]), np.int64),
        found_mm=given[:, 1],
        found_score=given[:, 5],
        found_patient=given[:, 0].astype(np.int64),
    )
    return estimate_by_size(scored, lesions, RULES.diameter_edges_mm, n_replicates=0)


def table(out: Path, arm: str) -> None:
    """As CSV: network, data, labels, method, miss rate and number of missed lesions, both estimated and true."""
    print("network,data,labels,method,estimated_miss_rate,true_miss_rate,estimated_missed,missed")
    for file in sorted(out.glob("*.npz")):
        with np.load(file) as archive:
            data = {key: archive[key] for key in archive.files}
        annotated, total = int((data["truth"][:, 1] > 0).sum()), len(data["truth"])
        for method, missed in estimates(data).items():
            n = sum(of_range or 0.0 for of_range in missed)
            what = f"{arm},{file.stem.replace('_', ',')},{method.replace(',', ' and')}"
            rates = f"{n / (n + annotated):.2f},{1 - annotated / total:.2f}"
            print(f"{what},{rates},{n:.0f},{total - annotated}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("make", "table"))
    parser.add_argument("names", nargs="*", help="DATA_LABELS")
    parser.add_argument("--arm", default="per_lesion_paste", choices=sorted(ARMS), help="of screen.py")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.part == "table":
        return table(arguments.out, arguments.arm)
    for name in arguments.names:
        make(name, arguments.out, arguments.arm)


if __name__ == "__main__":
    main()
