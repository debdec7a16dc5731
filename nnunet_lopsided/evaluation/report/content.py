"""What pages read."""

from collections.abc import Mapping
from typing import Any

SummaryContent = Mapping[str, Any]
ShareContent = Mapping[str, Any]
