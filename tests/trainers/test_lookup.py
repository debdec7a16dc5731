"""nnU-Net finds our trainers: the very objects an import gives, next to a user's own, and nothing breaks without us."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnunet_lopsided import startup, trainers
from nnunet_lopsided.nnunet.older_versions import find_trainer
from nnunet_lopsided.startup import LOOK_UP, PLUGIN_FOLDER, SWITCH_OFF, VARIABLE

PACKAGE = Path(startup.__file__).parent
NAMES = (
    "nnUNetTrainerLopsided",
    "nnUNetTrainerClassWeighted",
    "nnUNetTrainer25D",
    "nnUNetTrainerLopsided_a10_b0p5_w5_100epochs_250iters",
    "nnUNetTrainerClassWeighted_2iters_a30",
)


INSTALLED = Path(sysconfig.get_path("purelib"))


def hook_line() -> str:
    """The line that Python's start-up runs."""
    return (PACKAGE.parent / "nnunet_lopsided.pth").read_text()


def test_the_line_is_one_that_site_runs_and_says_what_the_package_says() -> None:
    line = hook_line()
    assert line.count("\n") == 1  # site runs each line on its own
    assert line.startswith("import ")
    folder = "', '".join(Path(PLUGIN_FOLDER).relative_to(PACKAGE.parent).parts)
    assert all(f"'{word}'" in line for word in (VARIABLE, SWITCH_OFF, LOOK_UP, folder))


def test_the_environment_has_this_line() -> None:
    places = [Path(line) for path in INSTALLED.glob("*nnunet_lopsided*.pth") for line in path.read_text().splitlines()]
    if PACKAGE.parent not in places:
        pytest.skip("the environment's editable install is of another checkout")
    assert (INSTALLED / "nnunet_lopsided.pth").read_text() == hook_line(), "the editable install is older than the line"


def register() -> None:
    exec(hook_line(), {})


@pytest.fixture(autouse=True)
def one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test adds to Python's search for modules goes with it."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))


@pytest.fixture
def find(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """nnU-Net's look-up, with only our folder set."""
    monkeypatch.setenv(VARIABLE, PLUGIN_FOLDER)
    return find_trainer


@pytest.mark.parametrize("name", NAMES)
def test_the_class_found_is_the_class_imported(find: Callable[[str], Any], name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"from nnunet_lopsided.trainers import {name}", namespace)
    assert find(name) is namespace[name]
    assert find(name) is namespace[name]
    assert namespace[name].__name__ == name


def test_the_search_leaves_no_module_behind(find: Callable[[str], Any]) -> None:
    find("nnUNetTrainerLopsided")
    assert "nnunet_lopsided_trainers" not in sys.modules
    assert PLUGIN_FOLDER not in sys.path


@pytest.mark.parametrize("name", NAMES)
def test_classes_pickle(find: Callable[[str], Any], name: str) -> None:
    assert pickle.loads(pickle.dumps(find(name))) is getattr(trainers, name)


def test_an_unknown_name_is_nnunets_own_error(find: Callable[[str], Any]) -> None:
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer nnUNetTrainerNobodys"):
        find("nnUNetTrainerNobodys")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lopsided", "nnUNetTrainerLopsided"),
        ("Lopsided_a3", "nnUNetTrainerLopsided"),
        ("nnUNetTrainerLopsidedd", "nnUNetTrainerLopsided"),
        ("nnUNetTrainerlopsided", "nnUNetTrainerLopsided"),
        ("nnUNetTrainerLopsidedd_a3_b0p5", "nnUNetTrainerLopsided"),
        ("nnUNetTrainerLopsidedWithWings", "nnUNetTrainerLopsided"),
        ("nnUNetTrainerLopsidedPapr", "nnUNetTrainerLopsidedPaper"),
        ("nnUNetTrainer2.5D", "nnUNetTrainer25D"),
        ("nnUNetTrainerBootstrapp", "nnUNetTrainerBootstrap"),
    ],
)
def test_a_name_that_is_nearly_ours_ends_nnunets_commands(
    find: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    meant: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["/any/where/nnUNetv2_train", "-tr"])
    with pytest.raises(SystemExit) as caught:
        find(name)
    assert caught.value.code == 2
    expected = f"nnunet-lopsided: error: no trainer is called {name}. Did you mean {meant}?\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("name", ["base_trainers", "parse_trainer_name", "likely_meant", "nnUNetTrainerDiceCELss"])
def test_what_is_no_trainer_is_nnunets_own_error(find: Callable[[str], Any], name: str) -> None:
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer"):
        find(name)


def test_a_nearly_equal_name_in_a_folder_searched_later_is_found(
    find: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_trainers.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerLopsidedd(nnUNetTrainer):\n    pass\n"
    )
    for folders in ([PLUGIN_FOLDER, str(tmp_path)], [str(tmp_path), PLUGIN_FOLDER]):
        monkeypatch.setenv(VARIABLE, os.pathsep.join(folders))
        assert find("nnUNetTrainerLopsidedd").__name__ == "nnUNetTrainerLopsidedd"


def test_names_of_others_cost_no_import() -> None:
    program = (
        "import sys; from nnunet_lopsided import trainers; "
        "from nnunet_lopsided.trainers.plugin import nnunet_lopsided_trainers as plugin; "
        "print(hasattr(plugin, 'nnUNetTrainerNobodys'), hasattr(plugin, 'base_trainers'), 'torch' in sys.modules)"
    )
    done = python(program)
    assert (done.stdout, done.stderr) == ("False False False\n", "")


def test_the_names_are_those_of_the_classes() -> None:
    assert list(trainers.base_trainers()) == sorted(trainers._bases())


def test_what_breaks_while_the_trainers_load_is_not_taken_for_an_unknown_name(
    find: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> dict[str, Any]:
        raise AttributeError("module 'torch' has no attribute 'compile'")

    monkeypatch.setattr(trainers, "_bases", broken)
    with pytest.raises(ImportError, match="cannot be loaded: module 'torch' has no attribute 'compile'"):
        find("nnUNetTrainerLopsided_a17")


def test_a_malformed_name_outside_of_nnunets_commands_is_an_exception(find: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match="alpha must be above 0, got 0"):
        find("nnUNetTrainerLopsided_a0")


def test_a_malformed_name_ends_nnunets_commands(
    find: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/any/where/nnUNetv2_predict", "-tr"])
    with pytest.raises(SystemExit) as caught:
        find("nnUNetTrainerLopsided_a3_b7")
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(
        "nnunet-lopsided: error: trainer name nnUNetTrainerLopsided_a3_b7: beta must be 0 to 1, got 7. "
        "Expected nnUNetTrainerLopsided[_aN][_bN][_gN][_fromN][_lookback][_nolookback][_marginN][_dicefull]"
        "[_dicemixed][_dicemasked][_dicenone][_celesion][_cemean][_paste][_nopaste][_wN][_emaN][_soft][_prior]"
        "[_Nepochs][_Niters][_seedN][_softtargets] with _aN (weight "
    )


@pytest.mark.slow
def test_a_spawned_child_finds_the_same_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    # The child unpickles the classes, finds them by name, and sends them back.
    monkeypatch.delenv(VARIABLE)
    classes = [getattr(trainers, name) for name in NAMES]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(pickle.loads, (pickle.dumps(classes),)) == classes
        assert pool.map(find_trainer, NAMES) == classes


@pytest.mark.parametrize("ours_first", [False, True])
def test_a_users_own_folder_keeps_working(
    find: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours_first: bool
) -> None:
    (tmp_path / "my_trainers.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "from nnunet_lopsided.trainers import nnUNetTrainerLopsided_a7\n"
        "class nnUNetTrainerOfMine(nnUNetTrainer):\n    pass\n"
        "class nnUNetTrainerOnYours(nnUNetTrainerLopsided_a7):\n    beta = 0.25\n"
    )
    folders = [PLUGIN_FOLDER, str(tmp_path)] if ours_first else [str(tmp_path), PLUGIN_FOLDER]
    monkeypatch.setenv(VARIABLE, os.pathsep.join(folders))
    register()
    assert os.environ[VARIABLE] == os.pathsep.join(folders)
    assert find("nnUNetTrainerOfMine").__name__ == "nnUNetTrainerOfMine"
    assert find("nnUNetTrainerLopsided_a9") is trainers.nnUNetTrainerLopsided_a9
    derived = find("nnUNetTrainerOnYours")
    assert derived.__mro__[1] is trainers.nnUNetTrainerLopsided_a7
    assert (derived.alpha, derived.beta) == (7, 0.25)


# ---- the start-up hook


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, [PLUGIN_FOLDER]),
        ("", [PLUGIN_FOLDER]),
        ("/mine", ["/mine", PLUGIN_FOLDER]),
        (f"/mine{os.pathsep}{os.pathsep}/other", ["/mine", "/other", PLUGIN_FOLDER]),
        (PLUGIN_FOLDER, [PLUGIN_FOLDER]),
        (f"{PLUGIN_FOLDER}{os.pathsep}/mine", [PLUGIN_FOLDER, "/mine"]),
    ],
)
def test_register_appends_once(before: str | None, after: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH_OFF, raising=False)
    monkeypatch.setenv(VARIABLE, before or "")
    if before is None:
        monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if not is_ours(finder)])
    for _ in range(2):
        register()
        assert os.environ[VARIABLE].split(os.pathsep) == after
        assert [is_ours(finder) for finder in sys.meta_path].count(True) == 1


def is_ours(finder: object) -> bool:
    return getattr(finder, "__name__", "") == "LopsidedTrainers"


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH_OFF, "1")
    monkeypatch.setenv(VARIABLE, "/mine")
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if not is_ours(finder)])
    register()
    assert os.environ[VARIABLE] == "/mine"
    assert not any(map(is_ours, sys.meta_path))


def python(
    program: str, *options: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter of this environment, with the start-up hook's variables unset."""
    env = {key: value for key, value in os.environ.items() if key not in (VARIABLE, SWITCH_OFF)} | environment
    return subprocess.run(
        [sys.executable, *options, "-c", program], capture_output=True, text=True, cwd=cwd, env=env, check=False
    )


SHOW = (
    f"import os, sys; print(os.environ.get('{VARIABLE}')); print('torch' in sys.modules or 'nnunetv2' in sys.modules)"
)


def test_every_interpreter_of_the_environment_has_the_folder(tmp_path: Path) -> None:
    done = python(SHOW, cwd=tmp_path)
    assert (done.stdout, done.stderr) == (f"{PLUGIN_FOLDER}\nFalse\n", "")
    done = python(SHOW, cwd=tmp_path, **{VARIABLE: "/mine"})
    assert done.stdout.splitlines()[0] == os.pathsep.join(["/mine", PLUGIN_FOLDER])


def test_the_switch_keeps_the_hook_off(tmp_path: Path) -> None:
    assert python(SHOW, cwd=tmp_path, **{SWITCH_OFF: "1"}).stdout == "None\nFalse\n"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("[ROOT]", "ROOT/nnunet_lopsided/trainers/plugin"),
        ("['/nowhere', ROOT]", "ROOT/nnunet_lopsided/trainers/plugin"),
        ("['/nowhere']", None),
        ("[]", None),
        ("[None, ROOT]", None),
        ("None", None),
    ],
)
def test_a_removed_or_broken_package_breaks_no_interpreter(tmp_path: Path, path: str, expected: str | None) -> None:
    (tmp_path / "nnunet_lopsided" / "trainers" / "plugin").mkdir(parents=True)
    (tmp_path / "nnunet_lopsided" / "__init__.py").write_text("this is no Python")
    program = (
        f"import sys; ROOT = {str(tmp_path)!r}; sys.path = {path}\n"
        f"{hook_line()}import os; print(os.environ.get('{VARIABLE}'))"
    )
    # -S: no .pth file of the environment runs, only this line.
    done = python(program, "-S", cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == (f"{expected}\n".replace("ROOT", str(tmp_path)), "", 0)


def test_the_hook_costs_less_than_a_millisecond() -> None:
    # Best of many, in fresh interpreters: the machine may be busy with other things.
    program = (
        "import os, sys, time\n"
        f"del os.environ[{VARIABLE!r}]\n"
        f"line = {hook_line()!r}\n"
        "start = time.perf_counter(); exec(line); print(time.perf_counter() - start)\n"
        "assert 'nnunet_lopsided' not in sys.modules"
    )
    start = time.monotonic()
    seconds: list[float] = []
    while len(seconds) < 5 or (min(seconds) >= 1e-3 and time.monotonic() - start < 20):
        seconds.append(float(python(program).stdout))
    assert min(seconds) < 1e-3, seconds


# ---- the real command


@pytest.mark.slow
def test_a_malformed_name_in_nnunetv2_train(nnunet_paths: Path) -> None:
    command = Path(sys.executable).parent / "nnUNetv2_train"
    done = subprocess.run(
        [command, "501", "2.5d", "0", "-tr", "nnUNetTrainerLopsided_a-1", "-device", "cpu"],
        capture_output=True,
        text=True,
        cwd=nnunet_paths,
        env={key: value for key, value in os.environ.items() if key != VARIABLE} | {"PYTHONWARNINGS": "ignore"},
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("nnunet-lopsided: error: trainer name nnUNetTrainerLopsided_a-1: cannot read '_a-1'.")
    options = "[_aN][_bN][_gN][_fromN][_lookback][_nolookback][_marginN][_dicefull][_dicemixed][_dicemasked]"
    assert f"Expected nnUNetTrainerLopsided{options}" in done.stderr
    assert not any((nnunet_paths / "nnUNet_results").iterdir())


def test_the_explicit_way_works_in_a_shell(tmp_path: Path) -> None:
    program = f"import os; print(os.environ['{VARIABLE}'])"
    show = shlex.join([sys.executable, "-c", program])
    line = shlex.join([str(Path(sys.executable).parent / "lopsided-env")])
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE} | {SWITCH_OFF: "1", VARIABLE: "/a folder/it's"}
    done = subprocess.run(
        ["bash", "-ec", f'eval "$({line})"; {show}'], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == f"/a folder/it's{os.pathsep}{PLUGIN_FOLDER}\n"
