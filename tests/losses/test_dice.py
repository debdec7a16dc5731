"""Soft Dice against nnU-Net's, its masked form, and its sum with the lopsided loss."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from nnunet_lopsided.losses import LopsidedBootstrapLoss, LopsidedDiceLoss, SoftDiceLoss
from nnunet_lopsided.losses.preparation import ScalarReduction


def make(sigmoid: bool = False, shape: tuple[int, ...] = (4, 5)) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 3, *shape, generator=random)
    if sigmoid:
        return logits, torch.rand(2, 3, *shape, generator=random) < 0.3
    return logits, torch.randint(0, 3, (2, 1, *shape), generator=random)


def ignoring(target: torch.Tensor, sigmoid: bool) -> torch.Tensor:
    """The target with a third of the voxels ignored: label 3, or a last channel."""
    ignored = torch.zeros_like(target[:, :1], dtype=torch.bool)
    ignored[..., 3:] = True
    return torch.cat([target, ignored], 1) if sigmoid else target.masked_fill(ignored, 3)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("with_ignored", [False, True])
@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_the_sum_with_cross_entropy_is_nnunets(
    sigmoid: bool, batch_dice: bool, with_ignored: bool, shape: tuple[int, ...]
) -> None:
    logits, target = make(sigmoid, shape)
    target = ignoring(target, sigmoid) if with_ignored else target
    dice = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": sigmoid, "ddp": False}
    if sigmoid:
        theirs: Any = DC_and_BCE_loss({}, dice, use_ignore_label=with_ignored)
        # nnU-Net sums the masked channels but counts each voxel once: three channels, three times our mean.
        theirs.weight_ce = 1 / 3 if with_ignored else 1
    else:
        theirs = DC_and_CE_loss(
            dice, {}, ignore_label=3 if with_ignored else None, dice_class=MemoryEfficientSoftDiceLoss
        )
    ours = LopsidedDiceLoss(
        1, 1, dice="full", batch_dice=batch_dice, sigmoid=sigmoid, ignore_label=3 if with_ignored else None
    )
    logits.requires_grad_()
    expected, got = theirs(logits, target), ours(logits, target)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got, logits)[0], torch.autograd.grad(expected, logits)[0])


def test_golden_value() -> None:
    # p = (.5, .75), t = (1, 0): (2 * .5 + 1) / (1.25 + 1 + 1).
    logits = torch.tensor([[[0.0, 0.0], [0.0, 1.0986122886681098]]], dtype=torch.float64)
    loss = SoftDiceLoss(smooth=1.0)(logits, torch.tensor([[[1, 0]]]))
    assert float(loss) == pytest.approx(-2 / 3.25, rel=1e-12)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("with_teacher", [False, True])
def test_masked_leaves_findings_on_background_out(sigmoid: bool, with_teacher: bool) -> None:
    logits, target = make(sigmoid)
    guide = -logits if with_teacher else logits
    if sigmoid:
        p, t, left_out = torch.sigmoid(logits), target.float(), (guide > 0) & ~target
    else:
        p, t = torch.softmax(logits, 1)[:, 1:], functional.one_hot(target[:, 0], 3).movedim(-1, 1)[:, 1:].float()
        left_out = (guide.argmax(1, keepdim=True) > 0) & (target == 0)
    kept = (~left_out).float()
    axes = (2, 3)
    dice = (2 * (p * t * kept).sum(axes) + 1e-5) / ((p * kept).sum(axes) + (t * kept).sum(axes) + 1e-5)
    loss = SoftDiceLoss(mask="masked", sigmoid=sigmoid)
    teacher = guide if with_teacher else None
    torch.testing.assert_close(loss(logits, target, teacher), -dice.mean())

    logits.requires_grad_()
    loss(logits, target, teacher).backward()
    assert logits.grad is not None
    assert torch.all(logits.grad[left_out if sigmoid else left_out.expand_as(logits)] == 0)
    assert torch.any(logits.grad != 0)


def test_none_is_zero_with_a_graph() -> None:
    logits, target = make()
    logits.requires_grad_()
    loss = SoftDiceLoss(mask="none")(logits, target)
    loss.backward()
    assert float(loss.detach()) == 0


@pytest.mark.parametrize("mask", ["full", "masked"])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_gradcheck(mask: Any, sigmoid: bool) -> None:
    logits, target = make(sigmoid)
    loss = SoftDiceLoss(mask=mask, sigmoid=sigmoid, ignore_label=3)
    given = ignoring(target, sigmoid)
    assert torch.autograd.gradcheck(lambda z: loss(z, given), logits.double().requires_grad_())


@pytest.mark.parametrize("dice", ["none", "full", "masked"])
@pytest.mark.parametrize("value", [0, 1, 3])
def test_patches_of_one_label(dice: Any, value: int) -> None:
    logits = make()[0].requires_grad_()
    loss = LopsidedDiceLoss(dice=dice, ignore_label=3)(logits, torch.full((2, 1, 4, 5), value))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    if value == 3:
        assert torch.all(logits.grad == 0)


def test_the_parts_of_the_sum() -> None:
    logits, target = make()
    alone = LopsidedBootstrapLoss(3, 0.1)(logits, target)
    assert torch.equal(LopsidedDiceLoss(3, 0.1, dice="none")(logits, target), alone)
    assert torch.equal(LopsidedDiceLoss(3, 0.1, weight_dice=0)(logits, target), alone)
    summed = alone + 0.5 * SoftDiceLoss(mask="masked", batch_dice=True)(logits, target)
    loss = LopsidedDiceLoss(3, 1.0, dice="masked", weight_dice=0.5, batch_dice=True)
    loss.beta = 0.1
    assert torch.equal(loss(logits, target), summed)


def test_half_precision_is_computed_in_float32() -> None:
    logits, target = make()
    logits = logits.half()
    expected = LopsidedDiceLoss()(logits.double(), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LopsidedDiceLoss()(logits, target)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "lesion_mean"])
def test_compiles_without_a_break(reduction: ScalarReduction) -> None:
    logits, target = make()
    loss = LopsidedDiceLoss(ignore_label=2, reduction=reduction)
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits, target), loss(logits, target))


def test_wrong_parameters() -> None:
    with pytest.raises(ValueError, match="mask must be none, full, masked or mixed, got half"):
        SoftDiceLoss(mask="half")  # type: ignore[arg-type]


# ---- eq. 3's own target in the Dice term


MIXED = {  # beta: (loss, d loss / d p on called unlabelled voxels, on other background)
    1.0: (-0.1948054039466483, 0.005059879307736499, 0.005059879307736499),
    0.5: (-0.43705810298708003, -0.011147362089887109, 0.00865461418694927),
    0.1: (-0.5612075843010913, -0.02061218318763855, 0.009337895023662912),
}


@pytest.mark.parametrize("beta", MIXED)
@pytest.mark.parametrize("sigmoid", [False, True])
def test_mixed_golden_volume(golden_volume: Any, beta: float, sigmoid: bool) -> None:
    p = golden_volume.probability
    logits = (torch.logit(p) if sigmoid else golden_volume.logits).requires_grad_()
    loss = SoftDiceLoss(mask="mixed", beta=beta, sigmoid=sigmoid)(logits, golden_volume.label)
    expected, on_called, on_background = MIXED[beta]
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-12)
    loss.backward()
    assert logits.grad is not None
    of_p = logits.grad[:, -1:] / (p * (1 - p))
    called, labelled = p > 0.5, golden_volume.label > 0
    assert int((called & ~labelled).sum()) == 24
    assert of_p[called & ~labelled].numpy() == pytest.approx(on_called, rel=1e-12)
    assert of_p[~called & ~labelled].numpy() == pytest.approx(on_background, rel=1e-12)


def reference(
    logits: Any, target: Any, beta: float, *, sigmoid: bool, belief: Any = None, batch_dice: bool = False
) -> float:
    """-D against the mixed target voxel by voxel in float64, from the definition; no ignored voxels."""
    logits, target = logits.double().flatten(2).tolist(), target.flatten(2).tolist()
    n_problems = len(logits[0]) - (not sigmoid)
    sums = [[[0.0, 0.0, 0.0] for _ in range(n_problems)] for _ in logits]
    for b, (z, y) in enumerate(zip(logits, target, strict=True)):
        for v in range(len(z[0])):
            column = [channel[v] for channel in z]
            if sigmoid:
                p = [1 / (1 + math.exp(-value)) for value in column]
                called = [float(value > 0) for value in column]
                truth = [float(channel[v]) for channel in y]
            else:
                e = [math.exp(value) for value in column]
                p = [value / sum(e) for value in e[1:]]
                best = max(range(len(column)), key=lambda k: (column[k], -k))
                called = [float(best == k + 1) for k in range(n_problems)]
                truth = [float(y[0][v] == k + 1) for k in range(n_problems)]
            believed = [0.0] * n_problems if belief is None else belief[b].double().flatten(1)[:, v].tolist()
            for k in range(n_problems):
                labelled = truth[k] if sigmoid else max(truth)
                t = truth[k]
                if not labelled:
                    left = 1 - (believed[k] if sigmoid else sum(believed))
                    t = believed[k] + left * (1 - beta) * called[k]
                for j, value in enumerate((p[k] * t, p[k], t)):
                    sums[b][k][j] += value
    if batch_dice:
        sums = [[[sum(sample[k][j] for sample in sums) for j in range(3)] for k in range(n_problems)]]
    values = [(2 * both + 1e-5) / (a + c + 1e-5) for sample in sums for both, a, c in sample]
    return -sum(values) / len(values)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("believing", [False, True])
def test_mixed_equals_the_definition(sigmoid: bool, batch_dice: bool, believing: bool) -> None:
    logits, target = make(sigmoid, (3, 4, 5))
    belief = torch.rand(2, 3 if sigmoid else 2, 3, 4, 5, generator=torch.Generator().manual_seed(1)) / 2
    belief = belief if believing else None
    for beta in (0.0, 0.1, 0.7, 1.0):
        loss = SoftDiceLoss(mask="mixed", beta=beta, sigmoid=sigmoid, batch_dice=batch_dice)
        expected = reference(logits, target, beta, sigmoid=sigmoid, belief=belief, batch_dice=batch_dice)
        assert float(loss(logits.double(), target, belief=belief)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_mixed_takes_the_verdict_of_a_teacher_and_beta_from_the_sum(sigmoid: bool, soft: bool) -> None:
    logits, target = make(sigmoid)
    teacher = make(sigmoid)[0].flip(-1)
    if sigmoid:
        p, t, background = torch.sigmoid(logits), target.float(), ~target
        called = torch.sigmoid(teacher) if soft else (teacher > 0).float()
    else:
        p, background = torch.softmax(logits, 1)[:, 1:], target == 0
        t = functional.one_hot(target[:, 0], 3).movedim(-1, 1)[:, 1:].float()
        hard = functional.one_hot(teacher.argmax(1), 3).movedim(-1, 1)[:, 1:].float()
        called = torch.softmax(teacher, 1)[:, 1:] if soft else hard
    t = t + 0.9 * called * background
    dice = (2 * (p * t).sum((2, 3)) + 1e-5) / (p.sum((2, 3)) + t.sum((2, 3)) + 1e-5)
    summed = LopsidedDiceLoss(1, 1.0, dice="mixed", sigmoid=sigmoid, soft=soft)
    summed.beta = 0.1  # as a warm-up hands it down
    alone = LopsidedBootstrapLoss(1, 0.1, sigmoid=sigmoid, soft=soft)
    torch.testing.assert_close(
        summed(logits, target, teacher=teacher), alone(logits, target, teacher=teacher) - dice.mean()
    )


@pytest.mark.parametrize("dice", ["full", "masked", "mixed", "none"])
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_belief_0_is_no_belief_and_belief_1_the_label(dice: Any, sigmoid: bool, n_classes: int) -> None:
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(2, n_classes, 4, 5, generator=random, dtype=torch.float64)
    if sigmoid:
        whole = torch.rand(2, n_classes, 4, 5, generator=random) < 0.4
        hidden = whole & (torch.rand(2, n_classes, 4, 5, generator=random) < 0.5)
        target, belief = whole & ~hidden, hidden.float()
    else:
        whole = torch.randint(0, n_classes, (2, 1, 4, 5), generator=random)
        hidden = (torch.rand(2, 1, 4, 5, generator=random) < 0.5) & (whole > 0)
        target = whole.masked_fill(hidden, 0)
        belief = torch.cat([(whole == k) & hidden for k in range(1, n_classes)], 1).float()
    loss = LopsidedDiceLoss(3, 0.1, dice=dice, sigmoid=sigmoid, batch_dice=True)
    assert torch.equal(loss(logits, target, belief=torch.zeros_like(belief)), loss(logits, target))
    torch.testing.assert_close(loss(logits, target, belief=belief).double(), loss(logits, whole))
    # Labels outvote a belief.
    labelled = loss(logits, whole)
    torch.testing.assert_close(loss(logits, whole, belief=belief * 0.3), labelled)
    if not sigmoid:  # one in another class, too
        torch.testing.assert_close(loss(logits, whole, belief=belief.flip(1) * 0.3), labelled)


@pytest.mark.parametrize("dice", ["full", "mixed"])
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_gradient_with_beliefs_and_ignored_voxels_by_finite_differences(
    dice: Any, sigmoid: bool, n_classes: int
) -> None:
    random = torch.Generator().manual_seed(4)
    logits = torch.randn(2, n_classes, 3, 4, generator=random, dtype=torch.float64)
    target = torch.randint(0, 2, (2, n_classes if sigmoid else 1, 3, 4), generator=random)
    belief = torch.rand(2, n_classes - (not sigmoid), 3, 4, generator=random, dtype=torch.float64) / n_classes
    ignored = torch.zeros(2, 1, 3, 4, dtype=torch.bool)
    ignored[..., 3:] = True
    given = torch.cat([target, ignored], 1) if sigmoid else target.masked_fill(ignored, n_classes)
    loss = LopsidedDiceLoss(2, 0.1, dice=dice, sigmoid=sigmoid, ignore_label=n_classes)
    assert torch.autograd.gradcheck(lambda z: loss(z, given, belief=belief), logits.requires_grad_())


def test_the_neutral_target_is_half_the_dice() -> None:
    """A belief above D / 2 pulls up, below down, at D / 2 not at all."""
    logits = torch.tensor([[[0.0] * 5, [2.0, 1.0, 0.5, -2.0, -3.0]]], dtype=torch.float64)
    label = torch.tensor([[[1, 1, 0, 0, 0]]])
    p = torch.softmax(logits, 1)[0, 1]
    # With t on voxel 2: D = 2 (p0 + p1 + p2 t) / (sum p + 2 + t) = 2 t, so (p0 + p1 + p2 t) = t (sum p + 2 + t).
    b, c = float(p.sum() + 2 - p[2]), float(p[0] + p[1])
    neutral = (-b + math.sqrt(b * b + 4 * c)) / 2
    for t, sign in ((neutral - 0.05, 1), (neutral, 0), (neutral + 0.05, -1)):
        z = logits.clone().requires_grad_()
        belief = torch.zeros(1, 1, 5, dtype=torch.float64)
        belief[..., 2] = t
        SoftDiceLoss(smooth=0.0)(z, label, belief=belief).backward()
        assert z.grad is not None
        assert float(z.grad[0, 1, 2]) == pytest.approx(0, abs=1e-12) if sign == 0 else float(z.grad[0, 1, 2]) * sign > 0


def hidden_lesion_batch(p_hidden: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """11 slices of 64 x 64 with .8% labelled lesion voxels, found at .9, and half as many unlabelled."""
    label = torch.zeros(11, 1, 64, 64, dtype=torch.int64)
    label[:, 0, 10:14, 10:18] = 1
    hidden = torch.zeros_like(label, dtype=torch.bool)
    hidden[:, 0, 40:44, 40:44] = True
    p = torch.full(label.shape, 0.001, dtype=torch.float64)
    p[label > 0], p[hidden] = 0.9, p_hidden
    return torch.cat([torch.zeros_like(p), torch.logit(p)], 1), label, hidden


def push_on_hidden(loss: Any, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor], **given: torch.Tensor) -> float:
    """Mean of dL/dlogit on lesions that the labels lack; positive: towards background."""
    logits, label, hidden = batch
    z = logits.clone().requires_grad_()
    loss(z, label, **given).backward()
    return float(z.grad[:, 1:][hidden].mean())


@pytest.mark.parametrize(("p_hidden", "up"), [(0.4, False), (0.6, True), (0.7, True), (0.95, True)])
def test_neither_term_drowns_the_other_in_the_sum(p_hidden: float, up: bool) -> None:
    """Who pushes a lesion that the labels lack, in the loss that trains: both terms must pull the same way.

    With a full Dice term they do not: Dice pushes down, more than 10 times as hard as the bootstrap pulls up.
    """
    push = partial(push_on_hidden, batch=hidden_lesion_batch(p_hidden))
    cross_entropy = push(LopsidedBootstrapLoss(1, 0.1))
    dice = {mask: push(SoftDiceLoss(mask=mask, beta=0.1, batch_dice=True)) for mask in ("full", "mixed")}
    total = {mask: push(LopsidedDiceLoss(1, 0.1, dice=mask, batch_dice=True)) for mask in ("full", "mixed")}
    for mask in ("full", "mixed"):
        assert total[mask] == pytest.approx(cross_entropy + dice[mask], rel=1e-9)
    assert total["full"] > 0, "a full Dice term presses missing lesions down, whatever beta"
    if p_hidden == 0.7:
        assert dice["full"] > 10 * abs(cross_entropy)
    assert (total["mixed"] < 0) == up
    assert (dice["mixed"] < 0) == up
    if up and p_hidden < 0.9:
        assert cross_entropy < 0


@pytest.mark.parametrize("p_hidden", [0.4, 0.7])
def test_cross_entropy_by_lesion_voxels_is_as_strong_as_dice(p_hidden: float) -> None:
    """What a mean over all voxels is not; here lesions are one voxel in a hundred."""
    batch = hidden_lesion_batch(p_hidden)
    push, label = partial(push_on_hidden, batch=batch), batch[1]
    dice = push(SoftDiceLoss(mask="full", batch_dice=True))
    by_voxels = push(LopsidedBootstrapLoss(1, 1.0))
    by_lesions = push(LopsidedBootstrapLoss(1, 1.0, reduction="lesion_mean"))
    assert by_lesions == pytest.approx(by_voxels * label.numel() / int((label > 0).sum()), rel=1e-9)
    assert dice > 10 * by_voxels
    assert 0.3 * dice < by_lesions < 30 * dice
    both = push(LopsidedDiceLoss(1, 1.0, batch_dice=True, reduction="lesion_mean"))
    assert both == pytest.approx(by_lesions + dice, rel=1e-9)


@pytest.mark.parametrize(
    ("p_hidden", "plain", "undoubted", "of_gamma_2", "of_gamma_4", "surer"),
    [
        (0.1, 10.9, 39.1, 9.9, 2.5, 0.1),
        (0.5, 25.8, 166.7, 42.8, 10.8, 0.3),
        (0.7, 20.6, 217.9, 55.7, 14.0, 0.4),
        (0.9, 9.5, 263.2, 66.4, 16.7, 0.4),
    ],
)
def test_a_candidate_that_may_be_a_missed_lesion(
    p_hidden: float, plain: float, undoubted: float, of_gamma_2: float, of_gamma_4: float, surer: float
) -> None:
    """The figures of docs/explanation/lopsided-loss.md: why gamma is 4 where cross-entropy is by lesion voxels."""
    batch = hidden_lesion_batch(p_hidden)

    def push(gamma: float, reduction: ScalarReduction, q: float) -> float:
        loss = LopsidedDiceLoss(1, 1.0, batch_dice=True, gamma=gamma, reduction=reduction)
        return 1e5 * push_on_hidden(loss, batch, doubt=q * batch[2].double())

    assert push(0.0, "mean", 0.5) == pytest.approx(plain, abs=0.05)
    assert push(4.0, "lesion_mean", 0.0) == pytest.approx(undoubted, abs=0.05)
    assert push(2.0, "lesion_mean", 0.5) == pytest.approx(of_gamma_2, abs=0.05)
    assert push(4.0, "lesion_mean", 0.5) == pytest.approx(of_gamma_4, abs=0.05)
    assert push(4.0, "lesion_mean", 0.8) == pytest.approx(surer, abs=0.05)


# ---- trust in negatives that fades where the network sees a lesion


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_gamma_by_hand(gamma: float) -> None:
    # Labelled lesion at p = .75, background at .25 and .5.
    p = torch.tensor([[[0.75, 0.25, 0.5]]], dtype=torch.float64)
    label = torch.tensor([[[1, 0, 0]]])
    logits = torch.logit(p).requires_grad_()
    options: Any = {"sigmoid": True, "gamma": gamma}
    predicted = 0.75 + 0.75**gamma * 0.25 + 0.5**gamma * 0.5
    dice = SoftDiceLoss(smooth=0.0, **options)(logits, label)
    assert float(dice.detach()) == pytest.approx(-2 * 0.75 / (predicted + 1), rel=1e-12)
    cross_entropy = LopsidedBootstrapLoss(1, 1.0, **options)(logits, label)
    by_hand = -(math.log(0.75) + 0.75**gamma * math.log(0.75) + 0.5**gamma * math.log(0.5)) / 3
    assert float(cross_entropy.detach()) == pytest.approx(by_hand, rel=1e-12)
    # p (1 - p)^gamma: the gradient of the generalised cross-entropy (1 - (1 - p)^gamma) / gamma.
    (gradient,) = torch.autograd.grad(3 * cross_entropy, logits)
    expected = [-0.25, 0.25 * 0.75**gamma, 0.5 * 0.5**gamma]
    assert gradient.flatten().tolist() == pytest.approx(expected, rel=1e-12)
    z = logits.detach().requires_grad_()
    (generalised,) = torch.autograd.grad(((1 - torch.sigmoid(-z) ** gamma) / gamma)[..., 1:].sum(), z)
    torch.testing.assert_close(gradient[..., 1:], generalised[..., 1:], rtol=1e-12, atol=0)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("with_teacher", [False, True])
def test_gamma_weights_negatives_alone(sigmoid: bool, with_teacher: bool) -> None:
    logits, target = make(sigmoid)
    logits = logits.double()
    teacher = logits.flip(-1) if with_teacher else None
    judge = logits if teacher is None else teacher
    if sigmoid:
        p, t = torch.sigmoid(logits), target.double()
        trust = torch.where(target, 1.0, torch.sigmoid(-judge) ** 1.5)
        ce = functional.binary_cross_entropy_with_logits(logits, t, reduction="none")
    else:
        p, t = torch.softmax(logits, 1)[:, 1:], functional.one_hot(target[:, 0], 3).movedim(-1, 1)[:, 1:].double()
        trust = torch.where(target > 0, 1.0, torch.softmax(judge, 1)[:, :1] ** 1.5)
        ce = functional.cross_entropy(logits, target[:, 0], reduction="none")[:, None]
    dice = 2 * (p * t).sum((0, 2, 3)) / ((p * trust).sum((0, 2, 3)) + t.sum((0, 2, 3)))
    loss = LopsidedDiceLoss(1, 1.0, gamma=1.5, batch_dice=True, smooth=0.0, sigmoid=sigmoid)
    torch.testing.assert_close(loss(logits, target, teacher=teacher), (ce * trust).mean() - dice.mean())


def test_doubt_by_hand() -> None:
    """In place of the network's own p = 3/4, 1/4 and 1/2: the label, a doubt of 3/5, and none."""
    z = torch.logit(torch.tensor([[[0.75, 0.25, 0.5]]], dtype=torch.float64)).requires_grad_()
    label, doubt = torch.tensor([[[1, 0, 0]]]), torch.tensor([[[0.9, 0.6, 0.0]]])
    options: Any = {"sigmoid": True, "gamma": 2.0}
    dice = SoftDiceLoss(smooth=0.0, **options)(z, label, doubt=doubt)
    assert float(dice.detach()) == pytest.approx(-2 * 0.75 / (0.75 + 0.4**2 * 0.25 + 0.5 + 1), rel=1e-6)
    ce = LopsidedBootstrapLoss(1, 1.0, **options)(z, label, doubt=doubt)
    assert float(ce.detach()) == pytest.approx(
        -(math.log(0.75) + 0.4**2 * math.log(0.75) + math.log(0.5)) / 3, rel=1e-6
    )
    (gradient,) = torch.autograd.grad(3 * ce, z)
    assert gradient.flatten().tolist() == pytest.approx([-0.25, 0.25 * 0.4**2, 0.5], rel=1e-6)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_doubt_is_what_stands_for_p(sigmoid: bool) -> None:
    """A doubt equal to a judge's p gives the loss of that judge; it counts for all regions, and without gamma not."""
    torch.manual_seed(2)
    logits, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 1, 4, 5)
    target = torch.randint(0, 2, logits.shape) if sigmoid else torch.randint(0, 3, (2, 1, 4, 5))
    if sigmoid:
        judge = teacher.expand_as(logits)
    else:
        judge = torch.cat([torch.zeros_like(teacher), teacher, torch.full_like(teacher, -99.0)], 1)
    loss = LopsidedDiceLoss(1, 1.0, gamma=1.5, sigmoid=sigmoid)
    torch.testing.assert_close(
        loss(logits, target, doubt=torch.sigmoid(teacher)[:, 0]), loss(logits, target, teacher=judge)
    )
    loss.gamma = 0.0
    torch.testing.assert_close(loss(logits, target, doubt=torch.sigmoid(teacher)), loss(logits, target))


def test_a_doubt_that_is_none_is_refused() -> None:
    loss, logits, target = LopsidedDiceLoss(gamma=2.0), torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"doubt must be within \[0, 1\], got 0 to 1.5"):
        loss(logits, target, doubt=torch.eye(4)[None] * 1.5)
    with pytest.raises(ValueError, match=r"doubt must be \(B, ...\) or \(B, 1, ...\) for logits"):
        loss(logits, target, doubt=torch.zeros(1, 2, 4, 4))
    # Interpolation leaves the range by a rounding, and a negative base would make NaN.
    assert torch.isfinite(LopsidedDiceLoss(gamma=0.5)(logits, target, doubt=torch.full((1, 4, 4), 1.00005)))


def test_gamma_lets_go_of_a_lesion_that_the_labels_lack() -> None:
    """The push on missing lesions in the sum of both terms: with gamma it fades as the network grows sure of them."""

    def push(p_hidden: float, gamma: float) -> float:
        logits, label, hidden = hidden_lesion_batch(p_hidden)
        logits.requires_grad_()
        LopsidedDiceLoss(1, 1.0, gamma=gamma, batch_dice=True)(logits, label).backward()
        return float(logits.grad[:, 1:][hidden].mean())

    assert push(0.9, 2.0) < 0.02 * push(0.9, 0.0)
    assert push(0.9, 2.0) < 0.1 * push(0.25, 2.0)
    assert push(0.9, 2.0) > 0, "nothing is pulled up"
    assert push(0.01, 2.0) == pytest.approx(push(0.01, 0.0), rel=0.05), "where nothing is seen, labels count as before"


def test_margin_by_hand() -> None:
    """Beside a labelled lesion a negative counts fully; p is .5 everywhere, so further away it counts a quarter."""
    label = torch.tensor([[[0, 0, 0, 1, 0, 0]]])
    options: Any = {"sigmoid": True, "gamma": 2.0, "margin": 1}
    cross_entropy = LopsidedBootstrapLoss(1, 1.0, **options)(torch.zeros(1, 1, 6), label)
    assert float(cross_entropy) == pytest.approx((3 + 3 * 0.25) * math.log(2) / 6)
    dice = SoftDiceLoss(smooth=0.0, **options)(torch.zeros(1, 1, 6), label)
    assert float(dice) == pytest.approx(-2 * 0.5 / (1.5 + 0.5 * 3 * 0.25 + 1))


@pytest.mark.parametrize("margin", [1, 2])
@pytest.mark.parametrize("shape", [(12,), (9, 11), (5, 7, 6)])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_margin_is_a_box_around_labelled_lesions(sigmoid: bool, shape: tuple[int, ...], margin: int) -> None:
    """Against SciPy's dilation; what is ignored (3) is no lesion, and regions are problems of their own."""
    rng = np.random.default_rng(len(shape) + margin)
    label = rng.choice([0, 1, 2, 3], (2, 1, *shape), p=[0.9, 0.04, 0.03, 0.03])
    logits = torch.from_numpy(rng.normal(size=(2, 2 if sigmoid else 3, *shape)))
    target, ignored = torch.from_numpy(label), label == 3
    lesion: NDArray[Any] = (label == 1) | (label == 2)
    if sigmoid:
        lesion = np.concatenate([label == 1, lesion], 1)
        target = torch.from_numpy(np.concatenate([lesion, ignored], 1).astype(np.uint8))
    near = np.stack(
        [
            [ndimage.binary_dilation(channel, np.ones([2 * margin + 1] * len(shape))) for channel in sample]
            for sample in lesion
        ]
    )
    if sigmoid:
        background = torch.sigmoid(-logits)
        ce = functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(lesion).double(), reduction="none")
    else:
        background = torch.softmax(logits, 1)[:, :1]
        ce = functional.cross_entropy(logits, target.where(target < 3, 0)[:, 0], reduction="none")[:, None]
    weight = torch.from_numpy(np.where(near, 1, background.numpy() ** 1.5))
    expected = (ce * weight)[torch.from_numpy(np.broadcast_to(~ignored, near.shape).copy())].mean()
    options: Any = {"sigmoid": sigmoid, "ignore_label": 3}
    loss = LopsidedBootstrapLoss(1, 1.0, gamma=1.5, margin=margin, **options)(logits, target)
    torch.testing.assert_close(loss, expected)


def test_margin_parts_lesions_that_touch() -> None:
    """A line of background between two lesions that the network runs together: full push, as without gamma."""

    def push(**options: Any) -> float:
        label = torch.tensor([[[0, 0, 0, 0, 1, 0, 1]]])
        logits = torch.tensor([[[-5.0, -5, -5, -5, 2, 2, 2]]]).requires_grad_()
        LopsidedBootstrapLoss(1, 1.0, sigmoid=True, **options)(logits, label).backward()
        return float(logits.grad[0, 0, 5])

    assert push(gamma=2.0, margin=2) == pytest.approx(push(), rel=1e-6)
    assert push(gamma=2.0) < 0.05 * push()


# ---- bad input


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("value", [5, 255, -2])
def test_a_label_that_is_no_class_is_refused(n_classes: int, value: int) -> None:
    logits = torch.zeros(1, n_classes, 4, 4)
    label = torch.zeros(1, 1, 4, 4, dtype=torch.int16)
    label[0, 0, 1, 2] = value
    for loss in (LopsidedBootstrapLoss(), SoftDiceLoss(), LopsidedDiceLoss(dice="mixed")):
        with pytest.raises(ValueError, match=f"target must hold -1 to {n_classes - 1}: a label is no class"):
            loss(logits, label)
    assert LopsidedDiceLoss(ignore_label=value)(logits, label).isfinite()


@pytest.mark.parametrize("dice", ["full", "masked", "mixed", "none"])
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_on_ignored_voxels_stays_out(dice: Any, sigmoid: bool, value: float) -> None:
    logits, target = make(sigmoid)
    given = ignoring(target, sigmoid)
    loss = LopsidedDiceLoss(dice=dice, sigmoid=sigmoid, ignore_label=3)
    expected = loss(logits, given)
    logits[..., 3:] = value
    logits.requires_grad_()
    got = loss(logits, given)
    got.backward()
    torch.testing.assert_close(got, expected)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert torch.all(logits.grad[..., 3:] == 0)


def test_labels_without_a_channel_are_ignored_sample_by_sample() -> None:
    logits, target = make()
    given = ignoring(target, sigmoid=False)
    given[0, 0, 0] = 3
    for loss in (SoftDiceLoss(ignore_label=3), LopsidedDiceLoss(ignore_label=3, gamma=2.0)):
        torch.testing.assert_close(loss(logits, given[:, 0]), loss(logits, given))


def test_a_weighted_mean_is_one_over_weights_with_trust() -> None:
    logits = torch.tensor([[[0.0, 0.0], [2.0, -1.0]]], dtype=torch.float64)
    alone = LopsidedBootstrapLoss(1, 1.0, reduction="weighted_mean", gamma=2.0)
    loss = alone(logits[..., :1], torch.tensor([[[0]]]))
    assert float(loss) == pytest.approx(math.log1p(math.exp(2.0)), rel=1e-12)
    q = [1 / (1 + math.exp(2.0)), 1 / (1 + math.exp(-1.0))]  # probability of background
    both = sum(-(v**2) * math.log(v) for v in q) / sum(v**2 for v in q)
    assert float(alone(logits, torch.tensor([[[0, 0]]]))) == pytest.approx(both, rel=1e-12)


@pytest.mark.parametrize("value", [-0.2, 1.5])
def test_beliefs_that_are_no_probabilities(value: float) -> None:
    logits, target = make()
    for loss in (LopsidedBootstrapLoss(), SoftDiceLoss()):
        with pytest.raises(ValueError, match=r"belief must be within \[0, 1\], got"):
            loss(logits, target, belief=torch.full((2, 2, 4, 5), value))
        with pytest.raises(ValueError, match=r"belief must be within \[0, 1\] in the sum over exclusive classes"):
            loss(logits, target, belief=torch.full((2, 2, 4, 5), 0.7))


def test_beliefs_of_another_shape() -> None:
    logits, target = make()
    with pytest.raises(ValueError, match=r"belief must be \(B, lesion classes or regions, ...\), \(2, 2, 4, 5\), got"):
        LopsidedDiceLoss()(logits, target, belief=torch.zeros(2, 1, 4, 5))
