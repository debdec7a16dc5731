"""Lesion-wise evaluation once more, slow and obvious: dense masks, plain loops, nothing of the package.

It follows the written rules (docs/reference/evaluation.md), not the package's code.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

EVERYWHERE = np.ones((3, 3, 3))
FACES_AND_EDGES = ndimage.generate_binary_structure(3, 2)


@dataclass
class Case:
    """What one case contributes."""

    n_lesions: int = 0
    lesion_free: bool = False
    true: list[float] = field(default_factory=list)  # confidences
    false: list[float] = field(default_factory=list)
    duplicates: list[float] = field(default_factory=list)
    n_ignored: int = 0
    detected: list[float] = field(default_factory=list)  # confidence of the best candidate of every detected lesion
    dice: list[float] = field(default_factory=list)  # of every detected lesion
    false_volume: float = 0.0
    n_merges: int = 0
    n_false_on_lesions: int = 0
    voxel_dice: float | None = None
    lesion_values: list[float] = field(default_factory=list)  # probabilities of all lesion voxels


def components(mask, structure=EVERYWHERE):
    """Boolean masks, in the order of each component's first voxel."""
    labels, n = ndimage.label(mask, structure)
    found = [labels == i for i in range(1, n + 1)]
    return sorted(found, key=lambda component: int(np.flatnonzero(component)[0]))


def lesions_of(reference, dilation, join):
    if not join:
        return components(reference)
    found = []
    for grown in components(ndimage.binary_dilation(reference, FACES_AND_EDGES, dilation)):
        found.append(reference & grown)
    return sorted(found, key=lambda lesion: int(np.flatnonzero(lesion)[0]))


def distances(centroid_mm, lesion, spacing, box):
    """To the nearest box and the nearest centre among the boxes at that distance; in units of 1e-6 mm."""
    best = (math.inf, math.inf)
    for voxel in np.argwhere(lesion):
        offset = [abs(c - v * s) for c, v, s in zip(centroid_mm, voxel, spacing, strict=True)]
        to_center = math.sqrt(sum(o**2 for o in offset))
        beyond = [max(0.0, o - s / 2) for o, s in zip(offset, spacing, strict=True)]
        to_box = math.sqrt(sum(b**2 for b in beyond)) if box else to_center
        best = min(best, (round(to_box * 1e6), round(to_center * 1e6)))
    return best


def confidence_of(values, name):
    """Of a candidate with these probabilities."""
    mean = round(float(values.mean()), 9)
    if name == "sum":
        return round(mean * len(values), 6)
    if name == "sqrt":
        return round(mean * math.sqrt(len(values)), 6)
    return {"mean": mean, "max": round(float(max(values)), 9)}[name]


def evaluate(reference, probability, spacing, rules):
    """One case by the given rules (an EvaluationRules), as a :class:`Case`."""
    result = Case(lesion_free=not reference.any())
    lesions = lesions_of(reference, rules.dilation_voxels, rules.join_dilated)
    voxel_mm3 = spacing[0] * spacing[1] * spacing[2]
    counted = [lesion.sum() * voxel_mm3 > rules.min_lesion_mm3 + 1e-9 for lesion in lesions]
    candidates = [c for c in components(probability >= rules.threshold) if c.sum() >= rules.min_candidate_voxels]
    confidence = [confidence_of(probability[c], rules.confidence) for c in candidates]

    matched = []  # lesions of every candidate
    for candidate in candidates:
        if rules.match == "centroid":
            centroid = [a.mean() * s for a, s in zip(np.nonzero(candidate), spacing, strict=True)]
            near = [
                (*distances(centroid, lesion, spacing, rules.distance == "box"), k) for k, lesion in enumerate(lesions)
            ]
            within = [n for n in near if n[0] <= round(rules.tolerance_mm * 1e6)]
            matched.append([min(within)[2]] if within else [])
        else:
            grown = [
                ndimage.binary_dilation(lesion, FACES_AND_EDGES, rules.dilation_voxels)
                if rules.dilation_voxels
                else lesion
                for lesion in lesions
            ]
            matched.append([k for k, lesion in enumerate(grown) if (lesion & candidate).any()])

    best_of_something = set()
    for k, lesion in enumerate(lesions):
        mine = [c for c, ks in enumerate(matched) if k in ks]
        if not mine or not counted[k]:
            continue
        best = max(mine, key=lambda c: (confidence[c], (candidates[c] & lesion).sum(), -c))
        best_of_something.add(best)
        result.detected.append(confidence[best])
        used = [best] if rules.dice == "best" else mine
        covered = np.logical_or.reduce([candidates[c] for c in used])
        result.dice.append(2 * (covered & lesion).sum() / (covered.sum() + lesion.sum()))
    for c, candidate in enumerate(candidates):
        touched = sum((candidate & lesion).any() for lesion in lesions)
        result.n_merges += touched > 1
        if c in best_of_something:
            result.true.append(confidence[c])
        elif any(counted[k] for k in matched[c]):
            result.duplicates.append(confidence[c])
        elif matched[c]:
            result.n_ignored += 1
        else:
            result.false.append(confidence[c])
            result.false_volume += candidate.sum() * voxel_mm3
            result.n_false_on_lesions += touched > 0
    result.n_lesions = sum(counted)
    segmented = probability >= 0.5
    if segmented.any() or reference.any():
        result.voxel_dice = 2 * (segmented & reference).sum() / (segmented.sum() + reference.sum())
    for k, lesion in enumerate(lesions):
        if counted[k]:
            result.lesion_values += probability[lesion].tolist()
    return result


def metrics(cases):
    """The pooled metrics by their names; None where undefined."""
    n_lesions, n = sum(c.n_lesions for c in cases), len(cases)
    detected = [p for c in cases for p in c.detected]
    true, false = [p for c in cases for p in c.true], [p for c in cases for p in c.false]
    dice = [d for c in cases for d in c.dice]
    found = dict.fromkeys(("map", "average_recall", "max_sensitivity", "precision_at_max_sensitivity", "tp_dice", "f1"))
    found["false_positives_per_case"] = len(false) / n
    found["false_positive_volume_mm3_per_case"] = sum(c.false_volume for c in cases) / n
    free = [c for c in cases if c.lesion_free]
    found["false_positives_per_lesion_free_case"] = sum(len(c.false) for c in free) / len(free) if free else None
    if true or false:
        found["precision_at_max_sensitivity"] = len(true) / (len(true) + len(false))
    if dice:
        found["tp_dice"] = sum(dice) / len(dice)
    found["lesion_wise_dice"] = sum(dice) / (n_lesions + len(false)) if n_lesions + len(false) else None
    per_case = [sum(c.dice) / (c.n_lesions + len(c.false)) for c in cases if c.n_lesions + len(c.false)]
    found["lesion_wise_dice_case_mean"] = sum(per_case) / len(per_case) if per_case else None
    voxel = [c.voxel_dice for c in cases if c.voxel_dice is not None]
    found["voxel_dice"] = sum(voxel) / len(voxel) if voxel else None
    found["lesion_entropy_bits"] = entropy([v for c in cases for v in c.lesion_values])
    if n_lesions or true or false:
        recall, precision = len(detected) / max(n_lesions, 1), found["precision_at_max_sensitivity"] or 0
        found["f1"] = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
    if not n_lesions:
        return found
    found["max_sensitivity"] = len(detected) / n_lesions
    area, froc, before = 0.0, [(0.0, 0.0)], 0
    for threshold in sorted({*true, *false}, reverse=True):
        hits, t, f = (sum(p >= threshold for p in values) for values in (detected, true, false))
        area += (hits - before) / n_lesions * (t / (t + f))
        before = hits
        froc.append((f / n, hits / n_lesions))
    found["map"] = area
    # The area under the steps, by small steps: false positives per case are multiples of 1 / n.
    steps = [max(s for f, s in froc if f <= i / n + 1e-9) for i in range(5 * n)]
    found["average_recall"] = sum(steps) / len(steps)
    found["sensitivity_at"] = [max(s for f, s in froc if f <= limit + 1e-9) for limit in (0.5, 1, 2)]
    return found


def entropy(values):
    counts: dict[int, int] = {}
    for value in values:
        index = min(int(value * 100), 99)
        counts[index] = counts.get(index, 0) + 1
    if not values:
        return None
    return sum(-k / len(values) * math.log2(k / len(values)) for k in counts.values())
