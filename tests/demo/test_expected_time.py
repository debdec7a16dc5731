import pytest

from nnunet_lopsided.demo import expected_time as module
from nnunet_lopsided.demo.expected_time import Speed, expected_seconds, expected_time, measured_speed, n_lanes
from nnunet_lopsided.demo.settings import DemoSettings

CONSTANTS = {
    "_ALONE": 10.0,
    "_PER_TRAINING": 5.0,
    "_REST": 4.0,
    "_PER_ITERATION": 0.5,
    "_TRANSFORM": 0.01,
    "_WAITING": 1.5,
}


def test_seconds_by_hand(monkeypatch):
    for name, value in CONSTANTS.items():
        monkeypatch.setattr(module, name, value)
    settings = DemoSettings(epochs=2, iterations=10)
    # Beside each other 5 trainings x (5 + 20 x 0.5) + 4 = 79 CPU seconds; 10 + 79 / 2 = 49.5 in turn, by
    # a machine as fast as that one; half as much waiting.
    assert expected_seconds(settings, 0.01, 2) == pytest.approx(74.25)
    # 89 CPU seconds by one core.
    assert expected_seconds(settings, 0.01, 1) == pytest.approx(133.5)
    assert expected_seconds(settings, 0.02, 1) == pytest.approx(267), "half as fast"


def test_two_trainings_at_once_where_there_are_two_cores(monkeypatch):
    cores = {1: 1, 2: 2, 8: 2}
    for n, expected in cores.items():
        monkeypatch.setattr(module, "n_cores", lambda n=n: n)
        assert n_lanes(DemoSettings()) == expected
        assert n_lanes(DemoSettings(device="cuda")) == 1


def test_what_is_said_names_the_cores_and_what_others_leave_of_them(monkeypatch):
    monkeypatch.setattr(module, "n_cores", lambda: 8)
    monkeypatch.setattr(module, "expected_seconds", lambda *_: 239)
    monkeypatch.setattr(module, "measured_speed", lambda _: Speed(0.01, 0.9))
    assert expected_time(DemoSettings()) == ["about 4 min on 2 of 8 cores that do nothing else"]
    monkeypatch.setattr(module, "measured_speed", lambda _: Speed(0.01, 0.4))
    (line,) = expected_time(DemoSettings())
    assert line.endswith("that do nothing else; other programs leave 40% of them now, which makes it about 10")


def test_nothing_is_promised_for_other_images_or_a_gpu():
    for settings in (DemoSettings(data="/scans"), DemoSettings(device="cuda")):
        (line,) = expected_time(settings)
        assert " min " not in line


def test_the_probe_counts_work_and_time(monkeypatch):
    monkeypatch.setattr(module, "_PROBE_SECONDS", 0.05)
    speed = measured_speed(1)
    assert speed.transform_seconds > 0
    assert 0 < speed.share <= 1
