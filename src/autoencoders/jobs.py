"""The jobs of a sweep: each a `python train.py ...` of its own, in its own folder.

A process for each job keeps the jobs apart: one that crashes takes no other along, several run side by side,
and a job on several devices is to Lightning what it would be without the sweep.
"""

import math
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from autoencoders import stored
from autoencoders.config import REPOSITORY, check, gpus, quoted
from autoencoders.errors import ERROR_FILE, UserError
from autoencoders.files import written_whole
from autoencoders.processes import GRACE_S, Interruption, how_it_ended
from autoencoders.runs import saved_overrides

POLL_S = 0.1
OF_THE_SWEEP = ("hydra.run.", "hydra.mode", "hydra.sweep", "hydra/sweep", "hydra.launcher", "hydra/launcher")
OF_A_PLACE = (
    "logger.wandb.group=",
    "data.root=",
    "trust=",
)  # beginnings of overrides that make no other job
OF_A_RANK = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_", "SLURM_")  # beginnings of variables


@dataclass
class Job:
    """One job of a sweep, before it is started, while it runs and afterwards."""

    number: int
    overrides: list[str]
    hydra_overrides: list[str]
    folder: Path
    objective: str
    evaluated: bool
    processes: int  # one a device
    on_gpus: int  # how many GPUs it takes; 0: it runs on the CPU
    script: Path = REPOSITORY / "train.py"
    process: subprocess.Popen[bytes] | None = None
    devices: list[str] = field(default_factory=list)
    pruned: bool = False

    @classmethod
    def of(cls, cfg: DictConfig) -> "Job":
        """A job by its composed configuration, Hydra's part included."""
        hydra_config = HydraConfig.instance()
        before, hydra_config.cfg = hydra_config.cfg, cfg  # type: ignore[assignment]  # for ${hydra:job.num} and its like
        try:
            sweep = cfg.hydra.sweep
            folder = Path(str(sweep.dir), str(sweep.subdir)).absolute()
            if Path(str(sweep.dir)).resolve() not in folder.resolve().parents:
                raise UserError(f"hydra.sweep.subdir={sweep.subdir} must be a folder of the sweep's own")
            devices = cfg.trainer.devices
            processes = devices if isinstance(devices, int) else max(1, len(gpus()))
            overrides = _strings(cfg.hydra.overrides.task)
            if "wandb" in cfg.logger and cfg.logger.wandb.group is None:
                overrides.append(f"logger.wandb.group={quoted(Path(str(sweep.dir)).absolute().name)}")
            return cls(
                number=int(cfg.hydra.job.num),
                overrides=overrides,
                hydra_overrides=[
                    o for o in _strings(cfg.hydra.overrides.hydra) if not o.startswith(OF_THE_SWEEP)
                ],
                folder=folder,
                objective=cfg.objective,
                evaluated=cfg.evaluate,
                processes=processes,
                on_gpus=min(processes, len(gpus())) if cfg.trainer.accelerator != "cpu" else 0,
            )
        finally:
            hydra_config.cfg = before

    @property
    def finished(self) -> bool:
        last = "evaluation/metrics.json" if self.evaluated else "metrics.json"
        return (self.folder / "metrics.json").is_file() and (self.folder / last).is_file()

    @property
    def value(self) -> float:
        """The objective of a finished job."""
        return float(stored.read_metrics(self.folder / "metrics.json")[self.objective])

    @property
    def error(self) -> str | None:
        path = self.folder / "error.txt"
        return path.read_text().strip() if path.is_file() else None

    def fail(self, message: str) -> None:
        """Leaves the reason in the folder, and which job it was if it didn't come to saying so itself."""
        saved = self.folder / ".hydra" / "overrides.yaml"
        if not saved.is_file():
            saved.parent.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(OmegaConf.create(self.overrides), saved)
        with written_whole(self.folder / "error.txt") as temporary:
            temporary.write_text(message + "\n")

    def check_folder(self) -> None:
        """Raises UserError if its folder holds another job, which would be taken for this one."""
        if not (self.folder / ".hydra" / "overrides.yaml").is_file():
            return
        held, own = (  # a sweep's folder may have been renamed, and with it the group
            [override for override in overrides if not override.startswith(OF_A_PLACE)]
            for overrides in (saved_overrides(self.folder), self.overrides)
        )
        if held != own:
            raise UserError(
                f"{self.folder} holds another job ({' '.join(held)}): choose another hydra.sweep.dir"
            )

    def command(self) -> list[str]:
        """What starts the job, or goes on with it where it was left."""
        script = [sys.executable, str(self.script)]
        if (self.folder / "checkpoints" / "last.ckpt").is_file():
            trust = [override for override in self.overrides if override.startswith("trust=")]
            return [*script, f"resume={self.folder}", *trust]  # what a file can't say for itself
        flags, _ = get_args_parser().parse_known_args(sys.argv[1:])
        for flag in ("config_path", "config_name", "config_dir"):
            if value := getattr(flags, flag):
                script.append(f"--{flag.replace('_', '-')}={value}")
        own = [f"hydra.run.dir={quoted(self.folder)}", "hydra.mode=RUN"]
        numbers = [f"hydra.job.{key}={self.number}" for key in ("num", "id")]
        return [*script, *self.overrides, *self.hydra_overrides, *own, *numbers]

    def start(self, devices: list[str], threads: int | None, log: bool) -> None:
        """Starts the job's process on the GPUs of these names, with so many CPU threads a process."""
        self.devices = devices
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OF_A_RANK)}
        environment[ERROR_FILE] = str(self.folder / "error.txt")
        if devices:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        if threads and "OMP_NUM_THREADS" not in environment:
            environment["OMP_NUM_THREADS"] = str(threads)
        command = self.command()
        for said_before in ("error.txt", "pruned.txt"):
            (self.folder / said_before).unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        # In a session of its own: a Ctrl-C is the sweep's, which passes it on.
        arguments: dict[str, Any] = {
            "env": environment,
            "start_new_session": True,
            "stdin": subprocess.DEVNULL,
        }
        if log:
            with (self.folder / "log.txt").open("ab") as file:
                self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **arguments)
        else:
            self.process = subprocess.Popen(command, **arguments)

    def ended(self, stopping: bool) -> bool:
        """Whether its process has ended; if it failed by itself, it is said why in its folder."""
        assert self.process is not None
        code = self.process.poll()
        if code is None:
            return False
        if code and self.error is None and not stopping and not self.pruned:
            self.fail(how_it_ended(code))
        return True

    def signal(self, number: int) -> None:
        """Asks the job to stop: its first process, which ends the others."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def run(jobs: Sequence[Job], side_by_side: int | None, hopeless: Callable[[Job], bool] | None = None) -> None:
    """Runs the jobs that are not finished yet, in their order, as many at a time as there is room for.

    Args:
        jobs: what is to be run; afterwards each is finished, or has an error, or was pruned.
        side_by_side: the most jobs at a time; None: as many as there are GPUs for, or one on a CPU.
        hopeless: asked of every running job again and again; if so, the job is stopped.

    Raises:
        Interrupted: this process was asked to stop; the running jobs were, too.
    """
    free = deque(gpus())
    limit = side_by_side or max(1, len(free))
    cores = os.cpu_count() or 1
    waiting, running = deque(job for job in jobs if not job.finished and not job.error), list[Job]()
    with Interruption().listening() as interruption:
        while waiting or running:
            while waiting and len(running) < limit and waiting[0].on_gpus <= len(free) and not interruption:
                job = waiting.popleft()
                devices = [free.popleft() for _ in range(job.on_gpus)]
                threads = None if limit == 1 else max(1, cores // (limit * job.processes))
                _say(job, "starts" + (f" ({job.folder / 'log.txt'})" if limit > 1 else ""))
                job.start(devices, threads, log=limit > 1)
                running.append(job)
            for job in list(running):
                if hopeless and not job.pruned and not interruption and hopeless(job):
                    job.pruned = True
                    (job.folder / "pruned.txt").write_text("it was worse than most others at this time\n")
                    job.signal(signal.SIGTERM)
                if job.ended(stopping=bool(interruption)):
                    running.remove(job)
                    free.extend(job.devices)
                    if not interruption:
                        _say(job, _result(job))
            if interruption:
                _stop(running, interruption)
                raise interruption.exit()
            time.sleep(POLL_S)


def run_alone(cfg: DictConfig) -> float:
    """Runs a job that a launcher has brought to this process, as SLURM's or Ray's does; gives its objective,
    or not a number where it failed."""
    whole = OmegaConf.merge({"hydra": HydraConfig.get()}, cfg)
    assert isinstance(whole, DictConfig)
    job = Job.of(whole)
    job.folder = Path(HydraConfig.get().runtime.output_dir)
    (job.folder / "error.txt").unlink(missing_ok=True)
    run([job], side_by_side=1)
    return job.value if job.finished else math.nan


def _result(job: Job) -> str:
    if job.finished:
        return f"finished: {job.objective} {job.value:.5g}"
    return "pruned" if job.pruned else f"failed: {job.error}"


def _stop(running: Sequence[Job], interruption: Interruption) -> None:
    """Passes the signal on; a job that does not end in time is killed."""
    assert interruption.received is not None
    for job in running:
        job.signal(interruption.received)
    end = time.monotonic() + 2 * GRACE_S
    while time.monotonic() < end and not all(job.ended(stopping=True) for job in running):
        time.sleep(POLL_S)
    for job in running:
        job.kill()


def _say(job: Job, what: str) -> None:
    print(f"job {job.number} [{' '.join(job.overrides)}] {what}", flush=True)


def checked(cfg: DictConfig, script: Path) -> Job:
    """The job of a composed configuration; one that can't be run has its error in its folder already.

    Raises:
        UserError: its folder holds another job.
    """
    job = Job.of(cfg)
    job.script = script
    job.check_folder()
    (job.folder / "error.txt").unlink(missing_ok=True)
    try:
        check(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
    except UserError as error:
        job.fail(str(error))
    return job


def _strings(node: Any) -> list[str]:
    strings: Any = OmegaConf.to_container(node, resolve=False)
    return [str(string) for string in strings]
