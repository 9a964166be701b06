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
    """Runs each job as `python train.py <overrides> hydra.run.dir=... hydra.mode=RUN`.

    Args:
        side_by_side: the most jobs at a time; None: as many as there are GPUs for, or one at a time on a CPU.
    """

    def __init__(self, side_by_side: int | None = None) -> None:
        self.side_by_side = side_by_side
        self.hopeless: Callable[[Any], bool] | None = None  # a sweeper may set it: see autoencoders.jobs.run

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        # Hydra imports every plugin at every start, so what takes time is imported here.
        from autoencoders import jobs, sweeps
        from autoencoders.errors import UserError

        if self.side_by_side is not None and self.side_by_side < 1:
            raise UserError(f"hydra.launcher.side_by_side={self.side_by_side} must be ≥ 1")
        configs = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            cfg = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(cfg):
                cfg.hydra.job.num, cfg.hydra.job.id = number, str(number)
            configs.append(cfg)
        batch = [jobs.checked(cfg, Path(sys.argv[0]).absolute()) for cfg in configs]
        try:
            jobs.run(batch, self.side_by_side, self.hopeless)
        except BaseException:
            sweeps.summarize(Path(str(self.config.hydra.sweep.dir)))
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
    node={"_target_": "hydra_plugins.autoencoders_launcher.ProcessLauncher", "side_by_side": None},
)
