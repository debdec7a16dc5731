"""What `make docs` adds to the pages of docs/: the files of the repository that pages link to, and notebooks as pages.

Pages are written so that their links work on GitHub. A link to a file outside of docs/ leads, in the site, to a copy of
that file, so the site is whole without a network. mkdocs calls these functions by their names.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[1]
# Where a page of the site comes from, if that is not the same path below docs/.
PAGES = {"index.md": "README.md", **{name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md")}}
COPIED = ("benchmarks/*.md", "benchmarks/results/*", "benchmarks/studies/*", "CITATION.cff", "LICENSE")
CODE = re.compile("<code.*?</code>", re.DOTALL)
OPTION = re.compile(r"(?<=[\s>])--?[a-zA-Z][\w-]{0,24}(?=[\s<])")
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s:]+)(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside of docs/, and the files that results link to."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(REPOSITORY / source).read_text(encoding="utf-8")))
    for pattern in COPIED:
        for path in sorted(REPOSITORY.glob(pattern)):
            if path.is_file():
                name = path.relative_to(REPOSITORY).as_posix()
                files.append(File.generated(config, name, abs_src_path=str(path)))
    for path in sorted((REPOSITORY / "docs").rglob("*.ipynb")):
        name = path.relative_to(REPOSITORY / "docs").with_suffix(".md").as_posix()
        files.append(File.generated(config, name, content=notebook_page(json.loads(path.read_text(encoding="utf-8")))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between files of the site."""
    here = page.file.src_uri
    source = PAGES.get(here, here if here.startswith("benchmarks/") else f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        path, mark, heading = link[2].partition("#")
        if not path:
            return link[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if (REPOSITORY / target).is_dir():
            target = f"{target}/README.md"
        if target.endswith(".ipynb"):
            target = target.removesuffix(".ipynb") + ".md"
        target = "index.md" if target == "README.md" else target.removeprefix("docs/")
        return link[1] + posixpath.relpath(target, posixpath.dirname(here) or ".") + mark + heading + link[3]

    return LINK.sub(moved, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keep an option in one line: ``--threshold`` is not to end a line with its hyphens."""
    return CODE.sub(lambda code: OPTION.sub(r'<span class="option">\g<0></span>', code[0]), html)


def notebook_page(notebook: dict[str, list[dict[str, object]]]) -> str:
    """A notebook as Markdown: its texts, its code, and what that printed or drew."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(map(str, cell["source"])) if isinstance(cell["source"], list) else str(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        outputs = cell.get("outputs", [])
        assert isinstance(outputs, list)
        parts += [shown for output in outputs if (shown := _output(output))]
    return "\n\n".join(parts) + "\n"


def _output(output: dict[str, object]) -> str:
    if "text" in output:
        lines = output["text"]
        return "```text\n" + "".join(lines if isinstance(lines, list) else [str(lines)]).rstrip("\n") + "\n```"
    data = output.get("data")
    if isinstance(data, dict) and "image/png" in data:
        return f'<img alt="what the code above draws" src="data:image/png;base64,{data["image/png"]}">'
    return ""
