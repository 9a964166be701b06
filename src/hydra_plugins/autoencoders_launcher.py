"""hydra/launcher=processes: the jobs of a sweep as processes of this machine."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class ProcessLauncher(Launcher):
    """Runs each job as a `python train.py` in its own folder (see `autoencoders.jobs`).

    Args:
        max_parallel: the most jobs at a time, which share the GPUs if these are fewer; None: as many as have
            GPUs of their own, or one on a CPU.
    """

    def __init__(self, max_parallel: int | None = None) -> None:
        self.max_parallel = max_parallel
        self.should_prune: Callable[[Any], bool] | None = (
            None  # a sweeper may set it: see autoencoders.jobs.run
        )

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        # Hydra imports every plugin at every start, so what takes time is imported here.
        from autoencoders import jobs, sweeps
        from autoencoders.config import need_clone
        from autoencoders.errors import UserError

        need_clone("a sweep")
        if self.max_parallel is not None and (
            not isinstance(self.max_parallel, int) or self.max_parallel < 1
        ):
            raise UserError(f"hydra.launcher.max_parallel={self.max_parallel} must be ≥ 1")
        configs = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            cfg = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(cfg):
                cfg.hydra.job.num, cfg.hydra.job.id = number, str(number)
            configs.append(cfg)
        batch = [jobs.Job.make(cfg) for cfg in configs]
        for number, job in enumerate(batch, start=initial_job_idx):
            job.number, job.script = number, Path(sys.argv[0]).absolute()
        try:
            live = sweeps.Live(Path(str(self.config.hydra.sweep.dir)))
            jobs.run(batch, self.max_parallel, self.should_prune, live)
        except BaseException:
            sweeps.stopped(Path(str(self.config.hydra.sweep.dir)))
            raise
        returns = []
        for job, cfg in zip(batch, configs, strict=True):
            # A failed job is reported at the sweep's end: raised here it would keep later ones from running.
            value = job.value if job.finished else float("nan")
            done = JobReturn(overrides=job.overrides, cfg=cfg, status=JobStatus.COMPLETED)
            done.return_value = value
            returns.append(done)
        return returns


ConfigStore.instance().store(
    group="hydra/launcher",
    name="processes",
    node={"_target_": "hydra_plugins.autoencoders_launcher.ProcessLauncher", "max_parallel": None},
)
