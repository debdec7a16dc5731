"""What ``--help`` imports: its time is that of its imports, and a clock on a busy machine says nothing."""

import json
import subprocess
import sys
from pathlib import Path

from nnunet_lopsided import commands

HEAVY = (
    "torch",
    "nnunetv2",
    "matplotlib",
    "scipy",
    "numpy",
    "pandas",
    "SimpleITK",
    "sklearn",
    "pydantic",
    "batchgenerators",
)
FOLDER = Path(commands.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py") if "def main(" in path.read_text(encoding="utf-8"))
PROGRAM = """
import argparse, contextlib, importlib, io, json, sys

sub_commands, heavy, after = {}, sys.argv[1].split(), {}
add_parser = argparse._SubParsersAction.add_parser


def noting(self, name, **kwargs):
    sub_commands.setdefault(current, []).append(name)
    return add_parser(self, name, **kwargs)


argparse._SubParsersAction.add_parser = noting


def help_of(*words):
    module = importlib.import_module("nnunet_lopsided.commands." + words[0])
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        module.main([*words[1:], "--help"])
    after[" ".join(words)] = [shown.getvalue()[:6], *(name for name in heavy if name in sys.modules)]


for current in sys.argv[2:]:
    help_of(current)
    for name in dict.fromkeys(sub_commands.get(current, ())):
        help_of(current, name)
print(json.dumps(after))
"""


def test_help_imports_nothing_heavy():
    command = [sys.executable, "-c", PROGRAM, " ".join(HEAVY), *MODULES]
    after = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert {words: found for words, found in after.items() if found != ["usage:"]} == {}
    assert {"evaluate", "demo", "doctor", "study", "study run", "study report", "convert folder"} <= after.keys()
