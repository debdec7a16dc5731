"""Documentation names only what exists: modules, functions, files, links and their headings."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

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


def test_tables_are_what_the_results_say() -> None:
    """Every table of measured results comes from benchmarks/results; `make results` writes them."""
    tables = script("benchmarks/study_tables.py")
    old = [page for page in PAGES if tables.with_tables(text := page.read_text(encoding="utf-8")) != text]
    assert old == [], "make results"


def test_results_have_no_table_by_hand() -> None:
    marked = re.compile(r"<!-- table: .*?<!-- end of table -->", re.DOTALL)
    by_hand = []
    for page in sorted((REPOSITORY / "docs" / "results").glob("*.md")):
        rest = marked.sub("", page.read_text(encoding="utf-8"))
        by_hand += [line for line in rest.splitlines() if line.startswith("|") and len(re.findall(r"\d\.\d", line)) > 1]
    assert by_hand == []


def test_figures_are_what_the_results_say(tmp_path: Path) -> None:
    figures = script("benchmarks/study_figures.py")
    figures.write_figures(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.svg" for name in figures.FIGURES]
    for path in tmp_path.iterdir():
        # The marks' places, not all bytes: another version of matplotlib writes other ones.
        marks = re.compile(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"')
        kept = (figures.ASSETS / path.name).read_text(encoding="utf-8")
        ours = [(round(float(x)), round(float(y))) for x, y in marks.findall(path.read_text(encoding="utf-8"))]
        assert ours == [(round(float(x)), round(float(y))) for x, y in marks.findall(kept)], "make results"
        assert len(ours) > 20


NOTEBOOKS = sorted((REPOSITORY / "docs").rglob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[path.name for path in NOTEBOOKS])
def test_a_notebook_prints_what_it_shows(notebook: Path) -> None:
    run = script("docs/run_notebooks.py")
    assert run.printed(notebook) == run.kept(notebook)
    assert "".join(run.kept(notebook))


def test_links_lead_to_the_repository_on_pypi() -> None:
    """One address, wherever it is written; pictures and pages by their full addresses."""
    settings = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    addresses = set(re.findall(r"https://(?:raw\.)?github(?:usercontent)?\.com/[\w-]+/nnunet-lopsided", settings))
    assert {address.split(".com/")[1] for address in addresses} == {"nnunet-lopsided/nnunet-lopsided"}
    assert "git clone https://github.com/nnunet-lopsided/nnunet-lopsided " in (REPOSITORY / "README.md").read_text()


def script(path: str) -> ModuleType:
    """A script of the repository as a module, its neighbours importable."""
    folder = str((REPOSITORY / path).parent)
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(Path(path).stem)
    finally:
        sys.path.remove(folder)


# Below this a diff shows a change of a sentence as such; tables and code have lines of their own.
LONGEST_LINE, MOST_WORDS = 125, 40


def prose(text: str) -> str:
    """A page without code, tables and headings."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join(line for line in text.splitlines() if not re.match(r"\s*\||#|    |<", line))


def sentences(text: str) -> Iterator[str]:
    """The sentences of a page; a colon and a semicolon end one, as eyes rest there."""
    for block in re.split(r"\n\s*\n|\n\s*(?=[-*] |\d+\. )", prose(text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(block.split()))
        yield from re.split(r"(?<=[.!?:;])[\"*)]*\s+", words)


READ = [page for page in PAGES if "docs" in page.parts or page.name in ("README.md", "CONTRIBUTING.md")]


@pytest.mark.parametrize("page", READ, ids=[page.relative_to(REPOSITORY).as_posix() for page in READ])
def test_a_page_can_be_read(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    # Signatures of functions cannot be broken.
    lines = [line for line in prose(text).splitlines() if len(line) > LONGEST_LINE and not line.startswith("`")]
    assert lines == []
    assert [words for words in sentences(text) if len(words.split()) > MOST_WORDS] == []


def test_what_is_too_long() -> None:
    text = "# No\n\nOne two. Three\nfour: five\n\n- six [seven](eight)\n- nine\n\n| ten |\n\n```\neleven\n```\n"
    assert [words for words in sentences(text) if words] == ["One two.", "Three four:", "five", "- six seven", "- nine"]
