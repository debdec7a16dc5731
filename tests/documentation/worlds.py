"""What the pages assume to be there: datasets, releases, folders of files, all tiny; and what a reader does by hand."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from nnunet_lopsided.dataset_conversion.phantom import write_phantom_dataset
from tests.documentation.pages import REPOSITORY
from tests.documentation.releases import clinic, releases
from tests.documentation.shell import Shell
from tests.documentation.tables import substituted

SHORT = substituted("nnUNetTrainerLopsided")
Prepare = Callable[[Shell], None]


def write_dataset(number: int, name: str, n_train: int = 5) -> Path:
    """Phantoms of 12 x 32 x 32 below nnUNet_raw."""
    return write_phantom_dataset(
        number, n_train=n_train, n_test=2, shape=(12, 32, 32), spacing_mm=(5, 4, 4), seed=3, name=name
    )


def nothing(shell: Shell) -> None:
    """The page needs nothing."""


def my_lesions(shell: Shell) -> None:
    """Dataset501_MyLesions; its test images and labels also as ``imagesTs`` and ``labelsTs`` where the reader is."""
    dataset = write_dataset(501, "MyLesions")
    for folder in ("imagesTs", "labelsTs"):
        (shell.folder / folder).symlink_to(dataset / folder)


def planned(shell: Shell) -> None:
    """Dataset501_Mets, planned."""
    write_dataset(501, "Mets")
    shell.run("nnUNetv2_plan_and_preprocess -d 501 -c 3d_fullres")


def to_evaluate(shell: Shell) -> None:
    """A network that has been trained, and the evaluations of two models."""
    my_lesions(shell)
    shell.run(f"""
        nnUNetv2_plan_and_preprocess -d 501 -c 3d_fullres
        nnUNetv2_train 501 3d_fullres 0 -tr {SHORT}
        for model in A B; do lopsided-eval -g labelsTs -p labelsTs -o REPORT_$model --hard-labels; done
    """)


def to_audit(shell: Shell) -> None:
    """Dataset511_Clinic, whose labels lack lesions, and Dataset501_Trusted, both planned."""
    write_dataset(501, "Trusted")
    shell.run("""
        nnUNetv2_plan_and_preprocess -d 501 -c 3d_fullres
        lopsided-censor -d 501 -o 511 --mode stochastic --rate 0.3 --name Clinic
        lopsided-share -d 501 -o 511
    """)


def decide(audit: Path, decisions: Path, *given: str) -> None:
    """Write what a reader decides on the first candidates of an audit."""
    with (audit / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, decision in zip(rows, given, strict=False):
        row["decision"] = decision
    with decisions.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read(shell: Shell) -> None:
    """A reader accepts the first candidate, rejects the second and is unsure of the third."""
    (audit,) = Path(shell.folder, "nnUNet_results").glob("*/*/audit")
    decide(audit, shell.folder / "decisions.csv", "accept", "reject", "unsure")


def read_sample(shell: Shell) -> None:
    """A reader decides on every sampled candidate, in turn accept, reject and unsure."""
    (sample,) = Path(shell.folder, "nnUNet_results").glob("*/*/audit/sample/sample.csv")
    with sample.open(newline="") as file:
        drawn = [row for row in csv.DictReader(file) if row["sampled"] == "1"]
    with (shell.folder / "decisions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["audit", "case", "candidate", "decision"])
        for i, row in enumerate(drawn):
            writer.writerow([row["audit"], row["case"], row["candidate"], ("accept", "reject", "unsure")[i % 3]])


def two_read(shell: Shell) -> None:
    """Ada and Bob decide, differently."""
    (audit,) = Path(shell.folder, "nnUNet_results").glob("*/*/audit")
    decide(audit, shell.folder / "ada.csv", "accept", "reject", "accept", "reject")
    decide(audit, shell.folder / "bob.csv", "accept", "accept", "accept", "reject")


def write_study(shell: Shell) -> None:
    """The study file that the page shows, in place of the preset."""
    page = (REPOSITORY / "docs/how-to/run-a-study.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    text = substituted(text).replace("$root", str(shell.folder))
    (shell.folder / "study.yaml").write_text(text, encoding="utf-8")


def study_data(shell: Shell) -> None:
    """data/nnUNet_raw/Dataset501_Mets."""
    (shell.folder / "data" / "nnUNet_raw").mkdir(parents=True)
    shutil.move(write_dataset(501, "Mets"), shell.folder / "data" / "nnUNet_raw")


def begin_study(shell: Shell) -> None:
    """The study ``quick`` as an interrupted run leaves it: its jobs are there, none has run."""
    from nnunet_lopsided.study.folder import StudyFolder
    from nnunet_lopsided.study.preparation import prepare
    from nnunet_lopsided.study.presets import preset_text
    from nnunet_lopsided.study.study_file import study_of_text

    text = preset_text("quick")
    study = study_of_text(text, "preset quick", shell.folder)
    prepare(study, text, StudyFolder(shell.folder / "study-quick"), "preset quick")


def saved_in_slicer(shell: Shell) -> None:
    """A reader deletes a point in Slicer, which is to reject it."""
    for path in sorted((shell.folder / "in_slicer").glob("*/*.mrk.json")):
        content = json.loads(path.read_text())
        if content["markups"][0]["controlPoints"]:
            del content["markups"][0]["controlPoints"][0]
            path.write_text(json.dumps(content))
            return
    raise AssertionError("no candidate to decide on")


TUTORIAL = "docs/getting-started/tutorial.md"
# What is there when a reader begins with a page.
WORLDS: dict[str, Prepare] = {
    "docs/getting-started/first-training.md": my_lesions,
    TUTORIAL: clinic,
    "docs/how-to/audit-a-dataset.md": to_audit,
    "docs/how-to/censor-a-dataset.md": planned,
    "docs/how-to/convert-a-dataset.md": releases,
    "docs/how-to/evaluate.md": to_evaluate,
    "docs/how-to/random-bundle.md": my_lesions,
    "docs/how-to/run-a-study.md": study_data,
    "docs/how-to/share-preprocessing.md": my_lesions,
    "docs/how-to/train-25d.md": my_lesions,
    "docs/how-to/without-internet.md": nothing,
    "docs/reference/environment.md": nothing,
}
# How a line begins -> what the reader does by hand before it.
BY_HAND: dict[str, Prepare] = {
    "lopsided-audit apply decisions.csv": read,
    "lopsided-audit estimate decisions.csv": read_sample,
    "lopsided-audit import in_slicer": saved_in_slicer,
    "lopsided-audit agree ada.csv bob.csv": two_read,
    "lopsided-study plan study.yaml": write_study,
    "lopsided-study status study-quick": begin_study,
}
