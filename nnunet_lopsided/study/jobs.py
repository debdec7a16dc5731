"""A job: one call of a public command, of which a study is made. Pure: nothing is read or written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any

# Options that decide how fast and where, not what comes out.
_ONLY_SPEED = ("-np", "-npfp", "--np", "-npp", "-nps", "-device", "-num_gpus")
# Of jobs, in the order in which a study needs them.
KINDS = (
    "phantom",
    "preprocess",
    "plan",
    "censor",
    "share",
    "train",
    "audit",
    "apply",
    "complete",
    "predict",
    "confidence",
    "evaluate",
)


@dataclass(frozen=True)
class Job:
    """One call of a public command, in the study's folder.

    Attributes:
        name: ``KIND/NAME``, unique; names its marker and its log.
        command: program and arguments; paths are relative to the study's folder.
        needs: names of the jobs whose results it reads.
        results: nnU-Net's results folder, relative.
        cpus: cores it may use.
        gpus: GPUs it needs.
        memory_gb: main memory it may need.
        hours: time limit.
        fold_folder: for a training, where its checkpoints are, relative.
        run: name of the run it belongs to; empty for jobs on datasets.
    """

    name: str
    command: tuple[str, ...]
    _: KW_ONLY
    needs: tuple[str, ...] = ()
    results: str = "nnUNet_results"
    cpus: int = 1
    gpus: int = 0
    memory_gb: float = 4.0
    hours: float = 4.0
    fold_folder: str = ""
    run: str = ""

    @property
    def kind(self) -> str:
        """One of :data:`KINDS`."""
        return self.name.split("/")[0]

    def as_json(self) -> dict[str, object]:
        """For jobs.json."""
        return asdict(self)


def same_outcome(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two commands differ at most in how much they do at the same time and on which device.

    Nothing else may be left out: what a command makes would count as done although it is something else.

    Example:
        >>> same_outcome(["nnUNetv2_train", "1", "-device", "cpu"], ["nnUNetv2_train", "1", "-device", "cuda"])
        True
        >>> same_outcome(["censor", "--seed", "1", "-np", "2"], ["censor", "--seed", "2", "-np", "2"])
        False
    """
    return _essence(one) == _essence(other)


def trainer_of_command(command: Sequence[str]) -> str:
    """The trainer of a call of nnUNetv2_train.

    Example:
        >>> trainer_of_command(["nnUNetv2_train", "1", "2d", "0", "-tr", "nnUNetTrainer25D"])
        'nnUNetTrainer25D'
    """
    return command[command.index("-tr") + 1]


def _essence(command: Sequence[str]) -> list[str]:
    kept, dropping = [], False
    for word in command:
        # An option of ours or nnU-Net's may have several values: all words up to the next option.
        dropping = word in _ONLY_SPEED or (dropping and not word.startswith("-"))
        if not dropping:
            kept.append(word)
    return kept


def job_of_json(content: Mapping[str, object]) -> Job:
    """The reverse of :meth:`Job.as_json`."""
    # JSON has no tuples. Any: the types behind the keys were checked when jobs.json was read.
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
    return Job(**values)
