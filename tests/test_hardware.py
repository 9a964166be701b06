"""What is set for the machine."""

import os
import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, torch
from autoencoders import hardware
{prepare}
def step():
    return [torch.ones(2**20) for _ in range(4)]  # 4 MiB each, freed at once
for _ in range(5): step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50): step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc is told")
def test_what_a_step_frees_is_kept_for_the_next() -> None:
    eager = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # each block is asked for and given back
    faults = {
        prepare: int(
            subprocess.check_output([sys.executable, "-c", STEPS.format(prepare=prepare)], env=eager)
        )
        for prepare in ("", "hardware.prepare()")
    }
    assert faults["hardware.prepare()"] < 100 < faults[""]
