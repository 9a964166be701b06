"""What goes wrong around a run: full disks, folders that go, W&B that hangs, numbers that are none."""

import errno
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from command import NO_WANDB, OFTEN, column, run, small, start, train, wait_for
from conftest import Compose

from autoencoders import runs, training
from autoencoders.checkpoints import AtomicCheckpointIO
from autoencoders.errors import UserError, explain
from autoencoders.metrics import squared_error
from autoencoders.models import VAE, base
from autoencoders.models.base import Terms


def test_a_non_finite_loss_ends_the_run(composed: Compose, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        training.train(composed("network=mlp", "optimizer.lr=1e30", "trainer.max_epochs=2"), tmp_path)
    assert "the loss is nan at step 2, learning rate" in str(error.value)
    assert "nll is nan; there is no checkpoint yet" in str(error.value)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_validation_image_without_a_number_is_not_left_out(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_of_them(reconstruction: torch.Tensor, clean: torch.Tensor, *weights: Any) -> torch.Tensor:
        errors = squared_error(reconstruction, clean, *weights)
        errors[0] = torch.nan
        return errors

    monkeypatch.setattr(base, "squared_error", one_of_them)
    with pytest.raises(UserError, match="val/mse was never finite: there is no best model"):
        training.train(composed("network=mlp", "trainer.max_epochs=1"), tmp_path)


def test_the_term_and_the_last_good_checkpoint_are_named(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = VAE.terms

    def infinite(self: VAE, batch: Any) -> Terms:
        found = terms(self, batch).losses
        return Terms({**found, "kl": found["kl"] / (0 if self.global_step == 7 else 1)})

    monkeypatch.setattr(VAE, "terms", infinite)
    with pytest.raises(UserError) as error:
        training.train(composed("network=mlp", "model=vae", "trainer.max_epochs=2", *OFTEN), tmp_path)
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert "the loss is inf at step 8" in str(error.value)
    assert f": kl is inf; the last good checkpoint is {last}" in str(error.value)
    saved = torch.load(last, weights_only=True)
    assert saved["global_step"] == 7
    assert all(weights.isfinite().all() for weights in saved["state_dict"].values())


@pytest.mark.slow
def test_a_non_finite_loss_ends_the_run_on_two_devices(data_root: Path, tmp_path: Path) -> None:
    options = ["network=mlp", "optimizer.lr=1e30", "trainer.max_epochs=3", "trainer.devices=2", *NO_WANDB]
    done = run("train.py", data_root, *small(data_root, tmp_path / "run", *options), ok=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "error: the loss is nan at step 2" in done.stderr


def test_a_checkpoint_is_whole_or_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, files = tmp_path / "checkpoints" / "last.ckpt", AtomicCheckpointIO()
    files.save_checkpoint({"epoch": 1}, path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        files.save_checkpoint({"epoch": 2}, path)
    assert explain(error.value) == f"{path}: No space left on device"
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]
    assert files.load_checkpoint(path, weights_only=True) == {"epoch": 1}


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint_whole(data_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ["network=mlp", "trainer.max_epochs=2", *OFTEN, *NO_WANDB]
    done = run("train.py", data_root, *small(data_root, folder, *options), fault="full write 7", ok=False)
    last = folder / "checkpoints" / "last.ckpt"
    assert done.stderr == f"error: {last}: File too large\n"
    assert done.returncode == 1
    run("train.py", data_root, f"resume={folder}")
    assert len(column(folder, "train/loss")) == 10


def test_a_deleted_folder_is_named(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, terms = tmp_path / "run", VAE.terms

    def deleting(self: VAE, batch: Any) -> Terms:
        if self.global_step == 3 and folder.is_dir():
            shutil.rmtree(folder)
        return terms(self, batch)

    monkeypatch.setattr(VAE, "terms", deleting)
    with pytest.raises(OSError, match="No such file") as error:
        training.train(composed("network=mlp", "model=vae"), folder)
    assert explain(error.value) == f"{folder / 'metrics.csv'}: No such file or directory"
    assert not folder.exists()


@pytest.mark.parametrize("checkpoint", ["last", "best"])  # that of a training without a step is the best one
def test_a_folder_has_one_run(checkpoint: str, tmp_path: Path) -> None:
    """... in one process at a time; its own run may go on in it, no other may take its place."""
    folder = tmp_path / "run"
    held = runs.lock(folder, resumed=False)
    with pytest.raises(UserError, match=f"another process is training in {folder}"):
        runs.lock(folder, resumed=True)
    held.release()
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / f"{checkpoint}.ckpt").touch()
    with pytest.raises(UserError, match=f"{folder} holds a run: resume it with: python train.py resume="):
        runs.lock(folder, resumed=False)
    runs.lock(folder, resumed=True).release()


@pytest.mark.slow
def test_a_folder_in_use_is_refused_in_one_line(data_root: Path, tmp_path: Path) -> None:
    """... before anything in it is changed."""
    folder = tmp_path / "run"
    first = start(
        "train.py", data_root, *small(data_root, folder, "network=mlp", "trainer.max_epochs=9999", *NO_WANDB)
    )
    wait_for((folder / "metrics.csv").is_file)
    overrides = (folder / ".hydra" / "overrides.yaml").read_text()
    for arguments in (small(data_root, folder, "model=vae", *NO_WANDB), [f"resume={folder}"]):
        done = run("train.py", data_root, *arguments, ok=False)
        assert done.stderr == f"error: another process is training in {folder}\n"
        assert (folder / ".hydra" / "overrides.yaml").read_text() == overrides
    first.kill()
    first.communicate()


# ---- W&B ---------------------------------------------------------------------------------------------------


@contextmanager
def server(answer: str) -> Iterator[str]:
    """The address of a W&B server that answers each request with this status, or never ("hang")."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if answer == "hang":
                ended.wait()
            else:
                self.send_error(int(answer))

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://user:hunter2@127.0.0.1:{running.server_port}"
        ended.set()
        running.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["hang", "401", "404", "500"])
def test_wandb_out_of_reach_costs_seconds_and_one_warning(
    answer: str, data_root: Path, tmp_path: Path
) -> None:
    """... and the run is logged offline; nothing secret is printed."""
    folder, key = tmp_path / "run", "0123456789abcdef" * 3
    start_ = time.monotonic()
    train(data_root, tmp_path / "without", "network=mlp", *NO_WANDB)
    without = time.monotonic() - start_
    with server(answer) as address:
        environment = {"WANDB_MODE": "online", "WANDB_API_KEY": key, "WANDB_BASE_URL": address}
        start_ = time.monotonic()
        process = start(
            "train.py", data_root, *small(data_root, folder, "network=mlp"), environment=environment
        )
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    assert time.monotonic() - start_ - without < 30  # of which W&B's own start is the most
    assert err.count("warning: ") == 1, err
    assert "this run is logged offline" in err
    assert key not in out + err
    assert "hunter2" not in out + err
    assert list((folder / "wandb").glob("offline-run-*"))
    assert len(column(folder, "train/loss")) == 5


# ---- long ones ---------------------------------------------------------------------------------------------


EPOCHS = int(os.environ.get("SOAK_EPOCHS", "1000"))
JOBS = int(os.environ.get("SWEEP_JOBS", "200"))


def watched(
    process: subprocess.Popen[str], look: Callable[[Path], tuple[int, tuple[int, int, int]]]
) -> dict[int, tuple[int, int, int]]:
    """What `look` sees in the process's folder of /proc until it ends, the last at each count of its work."""
    seen = dict[int, tuple[int, int, int]]()
    drained = threading.Thread(target=process.communicate)  # what it says would fill the pipe
    drained.start()
    while process.poll() is None:
        time.sleep(0.2)
        try:
            count, values = look(Path(f"/proc/{process.pid}"))
            seen[count] = values
        except (OSError, KeyError, IndexError):
            break  # it has just ended
    drained.join()
    return seen


@pytest.mark.slow
def test_a_thousand_epochs_stay_flat(data_root: Path, tmp_path: Path) -> None:
    """... in memory, open files and threads, from the first fifth on."""
    folder = tmp_path / "run"
    options = [f"trainer.max_epochs={EPOCHS}", f"figures.every_n_epochs={EPOCHS // 10}"]
    options += ["network=mlp", "network.hidden=[8]", "checkpoint.every_n_minutes=0.01"]
    process = start("train.py", data_root, *small(data_root, folder, *options))

    def look(status: Path) -> tuple[int, tuple[int, int, int]]:
        epoch = len(column(folder, "val/mse")) if (folder / "metrics.csv").is_file() else 0
        fields = dict(line.split(":", 1) for line in (status / "status").read_text().splitlines())
        files = len(list((status / "fd").iterdir()))
        return epoch, (int(fields["VmRSS"].split()[0]), files, int(fields["Threads"]))

    seen = watched(process, look)
    assert process.returncode == 0
    early = min(epoch for epoch in seen if epoch >= EPOCHS // 5)
    late = max(epoch for epoch in seen if epoch < EPOCHS)
    assert late > EPOCHS // 2
    (memory, files, threads), (more, more_files, more_threads) = seen[early], seen[late]
    assert more < 1.1 * memory, seen
    assert more_files <= files + 2
    assert more_threads <= threads + 2


@pytest.mark.slow
def test_a_long_sweep_stays_flat(data_root: Path, tmp_path: Path) -> None:
    """... in the memory, files and processes of its parent."""
    folder = tmp_path / "sweep"
    options = [
        "-m", *small(data_root, tmp_path / "none", "network=mlp", "network.hidden=[8]", *NO_WANDB),
        f"hydra.sweep.dir={folder}", f"seed=range({JOBS})", "trainer.limit_test_batches=1",
    ]  # fmt: skip
    process = start("train.py", data_root, *options, environment={"MARKER": str(folder)})

    def look(status: Path) -> tuple[int, tuple[int, int, int]]:
        memory = int((status / "statm").read_text().split()[1])
        children = len((status / "task" / str(process.pid) / "children").read_text().split())
        done = len(list(folder.glob("*/metrics.json")))
        return done, (memory, len(list((status / "fd").iterdir())), children)

    seen = watched(process, look)
    assert process.returncode == 0
    assert len(list(folder.glob("*/metrics.json"))) == JOBS
    early = seen[min(done for done in seen if done >= JOBS // 5)]
    late = seen[max(done for done in seen if done < JOBS)]
    assert late[0] < 1.1 * early[0], seen
    assert late[1] <= early[1] + 2
    assert max(children for _, _, children in seen.values()) <= 2
