"""The lopsided bootstrap loss: golden values, an independent reference, properties, and nnU-Net's kinds of target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunet_lopsided.losses import LopsidedBootstrapLoss, lopsided_bootstrap_loss

BACKGROUND = [2, -1, 0.3, 0, -3, 1.5]
LESION = [-1, 1.5, 0.2, 0, 4, 1.6]
LABEL = [0, 0, 0, 0, 1, 1]
PLAIN = [
    0.048587351573742,
    2.5788897342925496,
    0.644396660073571,
    0.6931471805599453,
    0.0027343993613226,
    1.9331899802207126,
]
LOPSIDED = [PLAIN[0], 0.3288897342925496, *PLAIN[2:]]
GRADIENT = [
    0.0474258731775668,
    0.0241418199787565,
    0.47502081252106,
    0.5,
    -0.0027331535832018,
    -1.42506243756318,
]


def vector_logits(kind: str) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """The golden vector as two classes, as two of three classes, and as one sigmoid channel."""
    background = torch.tensor(BACKGROUND, dtype=torch.float64)
    lesion = torch.tensor(LESION, dtype=torch.float64)
    label = torch.tensor(LABEL)
    if kind == "sigmoid":
        return (lesion - background)[None, None], label[None, None], {"sigmoid": True}
    channels = [background, lesion]
    if kind == "three classes":
        channels.append(torch.full_like(lesion, -1e3))
    return torch.stack(channels)[None], label[None], {}


KINDS = pytest.mark.parametrize("kind", ["two classes", "three classes", "sigmoid"])


@KINDS
@pytest.mark.parametrize(("beta", "expected"), [(1.0, PLAIN), (0.1, LOPSIDED)])
def test_golden_vector(kind: str, beta: float, expected: list[float]) -> None:
    logits, label, options = vector_logits(kind)
    loss = lopsided_bootstrap_loss(logits, label, 3, beta, reduction="none", **options)
    np.testing.assert_allclose(loss.flatten().numpy(), expected, rtol=1e-12)


@KINDS
def test_golden_mean(kind: str) -> None:
    logits, label, options = vector_logits(kind)
    assert float(lopsided_bootstrap_loss(logits, label, 3, 0.1, **options)) == pytest.approx(
        0.608490884346974, rel=1e-12
    )


@KINDS
def test_golden_gradient(kind: str) -> None:
    logits, label, options = vector_logits(kind)
    logits.requires_grad_()
    lopsided_bootstrap_loss(logits, label, 3, 0.1, reduction="sum", **options).backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad[0, 0 if kind == "sigmoid" else 1].numpy(), GRADIENT, rtol=1e-12)
    if kind != "sigmoid":
        np.testing.assert_allclose(logits.grad.sum(1).numpy(), 0, atol=1e-14)


@KINDS
@pytest.mark.parametrize(("beta", "expected"), [(1.0, 0.9736317559011565), (0.1, 0.8244980077691733)])
def test_golden_volume(kind: str, beta: float, expected: float) -> None:
    probability = torch.tensor([0.25 + 0.5 * ((k % 7) / 7) for k in range(64)], dtype=torch.float64).view(1, 1, 4, 4, 4)
    label = torch.zeros(1, 1, 4, 4, 4, dtype=torch.int16)
    label[0, 0, 0, 0, 0] = 1
    label[0, 0, 2:4, 2:4, 2:4] = 1
    difference = torch.logit(probability)
    logits = {
        "two classes": torch.cat([torch.zeros_like(difference), difference], 1),
        "three classes": torch.cat([torch.zeros_like(difference), difference, torch.full_like(difference, -1e3)], 1),
        "sigmoid": difference,
    }[kind]
    loss = lopsided_bootstrap_loss(logits, label, 3, beta, sigmoid=kind == "sigmoid")
    assert float(loss) == pytest.approx(expected, rel=1e-12)


# ---- an independent reference, from the definition


def reference(logits: NDArray[Any], label: NDArray[Any], alpha: float, beta: float) -> NDArray[Any]:
    """Eq. 3 voxel by voxel; logits (C, N), label (N,)."""
    losses = []
    for z, y in zip(logits.T, label, strict=True):
        top = max(z)
        log_sum = top + np.log(sum(np.exp(v - top) for v in z))
        own = next(k for k, v in enumerate(z) if v == top)
        losses.append(alpha * (log_sum - z[y]) if y else beta * (log_sum - z[0]) + (1 - beta) * (log_sum - z[own]))
    return np.array(losses)


@st.composite
def problems(draw: st.DrawFn) -> tuple[NDArray[Any], NDArray[Any], float, float]:
    n_classes, n_voxels = draw(st.integers(2, 5)), draw(st.integers(1, 6))
    # Halves make ties frequent.
    value = st.one_of(st.floats(-30, 30), st.integers(-4, 4).map(lambda v: v / 2))
    rows = st.lists(value, min_size=n_voxels, max_size=n_voxels)
    logits = np.array(draw(st.lists(rows, min_size=n_classes, max_size=n_classes)))
    label = np.array(draw(st.lists(st.integers(0, n_classes - 1), min_size=n_voxels, max_size=n_voxels)))
    return logits, label, draw(st.floats(0.01, 50)), draw(st.floats(0, 1))


def voxelwise(logits: NDArray[Any], label: NDArray[Any], alpha: float, beta: float) -> NDArray[Any]:
    return lopsided_bootstrap_loss(
        torch.from_numpy(logits)[None], torch.from_numpy(label)[None], alpha, beta, reduction="none"
    )[0].numpy()


@settings(deadline=None, max_examples=40)
@given(problems())
def test_equals_the_definition(problem: tuple[NDArray[Any], NDArray[Any], float, float]) -> None:
    np.testing.assert_allclose(voxelwise(*problem), reference(*problem), rtol=1e-10, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(problems(), st.lists(st.booleans(), min_size=6, max_size=6))
def test_reductions_equal_the_definition(
    problem: tuple[NDArray[Any], NDArray[Any], float, float], valid_voxels: list[bool]
) -> None:
    logits, label, alpha, beta = problem
    valid = np.array(valid_voxels[: len(label)])
    each, weight = reference(*problem)[valid], np.where(label > 0, alpha, 1.0)[valid]
    expected = {
        "sum": each.sum(),
        "mean": each.sum() / max(len(each), 1),
        "weighted_mean": each.sum() / (weight.sum() if valid.any() else 1),
        "lesion_mean": each.sum() / (max((label[valid] > 0).sum(), 0.001 * valid.sum()) if valid.any() else 1),
    }
    for reduction, value in expected.items():
        loss = lopsided_bootstrap_loss(
            torch.from_numpy(logits)[None],
            torch.from_numpy(label)[None],
            alpha,
            beta,
            valid=torch.from_numpy(valid)[None],
            reduction=reduction,  # type: ignore[arg-type]
        )
        assert float(loss) == pytest.approx(value, rel=1e-10, abs=1e-12), reduction


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(-30, 30), st.booleans()), min_size=1, max_size=6), st.floats(0, 1))
def test_sigmoid_equals_two_classes_with_a_zero_background(voxels: list[tuple[float, bool]], beta: float) -> None:
    logit = torch.tensor([v for v, _ in voxels], dtype=torch.float64)[None, None]
    label = torch.tensor([y for _, y in voxels])[None, None]
    one = lopsided_bootstrap_loss(logit, label, 3, beta, sigmoid=True, reduction="none")[:, 0]
    two = lopsided_bootstrap_loss(
        torch.cat([torch.zeros_like(logit), logit], 1), label.long(), 3, beta, reduction="none"
    )
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


# ---- properties


@settings(deadline=None, max_examples=40)
@given(problems())
def test_below_the_plain_loss_except_where_the_label_is_the_argmax(
    problem: tuple[NDArray[Any], NDArray[Any], float, float],
) -> None:
    logits, label, alpha, beta = problem
    lopsided, plain = voxelwise(*problem), voxelwise(logits, label, alpha, 1.0)
    own = logits.argmax(0)
    untouched = (label > 0) | (own == 0)
    assert np.all(lopsided <= plain + 1e-12)
    np.testing.assert_allclose(lopsided[untouched], plain[untouched], rtol=1e-12, atol=1e-12)
    gap = logits[own, np.arange(len(label))] - logits[0]
    np.testing.assert_allclose((plain - lopsided)[~untouched], ((1 - beta) * gap)[~untouched], rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(problems(), st.floats(-100, 100))
def test_shift_invariance(problem: tuple[NDArray[Any], NDArray[Any], float, float], shift: float) -> None:
    logits, label, alpha, beta = problem
    # Small differences may vanish in the shifted logits and turn into ties.
    logits = np.round(logits, 2)
    np.testing.assert_allclose(
        voxelwise(logits + shift, label, alpha, beta), voxelwise(logits, label, alpha, beta), rtol=1e-8, atol=1e-8
    )


def multi_class(seed: int = 0, n_classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, n_classes, 3, 4, generator=random, dtype=torch.float64)
    return logits, torch.randint(0, n_classes, (2, 3, 4), generator=random)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_alpha_and_beta_of_one_are_cross_entropy(n_classes: int) -> None:
    logits, label = multi_class(n_classes=n_classes)
    expected = functional.cross_entropy(logits, label)
    torch.testing.assert_close(lopsided_bootstrap_loss(logits, label, 1, 1), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_beta_of_one_is_weighted_cross_entropy(n_classes: int) -> None:
    logits, label = multi_class(n_classes=n_classes)
    weight = torch.tensor([1.0] + [2.3] * (n_classes - 1), dtype=torch.float64)
    for reduction, of_torch in (("none", "none"), ("sum", "sum"), ("weighted_mean", "mean")):
        expected = functional.cross_entropy(logits, label, weight, reduction=of_torch)
        loss = lopsided_bootstrap_loss(logits, label, 2.3, 1, reduction=reduction)  # type: ignore[arg-type]
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_alpha_and_beta_of_one_are_binary_cross_entropy_on_regions() -> None:
    logits, label = multi_class()
    regions = functional.one_hot(label, 4).movedim(-1, 1)
    expected = functional.binary_cross_entropy_with_logits(logits, regions.double())
    torch.testing.assert_close(lopsided_bootstrap_loss(logits, regions, 1, 1, sigmoid=True), expected)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_ties_go_to_background(n_classes: int) -> None:
    # Were yhat the lesion class, the gradient would pull the lesion's logit up.
    logits = torch.zeros(1, n_classes, 1, dtype=torch.float64, requires_grad=True)
    lopsided_bootstrap_loss(logits, torch.zeros(1, 1, dtype=torch.long), 3, 0.1).backward()
    assert logits.grad is not None
    expected = [1 / n_classes - 1] + [1 / n_classes] * (n_classes - 1)
    np.testing.assert_allclose(logits.grad[0, :, 0].numpy(), expected, rtol=1e-12)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[[-1e4, 1e4, -1e4, 1e4], [1e4, -1e4, 1e4, -1e4]]], requires_grad=True)
    loss = lopsided_bootstrap_loss(logits, torch.tensor([[0, 0, 1, 1]]), 3, 0.1, reduction="none")
    # A background voxel at p = 1 costs beta times the gap, a lesion at p = 0 alpha times.
    torch.testing.assert_close(loss, torch.tensor([[2e3, 0.0, 0.0, 6e4]]), rtol=1e-5, atol=1e-3)
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_mean_over_lesion_voxels_by_hand() -> None:
    # Cross-entropy log 2 in every voxel; of eight voxels two are lesion, one of which is ignored.
    label = torch.tensor([[1, 1, 0, 0, 0, 0, 0, 0]])
    valid = torch.tensor([[True, False, True, True, True, True, True, True]])
    loss = lopsided_bootstrap_loss(torch.zeros(1, 2, 8), label, 1, 1.0, valid=valid, reduction="lesion_mean")
    assert float(loss) == pytest.approx(7 * np.log(2) / 1)


def test_the_mean_over_lesion_voxels_with_regions_by_hand() -> None:
    # Two regions, of which three entries are positive; seven of eight voxels count, each in both regions.
    regions = torch.tensor([[[1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 1]]])
    valid = torch.tensor([[True] * 7 + [False]])
    loss = lopsided_bootstrap_loss(
        torch.zeros(1, 2, 8), regions, 1, 1.0, valid=valid, sigmoid=True, reduction="lesion_mean"
    )
    assert float(loss) == pytest.approx(14 * np.log(2) / 3)


def test_a_batch_without_lesions_is_divided_by_a_thousandth_of_its_voxels() -> None:
    loss = lopsided_bootstrap_loss(
        torch.zeros(1, 2, 4000), torch.zeros(1, 4000).long(), 1, 1.0, reduction="lesion_mean"
    )
    assert float(loss) == pytest.approx(1000 * np.log(2), rel=1e-6)


# ---- gradients


@pytest.mark.parametrize("reduction", ["mean", "weighted_mean", "lesion_mean", "sum"])
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("with_ignored", [False, True])
def test_gradcheck(n_classes: int, reduction: str, with_ignored: bool) -> None:
    logits, label = multi_class(seed=3, n_classes=n_classes)
    logits, label = logits[..., :2], label[..., :2]
    valid = torch.rand(label.shape, generator=torch.Generator().manual_seed(1)) < 0.6 if with_ignored else None
    assert torch.autograd.gradcheck(
        lambda z: lopsided_bootstrap_loss(z, label, 3, 0.1, valid=valid, reduction=reduction),  # type: ignore[arg-type]
        logits.requires_grad_(),
    )


@pytest.mark.parametrize("with_ignored", [False, True])
def test_gradcheck_sigmoid(with_ignored: bool) -> None:
    logits, label = multi_class(seed=4)
    logits, label = logits[..., :2], label[..., :2]
    regions = functional.one_hot(label, 4).movedim(-1, 1)
    valid = torch.rand(2, 1, 3, 2, generator=torch.Generator().manual_seed(1)) < 0.6 if with_ignored else None
    assert torch.autograd.gradcheck(
        lambda z: lopsided_bootstrap_loss(z, regions, 3, 0.1, sigmoid=True, valid=valid), logits.requires_grad_()
    )


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("channel", [False, True])
def test_ignored_voxels_count_for_nothing(sigmoid: bool, channel: bool) -> None:
    logits, label = multi_class(seed=5)
    target = functional.one_hot(label, 4).movedim(-1, 1) if sigmoid else label
    valid = torch.zeros_like(label, dtype=torch.bool)
    valid[0, :2], valid[1, 1:] = True, True
    valid_as_given = valid[:, None] if channel else valid
    logits.requires_grad_()
    loss = lopsided_bootstrap_loss(logits, target, 3, 0.1, sigmoid=sigmoid, valid=valid_as_given)
    loss.backward()
    assert logits.grad is not None
    assert torch.all(logits.grad.movedim(1, -1)[~valid] == 0)
    assert torch.all(logits.grad.movedim(1, -1)[valid] != 0)

    each = lopsided_bootstrap_loss(
        logits.detach(), target, 3, 0.1, sigmoid=sigmoid, valid=valid_as_given, reduction="none"
    )
    each = each.movedim(1, -1) if sigmoid else each
    assert torch.all(each[~valid] == 0)
    if sigmoid:  # the mean is over channels, too
        assert float(loss.detach()) == pytest.approx(float(each[valid].mean()), rel=1e-12)
    # The mean of the others, whatever stands in the ignored voxels.
    chosen = logits.detach().movedim(1, -1)[valid].T[None]
    chosen_target = target.movedim(1, -1)[valid].T[None] if sigmoid else label[valid][None]
    alone = lopsided_bootstrap_loss(chosen, chosen_target, 3, 0.1, sigmoid=sigmoid)
    torch.testing.assert_close(loss.detach(), alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "weighted_mean", "lesion_mean", "sum"])
def test_an_ignored_patch_is_zero_with_a_graph(sigmoid: bool, reduction: str) -> None:
    logits, label = multi_class()
    target = functional.one_hot(label, 4).movedim(-1, 1) if sigmoid else label
    logits.requires_grad_()
    nothing = torch.zeros(2, 1, 3, 4, dtype=torch.bool)
    loss = lopsided_bootstrap_loss(logits, target, sigmoid=sigmoid, valid=nothing, reduction=reduction)  # type: ignore[arg-type]
    assert float(loss.detach()) == 0
    loss.backward()
    assert logits.grad is not None
    assert torch.all(logits.grad == 0)


@pytest.mark.parametrize("value", [1, 2])
def test_a_patch_of_lesion_alone(value: int) -> None:
    logits, _ = multi_class(n_classes=3)
    label = torch.full((2, 3, 4), value)
    expected = 3 * functional.cross_entropy(logits, label)
    for beta in (0.0, 0.1, 1.0):
        torch.testing.assert_close(lopsided_bootstrap_loss(logits, label, 3, beta), expected)


@pytest.mark.parametrize(
    ("q", "alpha", "beta", "resting"),
    [
        (0, 3, 0.1, [0.90]),
        (0, 10, 0.1, [0.90]),
        (0.05, 3, 1, [0.14]),
        (0.05, 3, 0.5, [0.14, 0.57]),
        (0.05, 3, 0.1, [0.14, 0.91]),
        (0.05, 10, 0.1, [0.34, 0.93]),
        (0.25, 3, 0.5, [0.75]),
        (0.25, 3, 0.1, [0.95]),
        (0.25, 10, 0.1, [0.98]),
        (0.5, 3, 1, [0.75]),
        (0.5, 3, 0.5, [0.88]),
        (0.5, 3, 0.1, [0.98]),
        (0.5, 10, 0.1, [0.99]),
    ],
)
def test_where_look_alikes_come_to_rest(q: float, alpha: float, beta: float, resting: list[float]) -> None:
    """The table of docs/explanation/lopsided-loss.md; q is the fraction labelled lesion."""
    p = torch.arange(0.0005, 1, 0.001, dtype=torch.float64)
    logit = torch.logit(p)[None, None].requires_grad_()
    for label, share in ((1, q), (0, 1 - q)):
        target = torch.full_like(logit, label)
        (share * lopsided_bootstrap_loss(logit, target, alpha, beta, sigmoid=True, reduction="sum")).backward()
    assert logit.grad is not None
    # At rest, the loss falls before and rises after.
    falling = logit.grad[0, 0] < 0
    found = p[:-1][falling[:-1] & ~falling[1:]] + 0.0005
    np.testing.assert_allclose(found.numpy(), resting, atol=0.006)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_with_a_teacher_its_probability_decides_how_far_a_negative_is_believed(sigmoid: bool) -> None:
    """The teacher's p is 0.8, the network's 0.5: (1 - 0.8)^2 log 2, not (1 - 0.5)^2 log 2."""
    lesion_over_background = torch.tensor([[[np.log(4)]]])
    teacher = lesion_over_background if sigmoid else torch.cat([torch.zeros(1, 1, 1), lesion_over_background], 1)
    target = torch.zeros(1, 1, 1, dtype=torch.long)
    options: dict[str, Any] = {"gamma": 2.0, "sigmoid": sigmoid}
    loss = lopsided_bootstrap_loss(torch.zeros_like(teacher), target, 3, 1.0, teacher=teacher, **options)
    assert float(loss) == pytest.approx(0.04 * np.log(2), rel=1e-6)
    alone = lopsided_bootstrap_loss(torch.zeros_like(teacher), target, 3, 1.0, **options)
    assert float(alone) == pytest.approx(0.25 * np.log(2), rel=1e-6)


# ---- kinds of target and of number


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int64, torch.uint8, torch.float32, torch.bool])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("channel", [False, True])
def test_target_types_and_shapes(dtype: torch.dtype, n_classes: int, channel: bool) -> None:
    logits, label = multi_class(n_classes=n_classes)
    label = label.clamp(max=1)
    expected = lopsided_bootstrap_loss(logits, label, reduction="none")
    target = label.to(dtype)
    got = lopsided_bootstrap_loss(logits, target[:, None] if channel else target, reduction="none")
    assert got.shape == (2, 3, 4)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_region_target_types(dtype: torch.dtype) -> None:
    logits, label = multi_class()
    regions = functional.one_hot(label, 4).movedim(-1, 1)
    expected = lopsided_bootstrap_loss(logits, regions, sigmoid=True)
    assert torch.equal(lopsided_bootstrap_loss(logits, regions.to(dtype), sigmoid=True), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_logits_are_computed_in_float32(dtype: torch.dtype, n_classes: int, autocast: bool) -> None:
    logits, label = multi_class(seed=6, n_classes=n_classes)
    logits = logits.to(dtype)
    expected = lopsided_bootstrap_loss(logits.double(), label, 30, 0.1, reduction="none")
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = lopsided_bootstrap_loss(logits, label, 30, 0.1, reduction="none")
        mean = lopsided_bootstrap_loss(logits, label, 30, 0.1)
    assert loss.dtype == mean.dtype == torch.float32
    # The difference of two logits near 10, times alpha, in float32; half precision would be off by 0.1 and more.
    np.testing.assert_allclose(loss.numpy(), expected.numpy(), rtol=1e-5, atol=1e-4)


class HalfPrecisionResults(TorchDispatchMode):
    """Collects the operations that give a bfloat16 tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if any(isinstance(r, torch.Tensor) and r.dtype == torch.bfloat16 for r in tree_leaves(result)):
            self.names.add(function.overloadpacket.__name__)
        return result


@pytest.mark.parametrize("n_classes", [2, 3])
def test_nothing_is_computed_in_half_precision(n_classes: int) -> None:
    logits, label = multi_class(n_classes=n_classes)
    logits = logits.bfloat16()
    views = {"detach", "alias", "view", "select", "slice", "unsqueeze", "squeeze", "unbind", "transpose"}
    with torch.autocast("cpu", dtype=torch.bfloat16), HalfPrecisionResults() as computed:
        lopsided_bootstrap_loss(logits, label)
    assert computed.names - views == set()


# ---- the module, on what nnU-Net hands over


def test_module_with_an_ignore_label() -> None:
    logits, label = multi_class(n_classes=3)
    label[0, 0] = 3
    for dtype in (torch.int16, torch.float32):
        loss = LopsidedBootstrapLoss(3, 0.1, ignore_label=3)(logits, label[:, None].to(dtype))
        expected = lopsided_bootstrap_loss(logits, label.where(label < 3, 0), 3, 0.1, valid=label != 3)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    assert float(LopsidedBootstrapLoss(ignore_label=3)(logits, torch.full((2, 1, 3, 4), 3))) == 0


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.float32])
def test_module_on_regions_with_ignore_last(dtype: torch.dtype) -> None:
    logits, label = multi_class(n_classes=2)
    whole, core, ignored = label > 0, torch.zeros_like(label, dtype=torch.bool), torch.zeros_like(label).bool()
    core[0], ignored[:, 2] = True, True
    target = torch.stack([whole, core, ignored], 1).to(dtype)
    loss = LopsidedBootstrapLoss(3, 0.1, sigmoid=True, ignore_label=4)(logits, target)
    kept = lopsided_bootstrap_loss(
        logits[:, :, :2], torch.stack([whole, core], 1)[:, :, :2].long(), 3, 0.1, sigmoid=True
    )
    torch.testing.assert_close(loss, kept, rtol=1e-12, atol=0)


def test_module_on_regions_without_ignore() -> None:
    logits, label = multi_class(n_classes=2)
    target = torch.stack([label > 0, label > 5], 1)
    expected = lopsided_bootstrap_loss(logits, target.long(), 3, 0.1, sigmoid=True)
    assert torch.equal(LopsidedBootstrapLoss(3, 0.1, sigmoid=True)(logits, target), expected)


def test_module_leaves_the_target_as_it_was() -> None:
    # nnU-Net computes the online Dice from the same tensor afterwards.
    logits, label = multi_class(n_classes=3)
    label[0, 0] = 3
    target = label[:, None].clone()
    LopsidedBootstrapLoss(ignore_label=3)(logits, target)
    assert torch.equal(target[:, 0], label)


def test_module_beta_can_change_between_calls() -> None:
    logits, label = multi_class(n_classes=2)
    module = LopsidedBootstrapLoss(3, 1.0)
    before = module(logits, label)
    module.beta = 0.1
    assert module(logits, label) < before
    assert torch.equal(module(logits, label), lopsided_bootstrap_loss(logits, label, 3, 0.1))
    assert "alpha=3, beta=0.1" in repr(module)


# ---- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, "alpha must be above 0, got 0"),
        ({"alpha": float("nan")}, "alpha must be above 0, got nan"),
        ({"beta": -0.1}, r"beta must be within \[0, 1\], got -0.1"),
        ({"beta": 1.1}, r"beta must be within \[0, 1\], got 1.1"),
        ({"reduction": "median"}, "reduction must be mean, weighted_mean, lesion_mean, sum or none, got median"),
    ],
)
def test_wrong_parameters(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lopsided_bootstrap_loss(*multi_class(), **options)
    with pytest.raises(ValueError, match=message):
        LopsidedBootstrapLoss(**options)


def test_wrong_shapes() -> None:
    logits, label = multi_class()
    with pytest.raises(ValueError, match="logits must have at least 2 classes"):
        lopsided_bootstrap_loss(logits[:, :1], label)
    with pytest.raises(ValueError, match=r"target must be \(B, \.\.\.\) or \(B, 1, \.\.\.\) for logits \(2, 4, 3, 4\)"):
        lopsided_bootstrap_loss(logits, label[:, :2])
    with pytest.raises(ValueError, match="target must have the shape of logits"):
        lopsided_bootstrap_loss(logits, label[:, None], sigmoid=True)
    for sigmoid, target in ((False, label), (True, logits > 0)):
        with pytest.raises(ValueError, match=r"valid must be \(B, \.\.\.\) or \(B, 1, \.\.\.\)"):
            lopsided_bootstrap_loss(logits, target, sigmoid=sigmoid, valid=torch.ones(2, 3, 3, dtype=torch.bool))


# ---- on an accelerator


@pytest.mark.gpu
@pytest.mark.parametrize("n_classes", [2, 3])
def test_half_precision_on_a_gpu(n_classes: int, device: torch.device) -> None:
    logits, label = multi_class(n_classes=n_classes)
    logits = logits.half().to(device).requires_grad_()
    with torch.autocast(device.type, dtype=torch.float16):
        loss = lopsided_bootstrap_loss(logits, label.to(device), 30, 0.1)
    loss.backward()
    assert loss.dtype == torch.float32
    expected = lopsided_bootstrap_loss(logits.detach().cpu().double(), label, 30, 0.1)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
