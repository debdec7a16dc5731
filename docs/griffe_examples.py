"""Lets the API pages show the examples of docstrings as code: griffe knows them by the heading "Examples" alone."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Reads ``Example:`` as ``Examples:``."""

    # Any: griffe hands over what it has loaded besides, which this does not look at.
    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
