"""hydra/sweeper=tpe: Optuna chooses the jobs, and stops the hopeless ones."""

import csv
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class TPESweeper(Sweeper):
    """Searches with the tree-structured Parzen estimator (Bergstra et al. 2011) for the smallest objective.

    After each of its epochs a job is compared with the earlier jobs at that epoch, and ended if it is worse
    than their median. The study is kept in the sweep's folder, so an interrupted one is resumed.

    Args:
        trials: how many jobs there are in all.
        at_a_time: how many are chosen at once, for a launcher that runs them side by side.
        startup: the first jobs, which are random and never ended early.
        seed: of the search.
        params: what to search, in Hydra's grammar: {"optimizer.lr": "tag(log, interval(1e-4, 1e-2))"};
            a list of values (64,128) is a choice.
    """

    def __init__(
        self, trials: int, at_a_time: int, startup: int, seed: int, params: DictConfig | None = None
    ) -> None:
        self.trials, self.at_a_time, self.startup, self.seed = trials, at_a_time, startup, seed
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.settings = hydra_context, config
        self.jobs: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from autoencoders.errors import UserError
        from autoencoders.sweeps import read_job

        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend
        except ImportError:
            raise UserError("hydra/sweeper=tpe needs Optuna: pip install -e '.[optuna]'") from None
        states = optuna.trial.TrialState
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        searched = [f"{key!s}={value}" for key, value in self.params.items()]
        # What is said later, on the command line, wins.
        overrides = {o.get_key_element(): o for o in parser.parse_overrides([*searched, *arguments])}
        folder = Path(str(self.settings.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.settings, folder / "multirun.yaml")
        try:
            study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(folder / "optuna.log"))),
                sampler=optuna.samplers.TPESampler(seed=self.seed, n_startup_trials=self.startup),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=self.startup),
                study_name="study",
                load_if_exists=True,
            )
        except Exception as error:  # the journal of a resumed sweep makes Optuna raise all kinds
            raise UserError(f"{folder / 'optuna.log'} is not a journal of Optuna's: {error}") from None
        unfinished = study.get_trials(states=[states.RUNNING])
        going_on = [optuna.trial.Trial(study, trial._trial_id) for trial in unfinished]
        while going_on or len(study.trials) < self.trials:
            room = min(self.at_a_time, self.trials - len(study.trials))
            batch = going_on[:1] or [study.ask() for _ in range(room)]
            del going_on[:1]
            jobs = [[_chosen(override, trial) for override in overrides.values()] for trial in batch]
            self.jobs.should_prune = _Pruning(batch, self.settings.objective)
            results = self.jobs.launch(jobs, initial_job_idx=batch[0].number)
            for trial, result in zip(batch, results, strict=True):
                state = {
                    "finished": states.COMPLETE, "pruned": states.PRUNED,
                }.get(read_job(folder / str(trial.number)).status, states.FAIL)  # fmt: skip
                value = result.return_value if state == states.COMPLETE else None
                study.tell(trial.number, value, state)
        if any(trial.state == states.COMPLETE for trial in study.trials):
            best = study.best_trial
            print(f"\n  best   job {best.number}: {best.value:.5g} with {best.params}")


class _Pruning:
    """Tells the trials what their jobs have reached so far, and asks which of them to stop."""

    def __init__(self, trials: Sequence[Any], objective: str) -> None:
        self.trials = {trial.number: trial for trial in trials}
        self.objective = objective
        self.seen: dict[int, float] = {}

    def __call__(self, job: Any) -> bool:
        path, trial = job.folder / "metrics.csv", self.trials[job.number]
        if not path.is_file() or self.seen.get(job.number) == (changed := path.stat().st_mtime):
            return False
        self.seen[job.number] = changed
        values = list[float]()
        with path.open(newline="") as file, suppress(ValueError):  # else the job itself says what is wrong
            values = [float(row[self.objective]) for row in csv.DictReader(file) if row.get(self.objective)]
        for epoch, value in enumerate(values):
            if epoch not in trial.storage.get_trial(trial._trial_id).intermediate_values:
                trial.report(value, epoch)
        return bool(values) and bool(trial.should_prune())


def _chosen(override: Override, trial: Any) -> str:
    """The override, with a value that the trial suggests where it leaves a choice."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return f"{key}={override.get_value_element_as_str()}"
    choice = override.value()
    if isinstance(choice, IntervalSweep):
        suggest = trial.suggest_int if isinstance(choice.start, int) else trial.suggest_float
        return f"{key}={suggest(key, choice.start, choice.end, log='log' in choice.tags)}"
    return f"{key}={trial.suggest_categorical(key, list(override.sweep_string_iterator()))}"


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="tpe",
    node={
        "_target_": "hydra_plugins.autoencoders_sweeper.TPESweeper",
        "trials": 20,
        "at_a_time": 1,
        "startup": 5,
        "seed": 0,
        "params": {},
    },
)
