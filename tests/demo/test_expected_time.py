import pytest

from nnunet_lopsided.demo import expected_time as module
from nnunet_lopsided.demo.expected_time import expected_seconds, expected_time, transforms_per_second
from nnunet_lopsided.demo.settings import DemoSettings


def test_seconds_by_hand(monkeypatch):
    for name, value in (("_FIXED", 100.0), ("_PER_ITERATION", 0.5), ("_TRANSFORM", 0.01), ("_WAITING", 1.5)):
        monkeypatch.setattr(module, name, value)
    settings = DemoSettings(epochs=2, iterations=10)
    # 100 + 3 arms x 20 iterations x 0.5 = 130 CPU seconds are 13000 transforms; 200 in a second; half as much waiting.
    assert expected_seconds(settings, 200) == pytest.approx(97.5)


def test_what_is_said_names_the_cores(monkeypatch):
    monkeypatch.setattr(module, "_cores", lambda: 8)
    monkeypatch.setattr(module, "_PROBE_SECONDS", 0.05)
    (line,) = expected_time(DemoSettings())
    assert line.startswith("about ")
    assert " min on 2 of 8 cores, as fast as they are now" in line


def test_nothing_is_promised_for_other_images_or_a_gpu():
    for settings in (DemoSettings(data="/scans"), DemoSettings(device="cuda")):
        (line,) = expected_time(settings)
        assert " min " not in line


def test_the_probe_counts_work(monkeypatch):
    monkeypatch.setattr(module, "_PROBE_SECONDS", 0.05)
    assert transforms_per_second(1) > 0
