"""What a page's lines become before a test runs them, and which lines no test can run."""

from __future__ import annotations

import re

# In the text of a block, from the first to the last: what stands there -> what is run.
SUBSTITUTIONS = {
    r"\bnnUNetTrainerLopsided\b(?!_)": "nnUNetTrainerLopsided_1epochs_1iters",
    r"(?<![\w$/])/(data|shared)/": r"$root/\1/",
    r"/path/to/nnUNet_raw/": "$nnUNet_raw/",
    r"for n in 10 20 50;": "for n in 1 2 3;",
}
_TRAINER = "-tr nnUNetTrainerLopsided_1epochs_1iters"
# How a call begins -> options that it gets, unless it has them: the machine has no GPU, and no process is to import
# PyTorch a second time.
ADDED = {
    "nnUNetv2_plan_and_preprocess": ("-npfp 1", "-np 1"),
    "nnUNetv2_train": ("-device cpu",),
    "nnUNetv2_predict": ("-device cpu", "-npp 0", "-nps 0"),
    "nnUNetv2_ensemble": ("-np 1",),
    "lopsided-audit -d": (_TRAINER, "--shown 20"),
    "lopsided-complete": (_TRAINER, "-device cpu"),
    "lopsided-plan": ("--encoder resnet18", "--batch-size 2"),
}
INTERNET = "loads packages from the internet"
INSTALLS = "makes an environment"
LONG = "trains for minutes; tests/commands/test_demo.py and `make demo` run it"
# How a line begins -> why it is not run.
NOT_RUN = {
    "git clone ": INTERNET,
    "pip install ": INTERNET,
    "make ": "installs an environment first; the workflows run it",
    "docker ": "needs docker and an image with CUDA",
    "apptainer ": "needs apptainer",
    "Slicer ": "needs 3D Slicer",
    "python -m venv ": INSTALLS,
    "cat NAME.tar.part-": "needs a bundle; tests/test_bundle.py makes and joins one",
    "lopsided-demo ": LONG,
    "lopsided-study run quick": "trains for minutes; tests/study/test_engine.py runs studies of stand-ins",
    "lopsided-study run study.yaml -o /data/studies/mets ": "needs two GPUs",
    "lopsided-study run study.yaml -o /shared/studies/mets ": "needs a SLURM cluster; tests/study/test_slurm.py",
}
# Files that a page names and its commands do not make -> why not.
_STUDY = "of a study that has run"
NOT_MADE = {
    "docs/how-to/censor-a-dataset.md": {"cases.csv": "lopsided-convert writes it"},
    "docs/how-to/evaluate.md": {"cases.csv": "lopsided-convert writes it"},
    "docs/how-to/run-a-study.md": dict.fromkeys(("arms.csv", "differences.csv", "jobs.csv", "runs.csv"), _STUDY),
    "docs/how-to/without-internet.md": {"constraints.txt": "of the repository"},
}


def substituted(text: str) -> str:
    """A text after :data:`SUBSTITUTIONS`."""
    for pattern, replacement in SUBSTITUTIONS.items():
        text = re.sub(pattern, replacement, text)
    return text


def why_not_run(line: str) -> str | None:
    """The reason why a line is not run; None: it is."""
    return next((why for start, why in NOT_RUN.items() if line.startswith(start)), None)
