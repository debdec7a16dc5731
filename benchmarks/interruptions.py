"""Commands that are killed at random moments, that fill the disk, and two at once into one output: does anything get
lost, mixed or left?

    python benchmarks/interruptions.py [--commands censor eval ...] [--kills 5] [--pairs 5] [--seed 0]
    mount -t tmpfs -o size=32m none SMALL && python benchmarks/interruptions.py --small SMALL [--fills 5]

On tiny data, each command in processes of its own, forked when everything is imported:

- killed by SIGKILL and by SIGTERM, writing something new and replacing an earlier output (``--overwrite``): the earlier
  one must be whole or the new one in its place; then the same command must work, and leave exactly what it leaves when
  nothing disturbs it, in all of nnU-Net's folders;
- on a small file system, with less and less space left, new and replacing: it ends in one line that names a file, what
  was there is there, and when there is space the same command works;
- two at once with other settings: one succeeds, the other does or says why not, and what is there is of one of them.

Prints a line for each command and one for each fault; the exit code is the number of faults, at most 99.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from interruptions_data import COMMANDS, MODULES, Trial, make_data, set_paths

Snapshot = dict[str, str]
_SECONDS = 120  # no command on this data takes longer


def main() -> int:
    """Make the data, run the trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS), help="default: all")
    parser.add_argument("--kills", type=int, default=5, help="by each signal, new and replacing (default: 5)")
    parser.add_argument("--pairs", type=int, default=5, help="two at once (default: 5)")
    parser.add_argument(
        "--small", type=Path, metavar="FOLDER", help="a small file system to be filled, with nothing in it"
    )
    parser.add_argument("--fills", type=int, default=5, help="of it, new and replacing (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--data", type=Path, help="where the data are kept from one call to the next")
    arguments = parser.parse_args()
    for module in MODULES:
        importlib.import_module(module)
    random.seed(arguments.seed)
    n_faults = 0
    with tempfile.TemporaryDirectory() as folder:
        base = arguments.data or Path(folder) / "base"
        if not base.is_dir():
            make_data(base)
        for name in arguments.commands:
            work = arguments.small.resolve() / "work" if arguments.small else Path(folder) / "work"
            trials = Trials(name, COMMANDS[name], base, work, Path(folder))
            n_fills = arguments.fills if arguments.small else 0
            for fault in trials.run(arguments.kills, arguments.pairs, n_fills):
                print(f"FAULT: {name}: {fault}", flush=True)
                n_faults += 1
    print(f"{n_faults} faults")
    return min(n_faults, 99)


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (that of a signal negative) and the last line that it printed."""

    code: int
    line: str


class Trials:
    """The trials of one command."""

    def __init__(self, name: str, trial: Trial, base: Path, work: Path, kept: Path) -> None:
        self._name, self._trial, self._base, self._work, self._keeps = name, trial, base, work, kept

    def run(self, n_kills: int, n_pairs: int, n_fills: int) -> Iterator[str]:
        """Run all; yields faults, and prints how often what came out."""
        one, other = self._trial.one, self._trial.other
        again, replacing = [*one, *self._trial.overwrite], [*other, *self._trial.overwrite]
        self._reset()
        for command in self._trial.before:
            if (end := self._ended([self._started(command)])[0]).code:
                yield f"{' '.join(command)} does not work at all: {end.line}"
                return
        self._keep("new")
        begin = time.monotonic()
        if (first := self._ended([self._started(one)])[0]).code:
            yield f"does not work at all: {first.line}"
            return
        seconds = time.monotonic() - begin
        new = self._snapshot()
        self._keep("earlier")
        self._ended([self._started(replacing)])
        replaced = self._snapshot()
        self._reset("new")
        self._ended([self._started(other)])
        other_alone = self._snapshot()
        self._ended([self._started(again)])
        either = [new, replaced, other_alone, self._snapshot()]
        outcomes: Counter[str] = Counter()
        for kill in (signal.SIGKILL, signal.SIGTERM):
            for _ in range(n_kills):
                yield from self._killed("new", one, kill, seconds, [None, new], new, outcomes)
            for _ in range(n_kills if self._trial.overwrite else 0):
                yield from self._killed("earlier", replacing, kill, seconds, [new, replaced], replaced, outcomes)
        for i in range(n_fills):
            share = (i + random.random()) / n_fills  # of the space that it needs
            yield from self._filled("new", one, share, [None, new], new, outcomes)
            if self._trial.overwrite:
                yield from self._filled("earlier", replacing, share, [new, replaced], replaced, outcomes)
        for i in range(n_pairs):
            pair = (again, replacing) if i % 2 else (one, other)
            yield from self._pair(pair, seconds, either, outcomes)
        counts = ", ".join(f"{n} x {what}" for what, n in sorted(outcomes.items()))
        print(f"{self._name} ({seconds:.1f} s): {counts}", flush=True)

    def _killed(
        self,
        state: str,
        command: Sequence[str],
        kill: signal.Signals,
        seconds: float,
        allowed: Sequence[Snapshot | None],
        expected: Snapshot,
        outcomes: Counter[str],
    ) -> Iterator[str]:
        """Kill the command in a state of the data; then run it again."""
        self._reset(state)
        untouched = self._snapshot()
        process = self._started(command)
        moment = random.uniform(0, 1.05 * seconds)
        time.sleep(moment)
        os.kill(process, kill)
        (ended,) = self._ended([process])
        outcomes[f"{'replacing' if state == 'earlier' else 'new'}, {kill.name}: {ended.code}"] += 1
        where = f"{kill.name} after {moment:.3f} of {seconds:.3f} s{', replacing' if state == 'earlier' else ''}"
        if ended.code not in (0, -kill, 130):
            yield f"{where}: ended with {ended.code}: {ended.line}"
        visible = self._visible(self._snapshot())
        if visible not in [self._visible(untouched if one is None else one) for one in allowed]:
            yield f"{where}: half of something is there: {_difference(untouched, visible)}"
        left = sorted(self._hidden(self._snapshot()))
        if kill == signal.SIGTERM and left:
            yield f"{where}: left {left[:3]}"
        if alive := self._alive(process):
            yield f"{where}: processes {alive} live on"
        then = [*command, *(self._trial.overwrite if self._snapshot() == expected else [])]
        (ended,) = self._ended([self._started(then)])
        if ended.code:
            yield f"{where}: the same command again: {ended.code}: {ended.line}"
        elif self._snapshot() != expected:
            yield f"{where}: the same command again leaves something else: {_difference(expected, self._snapshot())}"

    def _filled(
        self,
        state: str,
        command: Sequence[str],
        share: float,
        allowed: Sequence[Snapshot | None],
        expected: Snapshot,
        outcomes: Counter[str],
    ) -> Iterator[str]:
        """Let the command run where there is only a share of the space that it needs; then run it again with enough."""
        self._reset(state)
        before, untouched = _free(self._work), self._snapshot()
        self._ended([self._started(command)])
        needed = (
            before - _free(self._work) if state == "new" else _size(self._kept("earlier")) - _size(self._kept("new"))
        )
        self._reset(state)
        ballast = self._work.with_name("ballast")
        with ballast.open("wb") as file:
            file.write(bytes(max(_free(self._work) - int(share * max(needed, 20_000)), 0)))
        (ended,) = self._ended([self._started(command)])
        ballast.unlink()
        outcomes[f"disk full, {'replacing' if state == 'earlier' else 'new'}: {ended.code}"] += 1
        where = f"{share:.0%} of {needed} bytes{', replacing' if state == 'earlier' else ''}"
        if ended.code not in (0, 2):
            yield f"{where}: ended with {ended.code}: {ended.line}"
        says_why = "/" in ended.line and ("No space left" in ended.line or "disk full" in ended.line)
        if ended.code and not says_why:
            yield f"{where}: no file or no reason: {ended.line}"
        now = self._snapshot()
        whole = [self._visible(untouched if one is None else one) for one in allowed]
        if not self._trial.stages and self._visible(now) not in whole:
            yield f"{where}: half of something is there: {_difference(untouched, self._visible(now))}"
        if self._hidden(now):
            yield f"{where}: left {sorted(self._hidden(now))[:3]}"
        (again,) = self._ended([self._started([*command, *(self._trial.overwrite if now == expected else [])])])
        if again.code:
            yield f"{where}: the same command again: {again.code}: {again.line} (before: {ended.line})"
        elif self._snapshot() != expected:
            yield f"{where}: the same command again leaves something else: {_difference(expected, self._snapshot())}"

    def _pair(
        self, commands: Sequence[Sequence[str]], seconds: float, either: Sequence[Snapshot], outcomes: Counter[str]
    ) -> Iterator[str]:
        self._reset("new")
        first = self._started(commands[0])
        moment = random.choice([0, random.uniform(0, seconds)])
        time.sleep(moment)
        ends = self._ended([first, self._started(commands[1])])
        codes = sorted(end.code for end in ends)
        outcomes[f"two at once: {' and '.join(map(str, codes))}"] += 1
        where = f"two at once, {moment:.3f} of {seconds:.3f} s apart"
        if codes not in ([0, 0], [0, 2]):
            yield f"{where}: ended with {codes}: {' | '.join(end.line for end in ends)}"
        now = self._snapshot()
        if now not in either:
            yield f"{where} {codes}: neither's: {_difference(either[0], now)}; {_difference(either[2], now)}"

    def _reset(self, state: str = "") -> None:
        """The data as they were, or as they were kept."""
        shutil.rmtree(self._work, ignore_errors=True)
        shutil.copytree(self._kept(state) if state else self._base, self._work, symlinks=True)
        set_paths(self._work)
        os.chdir(self._work)

    def _keep(self, state: str) -> None:
        shutil.rmtree(self._kept(state), ignore_errors=True)
        shutil.copytree(self._work, self._kept(state), symlinks=True)

    def _kept(self, state: str) -> Path:
        return self._keeps / f"kept-{state}"

    def _started(self, command: Sequence[str]) -> int:
        """A process that runs a command: its module, then its arguments."""
        module = importlib.import_module(command[0])
        log = os.open(self._log(0), os.O_WRONLY | os.O_CREAT)
        process = os.fork()
        if process:
            os.rename(self._log(0), self._log(process))
            os.close(log)
            return process
        code = 99
        try:
            os.setsid()
            os.dup2(log, 1)
            os.dup2(log, 2)
            signal.alarm(_SECONDS)
            code = module.main(list(command[1:]))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException as error:
            print(f"TRACEBACK: {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _ended(self, processes: Sequence[int]) -> list[Ended]:
        ends = []
        for process in processes:
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            text = self._log(process).read_text(errors="replace").replace("\r", "\n").strip()
            ends.append(Ended(code, (text.splitlines() or [""])[-1][-300:]))
            self._log(process).unlink()
        return ends

    def _log(self, process: int) -> Path:
        return self._keeps / f"{process}.log"

    def _snapshot(self) -> Snapshot:
        """All files and links below the folder, by their content or target."""
        found = {}
        for parent, folders, files in os.walk(self._work):
            for name in (*files, *(folder for folder in folders if Path(parent, folder).is_symlink())):
                path = Path(parent, name)
                key = str(path.relative_to(self._work))
                found[key] = os.readlink(path) if path.is_symlink() else hashlib.md5(path.read_bytes()).hexdigest()
            if not folders and not files:
                found[str(Path(parent).relative_to(self._work)) + "/"] = ""
        return found

    def _visible(self, snapshot: Snapshot) -> Snapshot:
        return {key: value for key, value in snapshot.items() if not _is_hidden(key)}

    def _hidden(self, snapshot: Snapshot) -> set[str]:
        return {key for key in snapshot if _is_hidden(key)}

    def _alive(self, session: int) -> list[int]:
        """Processes of a session that are there five seconds later."""
        alive: list[int] = []
        for _ in range(50):
            alive = []
            for stat in Path("/proc").glob("[0-9]*/stat"):
                try:
                    fields = stat.read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[3]) == session and fields[0] != "Z":
                    alive.append(int(stat.parent.name))
            if not alive:
                break
            time.sleep(0.1)
        return alive


def _free(folder: Path) -> int:
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize


def _size(folder: Path) -> int:
    """Bytes on a disk with blocks of 4 kB."""
    return sum(-(-path.lstat().st_size // 4096) * 4096 for path in folder.rglob("*") if not path.is_dir())


def _is_hidden(path: str) -> bool:
    """Whether it is, or lies in, what a command names only while it works."""
    parts = Path(path).parts
    return any(part.startswith((".unfinished-", ".replaced-")) or part.endswith("lopsided-lock") for part in parts) or (
        parts[-1] == ".lopsided.lock"
    )


def _difference(expected: Snapshot, found: Snapshot) -> str:
    more = sorted(set(found) - set(expected))
    less = sorted(set(expected) - set(found))
    other = sorted(key for key in set(found) & set(expected) if found[key] != expected[key])
    return "; ".join(
        f"{len(names)} {what} ({', '.join(names[:3])})"
        for what, names in (("more", more), ("missing", less), ("different", other))
        if names
    )


if __name__ == "__main__":
    sys.exit(main())
