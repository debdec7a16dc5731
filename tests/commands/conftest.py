"""Fixtures of other folders."""

from tests.audit.conftest import audited, datasets_once, written, written_once  # noqa: F401
