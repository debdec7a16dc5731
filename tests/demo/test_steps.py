import json
import sys
import threading
import time

import pytest

from nnunet_lopsided.demo.steps import Step, StepRunner
from nnunet_lopsided.errors import InputError


def python(name, code, **environment):
    return Step(name, (sys.executable, "-c", code), tuple(environment.items()))


@pytest.fixture
def runner(tmp_path):
    return lambda **environment: StepRunner(tmp_path / "logs", environment, 2)


def test_steps_run_in_order_with_their_output_in_logs(tmp_path, runner):
    show = "import os; print(os.environ['A'], os.environ['B'])"
    one = runner(A="a")
    one.run([python("one", "print('first')"), python("two", show, B="b")])
    assert list(one.spent) == ["one", "two"]
    assert (tmp_path / "logs" / "one.log").read_text() == "first\n"
    assert (tmp_path / "logs" / "two.log").read_text() == "a b\n"


def test_a_finished_step_is_not_repeated_but_a_changed_one_is(tmp_path, runner):
    append = f"open({str(tmp_path / 'count')!r}, 'a').write('x')"
    runner().run([python("step", append)])
    runner().run([python("step", append)])
    assert (tmp_path / "count").read_text() == "x"
    runner().run([python("step", append + "; pass")])
    assert (tmp_path / "count").read_text() == "xx"
    assert json.loads((tmp_path / "logs" / "step.json").read_text())["command"][-1].endswith("; pass")


def test_a_failed_step_names_its_log_and_last_line_and_is_run_again(tmp_path, runner):
    fail = python("bad", "import sys; print('what went wrong'); sys.exit(3)")
    for _ in range(2):
        with pytest.raises(InputError, match=r"step bad failed with exit code 3: what went wrong \(see .*bad\.log\)"):
            runner().run([fail, python("never", "raise SystemExit")])
    assert not (tmp_path / "logs" / "bad.json").exists()
    assert not (tmp_path / "logs" / "never.log").exists()


def test_steps_are_made_lazily(tmp_path, runner):
    def steps():
        yield python("make", f"open({str(tmp_path / 'made')!r}, 'w').write('hello')")
        yield python("use", f"print({(tmp_path / 'made').read_text()!r})")

    runner().run(steps())
    assert (tmp_path / "logs" / "use.log").read_text() == "hello\n"


def waits_for(mine, other, tmp_path):
    """Ends only if the other runs at the same time."""
    return (
        f"import pathlib, time; p = pathlib.Path({str(tmp_path)!r}); (p / {mine!r}).touch()\n"
        f"while not (p / {other!r}).exists(): time.sleep(0.05)"
    )


def test_two_lanes_run_side_by_side_each_in_its_order(tmp_path, runner):
    both = runner()
    lanes = [
        [python("a1", waits_for("a", "b", tmp_path)), python("a2", f"print({str(tmp_path)!r})")],
        [python("b1", waits_for("b", "a", tmp_path))],
        [python("c1", "print(1)")],
    ]
    both.run_lanes(lanes, at_once=2)
    assert both.spent.keys() == {"a1", "a2", "b1", "c1"}
    assert list(both.spent).index("a1") < list(both.spent).index("a2")
    alone = StepRunner(tmp_path / "others", {}, 1)
    alone.run_lanes([[python("d", "")], [python("e", "")]], at_once=1)
    assert list(alone.spent) == ["d", "e"]


def test_a_failure_ends_the_lanes_beside_it_and_begins_no_other(tmp_path, runner):
    started, before = time.monotonic(), set(threading.enumerate())
    lanes = [
        [python("long", waits_for("long", "never", tmp_path))],
        [python("bad", f"import time\n{waits_for('bad', 'long', tmp_path)}\nraise SystemExit('wrong')")],
        [python("later", "print(1)")],
    ]
    with pytest.raises(InputError, match="step bad failed with exit code 1: wrong"):
        runner().run_lanes(lanes, at_once=2)
    assert time.monotonic() - started < 60
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["bad.log", "long.log"]
    assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("ThreadPool")]


def test_cpu_time_goes_to_the_step_that_has_used_it(tmp_path, runner):
    busy = "import time\nwhile time.process_time() < 0.6: pass"
    both = runner()
    both.run_lanes([[python("busy", busy)], [python("idle", "import time; time.sleep(2)")]], at_once=2)
    assert both.spent["busy"].cpu_seconds > both.spent["idle"].cpu_seconds
    assert both.spent["busy"].cpu_seconds >= 0.5
    kept = json.loads((tmp_path / "logs" / "busy.json").read_text())
    assert kept["cpu_seconds"] == both.spent["busy"].cpu_seconds
