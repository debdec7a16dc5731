"""Documentation names only what exists: modules, functions, files, links and their headings."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("docs", "benchmarks", "tests")
PAGES = sorted([*REPOSITORY.glob("*.md"), *(page for name in FOLDERS for page in (REPOSITORY / name).rglob("*.md"))])
NAMES = [page.relative_to(REPOSITORY).as_posix() for page in PAGES]
# The start-up line is a file whose name looks like a module's.
DOTTED = re.compile(r"\bnnunet_lopsided(?:\.(?!pth\b)\w+)+")
IMPORTED = re.compile(r"^\s*(?:>>> )?(from nnunet_lopsided[\w.]* import (?:\([^)]*\)|.*))$", re.MULTILINE)
PARTS = sorted(
    p.stem for p in (REPOSITORY / "nnunet_lopsided").iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()
)
# `evaluation.matching`, but not `study.yaml`.
OF_PART = re.compile(rf"`((?:{'|'.join(PARTS)})\.(?!(?:yaml|json|csv|html|md|py)\b)\w+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
OWN_FILE = re.compile(r"`((?:benchmarks|docs|tests|nnunet_lopsided)/[\w./-]*\w)")


def names_of(text: str) -> set[str]:
    """Every module, class and function of ours that a page names, as a dotted path."""
    found = set(DOTTED.findall(text)) | {f"nnunet_lopsided.{name}" for name in OF_PART.findall(text)}
    for statement in IMPORTED.findall(text):
        for node in ast.walk(ast.parse(statement)):
            if isinstance(node, ast.ImportFrom):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def exists(path: str) -> bool:
    """Whether a dotted path is a module, or leads from one to something in it."""
    parts = path.split(".")
    for n in range(len(parts), 0, -1):
        try:
            here = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            if not hasattr(here, part):
                return False
            here = getattr(here, part)
        return True
    return False


def anchors(text: str) -> Iterator[str]:
    """What links can name in a page: its headings, as GitHub writes them."""
    without_code = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    times: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.*)$", without_code, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        times[slug] = times.get(slug, -1) + 1
        yield f"{slug}-{times[slug]}" if times[slug] else slug


def broken_links(page: Path) -> list[str]:
    """Links to files that do not exist, or to headings that their page does not have."""
    broken = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_name_exists(page: Path) -> None:
    assert sorted(name for name in names_of(page.read_text(encoding="utf-8")) if not exists(name)) == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_file_of_ours_exists(page: Path) -> None:
    named = OWN_FILE.findall(page.read_text(encoding="utf-8"))
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_the_layout_names_every_part() -> None:
    page = (REPOSITORY / "docs" / "explanation" / "layout.md").read_text(encoding="utf-8")
    assert [part for part in PARTS if not part.startswith("_") and f"`{part}`" not in page] == []


def test_what_is_found_missing(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `b`, c\n[1](#a-b-c) [2](#b) [3](other.md) [4](page.md#a-b-c) [5](https://example.org)\n")
    assert broken_links(page) == ["#b", "other.md"]
    text = "nnunet_lopsided.losses nnunet_lopsided.pth `study.yaml` `files.no`\n"
    text += ">>> from nnunet_lopsided.errors import refuse, no"
    found = names_of(text)
    assert found == {f"nnunet_lopsided.{end}" for end in ("losses", "files.no", "errors.refuse", "errors", "errors.no")}
    assert sorted(name for name in found if not exists(name)) == [
        "nnunet_lopsided.errors.no",
        "nnunet_lopsided.files.no",
    ]
