"""Inverse size weights and the losses they weight: golden values, definitions, properties, edge cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch.nn import functional

from nnunet_lopsided.losses import InverseWeightedLoss, inverse_size_weights

GOLDEN = {"ce": 1.3336637653294066, "dice": 0.524760113795265}


def golden_weights(volume: Any) -> torch.Tensor:
    return torch.from_numpy(inverse_size_weights(volume.instances, dtype=np.float64))[None, None]


# ---- the weights


def test_golden_weights(golden_volume: Any) -> None:
    instances = golden_volume.instances
    raw = inverse_size_weights(instances, clip=(1e-9, 1e9), dtype=np.float64)
    for i, expected in enumerate((0.38787878787878789, 21.333333333333332, 2.6666666666666665)):
        np.testing.assert_allclose(raw[instances == i], expected, rtol=1e-12)
    assert raw.sum() == pytest.approx(64, rel=1e-12)
    clipped = inverse_size_weights(instances)
    assert clipped.dtype == np.float32
    assert np.all(clipped[instances == 0] == 1)
    np.testing.assert_array_equal(clipped[instances > 0], raw[instances > 0].astype(np.float32))


def naive_weights(instances: NDArray[Any], clip: tuple[float, float]) -> NDArray[Any]:
    ids = set(instances.ravel().tolist())
    weights = np.empty(instances.shape)
    for index in np.ndindex(instances.shape):
        n_same = sum(int(v == instances[index]) for v in instances.ravel())
        weights[index] = min(max(instances.size / (len(ids) * n_same), clip[0]), clip[1])
    return weights


INSTANCES = arrays(
    np.int32, st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)), elements=st.integers(0, 5)
)


@settings(deadline=None, max_examples=50)
@given(INSTANCES, st.floats(0.01, 2), st.floats(2, 1e6))
def test_weights_equal_the_definition(instances: NDArray[Any], low: float, high: float) -> None:
    weights = inverse_size_weights(instances, (low, high), dtype=np.float64).astype(np.float64)
    np.testing.assert_allclose(weights, naive_weights(instances, (low, high)), rtol=1e-12)


@settings(deadline=None, max_examples=50)
@given(INSTANCES, st.permutations([3, 70000, 9, 12, 1]))
def test_every_group_weighs_the_same_whatever_its_id(instances: NDArray[Any], new_ids: list[int]) -> None:
    weights = inverse_size_weights(instances, (1e-12, 1e12), dtype=np.float64)
    ids = np.unique(instances)
    for i in ids:
        assert weights[instances == i].sum() == pytest.approx(instances.size / len(ids), rel=1e-12)
    renamed = np.array([0, *new_ids])[instances]
    np.testing.assert_array_equal(inverse_size_weights(renamed, (1e-12, 1e12), dtype=np.float64), weights)


def test_patches_of_one_group_weigh_one() -> None:
    for value in (0, 1, 9):
        assert np.all(inverse_size_weights(np.full((3, 4), value)) == 1)


def test_the_clip_of_a_large_patch() -> None:
    instances = np.zeros((100, 100, 100), np.int16)
    instances[0, 0, 0] = 1
    weights = inverse_size_weights(instances)
    assert weights[0, 0, 0] == 2e5  # 5e5 before the clip
    assert weights[0, 0, 1] == 1


def test_tensors_and_batches() -> None:
    instances = np.random.default_rng(0).integers(0, 3, (4, 1, 5, 6))
    instances[0] = 0
    each = np.stack([inverse_size_weights(x) for x in instances])
    np.testing.assert_array_equal(inverse_size_weights(instances, batched=True), each)
    weights = inverse_size_weights(torch.from_numpy(instances), batched=True)
    assert weights.dtype == torch.float32
    np.testing.assert_array_equal(weights.numpy(), each)
    # A strided view, as a crop is.
    cropped = instances[:, :, 1:4, ::2]
    np.testing.assert_array_equal(
        inverse_size_weights(cropped, batched=True), inverse_size_weights(cropped.copy(), batched=True)
    )


def test_wrong_instances_and_clips() -> None:
    with pytest.raises(ValueError, match="instances must be a non-empty array of integers, got float64"):
        inverse_size_weights(np.zeros(3))
    with pytest.raises(ValueError, match="instances must be a non-empty array of integers"):
        inverse_size_weights(np.zeros((0, 3), int))
    for clip in ((0, 1), (2, 1)):
        with pytest.raises(ValueError, match=r"clip must be \(low, high\) with 0 < low <= high"):
            inverse_size_weights(np.zeros(3, int), clip)


# ---- the losses


@pytest.mark.parametrize("kind", ["ce", "dice"])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_golden_losses(golden_volume: Any, kind: Any, sigmoid: bool) -> None:
    logits = golden_volume.logits[:, 1:] if sigmoid else golden_volume.logits
    loss = InverseWeightedLoss(kind, sigmoid=sigmoid)(logits, golden_volume.label, golden_weights(golden_volume))
    assert float(loss) == pytest.approx(GOLDEN[kind], rel=1e-12)


def test_golden_plain_dice(golden_volume: Any) -> None:
    ones = torch.ones(1, 1, 4, 4, 4)
    for loss in (InverseWeightedLoss("dice"), InverseWeightedLoss("asl", asl_b=1)):
        value = float(loss(golden_volume.logits, golden_volume.label, ones))
        assert value == pytest.approx(0.6865671641791045, rel=1e-12)


def reference(kind: str, p: NDArray[Any], y: NDArray[Any], w: NDArray[Any]) -> float:
    """One sample, two classes: lesion probability, label and weight of every voxel."""
    p_y = np.where(y == 1, p, 1 - p)
    if kind == "ce":
        return float(np.mean(w * -np.log(p_y)))
    if kind == "focal":
        return float(np.mean(w * np.where(y == 1, 0.75, 0.25) * (1 - p_y) ** 2 * -np.log(p_y)))
    b2 = 1.0 if kind == "dice" else 1.5**2
    return float(1 - (1 + b2) * np.sum(w * p * y) / np.sum(w * (b2 * y + p**2)))


KINDS = pytest.mark.parametrize("kind", ["ce", "focal", "dice", "asl"])


@KINDS
@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_equals_the_definition(kind: Any, shape: tuple[int, ...], sigmoid: bool) -> None:
    rng = np.random.default_rng(3)
    z, w = 3 * rng.standard_normal((2, *shape)), rng.uniform(1, 50, (2, *shape))
    y = (rng.random((2, *shape)) < 0.4).astype(int)
    p = 1 / (1 + np.exp(-z))
    expected = np.mean([reference(kind, *sample) for sample in zip(p, y, w, strict=True)])
    d, target, weights = (torch.from_numpy(x)[:, None] for x in (z, y, w))
    logits = d if sigmoid else torch.cat([d * 0 + 5, d + 5], 1)
    loss = InverseWeightedLoss(kind, sigmoid=sigmoid)(logits, target, weights)
    assert float(loss) == pytest.approx(expected, rel=1e-12)


def multi_class(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, 4, 3, 3, generator=random, dtype=torch.float64)
    target = torch.randint(0, 4, (2, 1, 3, 3), generator=random)
    return logits, target, 1 + 9 * torch.rand(2, 1, 3, 3, generator=random, dtype=torch.float64)


def test_several_classes() -> None:
    logits, target, weights = multi_class()
    ce = functional.cross_entropy(logits, target[:, 0], reduction="none")
    expected = (weights[:, 0] * ce).mean()
    torch.testing.assert_close(InverseWeightedLoss("ce")(logits, target, weights), expected, rtol=1e-12, atol=0)

    a = torch.where(target[:, 0] > 0, 0.75, 0.25).double()
    focal = (weights[:, 0] * a * (1 - torch.exp(-ce)) ** 2 * ce).mean()
    torch.testing.assert_close(InverseWeightedLoss("focal")(logits, target, weights), focal, rtol=1e-12, atol=0)

    p = torch.softmax(logits, 1)
    each = [
        reference("dice", p[i, k].numpy(), (target[i, 0] == k).numpy().astype(int), weights[i, 0].numpy())
        for i in range(2)
        for k in (1, 2, 3)
    ]
    loss = InverseWeightedLoss("dice")(logits, target, weights)
    assert float(loss) == pytest.approx(np.mean(each), rel=1e-12)


def test_batch_dice_sums_over_the_batch() -> None:
    logits, target, weights = multi_class()
    as_one = [x.movedim(0, 1).reshape(1, x.shape[1], -1, 3) for x in (logits, target, weights)]
    loss = InverseWeightedLoss("dice", batch_dice=True)(logits, target, weights)
    torch.testing.assert_close(loss, InverseWeightedLoss("dice")(*as_one), rtol=1e-12, atol=0)


@KINDS
@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_gradcheck_with_ignored_voxels(kind: Any, sigmoid: bool, batch_dice: bool) -> None:
    logits, target, weights = multi_class()
    if sigmoid:
        target = torch.cat([target == 1, target == 2, target >= 1, target == 3, weights > 7], 1)
    else:
        target[weights > 7] = 4
    loss = InverseWeightedLoss(kind, sigmoid=sigmoid, ignore_label=4, batch_dice=batch_dice)
    assert torch.autograd.gradcheck(lambda z: loss(z, target, weights), logits.requires_grad_())


@KINDS
@pytest.mark.parametrize("sigmoid", [False, True])
def test_ignored_voxels_count_for_nothing(kind: Any, sigmoid: bool) -> None:
    logits, target, weights = multi_class()
    ignored = torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    ignored[..., 2] = True
    if sigmoid:
        regions = torch.cat([target == 1, target == 2, target >= 1, target == 3], 1)
        given, kept = torch.cat([regions, ignored], 1), regions[..., :2]
    else:
        given, kept = target.masked_fill(ignored, 4), target[..., :2]
    loss = InverseWeightedLoss(kind, sigmoid=sigmoid, ignore_label=4)
    without = InverseWeightedLoss(kind, sigmoid=sigmoid)
    torch.testing.assert_close(
        loss(logits, given, weights), without(logits[..., :2], kept, weights[..., :2]), rtol=1e-12, atol=0
    )
    nothing = torch.ones_like(given) if sigmoid else torch.full_like(given, 4)
    logits.requires_grad_()
    value = loss(logits, nothing, weights)
    value.backward()
    assert float(value.detach()) == 0
    assert logits.grad is not None
    assert torch.all(logits.grad == 0)


@KINDS
def test_weights_of_regions(kind: Any) -> None:
    logits, target, weights = multi_class()
    regions = functional.one_hot(target[:, 0], 4).movedim(-1, 1)
    loss = InverseWeightedLoss(kind, sigmoid=True)
    everywhere = weights.expand_as(logits)
    torch.testing.assert_close(loss(logits, regions, weights), loss(logits, regions, everywhere), rtol=1e-12, atol=0)
    each = [loss(logits[:, k : k + 1], regions[:, k : k + 1], weights) for k in range(4)]
    torch.testing.assert_close(loss(logits, regions, weights), torch.stack(each).mean(), rtol=1e-12, atol=0)


@KINDS
@pytest.mark.parametrize("value", [0, 1])
def test_patches_of_one_label(kind: Any, value: int) -> None:
    logits = multi_class()[0][:, :2].requires_grad_()
    target = torch.full((2, 1, 3, 3), value)
    weights = inverse_size_weights(target, batched=True)
    loss = InverseWeightedLoss(kind, batch_dice=True)(logits, target, weights)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    if kind == "ce":
        torch.testing.assert_close(loss, functional.cross_entropy(logits, target[:, 0]), rtol=1e-12, atol=0)
    if value == 0 and kind in ("dice", "asl"):
        assert float(loss.detach()) == 1


@KINDS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_heaviest_weights_in_half_precision(kind: Any, dtype: torch.dtype) -> None:
    logits = torch.tensor([[0.0, 0.0], [-9.0, 9.0]], dtype=dtype).repeat(1, 8)[None].requires_grad_()
    target, weights = torch.tensor([[[1, 0] * 8]]), torch.full((1, 1, 16), 2e5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = InverseWeightedLoss(kind)(logits, target, weights)
    assert loss.dtype == torch.float32
    loss.backward()
    exact = InverseWeightedLoss(kind)(logits.detach().double(), target, weights)
    assert float(loss.detach()) == pytest.approx(float(exact), rel=1e-4)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_smooth_where_nothing_is_missing(gamma: float) -> None:
    logits = torch.tensor([[0.0], [60.0]])[None].requires_grad_()
    loss = InverseWeightedLoss("focal", focal_gamma=gamma)(logits, torch.tensor([[[1]]]), torch.ones(1, 1, 1))
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_compiles_without_a_break() -> None:
    logits, target, weights = multi_class()
    for kind in ("ce", "focal", "dice", "asl"):
        loss = InverseWeightedLoss(kind, ignore_label=3)
        torch._dynamo.reset()
        compiled = torch.compile(loss, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(logits, target, weights), loss(logits, target, weights))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "tversky"}, "kind must be ce, focal, dice or asl, got tversky"),
        ({"focal_a": 2}, r"focal_a must be within \[0, 1\], got 2"),
        ({"focal_gamma": -1}, "focal_gamma must be 0 or more, got -1"),
        ({"smooth": -1}, "smooth must be 0 or more, got -1"),
        ({"asl_b": 0}, "asl_b must be above 0, got 0"),
    ],
)
def test_wrong_parameters(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InverseWeightedLoss(**{"kind": "asl", **options})


def test_without_weights_it_is_the_base_loss() -> None:
    logits, target, weights = multi_class()
    for kind in ("ce", "focal", "dice", "asl"):
        loss = InverseWeightedLoss(kind)
        assert torch.equal(loss(logits, target), loss(logits, target, torch.ones_like(weights)))


def test_wrong_shapes() -> None:
    logits, target, weights = multi_class()
    with pytest.raises(ValueError, match=r"weight must be \(B, \.\.\.\) or \(B, 1, \.\.\.\)"):
        InverseWeightedLoss("ce")(logits, target, weights[..., :2])
    with pytest.raises(ValueError, match="target must have the shape of logits"):
        InverseWeightedLoss("ce", sigmoid=True)(logits, target, weights)


def test_focal_equals_monai() -> None:
    losses = pytest.importorskip("monai.losses")
    logits, target, _ = multi_class()
    regions = functional.one_hot(target[:, 0], 4).movedim(-1, 1)
    theirs = losses.FocalLoss(gamma=2.0, alpha=0.75, reduction="mean")(logits, regions.double())
    ours = InverseWeightedLoss("focal", sigmoid=True)(logits, regions, torch.ones(2, 1, 3, 3))
    torch.testing.assert_close(ours.float(), theirs)  # which computes in float32
