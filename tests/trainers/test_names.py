"""Hyper-parameters in a trainer's name."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.trainers.names import NameOption, grammar, parse_trainer_name, with_soft_targets

OPTIONS = {
    "T": (
        NameOption(attribute="alpha", form="aN", meaning="weight", low=0, excludes_low=True),
        NameOption(attribute="beta", form="bN", meaning="share", low=0, high=1),
        NameOption(attribute="warm_up", form="wN", meaning="epochs of warm-up", low=0, integer=True),
        NameOption(attribute="epochs", form="Nepochs", meaning="epochs", low=1, integer=True),
    ),
    "Plain": (),
}
GRAMMAR = (
    "Expected T[_aN][_bN][_wN][_Nepochs] with _aN (weight, number above 0), _bN (share, number 0 to 1), "
    "_wN (epochs of warm-up, whole number at least 0), _Nepochs (epochs, whole number at least 1); "
    "write p for the decimal point, as in 0p5"
)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("T_a10", {"alpha": 10.0}),
        ("T_a0p5", {"alpha": 0.5}),
        ("T_a2p25_b0p1", {"alpha": 2.25, "beta": 0.1}),
        ("T_b1", {"beta": 1.0}),
        ("T_b0", {"beta": 0.0}),
        ("T_b0p0", {"beta": 0.0}),
        ("T_w0", {"warm_up": 0}),
        ("T_1epochs", {"epochs": 1}),
        ("T_100epochs_w5_b0p5_a10", {"epochs": 100, "warm_up": 5, "beta": 0.5, "alpha": 10.0}),
        ("T_a10_b0p5_w5_100epochs", {"epochs": 100, "warm_up": 5, "beta": 0.5, "alpha": 10.0}),
    ],
)
def test_literal_names(name: str, values: dict[str, Any]) -> None:
    assert parse_trainer_name(name, OPTIONS) == ("T", values)


def test_whole_numbers_are_integers() -> None:
    _, values = parse_trainer_name("T_a3_w5_10epochs", OPTIONS) or ("", {})
    assert {name: type(value) for name, value in values.items()} == {"alpha": float, "warm_up": int, "epochs": int}


@pytest.mark.parametrize("name", ["T", "Other", "Other_a1", "TT_a1", "", "_a1", "t_a1"])
def test_names_of_others(name: str) -> None:
    assert parse_trainer_name(name, OPTIONS) is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("T_a-1", "cannot read '_a-1'"),
        ("T_a=-1", "cannot read '_a=-1'"),
        ("T_a0", "alpha must be above 0, got 0"),
        ("T_a0p0", "alpha must be above 0, got 0"),
        ("T_b1p5", "beta must be 0 to 1, got 1.5"),
        ("T_b2", "beta must be 0 to 1, got 2"),
        ("T_0epochs", "epochs must be at least 1, got 0"),
        ("T_a", "cannot read '_a'"),
        ("T_a3.5", "cannot read '_a3.5'"),
        ("T_a3p", "cannot read '_a3p'"),
        ("T_ap5", "cannot read '_ap5'"),
        ("T_a1p2p3", "cannot read '_a1p2p3'"),
        ("T_w1p5", "cannot read '_w1p5'"),
        ("T_epochs", "cannot read '_epochs'"),
        ("T_epochs10", "cannot read '_epochs10'"),
        ("T_10Epochs", "cannot read '_10Epochs'"),
        ("T_x3", "cannot read '_x3'"),
        ("T_", "cannot read '_'"),
        ("T__a3", "cannot read '_'"),
        ("T_a3__b1", "cannot read '_'"),
        ("T_a3_", "cannot read '_'"),
        ("T_a3_a4", "alpha is given twice"),
        ("T_a3_b1_a3", "alpha is given twice"),
        ("T_a3\n", "cannot read '_a3\n'"),
    ],
)
def test_a_malformed_name_shows_the_grammar(name: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_trainer_name(name, OPTIONS)
    assert str(caught.value) == f"trainer name {name}: {problem}. {GRAMMAR}"


def test_a_trainer_without_options_takes_none() -> None:
    assert parse_trainer_name("Plain", OPTIONS) is None
    with pytest.raises(InputError, match=r"trainer name Plain_a3: cannot read '_a3'\. Expected Plain with"):
        parse_trainer_name("Plain_a3", OPTIONS)


def test_grammar() -> None:
    assert grammar("T", OPTIONS["T"]) == GRAMMAR


@st.composite
def written_names(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    def decimal(low: int, high: int) -> tuple[str, float]:
        thousandths = draw(st.integers(low, high))
        whole, rest = divmod(thousandths, 1000)
        return f"{whole}p{rest:03d}" if rest or draw(st.booleans()) else str(whole), thousandths / 1000

    alpha, beta = decimal(1, 10**6), decimal(0, 1000)
    warm_up, epochs = draw(st.integers(0, 10**4)), draw(st.integers(1, 10**6))
    tokens = {
        "alpha": (f"_a{alpha[0]}", alpha[1]),
        "beta": (f"_b{beta[0]}", beta[1]),
        "warm_up": (f"_w{warm_up}", warm_up),
        "epochs": (f"_{epochs}epochs", epochs),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(tokens)), min_size=1, unique=True))
    return "T" + "".join(tokens[name][0] for name in chosen), {name: tokens[name][1] for name in chosen}


@settings(deadline=None)
@given(written_names())
def test_what_is_written_is_read(written: tuple[str, dict[str, Any]]) -> None:
    name, values = written
    assert parse_trainer_name(name, OPTIONS) == ("T", values)


@settings(deadline=None)
@given(st.text("ab wpT_0123.-epochs", max_size=12))
def test_any_text_is_read_refused_or_of_others(rest: str) -> None:
    if not rest.startswith("_"):
        assert parse_trainer_name("T" + rest, OPTIONS) is None
        return
    try:
        parsed = parse_trainer_name("T" + rest, OPTIONS)
    except InputError:
        with pytest.raises(InputError, match=re.escape(GRAMMAR)):
            parse_trainer_name("T" + rest, OPTIONS)
    else:
        assert parsed is not None
        assert len(parsed[1]) == rest.count("_")


# ---- the names of our trainers


@pytest.mark.parametrize(
    ("name", "base", "values"),
    [
        (
            "nnUNetTrainerLopsided_a10_b0p5_w5_100epochs_250iters",
            "nnUNetTrainerLopsided",
            {"alpha": 10, "beta": 0.5, "warm_up_epochs": 5, "epochs": 100, "iterations_per_epoch": 250},
        ),
        (
            "nnUNetTrainerLopsided_7iters_b1",
            "nnUNetTrainerLopsided",
            {"beta": 1, "iterations_per_epoch": 7, "alpha": 1},
        ),
        ("nnUNetTrainerClassWeighted_a30", "nnUNetTrainerClassWeighted", {"alpha": 30, "epochs": None}),
        ("nnUNetTrainer25D_2epochs_3iters", "nnUNetTrainer25D", {"epochs": 2, "iterations_per_epoch": 3}),
    ],
)
def test_a_name_gives_a_subclass_with_these_values(name: str, base: str, values: dict[str, Any]) -> None:
    from nnunet_lopsided import trainers

    trainer = getattr(trainers, name)
    assert trainer.__name__ == name
    assert trainer.__module__ == "nnunet_lopsided.trainers"
    assert trainer.__mro__[1] is getattr(trainers, base)
    assert {attribute: getattr(trainer, attribute) for attribute in values} == values
    # Not on the base.
    assert getattr(trainers, base).epochs is None


@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainerLopsided_a-1",
        "nnUNetTrainerLopsided__a3",
        "nnUNetTrainerClassWeighted_b0p5",
        "nnUNetTrainer25D_a3",
    ],
)
def test_our_malformed_names(name: str) -> None:
    from nnunet_lopsided import trainers

    base = name.split("_")[0]
    with pytest.raises(InputError) as caught:
        getattr(trainers, name)
    assert str(caught.value).startswith(f"trainer name {name}: cannot read ")
    assert f"Expected {base}[" in str(caught.value)
    last = "[_softtargets]" if "Lopsided" in base and "Inverse" not in base else ""
    assert f"[_Nepochs][_Niters][_seedN]{last} with" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nnUNetTrainerNobodys", "nnUNetTrainer", "Lopsided", "_anything"])
def test_names_that_are_not_ours(name: str) -> None:
    from nnunet_lopsided import trainers

    assert not hasattr(trainers, name)


def test_names_cost_no_import_of_nnunet() -> None:
    program = (
        "import sys, nnunet_lopsided.trainers as trainers, nnunet_lopsided.trainers.names\n"
        "assert not hasattr(trainers, 'pytest_plugins')\n"
        "print([m for m in ('numpy', 'torch', 'nnunetv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_trainer_that_learns_from_soft_targets() -> None:
    assert with_soft_targets("nnUNetTrainerLopsided_g1") == "nnUNetTrainerLopsided_g1_softtargets"
    assert with_soft_targets("nnUNetTrainerLopsided_softtargets_seed1") == "nnUNetTrainerLopsided_softtargets_seed1"
