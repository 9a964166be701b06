"""Several devices, and sweeps: on two CPU processes, on the tiny data."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
import tiny
import torch
from command import NO_WANDB, OFTEN, column, processes, run, small, start, train, wait_for, weights
from family import COLOURS, MODELS, smaller
from markupsafe import escape
from omegaconf import OmegaConf

from autoencoders import figures, sweeps
from autoencoders.errors import UserError
from autoencoders.pages.sweep import command as typed


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("corruption", ["masking", "compose"])
def test_two_processes_train_every_model_as_one(
    model: str, corruption: str, data_root: Path, tmp_path: Path
) -> None:
    if model in COLOURS:
        corruption = "none"
    # At the default learning rate so few images teach a colorizer black, and on the way rounding grows.
    slow = ["optimizer.lr=1e-3", "trainer.max_epochs=2"]
    # A last validation batch of one image leaves one process without any.
    options = [*smaller(model), f"corruption={corruption}", *slow, "data.validation_size=17", *NO_WANDB]
    for devices in ("1", "2"):
        train(data_root, tmp_path / devices, *options, f"trainer.devices={devices}")
    for metric in ("train/loss", "val/mse", "test/mse"):
        one, two = (column(tmp_path / devices, metric) for devices in ("1", "2"))
        assert two == pytest.approx(one, rel=1e-5), metric


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("model=denoising", "network=mlp", "data.supervision=noise2noise", "corruption.mean=0"),
        (*smaller("restoration"), "data.supervision=noise2void", "corruption=none"),
    ],
    ids=["noise2noise", "noise2void"],
)
def test_two_processes_train_as_one_without_clean_images(
    options: tuple[str, ...], data_root: Path, tmp_path: Path
) -> None:
    for devices in ("1", "2"):
        folder = tmp_path / devices
        train(data_root, folder, *options, "data.validation_size=17", f"trainer.devices={devices}", *NO_WANDB)
    for metric in ("train/loss", "val/mse", "test/mse"):
        one, two = (column(tmp_path / devices, metric) for devices in ("1", "2"))
        assert two == pytest.approx(one, rel=1e-5), metric


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_its_folder(data_root: Path, tmp_path: Path) -> None:
    """... also on two devices, and a bad override leaves it as it was."""
    folder = tmp_path / "a run's folder"
    train(data_root, folder, "model=denoising", "trainer.max_epochs=1", "trainer.devices=2", *NO_WANDB)
    first = column(folder, "val/mse")
    bad = run("train.py", data_root, f"resume={folder}", "model.code_dim=0", ok=False)
    assert "model.code_dim=0 would make it another run: it was trained with 16" in bad.stderr
    run("train.py", data_root, f"resume={folder}", "trainer.max_epochs=3")
    assert json.loads((folder / "metrics.json").read_text())["epochs"] == 3
    assert column(folder, "val/mse")[:1] == first
    assert len(column(folder, "val/mse")) == 3
    steps = column(folder, "step")
    assert steps == sorted(set(steps))
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def endless(data_root: Path, folder: Path) -> tuple[subprocess.Popen[str], str]:
    """A run on two devices that is under way, and what marks its processes."""
    marker = f"MARKER={uuid4()}"
    options = ["network=mlp", "trainer.max_epochs=9999", "trainer.devices=2", *OFTEN, *NO_WANDB]
    arguments = small(data_root, folder, *options)
    process = start("train.py", data_root, *arguments, environment={"MARKER": marker[7:]})
    wait_for((folder / "checkpoints" / "best.ckpt").is_file)
    return process, marker


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_shuts_both_ranks_down_cleanly(
    data_root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process, marker = endless(data_root, tmp_path / "run")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 75}[number], out + err
    assert f"resume={tmp_path / 'run'}" in out
    assert "Traceback" not in err
    wait_for(lambda: not processes(marker), seconds=10)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_when_a_rank_is_killed_none_is_left(data_root: Path, tmp_path: Path, rank: int) -> None:
    process, marker = endless(data_root, tmp_path / "run")
    (other,) = set(processes(marker)) - {process.pid}
    os.kill(process.pid if rank == 0 else other, signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    if rank:
        assert process.returncode == 1
        assert f"error: the process of rank 1 (pid {other}) was killed by SIGKILL" in err
    wait_for(lambda: not processes(marker), seconds=10)


@pytest.mark.slow
def test_two_nodes_train_as_one_process(data_root: Path, tmp_path: Path) -> None:
    """Two agents of torchrun on this machine, which choose the run's folder together."""
    options = [*tiny.SMALL, f"data.root={data_root}", "network=mlp", "model=denoising", *NO_WANDB]
    run("train.py", data_root, *options, "hydra.run.dir=one", cwd=tmp_path)
    torchrun = ["-m", "torch.distributed.run", "--nnodes=2", "--master-addr=127.0.0.1", "--master-port=29417"]
    agents = [
        start(
            "train.py", data_root, *options, "trainer.num_nodes=2", cwd=tmp_path,
            launcher=(sys.executable, *torchrun, f"--node-rank={node}"),
        )
        for node in range(2)
    ]  # fmt: skip
    for agent in agents:
        out, err = agent.communicate(timeout=120)
        assert agent.returncode == 0, out + err
    (folder,) = (tmp_path / "runs" / "denoising").iterdir()
    assert column(folder, "val/mse") == pytest.approx(column(tmp_path / "one", "val/mse"), rel=1e-5)
    assert column(folder, "test/mse") == pytest.approx(column(tmp_path / "one", "test/mse"), rel=1e-5)


@pytest.mark.slow
def test_a_run_that_slurm_requeues_goes_on_in_its_folder(data_root: Path, tmp_path: Path) -> None:
    """The environment is SLURM's of two tasks on one node; srun and scontrol are played by the test."""
    slurm = {
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "study", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1",
    }  # fmt: skip
    options = [*tiny.SMALL, f"data.root={data_root}", "trainer=slurm", "network=mlp", *OFTEN, *NO_WANDB]
    options.append("+trainer.accumulate_grad_batches=1")  # which can't be said twice
    folder = tmp_path / "runs" / "autoencoder" / "slurm-4711"

    def tasks(restarts: str) -> list[subprocess.Popen[str]]:
        return [
            start(
                "train.py",
                data_root,
                *options,
                "trainer.max_epochs=9999",
                cwd=tmp_path,
                environment={
                    **slurm,
                    "SLURM_PROCID": str(rank),
                    "SLURM_LOCALID": str(rank),
                    "SLURM_RESTART_COUNT": restarts,
                },
            )
            for rank in range(2)
        ]

    def validated_after(steps: int) -> bool:
        return (folder / "metrics.csv").is_file() and len(column(folder, "val/mse")) > steps / 5  # an epoch's

    steps = 0
    for restarts in ("0", "1"):
        running = tasks(restarts)
        wait_for(partial(validated_after, steps))
        for task in running:
            task.send_signal(signal.SIGUSR1)
        ends = [task.communicate(timeout=60) for task in running]
        assert [task.returncode for task in running] == [75, 0], ends
        assert (f"resuming after step {steps}\n" in ends[0][0]) == (restarts == "1")
        before, steps = (
            steps,
            torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"],
        )
        assert steps > before
    assert [path.name for path in (tmp_path / "runs" / "autoencoder").iterdir()] == ["slurm-4711"]


def sweep(data_root: Path, folder: Path, *arguments: str) -> list[str]:
    return [
        "-m",
        *tiny.SMALL,
        f"data.root={data_root}",
        f"hydra.sweep.dir={folder}",
        "network=mlp",
        *arguments,
    ]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_trains_the_jobs_that_it_names(data_root: Path, tmp_path: Path) -> None:
    """... one and two devices in one sweep, from another folder, into folders of the user's naming, side by
    side; a job that fails is reported, and the others go on. One process and two come to the same curve, test
    metrics (37 images are uneven shards) and weights."""
    arguments = [
        "model=vae",
        "model.likelihood=gaussian_optimal",  # a statistic of the whole batch, as are the free bits
        "model.free_bits=0.1",
        "corruption=gaussian",
        "trainer.devices=2,1,0",
        "optimizer.lr=1e-3",
        "seed=3",
        "trainer.strategy=auto",
        "trainer.max_epochs=2",
    ]
    naming = [
        "hydra.sweep.subdir='devices ${trainer.devices}, job ${hydra:job.num}'",
        "hydra.launcher.max_parallel=2",
    ]
    given = sweep(data_root, Path("sweep"), *arguments, *naming, *NO_WANDB)
    done = run("train.py", data_root, *given, ok=False, cwd=tmp_path)
    folder = tmp_path / "sweep"
    jobs = ["devices 2, job 0", "devices 1, job 1", "devices 0, job 2"]
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set(jobs)
    two, one = folder / jobs[0], folder / jobs[1]
    for metric in ("val/mse", "val/loss", "test/mse", "test/psnr", "test/ssim"):
        assert column(two, metric) == pytest.approx(column(one, metric), rel=1e-5), metric
    of_two = weights(two)
    for name, value in weights(one).items():
        # As a whole: Adam makes much of the rounding of a gradient that is next to nothing.
        assert (of_two[name] - value).norm() <= 1e-4 * value.norm() + 1e-6, name
    rows = {row["job"]: row for row in table(folder)}
    assert [rows[job]["status"] for job in jobs] == ["finished", "finished", "failed"]
    assert "devices=0" in rows[jobs[2]]["error"]
    assert rows[jobs[2]]["trainer.devices"] == "0"
    assert float(rows[jobs[0]]["val/mse"]) == pytest.approx(min(column(two, "val/mse")), rel=1e-5)
    assert "error: 1 of 3 jobs failed" in done.stderr
    assert (folder / "summary.png").stat().st_size > 1000
    assert (folder / jobs[0] / "log.txt").stat().st_size > 100


@pytest.mark.slow
def test_an_interrupted_sweep_is_taken_up(data_root: Path, tmp_path: Path) -> None:
    """... after its parent was killed, which leaves no process; what is finished is not run again."""
    marker, folder = f"MARKER={uuid4()}", tmp_path / "sweep"
    arguments = ["trainer.max_epochs=2,30", "trainer.devices=2", *OFTEN, *NO_WANDB]
    parent = start(
        "train.py", data_root, *sweep(data_root, folder, *arguments), environment={"MARKER": marker[7:]}
    )
    wait_for((folder / "1" / "checkpoints" / "best.ckpt").is_file)
    parent.kill()
    parent.communicate()
    wait_for(lambda: not processes(marker), seconds=20)
    assert [row.status for row in sweeps.read_sweep(folder)] == ["finished", "unfinished"]
    before = (folder / "0" / "metrics.json").stat().st_mtime_ns, len(column(folder / "1", "val/mse"))
    assert before[1] < 30
    done = run("train.py", data_root, f"resume={folder}", "hydra.launcher.max_parallel=2")
    assert [row["status"] for row in table(folder)] == ["finished", "finished"]
    assert (folder / "0" / "metrics.json").stat().st_mtime_ns == before[0]
    assert len(column(folder / "1", "val/mse")) == 30
    assert "job 0" not in done.stdout
    assert float(table(folder)[1]["epochs"]) == 30


@pytest.mark.slow
def test_a_signal_ends_a_sweep_with_its_summary(data_root: Path, tmp_path: Path) -> None:
    marker, folder = f"MARKER={uuid4()}", tmp_path / "sweep"
    arguments = ["trainer.max_epochs=9999,2", *OFTEN, *NO_WANDB]
    parent = start(
        "train.py", data_root, *sweep(data_root, folder, *arguments), environment={"MARKER": marker[7:]}
    )
    wait_for((folder / "0" / "checkpoints" / "best.ckpt").is_file)
    parent.send_signal(signal.SIGINT)
    out, err = parent.communicate(timeout=60)
    assert parent.returncode == 130, out + err
    assert f"stopped; resume with: python train.py resume={folder}\n" in out
    assert "Traceback" not in err
    assert [row["status"] for row in table(folder)] == ["unfinished"] * 2
    wait_for(lambda: not processes(marker), seconds=10)


@pytest.mark.slow
def test_optuna_gives_both_ranks_the_same_numbers(data_root: Path, tmp_path: Path) -> None:
    """... since both read the config in the job's folder; hopeless trials are ended."""
    marker, folder = f"MARKER={uuid4()}", tmp_path / "sweep"
    search = [
        "hydra.sweeper.trials=3",
        "hydra.sweeper.startup=1",
        "optimizer.lr=tag(log, interval(1e-7,1e-2))",
    ]
    arguments = [
        "sweeps=lr_batch",
        "trainer.max_epochs=3",
        "trainer.devices=2",
        "data.batch_size=8,16",
        *search,
    ]
    parent = start(
        "train.py",
        data_root,
        *sweep(data_root, folder, *arguments, *NO_WANDB),
        environment={"MARKER": marker[7:]},
    )
    ranks: dict[str, set[int]] = {}
    while parent.poll() is None:
        for process, command in processes(marker).items():
            if "resume=" in command:
                ranks.setdefault(Path(command.partition("resume=")[2].split()[0]).name, set()).add(process)
        time.sleep(0.1)
    out, err = parent.communicate()
    assert parent.returncode == 0, out + err
    rows = table(folder)
    assert len(rows) == 3
    assert {row["status"] for row in rows} <= {"finished", "pruned"}
    for row in rows:
        assert len(ranks[row["job"]]) >= 2
        overrides = sweeps.read_job(folder / row["job"]).overrides
        config = OmegaConf.load(folder / row["job"] / ".hydra" / "config.yaml")
        assert config.optimizer.lr == float(overrides["optimizer.lr"])
        assert config.data.batch_size == int(overrides["data.batch_size"])
    assert "best   job" in out


def job(folder: Path, overrides: list[str], **metrics: float) -> None:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {override}\n" for override in overrides))
    if metrics:
        (folder / "metrics.json").write_text(str({"val/mse": metrics["mse"]}).replace("'", '"'))


def test_a_summary_is_made_from_the_folders_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (size, seed) in enumerate([(2, 0), (2, 1), (16, 0), (16, 1)]):
        job(
            tmp_path / str(number),
            [f"model.code_dim={size}", f"seed={seed}", "model=vae"],
            mse=1 / size + seed,
        )
    job(tmp_path / "10", ["model.code_dim=32", "seed=0", "model=vae"])
    rows = sweeps.summarize(tmp_path)
    assert [row.name for row in rows] == ["0", "1", "2", "3", "10"]
    assert sweeps.varying(rows) == ["model.code_dim", "seed"]
    assert [row["status"] for row in table(tmp_path)] == [*["finished"] * 4, "unfinished"]
    assert [row["val/mse"] for row in table(tmp_path)] == ["0.5", "1.5", "0.0625", "1.0625", ""]
    assert "model.code_dim  seed  status" in capsys.readouterr().out
    assert (tmp_path / "summary.png").stat().st_size > 1000
    page = (tmp_path / "summary.html").read_text()
    assert all(f'<th scope="row">{row.name}</th>' in page for row in rows)
    assert "unfinished" in page


def test_a_sweep_ends_with_what_to_type_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The best job is evaluated; where it is, the two best are compared."""
    folder = tmp_path / "a sweep"
    for number, (size, seed) in enumerate([(2, 0), (32, 0), (16, 0), (32, 1)]):
        job(folder / str(number), [f"model.code_dim={size}", f"seed={seed}"], mse=1 / size + seed / 100)
        for name in ("checkpoints/best.ckpt", "evaluation/metrics.json"):
            (folder / str(number) / name).parent.mkdir()
    (folder / "1" / "checkpoints" / "best.ckpt").touch()
    sweeps.finish(folder, trust=False)
    assert f"next   python evaluate.py 'run={folder}/1'\n" in capsys.readouterr().out
    (folder / "1" / "evaluation" / "metrics.json").write_text('{"reconstruction": {}}')
    sweeps.finish(folder, trust=False)
    assert f"next   python -m autoencoders.compare '{folder}/1' '{folder}/2'\n" in capsys.readouterr().out


def test_a_sweep_s_page_has_what_was_typed(tmp_path: Path) -> None:
    assert typed(tmp_path) == ""
    (tmp_path / "multirun.yaml").write_text(
        "hydra:\n  overrides:\n    task: [model=vae, 'model.code_dim=2,4', 'corruption.name=; rm -r x']\n"
        "    hydra: [hydra.sweep.dir=out, hydra.mode=MULTIRUN, hydra.launcher.max_parallel=2]\n"
    )
    words = ["model=vae", "model.code_dim=2,4", "corruption.name=; rm -r x", "hydra.launcher.max_parallel=2"]
    assert shlex.split(typed(tmp_path)) == ["python", "train.py", "-m", *words]
    job(tmp_path / "0", ["model.code_dim=2"], mse=0.1)
    sweeps.summarize(tmp_path)
    assert escape(typed(tmp_path)) in (tmp_path / "summary.html").read_text()


def test_points_of_several_seeds_are_their_mean_and_deviation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, object] = {}
    monkeypatch.setattr(figures, "curves", lambda series, **labels: drawn.update(series))
    monkeypatch.setattr(figures, "save", lambda figure, path: None)
    rows = [
        sweeps.Row("", {"lr": lr, "model": model, "seed": str(seed)}, "finished", {"m": seed + float(lr)})
        for lr in ("0.1", "0.2") for model in ("a", "b") for seed in (0, 2)
    ]  # fmt: skip
    sweeps.plot(rows, "m", None, tmp_path / "plot.png")
    expected = ([0.1, 0.2], [pytest.approx(1.1), pytest.approx(1.2)], [pytest.approx(2**0.5)] * 2)
    assert drawn == {"model=a": expected, "model=b": expected}


def test_seeds_are_names_without_a_line_between_them() -> None:
    rows = [sweeps.Row("", {"seed": seed}, "finished", {"m": 0.5}) for seed in ("0", "2")]
    series = sweeps.series_of(rows, "m", None)
    assert (series.x, series.numeric, list(series.points["m"])) == ("seed", False, ["0", "2"])


@pytest.mark.slow
def test_a_sweep_that_can_not_start_leaves_nothing(data_root: Path, tmp_path: Path) -> None:
    done = run("train.py", data_root, *sweep(data_root, tmp_path / "sweep", "model=vae,a_e"), ok=False)
    assert "error: no model=a_e" in done.stderr
    assert not (tmp_path / "sweep").exists()
    job(tmp_path / "other" / "0", ["model=vae"], mse=0.5)
    done = run("train.py", data_root, *sweep(data_root, tmp_path / "other", "seed=1"), ok=False)
    assert "other/0 holds another sweep's job (model=vae): choose another" in done.stderr
    assert sweeps.read_sweep(tmp_path / "other")[0].status == "finished"


def test_a_table_of_scores_is_ready_for_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The evaluations' columns that the sweep asks for, and the seeds as a mean and a deviation."""
    for number, (model, seed) in enumerate([("vae", 0), ("vae", 2), ("linear", 0)]):
        folder = tmp_path / str(number)
        job(folder, [f"model={model}", f"seed={seed}"], mse=0.25 + seed)
        (folder / "evaluation").mkdir()
        probe, prior = {"linear_probe": 0.9 + seed / 100}, {"prior": {"frechet": 12.5}}
        other = {"mixture": {"frechet": 7.0}}
        content = {"features": {"model": probe}, "generation": prior if model == "vae" else other}
        text = json.dumps({"reconstruction": {"PCA 2": {"mse": 0.5}}, **content})
        (folder / "evaluation" / "metrics.json").write_text(text)
    paths = "[generation/prior/frechet, generation/mixture/frechet]"
    columns = f"{{probe: features/model/linear_probe, 'F|D': {paths}, none: a/b/c}}"
    (tmp_path / "multirun.yaml").write_text(
        f"objective: val/mse\nhydra: {{callbacks: {{summary: {{metric: '${{objective}}', reference: PCA mse, "
        f"columns: {columns}}}}}}}"
    )
    sweeps.summarize(tmp_path)
    assert "no job has a/b/c for the column none" in capsys.readouterr().out
    assert [row["probe"] for row in table(tmp_path)] == ["0.9", "0.92", "0.9"]
    assert [row["F|D"] for row in table(tmp_path)] == ["12.5", "12.5", "7.0"]
    assert (tmp_path / "summary.md").read_text().splitlines() == [
        "| model | runs | val/mse | PCA mse | probe | F/D |",
        "| --- | --- | --- | --- | --- | --- |",
        "| vae | 2 | 1.2 ± 1.4 | 0.5 | 0.910 ± 0.014 | 12.5 |",
        "| linear | 1 | 0.25 | 0.5 | 0.9 | 7 |",
    ]


@pytest.mark.parametrize("columns", ["test/ssim", "[a/b/c]", "{probe: linear_probe}", "{a: [b/c/d, e]}"])
def test_columns_that_are_no_scores_are_refused(columns: str) -> None:
    node = OmegaConf.create({"columns": columns if columns[0] not in "[{" else OmegaConf.create(columns)})
    with pytest.raises(UserError, match="must be names with scores"):
        sweeps.check_columns(node.columns, True)


def test_columns_of_scores_are_taken() -> None:
    for columns in ("{}", "{a: b/c/d}", "{a: [b/PCA 4/d, e/f/g]}"):
        sweeps.check_columns(OmegaConf.create(columns), True)
    sweeps.check_columns(None, False)
    with pytest.raises(UserError, match="add evaluate=true"):
        sweeps.check_columns(OmegaConf.create("{a: b/c/d}"), False)


@pytest.mark.slow
def test_the_noise_study_tests_every_model_at_every_level(data_root: Path, tmp_path: Path) -> None:
    arguments = ["sweeps=noise", "corruption.std=0.1,0.5", "hydra.launcher.max_parallel=2", *NO_WANDB]
    run("train.py", data_root, *sweep(data_root, tmp_path, *arguments))
    with (tmp_path / "levels.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head[1:] == [f"tested at {level}" for level in ("0.1", "0.25", "0.5", "0.75", "1")]
    assert [row[0] for row in rows] == ["0.1", "0.5"]
    own = [float(row["test/mse"]) for row in table(tmp_path)]
    assert [float(rows[0][1]), float(rows[1][3])] == pytest.approx(own, rel=1e-4)
    assert "levels" in (tmp_path / "summary.html").read_text()


@pytest.mark.slow
def test_the_lightning_agent_command_of_wandb_is_understood(data_root: Path, tmp_path: Path) -> None:
    """W&B puts `key=value` for each parameter where the file says ${args_no_hyphens}."""
    fixed = ["sweeps=latent_dim", "hydra.mode=RUN", "evaluate=false"]
    train(data_root, tmp_path / "run", *fixed, "model.code_dim=4", "network=mlp", *NO_WANDB)
    assert "code_dim: 4" in (tmp_path / "run" / "config.yaml").read_text()
