"""Run the notebooks of docs/ and keep what they print.

    python docs/run_notebooks.py

Code cells are run from top to bottom in one namespace, without Jupyter. `tests/test_docs.py` compares.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

DOCS = Path(__file__).parent


def printed(path: Path) -> list[str]:
    """What every code cell of a notebook prints, in order."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    outputs = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            with contextlib.redirect_stdout(io.StringIO()) as stdout:
                exec(compile("".join(cell["source"]), f"{path.name}, cell {len(outputs) + 1}", "exec"), namespace)
            outputs.append(stdout.getvalue())
    return outputs


def kept(path: Path) -> list[str]:
    """What every code cell printed when the notebook was last written."""
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    return ["".join("".join(output.get("text", [])) for output in cell["outputs"]) for cell in cells]


def main() -> None:
    for path in sorted(DOCS.rglob("*.ipynb")):
        outputs = iter(printed(path))
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                text = next(outputs).splitlines(keepends=True)
                cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": text}] if text else []
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{path.relative_to(DOCS)}: run")


if __name__ == "__main__":
    main()
