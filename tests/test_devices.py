"""What can be told of devices without torch."""

import time

import pytest

from autoencoders import devices


@pytest.mark.parametrize(
    ("busy", "said"), [(0.5, ""), (20.0, "note: other work keeps 2.0 of the")], ids=["quiet", "busy"]
)
def test_other_work_on_the_cores_is_said_once(
    busy: float, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """... with what to set, where that is not set already."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(devices, "_AT_START", (100.0, 1.0))
    monkeypatch.setattr(devices, "_cpu_seconds", lambda: (100.0 + busy + 2.0, 3.0))
    monkeypatch.setattr(devices, "_STARTED", time.monotonic() - 10)
    devices.say_if_cores_are_busy("cpu")
    shown = capsys.readouterr().out
    assert shown.startswith(said)
    assert ("OMP_NUM_THREADS=" in shown) == bool(said)
    devices.say_if_cores_are_busy("cuda")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    devices.say_if_cores_are_busy("cpu")
    assert capsys.readouterr().out == ""


def test_cpu_seconds_grow() -> None:
    busy, own = devices._cpu_seconds()
    sum(range(10**7))
    later, later_own = devices._cpu_seconds()
    assert later_own > own
    assert later >= busy
