"""A hundred damaged copies of an exported folder, the same at every run: each is loaded as if it were whole,
or refused in one line, and neither takes memory or time or writes anything."""

import hashlib
import json
import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest

import autoencoders
from autoencoders.errors import UserError
from autoencoders.export import fresh
from autoencoders.export.__main__ import main

pytestmark = pytest.mark.slow
COPIES = 100
SECONDS = 20
GIBIBYTE = 2**30
CONFIG, WEIGHTS = "config.json", "model.safetensors"
STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 2**31, 2**63, 10**40, float("nan"), float("inf"), "", "a", "\x00", "\x1b[2J",
    "\ud800", "é" * 5000, [], [[]], [1, 28, 28], [1, 2**20, 2**20], {}, {"_target_": "os.system"}, "nan",
    "../../etc/passwd", "/etc/passwd", "${seed}", "${model}", "${oc.env:HOME}", "${", "???", [65536] * 9,
    {"a": {"b": None}},
)  # fmt: skip
TARGETS = (
    "os.system", "builtins.exec", "torch.load", "lightning.Trainer", "autoencoders.models.VAE",
    "nowhere.Nothing", "autoencoders.trained.load", "autoencoders.networks.Own", "autoencoders.data.Images",
    "", "..", "a b", 3,
)  # fmt: skip
Damage = Callable[[Path, random.Random], None]


# ---- what is done to a copy --------------------------------------------------------------------------------


def places(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of nested dicts and lists are."""
    for key, child in node.items() if isinstance(node, dict) else enumerate(node):
        yield (*place, key)
        if isinstance(child, dict | list):
            yield from places(child, (*place, key))


def changed(folder: Path, rng: random.Random, change: Callable[[Any, Any], object], inside: str = "") -> None:
    """Changes something in config.json: `change` is given a list or dict and a key of it."""
    content = json.loads((folder / CONFIG).read_text())
    *parents, key = rng.choice([p for p in places(content) if not inside or p[-1] == inside])
    node = content
    for name in parents:
        node = node[name]
    change(node, key)
    (folder / CONFIG).write_text(json.dumps(content))


def summed(folder: Path, content: bytes) -> None:
    """Replaces the weights, and says in config.json that they are the right ones."""
    (folder / WEIGHTS).write_bytes(content)
    about = json.loads((folder / CONFIG).read_text())
    about["sha256"] = {WEIGHTS: hashlib.sha256(content).hexdigest()}
    (folder / CONFIG).write_text(json.dumps(about))


def another_value(folder: Path, rng: random.Random) -> None:
    changed(folder, rng, lambda node, key: node.__setitem__(key, rng.choice(STRANGE)))


def a_missing_key(folder: Path, rng: random.Random) -> None:
    changed(folder, rng, lambda node, key: node.__delitem__(key))


def an_unknown_key(folder: Path, rng: random.Random) -> None:
    name = rng.choice(
        ["a", "", "_target_", "_args_", "_recursive_", "hydra", "../a", "\x1b[2J", "\n", "${seed}", "a.b"]
    )
    changed(
        folder, rng, lambda node, key: isinstance(node, dict) and node.update({name: rng.choice(STRANGE)})
    )


def another_class(folder: Path, rng: random.Random) -> None:
    changed(folder, rng, lambda node, key: node.__setitem__(key, rng.choice(TARGETS)), inside="_target_")


def a_larger_model(folder: Path, rng: random.Random) -> None:
    key, value = rng.choice([("code_dim", 65536), ("hidden", [65536, 65536]), ("hidden", [8] * 10**4)])
    changed(folder, rng, lambda node, _: node.__setitem__(key, value), inside=key)


def deep(folder: Path, rng: random.Random) -> None:
    value: Any = 1
    for _ in range(rng.choice([40, 60, 300])):
        value = {"a": [value]}
    changed(folder, rng, lambda node, key: node.__setitem__(key, value))


def another_text(folder: Path, rng: random.Random) -> None:
    text = (folder / CONFIG).read_text()
    cut = rng.randrange(len(text))
    (folder / CONFIG).write_bytes(
        rng.choice(
            [
                text[:cut].encode(),
                text[:cut].encode() + bytes(rng.randrange(256) for _ in range(9)) + text[cut + 9 :].encode(),
                b"\xff\xfe" + text.encode("utf-16"),
                b"[" * 10**5,
                text.encode() * 2,
                b"null",
            ]
        )
    )


def cut_weights(folder: Path, rng: random.Random) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    summed(folder, whole[: rng.randrange(len(whole))])


def a_flipped_bit(folder: Path, rng: random.Random) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    (folder / WEIGHTS).write_bytes(content)


def another_header(folder: Path, rng: random.Random) -> None:
    """Of safetensors: the length of a JSON object, in 8 bytes; that object; the numbers."""
    whole = (folder / WEIGHTS).read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end])
    tensor = header[rng.choice([name for name in header if name != "__metadata__"])]
    key, value = rng.choice(
        [("shape", [2**60]), ("shape", [2**20, 2**20]), ("shape", [-1]), ("shape", "a"), ("dtype", "I99"),
         ("dtype", "F64"), ("data_offsets", [0, 2**62]), ("data_offsets", [9, 0]), ("data_offsets", None),
         ("shape", []), ("dtype", "../F32")]
    )  # fmt: skip
    tensor[key] = value
    if rng.random() < 0.3:
        header["../../" * 9 + "etc/passwd\x1b[2J"] = tensor
    text = json.dumps(header).encode()
    summed(folder, rng.choice([len(text), len(text), 2**62]).to_bytes(8, "little") + text + whole[end:])


def a_link(folder: Path, rng: random.Random) -> None:
    path = folder / rng.choice([CONFIG, WEIGHTS, "README.md", "more", "decoder.onnx"])
    path.unlink(missing_ok=True)
    path.symlink_to(
        rng.choice(["/etc/passwd", "/", "/dev/zero", str(folder.parent), "nowhere", path.name, "/dev/stdin"])
    )


def another_kind_of_file(folder: Path, rng: random.Random) -> None:
    path = folder / rng.choice([CONFIG, WEIGHTS])
    path.unlink()
    if rng.random() < 0.5:
        path.mkdir()
    else:
        path.touch()


DAMAGES: tuple[Damage, ...] = (
    another_value, another_value, another_value, a_missing_key, an_unknown_key, another_class,
    a_larger_model, deep, another_text, cut_weights, a_flipped_bit, another_header, another_header, a_link,
    another_kind_of_file,
)  # fmt: skip


# ---- what becomes of it ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = folders.make(
        tmp_path_factory.mktemp("runs") / "run", data_root, "model=vae", "network=mlp", "network.hidden=[8]"
    )
    (run / "evaluation" / "metrics.json").unlink()
    out = run.with_name("exported")
    main([f"run={run}", f"out={out}"])
    return out


class Late(BaseException):
    """Which no `except Exception` takes for something else."""


@contextmanager
def limited() -> Iterator[None]:
    """No more than a gibibyte more memory, and some seconds."""

    def late(*_: object) -> None:
        raise Late

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GIBIBYTE, before[1]))
    handler = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def content(folder: Path) -> dict[str, tuple[int, int]]:
    """All that is there, with its size and time."""
    found = {str(path): path.lstat() for path in folder.rglob("*")}
    return {path: (state.st_size, state.st_mtime_ns) for path, state in found.items()}


def refusal(call: Callable[[], Any], kind: type[Exception]) -> str | None:
    """The line that `call` is refused with; None where it is not."""
    try:
        with limited():
            call()
    except kind as error:
        line = str(error)
        assert line.isprintable()
        assert 8 < len(line) < 1010
        assert not any(word in line.lower() for word in ("memory", "allocate", "traceback")), line
        return line
    return None


def load(folder: Path, found: list[autoencoders.TrainedRun]) -> None:
    found.append(autoencoders.load(folder))


def run(folder: Path, images: fresh.Array) -> None:
    fresh.of_onnx(folder)("encoder.onnx", images)


def test_a_damaged_folder_is_whole_or_refused(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = autoencoders.load(exported)
    images = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    codes, reconstructions = whole.encode(images), whole.reconstruct(images)
    monkeypatch.chdir(tmp_path)
    rng, loaded = random.Random(0), 0
    for place in range(COPIES):
        damage = DAMAGES[place % len(DAMAGES)]
        copy = Path(shutil.copytree(exported, tmp_path / f"{place}-{damage.__name__}"))
        damage(copy, rng)
        before, found = content(tmp_path), list[autoencoders.TrainedRun]()
        try:
            line = refusal(partial(load, copy, found), UserError)
        except Exception as error:
            raise AssertionError(copy.name) from error
        assert content(tmp_path) == before, copy.name
        if line is None:
            loaded += 1
            assert np.array_equal(found[0].encode(images), codes), copy.name
            assert np.array_equal(found[0].reconstruct(images), reconstructions), copy.name
        shutil.rmtree(copy)
    assert COPIES / 20 < loaded < COPIES / 2


def test_a_damaged_graph_is_whole_or_refused(exported: Path, tmp_path: Path) -> None:
    rng, images = random.Random(0), np.zeros((2, 1, 28, 28), dtype=np.float32)
    for place in range(COPIES):
        copy = Path(shutil.copytree(exported, tmp_path / str(place)))
        file = copy / "encoder.onnx"
        damaged = bytearray(file.read_bytes())
        if place % 3:
            for _ in range(rng.choice([1, 20])):
                damaged[rng.randrange(min(len(damaged), rng.choice([300, 10**9])))] ^= 1 << rng.randrange(8)
        else:
            del damaged[rng.randrange(len(damaged)) :]
        file.write_bytes(damaged)
        before = content(copy)
        refusal(partial(run, copy, images), ValueError)
        assert content(copy) == before
        shutil.rmtree(copy)
