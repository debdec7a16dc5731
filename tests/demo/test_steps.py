import json
import sys

import pytest

from nnunet_lopsided.demo.steps import Step, run_steps
from nnunet_lopsided.errors import InputError


def python(name, code, **environment):
    return Step(name, (sys.executable, "-c", code), tuple(environment.items()))


def test_steps_run_in_order_with_their_output_in_logs(tmp_path):
    show = "import os; print(os.environ['A'], os.environ['B'])"
    steps = [python("one", "print('first')"), python("two", show, B="b")]
    seconds = run_steps(iter(steps), 2, tmp_path / "logs", {"A": "a"})
    assert list(seconds) == ["one", "two"]
    assert (tmp_path / "logs" / "one.log").read_text() == "first\n"
    assert (tmp_path / "logs" / "two.log").read_text() == "a b\n"


def test_a_finished_step_is_not_repeated_but_a_changed_one_is(tmp_path):
    append = f"open({str(tmp_path / 'count')!r}, 'a').write('x')"
    run_steps([python("step", append)], 1, tmp_path / "logs", {})
    run_steps([python("step", append)], 1, tmp_path / "logs", {})
    assert (tmp_path / "count").read_text() == "x"
    run_steps([python("step", append + "; pass")], 1, tmp_path / "logs", {})
    assert (tmp_path / "count").read_text() == "xx"
    assert json.loads((tmp_path / "logs" / "step.json").read_text())["command"][-1].endswith("; pass")


def test_a_failed_step_names_its_log_and_last_line_and_is_run_again(tmp_path):
    fail = python("bad", "import sys; print('what went wrong'); sys.exit(3)")
    for _ in range(2):
        with pytest.raises(InputError, match=r"step bad failed with exit code 3: what went wrong \(see .*bad\.log\)"):
            run_steps([fail, python("never", "raise SystemExit")], 2, tmp_path / "logs", {})
    assert not (tmp_path / "logs" / "bad.json").exists()
    assert not (tmp_path / "logs" / "never.log").exists()


def test_steps_are_made_lazily(tmp_path):
    def steps():
        yield python("make", f"open({str(tmp_path / 'made')!r}, 'w').write('hello')")
        yield python("use", f"print({(tmp_path / 'made').read_text()!r})")

    run_steps(steps(), 2, tmp_path / "logs", {})
    assert (tmp_path / "logs" / "use.log").read_text() == "hello\n"
