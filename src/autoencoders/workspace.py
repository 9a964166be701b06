"""Creates a W&B workspace for a project's runs: python -m autoencoders.workspace [key=value ...]"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from autoencoders import errors
from autoencoders.config import REPOSITORY
from autoencoders.errors import UserError, suggest
from autoencoders.imports import importing

PROGRAM = "python -m autoencoders.workspace"
KEYS = {
    "project": "the W&B project, as in logger.wandb.project (autoencoders)",
    "entity": "the user or team that owns it (the one logged in)",
    "name": "the workspace's name (autoencoders)",
}


class Section(NamedTuple):
    """Panels side by side: a picture or a curve for each key, which a run logs it by."""

    name: str
    pictures: Sequence[str] = ()
    tables: Sequence[str] = ()
    curves: Sequence[str] = ()


SECTIONS = (
    Section("Reconstructions", pictures=["pictures/reconstructions"], tables=["validation_images"]),
    Section("Curves", curves=["val/mse", "train/loss", "val/loss", "train/lr"]),
    Section("Code", pictures=["pictures/latent_scatter", "pictures/manifold", "pictures/code_histograms"]),
    Section("Samples", pictures=["pictures/samples"]),
    Section(
        "Evaluation",
        pictures=[f"evaluation/figures/{name}" for name in ("best_and_worst", "errors", "clusters")],
        tables=["evaluation/reconstruction"],
    ),
)


class Study(NamedTuple):
    """A W&B sweep of sweeps/wandb/, whose jobs are lines of parallel coordinates."""

    name: str
    searched: dict[str, bool]  # keys of the configuration; whether they are searched by their logarithm
    metric: str


def studies() -> Iterator[Study]:
    """Those of the repository; none where there is only the installed package."""
    for path in sorted((REPOSITORY / "sweeps" / "wandb").glob("*.yaml")):
        sweep: Any = OmegaConf.to_container(OmegaConf.load(path))
        searched = {
            key: "log" in parameter.get("distribution", "") for key, parameter in sweep["parameters"].items()
        }
        yield Study(path.stem, searched, sweep["metric"]["name"])


def parse(words: Sequence[str]) -> dict[str, str]:
    """
    Raises:
        UserError: a word is not key=value with one of KEYS and a value.
    """
    options = {"project": "autoencoders", "entity": "", "name": "autoencoders"}
    for word in words:
        key, _, value = word.partition("=")
        if key not in KEYS:
            raise UserError(f"no key {key}: {suggest(key, KEYS)}")
        if not value or "/" in value:
            raise UserError(f"{key}={value} must be a name")
        options[key] = value
    return options


def described(options: dict[str, str]) -> str:
    """The workspace in a few lines."""
    where = f"{options['entity'] or '<you>'}/{options['project']}"
    lines = [f"workspace {options['name']} of the W&B project {where}:"]
    lines += [
        f"  {section.name:16} {', '.join([*section.pictures, *section.tables, *section.curves])}"
        for section in SECTIONS
    ]
    if names := [study.name for study in studies()]:
        lines.append(f"  {'Sweeps':16} parallel coordinates of {', '.join(names)}")
    return "\n".join(lines)


def workspace(options: dict[str, str]) -> Any:
    """The `wandb_workspaces.workspaces.Workspace`, which nobody has been told of yet."""
    import wandb_workspaces.reports.v2 as panels
    from wandb_workspaces.workspaces import Section as PanelSection
    from wandb_workspaces.workspaces import SectionLayoutSettings, Workspace

    sections = [
        PanelSection(
            name=section.name,
            is_open=True,
            layout_settings=SectionLayoutSettings(columns=2, rows=2),
            panels=[
                *(panels.MediaBrowser(title=key, media_keys=[key]) for key in section.pictures),
                *(panels.WeavePanelSummaryTable(table_name=key) for key in section.tables),
                *(
                    panels.LinePlot(title=key, x="trainer/global_step", y=[key], log_y=key == "val/mse")
                    for key in section.curves
                ),
            ],
        )
        for section in SECTIONS
    ]
    lines = [
        panels.ParallelCoordinatesPlot(
            title=study.name,
            columns=[
                *(
                    panels.ParallelCoordinatesPlotColumn(metric=panels.Config(key), log=log)
                    for key, log in study.searched.items()
                ),
                panels.ParallelCoordinatesPlotColumn(metric=panels.SummaryMetric(study.metric)),
            ],
        )
        for study in studies()
    ]
    if lines:
        sections.append(PanelSection(name="Sweeps", panels=lines))
    return Workspace(
        name=options["name"],
        entity=options["entity"],
        project=options["project"],
        sections=sections,
        auto_generate_panels=True,  # of all else that a run logs, such as how busy its machine is
    )


def usage() -> str:
    """What --help shows."""
    about = (f"  {f'{key}=':10} {said}" for key, said in KEYS.items())
    return "\n".join(
        [
            *(__doc__ or "").splitlines(),
            "",
            *about,
            "",
            described(parse([])),
            "",
            "Without an account, it is only described. More: docs/training.md",
        ]
    )


def main(words: list[str]) -> None:
    if {"--help", "-h"} & set(words):
        print(usage())
        return
    options = parse(words)
    with importing():
        from autoencoders.loggers.protocol import reason, require
        from autoencoders.loggers.wandb import logged_in
    if not logged_in():
        print(described(options))
        raise UserError(f"not logged in to W&B, so nothing was made: `wandb login`, then {PROGRAM} again")
    require(["wandb_workspaces"], "W&B's package for it", extra="dashboard", asked=PROGRAM)
    import wandb

    try:
        options["entity"] = options["entity"] or str(wandb.Api().default_entity)
        made = workspace(options).save()
    except Exception as error:
        raise UserError(f"W&B has not made the workspace ({reason(error)})") from error
    print(f"{described(options)}\n  {made.url}")


if __name__ == "__main__":
    with errors.one_line_errors():
        main(sys.argv[1:])
