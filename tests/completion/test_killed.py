"""A kill -9 in every stage of lopsided-complete, and the same command once more: as if there had been no kill."""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable

import pytest

from nnunet_lopsided.completion.completing import complete
from nnunet_lopsided.completion.zoning import Zoning
from tests.completion.conftest import TRAINER, World
from tests.files.forks import ended, killed_after, started

FIRST, FINAL, SOURCE = "Dataset522_CutCompletedRound1", "Dataset521_CutCompleted", "Dataset511_Cut"


def soft() -> int:
    complete(511, 521, "2.5d", rounds=2, train=True)
    return 0


def zones() -> int:
    complete(511, 521, "2.5d", zoning=Zoning(sample=20, truth=501), train=True)
    return 0


def kill_at(module: str, name: str, n: int) -> None:
    """The n-th call of a function of ours kills this process, before it does anything."""
    found = importlib.import_module(f"nnunet_lopsided.{module}")
    function: Callable[..., object] = getattr(found, name)
    left = n

    def call(*arguments: object, **options: object) -> object:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    setattr(found, name, call)  # of the process that will be killed


def killed(prepare: Callable[[], None], work: Callable[[], int]) -> int:
    def child() -> int:
        prepare()
        return work()

    (code,) = ended([started(child)])
    return code


@pytest.fixture
def uninterrupted(world: World) -> Callable[[Callable[[], int]], dict[str, str]]:
    """What a command makes that nobody kills; afterwards nothing has run."""

    def run(work: Callable[[], int]) -> dict[str, str]:
        work()
        contents = world.contents()
        world.reset()
        return contents

    return run


@pytest.mark.parametrize(
    "fold", [(SOURCE, "0"), (SOURCE, "1"), (FIRST, "0"), (FIRST, "1"), (FINAL, "all")], ids="-".join
)
def test_in_a_training(
    world: World, uninterrupted: Callable[[Callable[[], int]], dict[str, str]], fold: tuple[str, str]
) -> None:
    """It goes on from its checkpoint, and what was trained before is not trained again."""
    expected = uninterrupted(soft)
    assert killed(lambda: setattr(world, "killed_in", fold), soft) == -signal.SIGKILL
    soft()
    trainer = TRAINER if fold[0] == SOURCE else f"{TRAINER}_softtargets"
    assert world.calls[0] == (*fold, trainer, "--c")
    assert all("--c" not in call for call in world.calls[1:])
    assert world.contents() == expected


@pytest.mark.parametrize(
    ("module", "name", "n"),
    [
        ("completion.completing", "find_inputs", 1),  # after the folds
        ("completion.completed_variant", "write_image", 4),  # while beliefs are written
        ("completion.completed_variant", "completion_html", 1),
        ("completion.preprocessing", "share_preprocessed", 1),  # after the raw variant got its name
        ("completion.preprocessing", "soften", 1),
        ("completion.completing", "find_inputs", 2),  # after the folds of the second round
        ("completion.completed_variant", "write_image", 14),
        ("completion.preprocessing", "share_preprocessed", 2),
        ("completion.preprocessing", "soften", 2),
        ("completion.completing", "train_on_all", 1),
    ],
)
def test_between_the_trainings(
    world: World, uninterrupted: Callable[[Callable[[], int]], dict[str, str]], module: str, name: str, n: int
) -> None:
    expected = uninterrupted(soft)
    assert killed(lambda: kill_at(module, name, n), soft) == -signal.SIGKILL
    before = len(list(world.results.rglob("checkpoint_final.pth")))
    soft()
    assert len(world.calls) == 5 - before
    assert world.contents() == expected


@pytest.mark.parametrize(
    ("module", "name", "n"),
    [
        ("audit.writing", "write_table", 1),
        ("audit.sample_writing", "write_json", 1),
        ("completion.zoning", "write_decisions", 1),
        ("completion.zoning", "write_estimate", 1),
        ("audit.estimate_writing", "write_decisions", 1),
        ("audit.repair", "write_image", 4),  # while labels are written
        ("completion.zoned_variant", "write_json", 2),
        ("completion.preprocessing", "share_preprocessed", 1),
        ("completion.completing", "train_on_all", 1),
    ],
)
def test_of_zones(
    world: World, uninterrupted: Callable[[Callable[[], int]], dict[str, str]], module: str, name: str, n: int
) -> None:
    expected = uninterrupted(zones)
    assert killed(lambda: kill_at(module, name, n), zones) == -signal.SIGKILL
    zones()
    assert world.contents() == expected


def test_at_any_moment(world: World, uninterrupted: Callable[[Callable[[], int]], dict[str, str]]) -> None:
    """At every 25th file that is made, renamed or removed."""
    expected = uninterrupted(soft)
    n, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        code = killed(lambda n=n: killed_after(n), soft)  # type: ignore[misc]  # mypy knows no default of a lambda
        soft()
        assert world.contents() == expected, n
        world.reset()
        n += 25
    assert code == 0
    assert n > 100


def test_nothing_is_left(world: World) -> None:
    assert killed(lambda: kill_at("completion.completed_variant", "write_image", 4), soft) == -signal.SIGKILL
    assert list(world.raw.glob(".unfinished-*"))
    soft()
    left = [path for folder in (world.raw, world.root / "nnUNet_preprocessed") for path in folder.glob(".unfinished-*")]
    assert left == []
