"""How griffe reads docstrings for the API pages: it knows examples by the heading "Examples" alone, and no roles."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Reads ``Example:`` as ``Examples:``, and ``:class:`~package.Name``` as ``Name``."""

    # Any: griffe hands over what it has loaded besides, which this does not look at.
    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            text = re.sub(r":\w+:`~(?:\w+\.)*(\w+)`", r"`\1`", text)
            obj.docstring.value = re.sub(r":\w+:(`[\w.]+`)", r"\1", text)
