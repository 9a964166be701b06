"""The jobs of a sweep: each a `python train.py resume=<its folder>` of its own.

A job's folder holds its config before it starts, so a job is started and resumed in the same way, and is what
it was when the sweep began. A process for each keeps the jobs apart: one that crashes takes no other along,
several run side by side, and a job on several devices is to Lightning what it would be without the sweep.
"""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from autoencoders import runs, untrusted
from autoencoders.config import REPOSITORY
from autoencoders.devices import gpus
from autoencoders.errors import ERROR_FILE, UserError, one_line
from autoencoders.files import atomic_write
from autoencoders.processes import GRACE_S, Interruption, how_it_ended

POLL_S = 0.1
COMMAND = "AUTOENCODERS_COMMAND"  # what the user would type for a job, for its process
OF_A_PLACE = ("logger.wandb.group=", "logger.group=", "data.root=", "trust=")  # no difference between jobs
OF_A_RANK = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_", "SLURM_")  # beginnings of variables


@dataclass
class Job:
    """One job of a sweep, before it is started, while it runs and afterwards."""

    folder: Path
    overrides: list[str]
    objective: str
    evaluated: bool
    processes: int  # one a device
    on_gpus: int  # how many GPUs it takes; 0: it runs on the CPU
    trust: bool  # whether its config is the user's own
    number: int = 0  # of a search's trial
    changes: list[str] = field(default_factory=list)  # overrides of a resumed sweep
    script: Path = REPOSITORY / "train.py"
    process: subprocess.Popen[bytes] | None = None
    devices: list[str] = field(default_factory=list)
    pruned: bool = False

    @classmethod
    def make(cls, cfg: DictConfig, keep: bool = True) -> "Job":
        """A new job by its composed configuration, Hydra's part included.

        Args:
            keep: whether a config that its folder holds already stays.

        Raises:
            UserError: the folder is not one of the sweep's, or holds another job.
        """
        hydra_config = HydraConfig.instance()
        before, hydra_config.cfg = hydra_config.cfg, cfg  # type: ignore[assignment]  # for ${hydra:job.num} and its like
        try:
            sweep = cfg.hydra.sweep
            folder = Path(str(sweep.dir), str(sweep.subdir)).absolute()
            if Path(str(sweep.dir)).resolve() not in folder.resolve().parents:
                raise UserError(f"hydra.sweep.subdir={sweep.subdir} must be a folder of the sweep's own")
            overrides = _strings(cfg.hydra.overrides.task)
            own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
            if "wandb" in own.logger and own.logger.wandb.get("group", "") is None:
                own.logger.wandb.group = Path(str(sweep.dir)).absolute().name
            held = runs.read_overrides(folder)
            if (folder / runs.OVERRIDES).is_file() and _of_the_job(held) != _of_the_job(overrides):
                raise UserError(
                    f"{folder} holds another sweep's job ({' '.join(held)}): choose another hydra.sweep.dir"
                )
            kept = keep and (folder / runs.CONFIG).is_file()
            if not kept:
                runs.write_config(folder, own, overrides)
            # What the folder held before anyone may have made.
            return cls._of(folder, overrides, own, trust=not kept or bool(own.get("trust")))
        finally:
            hydra_config.cfg = before

    @classmethod
    def read(cls, command: runs.Command) -> "Job":
        """The job in a folder that anyone may have made, to be resumed with the command's overrides.

        Raises:
            UserError: it holds none, or the overrides would make another one of it.
        """
        folder, overrides = command.folder.absolute(), runs.read_overrides(command.folder)
        cfg = runs.read_run(command.folder, command.trust, command.trusting)
        job = cls._of(folder, overrides, cfg, command.trust)
        job.changes, job.script = command.overrides, Path(sys.argv[0]).absolute()
        if not job.finished:
            runs.compose_resumed(command)
        return job

    @classmethod
    def _of(cls, folder: Path, overrides: list[str], cfg: DictConfig, trust: bool) -> "Job":
        devices = cfg.trainer.devices
        processes = devices if isinstance(devices, int) and devices > 0 else max(1, len(gpus()))
        return cls(
            folder=folder,
            overrides=overrides,
            objective=str(cfg.objective),
            evaluated=bool(cfg.evaluate),
            processes=processes,
            on_gpus=min(processes, len(gpus())) if cfg.trainer.accelerator != "cpu" else 0,
            trust=trust,
        )

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def finished(self) -> bool:
        last = "evaluation/metrics.json" if self.evaluated else "metrics.json"
        return (self.folder / "metrics.json").is_file() and (self.folder / last).is_file()

    @property
    def value(self) -> float:
        """The objective of a finished job; not a number where it was never validated."""
        metrics = untrusted.read_metrics(self.folder / "metrics.json")
        return float(metrics.get(self.objective, math.nan))

    @property
    def error(self) -> str | None:
        path = self.folder / "error.txt"
        return path.read_text("utf-8").strip() if path.is_file() else None

    def fail(self, message: str) -> None:
        """Leaves the reason in the folder."""
        with atomic_write(self.folder / "error.txt") as temporary:
            temporary.write_text(message + "\n", "utf-8")

    def command(self) -> list[str]:
        """What starts the job, or resumes it."""
        trust = ["trust=true"] if self.trust else []
        return [sys.executable, str(self.script), f"resume={self.folder}", *self.changes, *trust]

    def start(self, devices: list[str], threads: int | None, log: bool) -> None:
        """Starts the job's process on the GPUs of these names, with so many CPU threads a process."""
        self.devices = devices
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OF_A_RANK)}
        environment[ERROR_FILE] = str(self.folder / "error.txt")
        environment[COMMAND] = json.dumps(["train.py", *_config_flags(), *self.overrides, *self.changes])
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


def run(
    jobs: Sequence[Job],
    max_parallel: int | None,
    should_prune: Callable[[Job], bool] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> None:
    """Runs the jobs that are not finished yet, in their order, as many at a time as there is room for.

    Args:
        jobs: what is to be run; afterwards each is finished, or has an error, or was pruned.
        max_parallel: the most jobs at a time, which share the GPUs if these are fewer; None: as many as have
            GPUs of their own, or one on a CPU.
        should_prune: asked of every running job again and again; if so, the job is stopped.
        meanwhile: called again and again.

    Raises:
        Interrupted: this process was asked to stop; the running jobs were, too.
    """
    load = dict.fromkeys(gpus(), 0)  # how many jobs each runs
    limit = max_parallel or max(1, len(load))
    cores = os.cpu_count() or 1
    waiting, running = deque(job for job in jobs if not job.finished), list[Job]()
    with Interruption().listening() as interruption:
        while waiting or running:
            while waiting and len(running) < limit and not interruption:
                devices = sorted(load, key=load.__getitem__)[: waiting[0].on_gpus]  # the least busy
                if max_parallel is None and any(load[device] for device in devices):
                    break
                job = waiting.popleft()
                for device in devices:
                    load[device] += 1
                threads = None if limit == 1 else max(1, cores // (limit * job.processes))
                log = f" ({runs.near(job.folder / 'log.txt')})" if limit > 1 else ""
                _say(job, f"[{' '.join(job.overrides)}] starts{log}")
                job.start(devices, threads, log=limit > 1)
                running.append(job)
            for job in list(running):
                if should_prune and not job.pruned and not interruption and should_prune(job):
                    job.pruned = True
                    (job.folder / "pruned.txt").write_text("it was worse than most others at this time\n")
                    job.signal(signal.SIGTERM)
                if job.ended(stopping=bool(interruption)):
                    running.remove(job)
                    for device in job.devices:
                        load[device] -= 1
                    if not interruption:
                        _say(job, _result(job))
            if interruption:
                _stop(running, interruption)
                raise interruption.exit()
            if meanwhile:
                meanwhile()
            time.sleep(POLL_S)


def run_alone(cfg: DictConfig) -> float:
    """Runs a job that a launcher has brought to this process, as SLURM's or Ray's does; gives its objective,
    or not a number where it failed."""
    whole = OmegaConf.merge({"hydra": HydraConfig.get()}, cfg)
    assert isinstance(whole, DictConfig)
    job = Job.make(whole, keep=False)  # Hydra has written it, with what is in it left open
    run([job], max_parallel=1)
    return job.value if job.finished else math.nan


def of_sweep(command: runs.Command) -> tuple[list[Job], int | None]:
    """The jobs of a sweep, from their folders alone, and how many of them to run side by side.

    Args:
        command: its overrides are for all jobs, but for hydra.launcher.max_parallel.

    Raises:
        UserError: a job is not what a sweep leaves, or the overrides are not for a resumed one.
    """
    key = "hydra.launcher.max_parallel="
    parallel = [override.removeprefix(key) for override in command.overrides if override.startswith(key)]
    if parallel and not (parallel[-1].isdecimal() and int(parallel[-1])):
        raise UserError(f"{key}{parallel[-1]} must be ≥ 1")
    changes = [override for override in command.overrides if not override.startswith(key)]
    if of_hydra := [override for override in changes if override.startswith("hydra")]:
        raise UserError(f"{of_hydra[0]} is for new sweeps: a resumed sweep stays what it is")
    folders = sorted((path.parents[1] for path in command.folder.glob(f"*/{runs.CONFIG}")), key=by_number)
    if not folders:
        raise UserError(f"{command.folder} holds no jobs of a sweep")
    jobs = [Job.read(replace(command, folder=folder, overrides=changes)) for folder in folders]
    return jobs, int(parallel[-1]) if parallel else None


def by_number(folder: Path) -> tuple[int, str]:
    """The order of a sweep's folders: 2 before 10."""
    return len(folder.name), folder.name


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
    print(one_line(f"job {job.name} {what}"), flush=True)


def _config_flags() -> list[str]:
    """The flags of this sweep's command that say where its config comes from."""
    flags = runs.parse_flags(sys.argv[1:])
    given = {"--config-dir": flags.config_dir, "--config-name": flags.config_name}
    return [word for flag, value in given.items() if value for word in (flag, value)]


def _of_the_job(overrides: Sequence[str]) -> list[str]:
    """What makes a job another one: a sweep's folder may have been renamed, and with it the group."""
    return [override for override in overrides if not override.startswith(OF_A_PLACE)]


def _strings(node: Any) -> list[str]:
    strings: Any = OmegaConf.to_container(node, resolve=False)
    return [str(string) for string in strings]
