"""The shell in which pages of the documentation run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documentation.shell import Shell


@pytest.mark.timeout(60)  # it hung: bash waited for a reader, who waited for bash's next command
def test_a_page_may_print_more_than_a_pipe_holds(tmp_path: Path) -> None:
    (call,) = Shell(tmp_path).run("head -c 200000 /dev/zero | tr '\\0' x\nlopsided-eval --help\n")
    assert call.code == 0
    with pytest.raises(AssertionError, match="said at the end"):
        Shell(tmp_path).run("head -c 200000 /dev/zero | tr '\\0' x; echo said at the end; false")
