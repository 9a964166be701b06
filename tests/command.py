"""train.py and evaluate.py as a user meets them: in processes of their own, on the tiny data; their lines."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import tiny
import torch

from autoencoders import errors

NO_WANDB = ["logger=csv"]
OFTEN = ["checkpoint.every_n_minutes=0"]  # before every step


def start(
    script: str,
    data_root: Path,
    *arguments: str,
    cwd: Path | None = None,
    launcher: tuple[str, ...] = (sys.executable,),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.Popen[str]:
    """Starts a script on the tiny data, in a process of its own."""
    whole = {
        **os.environ, "TINY_ROOT": str(data_root), "TINY_SCRIPT": script, "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{Path(tiny.__file__).parent}{os.pathsep}{tiny.REPOSITORY / 'src'}",
        "WANDB_MODE": "offline", **environment,
    }  # fmt: skip
    command = [*launcher, str(Path(tiny.__file__)), *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=whole, stdout=pipe, stderr=pipe, text=True, cwd=cwd)


def run(
    script: str, data_root: Path, *arguments: str, ok: bool = True, cwd: Path | None = None, fault: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs a script to its end, or to a fault of faults.py."""
    environment = {"TINY_FAULT": fault} if fault else {}
    process = start(script, data_root, *arguments, cwd=cwd, environment=environment)
    out, err = process.communicate(timeout=200)
    assert (process.returncode == 0) == ok, out + err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def small(data_root: Path, folder: Path, *arguments: str) -> list[str]:
    """The arguments of a run of seconds, in `folder`."""
    quoted = str(folder).replace("'", r"\'")
    return [
        *tiny.SMALL,
        f"data.root={data_root}",
        f"hydra.run.dir='{quoted}'",
        "figures.images=4",
        *arguments,
    ]


def train(data_root: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("train.py", data_root, *small(data_root, folder, *arguments))


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.1)


def processes(marker: str) -> dict[int, str]:
    """The processes of this machine whose environment holds `marker`, with their command lines."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (path / "environ").read_bytes() and (path / "cmdline").read_bytes():
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it is gone, or another user's
    return found


def column(folder: Path, name: str) -> list[float]:
    """The values of a metric in metrics.csv, without the rows that have none."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    path = folder / "checkpoints" / f"{name}.ckpt"
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def line_of(call: Callable[[], object]) -> str | None:
    """The line that `call` ends with; None where it does what was asked for. A bug of ours comes through."""
    try:
        call()
    except Exception as error:
        line = errors.explain(error)
        if line is None:
            raise
        assert line.isprintable()
        assert 8 < len(line) < 1010
        return line
    return None
