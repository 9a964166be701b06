"""What can be told of devices without torch, and which jobs of a sweep run on which."""

import time
from pathlib import Path

import pytest

from autoencoders import devices, jobs


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


@pytest.mark.parametrize(
    ("max_parallel", "on_gpus", "expected"),
    [
        (None, [1, 1, 1, 1, 1], [{"0"}, {"1"}, {"2"}]),  # one each, the others wait
        (None, [2, 2, 1], [{"0", "1"}]),  # only one is left, for a job that takes two
        (5, [1, 1, 1, 1, 1], [{"0"}, {"1"}, {"2"}, {"0"}, {"1"}]),  # they share
        (2, [3, 2], [{"0", "1", "2"}, {"0", "1"}]),
        (2, [0, 0, 0], [set(), set()]),  # on the CPU
    ],
)
def test_jobs_have_a_gpu_of_their_own_or_share_them_if_told_to(
    max_parallel: int | None, on_gpus: list[int], expected: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "gpus", lambda: ["0", "1", "2"])
    started: list[set[str]] = []
    at_once: list[int] = []  # the number of jobs that had been started when the first of them ended

    class Job(jobs.Job):
        def start(self, devices: list[str], threads: int | None, log: bool) -> None:
            self.devices = devices
            started.append(set(devices))

        def ended(self, stopping: bool) -> bool:
            at_once.append(len(started))
            return True

    batch = [Job(Path("job"), [], "", False, max(1, number), number, False) for number in on_gpus]
    monkeypatch.setattr(jobs, "_result", lambda job: "")
    jobs.run(batch, max_parallel)
    assert started[: at_once[0]] == expected
    assert len(started) == len(batch)
