"""The trainings of a completion: gone on with after a kill, never two into one folder, and why they failed."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from nnunet_lopsided.completion import training
from nnunet_lopsided.completion.training import Training, train_on_all
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.locks import locked

FOLDER = "nnUNet_results/Dataset501_A/nnUNetTrainerLopsided_softtargets__nnUNetPlans__2d/fold_all"


def checkpoint(file: Path, whole: bool = True) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/version", "3")
    if not whole:
        file.write_bytes(file.read_bytes()[:30])


@pytest.fixture
def trained(nnunet_paths: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[list[str]]]:
    """Trains, with an exit code in the place of the training; gives the commands that were run."""
    calls: list[list[str]] = []

    def run(code: int = 0) -> list[list[str]]:
        def run_logged(
            command: Sequence[str], log: Path, environment: Mapping[str, str], every_second: Callable[[], None]
        ) -> int:
            calls.append(list(command))
            log.write_text("Epoch 3\n")
            return code

        monkeypatch.setattr(training, "run_logged", run_logged)
        source = Training(
            dataset="Dataset500_A", configuration="2d", trainer="nnUNetTrainerLopsided", plans="nnUNetPlans"
        )
        train_on_all(source.on_soft_targets("Dataset501_A"))
        return calls

    return run


def test_a_new_one(trained: Callable[..., list[list[str]]], nnunet_paths: Path) -> None:
    (command,) = trained()
    assert command[:4] == ["nnUNetv2_train", "Dataset501_A", "2d", "all"]
    assert "--c" not in command
    assert [path.name for path in (nnunet_paths / "nnUNet_results").iterdir()] == ["Dataset501_A"]
    assert list((nnunet_paths / FOLDER).iterdir()) == []


def test_it_goes_on_from_what_is_whole(trained: Callable[..., list[list[str]]], nnunet_paths: Path) -> None:
    folder = nnunet_paths / FOLDER
    checkpoint(folder / "checkpoint_final.pth", whole=False)  # killed while the last one was written
    checkpoint(folder / "checkpoint_latest.pth")
    assert trained()[-1][-1] == "--c"
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint_final.pth.damaged", "checkpoint_latest.pth"]
    checkpoint(folder / "checkpoint_latest.pth", whole=False)
    assert trained()[-1][-1] != "--c"
    checkpoint(folder / "checkpoint_final.pth")
    assert len(trained()) == 2, "it is done"


def test_one_that_was_killed_says_so(trained: Callable[..., list[list[str]]]) -> None:
    with pytest.raises(InputError, match=r"failed: killed by signal 9 \(SIGKILL\).* Epoch 3 \(see .*\.log\)"):
        trained(-9)
    with pytest.raises(InputError, match=r"failed: Epoch 3 \(see"):
        trained(1)


def test_two_at_once(trained: Callable[..., list[list[str]]], nnunet_paths: Path) -> None:
    (nnunet_paths / FOLDER).mkdir(parents=True)
    with locked(nnunet_paths / FOLDER), pytest.raises(InputError, match=r"another process is writing .*fold_all"):
        trained()
