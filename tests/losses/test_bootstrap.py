"""The numerics below eq. 1 to 3: eq. 2, soft bootstrap, teacher, weights, precision, torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional

from nnunet_lopsided.losses import (
    BootstrapLoss,
    LopsidedBootstrapLoss,
    bootstrap_loss,
    lopsided_bootstrap_loss,
)


def log_softmax(z: NDArray[Any]) -> NDArray[Any]:
    shifted = z - z.max()
    return shifted - np.log(np.exp(shifted).sum())


def reference(
    logits: NDArray[Any],
    label: NDArray[Any],
    alpha: float,
    beta: float,
    *,
    lopsided: bool,
    soft: bool,
    teacher: NDArray[Any] | None = None,
    weight: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Voxel by voxel from the definitions; logits and teacher (C, N), label and weight (N,)."""
    losses = []
    for i, y in enumerate(label):
        log_p = log_softmax(logits[:, i])
        guide = logits[:, i] if teacher is None else teacher[:, i]
        if soft:
            on_answer = -np.sum(np.exp(log_softmax(guide)) * log_p)
        else:
            on_answer = -log_p[next(k for k, v in enumerate(guide) if v == max(guide))]
        if lopsided and y > 0:
            losses.append(-alpha * (1 if weight is None else weight[i]) * log_p[y])
        else:
            losses.append(-beta * log_p[y] + (1 - beta) * on_answer)
    return np.array(losses)


@st.composite
def problems(draw: st.DrawFn) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], float, float]:
    n_classes, n_voxels = draw(st.integers(2, 4)), draw(st.integers(1, 5))
    value = st.one_of(st.floats(-20, 20), st.integers(-4, 4).map(lambda v: v / 2))
    grid = st.lists(st.lists(value, min_size=n_voxels, max_size=n_voxels), min_size=n_classes, max_size=n_classes)
    label = st.lists(st.integers(0, n_classes - 1), min_size=n_voxels, max_size=n_voxels)
    return (
        np.array(draw(grid)),
        np.array(draw(grid)),
        np.array(draw(label)),
        draw(st.floats(0.01, 50)),
        draw(st.floats(0, 1)),
    )


def tensors(*arrays: NDArray[Any]) -> list[torch.Tensor]:
    return [torch.from_numpy(a)[None] for a in arrays]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("with_teacher", [False, True])
@settings(deadline=None, max_examples=40)
@given(problem=problems())
def test_both_equations_equal_the_definition(
    soft: bool, with_teacher: bool, problem: tuple[NDArray[Any], NDArray[Any], NDArray[Any], float, float]
) -> None:
    logits, other, label, alpha, beta = problem
    guide = other if with_teacher else None
    z, t, y = tensors(logits, other, label)
    options = {"soft": soft, "teacher": t if with_teacher else None}
    for lopsided, loss in (
        (True, lopsided_bootstrap_loss(z, y, alpha, beta, reduction="none", **options)),  # type: ignore[arg-type]
        (False, bootstrap_loss(z, y, beta, reduction="none", **options)),  # type: ignore[arg-type]
    ):
        expected = reference(logits, label, alpha, beta, lopsided=lopsided, soft=soft, teacher=guide)
        np.testing.assert_allclose(loss[0].numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("soft", [False, True])
@settings(deadline=None, max_examples=30)
@given(problem=problems())
def test_a_region_is_two_classes_with_a_zero_background(
    soft: bool, problem: tuple[NDArray[Any], NDArray[Any], NDArray[Any], float, float]
) -> None:
    logits, other, label, alpha, beta = problem
    z, t, y = (x[:, :1] if x.ndim == 3 else (x > 0)[:, None] for x in tensors(logits, other, label))
    one = lopsided_bootstrap_loss(z, y, alpha, beta, sigmoid=True, soft=soft, teacher=t, reduction="none")
    pad = torch.zeros_like(z)
    two = lopsided_bootstrap_loss(
        torch.cat([pad, z], 1), y, alpha, beta, soft=soft, teacher=torch.cat([pad, t], 1), reduction="none"
    )
    torch.testing.assert_close(one[:, 0], two, rtol=1e-12, atol=1e-12)


def test_golden_values_of_eq_2() -> None:
    # CE(1) = 2.126928 and CE(0) = .126928 at logits (2, 0).
    z = torch.tensor([[[2.0], [0.0]]], dtype=torch.float64)
    for label, expected in ((0, 0.1269280110429726), (1, 1.1269280110429726)):
        assert float(bootstrap_loss(z, torch.tensor([[label]]), 0.5)) == pytest.approx(expected, rel=1e-12)


def make(kind: str, seed: int = 0, shape: tuple[int, ...] = (3, 2)) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """float64 logits, target and sigmoid of "2", "4" (classes) or "regions"."""
    random = torch.Generator().manual_seed(seed)
    n = 3 if kind == "regions" else int(kind)
    logits = 2 * torch.randn(2, n, *shape, generator=random, dtype=torch.float64)
    if kind == "regions":
        return logits, torch.rand(2, n, *shape, generator=random) < 0.4, True
    return logits, torch.randint(0, n, (2, 1, *shape), generator=random), False


KINDS = pytest.mark.parametrize("kind", ["2", "4", "regions"])


@KINDS
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("with_teacher", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradcheck(kind: str, soft: bool, with_teacher: bool, reduction: str) -> None:
    logits, target, sigmoid = make(kind)
    teacher = make(kind, seed=7)[0] if with_teacher else None
    valid = torch.rand(2, 1, 3, 2, generator=torch.Generator().manual_seed(1)) < 0.7
    weight = torch.rand(2, 1, 3, 2, generator=torch.Generator().manual_seed(2)) * 5
    common = {"sigmoid": sigmoid, "valid": valid, "soft": soft, "teacher": teacher, "reduction": reduction}
    logits.requires_grad_()
    for loss in (
        lambda z: lopsided_bootstrap_loss(z, target, 3, 0.3, weight=weight, **common),  # type: ignore[arg-type]
        lambda z: bootstrap_loss(z, target, 0.3, **common),  # type: ignore[arg-type]
    ):
        assert torch.autograd.gradcheck(loss, logits)


@KINDS
def test_beta_of_one_is_cross_entropy_whatever_the_answer(kind: str) -> None:
    logits, target, sigmoid = make(kind)
    expected = (
        functional.binary_cross_entropy_with_logits(logits, target.double())
        if sigmoid
        else functional.cross_entropy(logits, target[:, 0])
    )
    for soft in (False, True):
        for teacher in (None, -logits):
            loss = bootstrap_loss(logits, target, 1.0, sigmoid=sigmoid, soft=soft, teacher=teacher)
            torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["2", "regions"])
@pytest.mark.parametrize("beta", [1e-6, 0.1, 1 - 1e-6])
def test_a_called_negative_keeps_the_digits_of_beta_in_float32(kind: str, beta: float) -> None:
    # The label's part of a called negative is beta CE(0): 1 - (1 - beta) would lose it.
    logits = torch.tensor([[[10.0]] if kind == "regions" else [[-5.0], [5.0]]])
    exact = logits.double()
    options = {"sigmoid": kind == "regions", "reduction": "none"}
    target = torch.zeros(1, 1, 1)
    loss = lopsided_bootstrap_loss(logits, target, 3, beta, **options)  # type: ignore[arg-type]
    expected = lopsided_bootstrap_loss(exact, target, 3, beta, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)


@KINDS
def test_a_teacher_equal_to_the_network_is_the_network(kind: str) -> None:
    logits, target, sigmoid = make(kind)
    logits.requires_grad_()
    own = lopsided_bootstrap_loss(logits, target, 3, 0.1, sigmoid=sigmoid)
    taught = lopsided_bootstrap_loss(logits, target, 3, 0.1, sigmoid=sigmoid, teacher=logits)
    torch.testing.assert_close(own, taught, rtol=0, atol=1e-15)
    # No gradient passes through the teacher, though it is the same tensor.
    torch.testing.assert_close(
        torch.autograd.grad(own, logits)[0], torch.autograd.grad(taught, logits)[0], rtol=0, atol=1e-15
    )


@KINDS
def test_the_teacher_gets_no_gradient(kind: str) -> None:
    logits, target, sigmoid = make(kind)
    teacher = (-logits).requires_grad_()
    loss = lopsided_bootstrap_loss(logits.requires_grad_(), target, sigmoid=sigmoid, teacher=teacher, soft=True)
    loss.backward()
    assert teacher.grad is None


@KINDS
def test_weights_multiply_alpha_on_positives_alone(kind: str) -> None:
    logits, target, sigmoid = make(kind)
    weight = 10 * torch.rand(2, 1, 3, 2, dtype=torch.float64)
    plain = lopsided_bootstrap_loss(logits, target, 3, 0.1, sigmoid=sigmoid, reduction="none")
    loss = lopsided_bootstrap_loss(logits, target, 3, 0.1, sigmoid=sigmoid, reduction="none", weight=weight)
    positive = (target > 0) if sigmoid else (target > 0)[:, 0]
    factor = weight.expand_as(target) if sigmoid else weight[:, 0]
    torch.testing.assert_close(loss, torch.where(positive, factor * plain, plain), rtol=1e-12, atol=0)

    mean = lopsided_bootstrap_loss(logits, target, 3, 0.1, sigmoid=sigmoid, reduction="weighted_mean", weight=weight)
    total = torch.where(positive, 3 * factor, 1.0).sum()
    torch.testing.assert_close(mean, loss.sum() / total, rtol=1e-12, atol=0)


def test_soft_lopsided_pulls_confident_findings_up_and_doubtful_ones_down() -> None:
    # d/dd of beta CE(0) + (1 - beta) H(p) is beta p - (1 - beta) p (1 - p) d.
    d = torch.tensor([-2.0, 0.0, 0.2, 2.0, 6.0], dtype=torch.float64)
    z = torch.stack([torch.zeros(5, dtype=torch.float64), d])[None].requires_grad_()
    lopsided_bootstrap_loss(z, torch.zeros(1, 5), 3, 0.1, soft=True, reduction="sum").backward()
    p = torch.sigmoid(d)
    assert z.grad is not None
    torch.testing.assert_close(z.grad[0, 1], 0.1 * p - 0.9 * p * (1 - p) * d, rtol=1e-12, atol=0)


# ---- precision and layout


def test_float32_keeps_its_digits_over_many_voxels() -> None:
    logits = torch.randn(2, 2, 200, 333, generator=torch.Generator().manual_seed(0))
    target = torch.rand(2, 1, 200, 333, generator=torch.Generator().manual_seed(1)) < 0.02
    logits.requires_grad_()
    loss = lopsided_bootstrap_loss(logits, target)
    (gradient,) = torch.autograd.grad(loss, logits)
    exact = logits.detach().double().requires_grad_()
    expected = lopsided_bootstrap_loss(exact, target)
    (expected_gradient,) = torch.autograd.grad(expected, exact)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    torch.testing.assert_close(gradient, expected_gradient.float(), rtol=1e-5, atol=1e-12)


def test_channels_last_logits() -> None:
    logits, target, _ = make("2", shape=(40, 40))
    strided = logits.to(memory_format=torch.channels_last).requires_grad_()
    loss = lopsided_bootstrap_loss(strided, target)
    loss.backward()
    dense = logits.clone().requires_grad_()
    lopsided_bootstrap_loss(dense, target).backward()
    assert strided.grad is not None
    assert dense.grad is not None
    torch.testing.assert_close(strided.grad, dense.grad, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", ["2", "regions"])
def test_confident_voxels_keep_their_digits_in_float32(kind: str) -> None:
    # log(1 + e) in float32 is 0 below e = 6e-8.
    d = torch.tensor([-20.0, -30.0, -60.0])
    # (More than two classes go through log_softmax, as in cross_entropy.)
    logits = d[None, None] if kind == "regions" else torch.stack([torch.zeros(3), d])[None]
    target = torch.zeros(1, 1, 3)
    loss = lopsided_bootstrap_loss(logits, target, sigmoid=kind == "regions", reduction="none")
    torch.testing.assert_close(loss.flatten(), torch.exp(d), rtol=1e-5, atol=0)


# ---- autograd


def test_twice_backward_through_a_kept_graph() -> None:
    logits, target, _ = make("2")
    logits.requires_grad_()
    loss = lopsided_bootstrap_loss(logits, target)
    first = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    torch.testing.assert_close(3 * first, torch.autograd.grad(3 * loss, logits)[0], rtol=1e-15, atol=0)


def test_no_gradient_is_made_where_none_is_wanted() -> None:
    logits, target, _ = make("4")
    assert not lopsided_bootstrap_loss(logits, target).requires_grad
    with torch.no_grad():
        assert not lopsided_bootstrap_loss(logits.requires_grad_(), target).requires_grad


# ---- torch.compile, autocast


@KINDS
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_without_a_break(kind: str, backend: str) -> None:
    logits, target, sigmoid = make(kind, shape=(40, 40))
    valid = torch.rand(2, 1, 40, 40) < 0.8
    logits.requires_grad_()

    def loss(z: torch.Tensor) -> torch.Tensor:
        return lopsided_bootstrap_loss(z, target, 3, 0.1, sigmoid=sigmoid, valid=valid)

    torch._dynamo.reset()
    compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(loss, backend=backend, fullgraph=True)
    expected, got = loss(logits), compiled(logits)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(got, logits)[0], torch.autograd.grad(expected, logits)[0], rtol=1e-12, atol=1e-15
    )


def test_inductor_gives_the_same() -> None:
    logits, target, _ = make("2", shape=(40, 40))
    logits = logits.float().requires_grad_()

    def loss(z: torch.Tensor) -> torch.Tensor:
        return lopsided_bootstrap_loss(z, target, 3, 0.1)

    torch._dynamo.reset()
    expected, got = loss(logits), torch.compile(loss, fullgraph=True)(logits)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got, logits)[0], torch.autograd.grad(expected, logits)[0])


@KINDS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gradients(kind: str, dtype: torch.dtype) -> None:
    logits, target, sigmoid = make(kind)
    half = logits.to(dtype).requires_grad_()
    exact = half.detach().double().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (1e3 * lopsided_bootstrap_loss(half, target, 30, 0.1, sigmoid=sigmoid)).backward()
    (1e3 * lopsided_bootstrap_loss(exact, target, 30, 0.1, sigmoid=sigmoid)).backward()
    assert half.grad is not None
    assert exact.grad is not None
    assert half.grad.dtype == dtype
    # As exact as the type can hold.
    torch.testing.assert_close(half.grad, exact.grad.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


# ---- modules and errors


@pytest.mark.parametrize("module", [BootstrapLoss(0.3, ignore_label=4), LopsidedBootstrapLoss(3, 0.3, ignore_label=4)])
def test_modules_leave_ignored_voxels_out(module: BootstrapLoss | LopsidedBootstrapLoss) -> None:
    logits, target, _ = make("4")
    target[0] = 4
    expected = type(module)(beta=0.3)(logits[1:], target[1:])
    torch.testing.assert_close(module(logits, target), expected, rtol=1e-12, atol=0)
    logits.requires_grad_()
    loss = module(logits, torch.full_like(target, 4))
    assert float(loss.detach()) == 0
    loss.backward()
    assert logits.grad is not None
    assert torch.all(logits.grad == 0)


def test_module_hands_on_teacher_weight_and_soft() -> None:
    logits, target, _ = make("2")
    teacher, weight = -logits, torch.rand(2, 1, 3, 2)
    module = LopsidedBootstrapLoss(3, 0.1, soft=True)
    expected = lopsided_bootstrap_loss(logits, target, 3, 0.1, soft=True, teacher=teacher, weight=weight)
    assert torch.equal(module(logits, target, weight, teacher), expected)
    assert torch.equal(
        BootstrapLoss(0.2)(logits, target, teacher), bootstrap_loss(logits, target, 0.2, teacher=teacher)
    )
    assert "beta=0.2" in repr(BootstrapLoss(0.2))


def test_wrong_shapes() -> None:
    logits, target, _ = make("4")
    with pytest.raises(ValueError, match="teacher must have the shape of logits"):
        bootstrap_loss(logits, target, teacher=logits[:, :2])
    with pytest.raises(ValueError, match=r"weight must be \(B, \.\.\.\) or \(B, 1, \.\.\.\)"):
        lopsided_bootstrap_loss(logits, target, weight=logits)
    with pytest.raises(ValueError, match=r"beta must be within \[0, 1\], got 2"):
        bootstrap_loss(logits, target, 2)


@pytest.mark.gpu
@KINDS
def test_a_gpu_equals_the_cpu_under_autocast(kind: str, device: torch.device) -> None:
    logits, target, sigmoid = make(kind)
    half = logits.half().to(device).requires_grad_()
    with torch.autocast(device.type, dtype=torch.float16):
        loss = lopsided_bootstrap_loss(half, target.to(device), 30, 0.1, sigmoid=sigmoid)
    loss.backward()
    exact = half.detach().cpu().double().requires_grad_()
    expected = lopsided_bootstrap_loss(exact, target, 30, 0.1, sigmoid=sigmoid)
    expected.backward()
    assert half.grad is not None
    assert exact.grad is not None
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    torch.testing.assert_close(half.grad.cpu(), exact.grad.half(), rtol=2e-3, atol=1e-6)
