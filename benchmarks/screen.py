"""Screen ideas for losses in a loop that trains in about a minute: our losses, a small U-Net, procedural brains.

    python benchmarks/screen.py --arms dice_ce mixed --labels full random --seeds 0 1 2 --out screen.jsonl
    python benchmarks/screen.py --table screen.jsonl

Five cases are trained on for 1000 iterations, which is where networks memorise omissions; sixty are predicted. It is
not nnU-Net (no deep supervision, little augmentation): what survives here is trained by nnU-Net's own commands.
Every training appends one line of JSON, and a line that is there is not trained again. An arm is compared with another
on the same seeds: a seed fixes the training cases, which lesions are missing, the initial weights, the order of patches
and augmentation.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from detection import evaluate
from numpy.typing import NDArray
from screen_arms import ARMS, Arm, unexplained
from screen_paste import paster, room_in
from torch import Tensor

from nnunet_lopsided.belief import belief, missed_per_annotated
from nnunet_lopsided.dataset_conversion.phantom import PhantomSettings, case_seed, make_phantom
from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.losses import LopsidedDiceLoss
from nnunet_lopsided.trainers.lesion_pasting import Paster, Room
from nnunet_lopsided.trainers.teacher import EmaTeacher
from nnunet_lopsided.variants.choosing import LesionRow, choose_lesions

SHAPE, SPACING, N_TRAIN, N_TEST = (16, 64, 64), (3.0, 2.0, 2.0), 5, 60
ITERATIONS, EPOCHS, BATCH = 1000, 10, 4
LABELS = {"full": None, "random": "stochastic", "size": "size", "read": "reader"}
IGNORE = 2


@dataclass(frozen=True)
class Case:
    image: NDArray[Any]  # (4, z, y, x), z-scored
    label: NDArray[Any]  # whole
    name: str


@cache
def cases(phantom: int, seed: int | None = None) -> list[Case]:
    """The test cases of a phantom (its number is the seed of what is drawn), or the training cases of a seed."""
    settings = PhantomSettings(n_lesions_mean=12.0)
    made = []
    split = "Ts" if seed is None else "Tr"
    for i in range(N_TEST) if seed is None else range(seed * N_TRAIN, (seed + 1) * N_TRAIN):
        drawn = make_phantom(SHAPE, SPACING, case_seed(phantom, split, i), settings)
        image = drawn.images.astype(np.float32)
        axes = (1, 2, 3)
        image = (image - image.mean(axes, keepdims=True)) / image.std(axes, keepdims=True)
        made.append(Case(image, drawn.label, f"{split}{i:03d}"))
    return made


def hidden_lesions(labels: str, seed: int, phantom: int) -> list[NDArray[Any]]:
    """Boolean masks of the lesions that the training labels lack."""
    found = [find_lesions(case.label, SPACING) for case in cases(phantom, seed)]
    rows = [
        LesionRow(
            case=case.name,
            id=i + 1,
            n_voxels=int(f.n_voxels[i]),
            volume_mm3=float(f.volume_mm3[i]),
            diameter_mm=float(f.diameter_mm[i]),
        )
        for case, f in zip(cases(phantom, seed), found, strict=True)
        for i in range(len(f))
    ]
    mode = LABELS[labels]
    gone = frozenset() if mode is None else choose_lesions(rows, mode, 0.5, seed)
    masks: list[NDArray[Any]] = []
    for case, f in zip(cases(phantom, seed), found, strict=True):
        mask = np.zeros(SHAPE, bool)
        mask.ravel()[f.select([i for name, i in gone if name == case.name])] = True
        masks.append(mask)
    return masks


# ---- one training


def network(seed: int, prior: float) -> torch.nn.Module:
    """nnU-Net's U-Net with four stages of 8 to 64 features; the last layer starts at the foreground prior."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    torch.manual_seed(seed)
    net = PlainConvUNet(
        4, 4, (8, 16, 32, 64), torch.nn.Conv2d, 3, (1, 2, 2, 2), 1, 2, 1, conv_bias=True,
        norm_op=torch.nn.InstanceNorm2d, norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU, nonlin_kwargs={"inplace": True}, deep_supervision=False,
    )  # fmt: skip
    net.apply(net.initialize)
    with torch.no_grad():
        net.decoder.seg_layers[-1].bias.copy_(torch.tensor([0.0, math.log(prior / (1 - prior))]))
    return net


class Training:
    """A network and what it is trained on, step by step.

    Args:
        arm: how.
        images: (n, 4, z, y, x).
        targets: (n, z, y, x) of 0, 1 and the ignored 2.
        seed: of the initial weights, the order of patches and augmentation.
        beliefs: soft targets like ``targets``, or None.
    """

    def __init__(self, arm: Arm, images: Tensor, targets: Tensor, seed: int, beliefs: Tensor | None = None) -> None:
        self.images, self.targets, self.beliefs, self.arm = images, targets, beliefs, arm
        valid = targets != IGNORE
        self.net = network(seed, float((targets == 1).sum() / valid.sum())).train()
        # What is pasted has its own stream: all else is the same without it.
        self.rng, self.rng_of_pastes = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
        self.optimizer = torch.optim.SGD(self.net.parameters(), 0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)
        self.loss = LopsidedDiceLoss(arm.alpha, 1.0, dice=arm.dice, batch_dice=True, ignore_label=IGNORE, soft=arm.soft)
        decay = 0.99 if arm.crossfit is not None else arm.ema
        self.average = None if decay is None else EmaTeacher(self.net, decay)
        self.paster: Paster | None = None
        if arm.paste:
            self.paster = paster(images.numpy(), targets.numpy(), SPACING, slicewise=True)
            self.rooms = [room_in(i.numpy(), t.numpy()) for i, t in zip(images, targets, strict=True)]

    def slice_of(self, case: int, z: int) -> Tensor:
        """Channels of a slice: image, target, belief where there is one."""
        image, target = self.images[case, :, z], self.targets[case, z]
        if self.paster is not None:
            image, target = image.clone(), target.clone()
            room = Room(taken=self.rooms[case].taken[z : z + 1].copy(), outside=self.rooms[case].outside[z : z + 1])
            for _ in range(self.rng_of_pastes.integers(3)):
                self.paster.paste(self.rng_of_pastes, image.numpy()[:, None], target.numpy()[None], room)
        beliefs = [] if self.beliefs is None else [self.beliefs[case, z][None]]
        return torch.cat([image, target[None].float(), *beliefs], 0)

    def patches(self) -> tuple[Tensor, Tensor, Tensor | None, list[int]]:
        """A batch of slices (B, 4, y, x), a third of them through a labelled lesion as in nnU-Net, and their cases.

        Flipped, turned, with noise.
        """
        rng, depth = self.rng, self.images.shape[2]
        chosen = []
        for k in range(BATCH):
            case = int(rng.integers(len(self.images)))
            slices: NDArray[Any] = np.arange(depth)
            if k >= round(BATCH * 0.67):
                lesion = np.flatnonzero((self.targets[case] == 1).flatten(1).any(1).numpy())
                slices = lesion if len(lesion) else slices
            chosen.append((case, int(rng.choice(slices))))
        stack = [self.slice_of(c, z) for c, z in chosen]
        for k, piece in enumerate(stack):
            if rng.random() < 0.5:
                piece = piece.flip(1)
            if rng.random() < 0.5:
                piece = piece.flip(2)
            if rng.random() < 0.5:
                piece = piece.transpose(1, 2)
            stack[k] = piece
        batch = torch.stack(stack)
        data = batch[:, :4] * torch.from_numpy(rng.uniform(0.8, 1.25, (BATCH, 4, 1, 1)).astype(np.float32))
        data = data + torch.from_numpy(rng.normal(0, 0.15, (BATCH, 4, 1, 1)).astype(np.float32))
        noise = torch.from_numpy(rng.standard_normal(data.shape).astype(np.float32))
        data = data + noise * torch.from_numpy(rng.uniform(0, 0.15, (BATCH, 1, 1, 1)).astype(np.float32))
        beliefs = None if self.beliefs is None else batch[:, 5:6]
        return data, batch[:, 4:5].round(), beliefs, [c for c, _ in chosen]

    def step(self, done: float, strangers: Callable[[Tensor, list[int]], Tensor] | None = None) -> None:
        """One step when a share ``done`` of the training is over; ``strangers`` gives logits of a batch of cases."""
        arm = self.arm
        for group in self.optimizer.param_groups:
            group["lr"] = 0.01 * (1 - int(done * EPOCHS) / EPOCHS) ** 0.9
        data, target, belief, of_cases = self.patches()
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.net(data)
        self.loss.beta, self.loss.gamma = arm.beta(done), arm.gamma * min(1.0, done / 0.1)
        judge = None
        if arm.judge is not None and (self.loss.beta < 1 or self.loss.gamma > 0):
            judge = arm.judge(logits, None if self.average is None else cast(Tensor, self.average(data)))
        if strangers is not None:
            told = strangers(data, of_cases)
            if arm.crossfit_as == "judge":
                judge = told
            else:
                belief = unexplained(torch.softmax(told, 1)[:, 1:], target)
        # Both terms times the same number is a matter of the learning rate alone: what counts is their balance.
        share = float((target == 1).sum() / (target != IGNORE).sum()) if arm.per_lesion else 1.0
        self.loss.weight_dice = max(share, 1e-3)
        (self.loss(logits, target, teacher=judge, belief=belief) / self.loss.weight_dice).backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 12)
        self.optimizer.step()
        if self.average is not None:
            self.average.follow(self.net)


def train(
    arm: Arm, images: Tensor, targets: Tensor, seed: int, beliefs: Tensor | None = None, iterations: int = ITERATIONS
) -> torch.nn.Module:
    """Train; ``targets`` (n, z, y, x) of 0, 1 and the ignored 2, ``beliefs`` like it or None."""
    training = Training(arm, images, targets, seed, beliefs)
    halves: list[Training] = []
    if arm.crossfit is not None:
        halves = [Training(arm, images[k::2], targets[k::2], 1000 * seed + 501 + k) for k in (0, 1)]

    def strangers(data: Tensor, of_cases: list[int]) -> Tensor:
        """Logits of every slice by the average network that was not trained on its case."""
        averages = [half.average for half in halves if half.average is not None]
        return torch.cat([cast(Tensor, averages[1 - c % 2](data[k : k + 1])) for k, c in enumerate(of_cases)])

    for step in range(iterations):
        done = step / iterations
        told = arm.crossfit is not None and done >= arm.crossfit
        training.step(done, strangers if told else None)
        for half in halves:
            half.step(done)
    return training.net.eval()


@torch.no_grad()
def predict(net: torch.nn.Module, image: NDArray[Any]) -> NDArray[Any]:
    """Probability of lesion, (z, y, x)."""
    return torch.softmax(net(torch.from_numpy(image).movedim(1, 0)), 1)[:, 1].numpy()


@cache
def pasted_cases(phantom: int, n: int = 30) -> list[tuple[NDArray[Any], list[tuple[float, NDArray[Any]]]]]:
    """Test images with six lesions more, from cases that no seed below 9 trains on: diameter and voxels of each."""
    donors, rng = cases(phantom, 9), np.random.default_rng([phantom, 3])
    of_donors = paster(
        np.stack([c.image for c in donors]), np.stack([c.label for c in donors]), SPACING, slicewise=False
    )
    made = []
    for case in cases(phantom)[:n]:
        image, room = case.image.copy(), room_in(case.image, case.label)
        lesions = []
        for _ in range(6):
            label = np.zeros_like(case.label)
            diameter = of_donors.paste(rng, image, label, room)
            if diameter is not None:
                lesions.append((diameter, np.flatnonzero(label)))
        made.append((image, lesions))
    return made


def recall_of_pasted(net: torch.nn.Module, phantom: int) -> dict[str, Any]:
    """Share of pasted lesions with a voxel at 0.1 or more, of those below the median diameter of real ones, and others.

    All are found at the same threshold as ``sensitivity``, to which they are compared.
    """
    diameters = np.concatenate([find_lesions(c.label, SPACING).diameter_mm for c in cases(phantom)])
    found: dict[bool, list[bool]] = {True: [], False: []}
    for image, lesions in pasted_cases(phantom):
        p = predict(net, image).ravel()
        for diameter, voxels in lesions:
            found[diameter < float(np.median(diameters))].append(bool((p[voxels] >= 0.1).any()))
    return {f"pasted_{name}": float(np.mean(found[small])) for name, small in (("small", True), ("large", False))}


def out_of_fold(
    images: Tensor, targets: Tensor, *, finder: str, seed: int, key: str, kept: Path | None
) -> NDArray[Any]:
    """Probabilities (n, z, y, x) by networks that did not train on the case; kept in a folder, as they take long."""
    file = None if kept is None else kept / f"{finder}_{key}.npy"
    if file is not None and file.exists():
        return np.load(file)
    probability = np.zeros(targets.shape, np.float32)
    for i in range(len(images)):
        others = [k for k in range(len(images)) if k != i]
        net = train(ARMS[finder], images[others], targets[others], seed * 1000 + i + 1)
        probability[i] = predict(net, images[i].numpy())
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, probability)
    return probability


def believed(
    target: float | str, probability: NDArray[Any], targets: Tensor, whole: NDArray[Any]
) -> tuple[Tensor, dict[str, Any]]:
    """Soft targets (n, z, y, x) from networks that did not train on the case, and what is believed in all.

    Candidates at 0.1 that touch no label get, by ``target``: a number; "q", the probability of being a missed lesion by
    their sum of p; "p", the probability voxel by voxel; "truth", 1 where there is a lesion and 0 elsewhere: what a
    perfect belief in these candidates would bring.
    """
    scores: dict[bool, list[float]] = {True: [], False: []}
    places = []
    for i, p in enumerate(probability):
        candidates = find_lesions(p >= 0.1, SPACING)
        label = targets[i].numpy() == 1
        for k in range(1, len(candidates) + 1):
            voxels = candidates.select([k])
            explained = bool(label.ravel()[voxels].any())
            scores[explained].append(float(p.ravel()[voxels].sum()))
            if not explained:
                places.append((i, voxels))
    annotated, unexplained = np.array(scores[True]), np.array(scores[False])
    rho = missed_per_annotated(annotated, unexplained) or 0.0
    q = belief(annotated, unexplained, rho)
    beliefs = np.zeros(targets.shape, np.float32)
    lesion = []
    for (i, voxels), value in zip(places, q, strict=True):
        true = whole[i].ravel()[voxels] == 1
        lesion.append(bool(true.any()))
        t = {"q": value, "p": probability[i].ravel()[voxels], "truth": true.astype(np.float32)}
        beliefs[i].ravel()[voxels] = t[target] if isinstance(target, str) else target
    about: dict[str, Any] = {"rho": rho, "candidates": len(q), "lesions_among": sum(lesion), "believed": float(q.sum())}
    return torch.from_numpy(beliefs), about


def run(name: str, labels: str, *, seed: int, phantom: int, kept: Path | None = None) -> dict[str, Any]:
    arm, begin = ARMS[name], time.process_time()
    hidden = hidden_lesions(labels, seed, phantom)
    images = torch.from_numpy(np.stack([c.image for c in cases(phantom, seed)]))
    whole = np.stack([c.label for c in cases(phantom, seed)]).astype(np.int16)
    gone = np.stack(hidden)
    targets = torch.from_numpy(np.where(gone, IGNORE if arm.ignored else 0, whole))
    beliefs: Tensor | None = None
    about: dict[str, Any] = {}
    if arm.finder is not None:
        probability = out_of_fold(
            images, targets, finder=arm.finder, seed=seed, key=f"{labels}_{seed}_{phantom}", kept=kept
        )
        beliefs, about = believed(arm.target, probability, targets, whole)
    net = train(arm, images, targets, seed, beliefs)
    test = cases(phantom)
    numbers = evaluate([predict(net, c.image) for c in test], [c.label for c in test], SPACING)
    numbers |= recall_of_pasted(net, phantom)
    seen = np.stack([predict(net, c.image) for c in cases(phantom, seed)])
    numbers["p_hidden"] = float(seen[gone].mean()) if gone.any() else None
    numbers["p_labelled"] = float(seen[(whole == 1) & ~gone].mean())
    numbers["called_background"] = float((seen[whole == 0] > 0.5).mean())
    if beliefs is not None:
        found = beliefs.numpy() > 0
        about["believed_voxels_hidden"] = float(gone[found].mean()) if found.any() else None
        about["hidden_voxels_believed"] = float(found[gone].mean()) if gone.any() else None
        about["mean_belief_on_hidden"] = float(beliefs.numpy()[gone].mean()) if gone.any() else None
    numbers |= about
    numbers["cpu_seconds"] = round(time.process_time() - begin, 1)
    return numbers


def table(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for labels in LABELS:
        names = list(dict.fromkeys(r["arm"] for r in rows if r["labels"] == labels))
        for name in names:
            mine = [r for r in rows if r["arm"] == name and r["labels"] == labels]
            cells = []
            for key in ("ap_mean", "ap_sqrt", "ap_sum", "sensitivity", "fp_per_case", "sens_sum_at_4", "p_hidden"):
                values = np.array([r[key] for r in mine if r[key] is not None])
                error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
                cells.append(f"{key} {values.mean():.3f} ({error:.3f})" if len(values) else f"{key} -")
            print(f"{labels:7s} {name:18s} n={len(mine):2d}  " + "  ".join(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=["dice_ce", "mixed"], choices=list(ARMS))
    parser.add_argument("--labels", nargs="+", default=list(LABELS), choices=list(LABELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--phantom", type=int, default=100, help="seed of the procedural brains")
    parser.add_argument("--out", type=Path, default=Path("screen.jsonl"))
    parser.add_argument("--kept", type=Path, help="folder for predictions out of fold, which several arms share")
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    if arguments.table:
        return table(arguments.table)
    torch.set_num_threads(1)
    for seed, labels, name in product(arguments.seeds, arguments.labels, arguments.arms):
        key = {"arm": name, "labels": labels, "seed": seed, "phantom": arguments.phantom}
        done = arguments.out.read_text().splitlines() if arguments.out.exists() else []
        if any(key.items() <= json.loads(line).items() for line in done):
            continue
        row = {**key, **run(name, labels, seed=seed, phantom=arguments.phantom, kept=arguments.kept)}
        with arguments.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
