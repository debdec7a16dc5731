"""The studies that come with the package."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def preset_names() -> tuple[str, ...]:
    """Names of the presets.

    Example:
        >>> preset_names()
        ('losses', 'paper-table1', 'paper-table2', 'paper-table3', 'quick')
    """
    return tuple(sorted(path.stem for path in _HERE.glob("*.yaml")))


def preset_text(name: str) -> str:
    """The YAML of a preset."""
    return (_HERE / f"{name}.yaml").read_text(encoding="utf-8")
