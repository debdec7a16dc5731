"""What a page's lines become before a test runs them, and which lines no test can run."""

from __future__ import annotations

import re

# In the text of a block, from the first to the last: what stands there -> what is run.
SUBSTITUTIONS = {
    r"\bnnUNetTrainerLopsided\b(?!_)": "nnUNetTrainerLopsided_1epochs_1iters_seed0",
    r"(?<![\w$/])/(data|shared)/": r"$root/\1/",
    r"/path/to/nnUNet_raw/": "$nnUNet_raw/",
    r"for n in 10 20 50;": "for n in 1 2 3;",
}
_TRAINER = "-tr nnUNetTrainerLopsided_1epochs_1iters_seed0"
# How a call begins -> options that it gets, unless it has them: the machine has no GPU, and no process is to import
# PyTorch a second time.
ADDED = {
    "nnUNetv2_plan_and_preprocess": ("-npfp 1", "-np 1"),
    "nnUNetv2_train": ("-device cpu",),
    "nnUNetv2_predict": ("-device cpu", "-npp 0", "-nps 0", "--disable_tta"),
    "nnUNetv2_ensemble": ("-np 1",),
    # Networks of one step call hardly a voxel at the default of 0.03. Without a seed some called none, or everything.
    "lopsided-audit -d": (_TRAINER, "--magnify 1.5", "--shown 20", "--threshold 0.003"),
    "python -m nnunet_lopsided.commands.phantom": ("--shape 12 32 32", "--spacing 5 4 4"),
    # Networks of one step tell nothing of missed lesions, so that there are no zones without a reader.
    "lopsided-complete": (_TRAINER, "-device cpu", "--way soft"),
    "lopsided-plan": ("--encoder tu-resnet10t", "--output-stride 16", "--batch-size 2"),
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
    "lopsided-demo -o demo": LONG,
    "lopsided-demo --data ": LONG,
    "lopsided-study run quick": "trains for minutes; tests/study/test_engine.py runs studies of stand-ins",
    "lopsided-study run study.yaml -o /data/studies/mets ": "needs two GPUs",
    "lopsided-study run study.yaml -o /shared/studies/mets ": "needs a SLURM cluster; tests/study/test_slurm.py",
}
# Commands within sentences that are whole, in the order in which they are run, on Dataset501_MyLesions.
SENTENCES = (
    "python -m nnunet_lopsided.commands.phantom -d 900 --train 12 --test 6",
    "lopsided-complete -d 501 -c 3d_fullres -o 521 --train",
    "lopsided-audit -d 501 -c 3d_fullres",
    "lopsided-plan -d 501 --gpu-memory 24 --overwrite",
    "lopsided-plan -d 501 --encoder resnet18 --output-stride 16 --batch-size 4 --overwrite",
    "lopsided-study schema > study.schema.json",
)
# Those that are not run -> why.
SENTENCES_NOT_RUN = {
    "lopsided-plan -d 501 --pretrained imagenet --overwrite": INTERNET,
    "nnUNetv2_train 501 2.5d 0 -tr nnUNetTrainerLopsided_5epochs_50iters -device cpu": "trains for minutes",
}
# Files that a page names and its commands do not make -> why not.
_STUDY = "of a study that has run"
NOT_MADE = {
    "docs/how-to/censor-a-dataset.md": {"cases.csv": "lopsided-convert writes it"},
    "docs/how-to/evaluate.md": {"cases.csv": "lopsided-convert writes it"},
    "docs/how-to/run-a-study.md": dict.fromkeys(("arms.csv", "differences.csv", "jobs.csv", "runs.csv"), _STUDY),
    "docs/how-to/without-internet.md": {"constraints.txt": "of the repository"},
    "docs/reference/environment.md": {"lopsided_curves.csv": "every training writes it, and the page runs none"},
}


def substituted(text: str) -> str:
    """A text after :data:`SUBSTITUTIONS`."""
    for pattern, replacement in SUBSTITUTIONS.items():
        text = re.sub(pattern, replacement, text)
    return text


def why_not_run(line: str) -> str | None:
    """The reason why a line is not run; None: it is."""
    return next((why for start, why in NOT_RUN.items() if line.startswith(start)), None)
