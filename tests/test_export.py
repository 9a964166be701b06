"""Exported folders: each form gives what the run gives, what does not is not exported, and a stranger's
folder is read as safely as a stranger's run."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
import tiny
import torch
from command import line_of
from conftest import Compose
from huggingface_hub import ModelCard
from torch import nn

import autoencoders
from autoencoders import untrusted
from autoencoders.export import checking, folder, fresh, onnx_files
from autoencoders.export.__main__ import main

MLP = ["network=mlp", "network.hidden=[8]", "model.code_dim=3"]
FILES = {"README.md", "config.json", "model.safetensors", *fresh.GRAPHS}
MODELS = ("autoencoder", "linear", "denoising", "colorization", "vae", "restoration")
UNET = ["model=restoration", "network.widths=[4]"]


def make(run: Path, data_root: Path, *overrides: str) -> Path:
    """A run folder with an evaluation of its model."""
    folders.make(run, data_root, *overrides)
    trained = autoencoders.load(run, trust=True)
    test = trained.data.first(trained.data.test, 1000, torch.device("cpu"))
    mse = float((trained.reconstruct(test.corrupted) - test.clean).square().mean())
    scores = {
        "reconstruction": {"model": {"mse": mse, "psnr": 9.5, "mse_p05": 0.1}, "PCA 3": {"mse": 0.03125}},
        "clustering": {"model": {"accuracy": 0.5}, "pixels | raw": {"accuracy": 0.4375}},
    }
    (run / "evaluation" / "metrics.json").write_text(json.dumps(scores))
    pictures = run / "evaluation" / "figures"
    pictures.mkdir()
    shutil.copy(tiny.REPOSITORY / "docs" / "denoising.png", pictures / "reconstructions.png")
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A VAE's, as its encoder gives more than the code, that restores images."""
    said = ["model=vae", "corruption=gaussian", *MLP]
    return make(tmp_path_factory.mktemp("runs") / "run", data_root, *said)


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "deep" / "digits"
    main([f"run={run}", f"out={out}"])
    return out


class Here:
    """A reader as that of `checking`, in this process, as one of its own costs seconds."""

    def __init__(self, kind: str, folder: Path, trust: bool, scratch: Path) -> None:
        self.kind, self.folder, self.batches = kind, folder, list[fresh.Batch]()

    def send(self, batch: fresh.Batch) -> None:
        self.batches.append(batch)

    def answer(self) -> dict[str, Any]:
        run = fresh.of_onnx(self.folder) if self.kind == "onnx" else fresh.of_package(self.folder, False)
        return fresh.compared(fresh.graphs_in(self.folder), run, iter(self.batches))

    def end(self) -> None: ...


@pytest.fixture(scope="module")
def restorer(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """The export of a model without a code, whose run was not evaluated."""
    run = folders.make(tmp_path_factory.mktemp("restorers") / "run", data_root, *UNET)
    (run / "evaluation" / "metrics.json").unlink()
    with torch.random.fork_rng():  # an untrained U-Net changes nothing
        checkpoint = untrusted.read_checkpoint(run / "checkpoints" / "best.ckpt")
        for value in checkpoint["state_dict"].values():
            value.add_(0.1 * torch.randn_like(value))
        torch.save(checkpoint, run / "checkpoints" / "best.ckpt")
    out = run.with_name("restorer")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checking, "_Reader", Here)
        main([f"run={run}", f"out={out}"])
    return out


@pytest.fixture
def stranger(exported: Path, tmp_path: Path) -> Path:
    """An exported folder that a test may spoil."""
    return Path(shutil.copytree(exported, tmp_path / "stranger"))


# ---- what is in it -----------------------------------------------------------------------------------------


def test_every_form_gives_what_the_run_gives(run: Path, exported: Path) -> None:
    ours, theirs = autoencoders.load(run), autoencoders.load(exported)
    images = ours.data.first(ours.data.test, 20, torch.device("cpu")).corrupted.numpy()
    codes = ours.encode(images)
    assert np.array_equal(theirs.encode(images), codes)
    assert np.array_equal(theirs.decode(codes), ours.decode(codes))
    assert np.array_equal(theirs.reconstruct(images[0, 0]), ours.reconstruct(images[0, 0]))
    assert (theirs.input_shape, repr(theirs)) == ((1, 28, 28), repr(ours).replace(str(run), str(exported)))
    graphs = fresh.of_onnx(exported)
    assert np.abs(graphs("encoder.onnx", images) - codes).max() < 1e-5
    assert np.abs(graphs("decoder.onnx", codes) - ours.decode(codes)).max() < 1e-5
    assert np.abs(graphs("autoencoder.onnx", images[:1]) - ours.reconstruct(images[:1])).max() < 1e-5


def test_a_model_without_a_code_is_one_graph_for_images_of_any_size(restorer: Path) -> None:
    ours, theirs = autoencoders.load(restorer.with_name("run")), autoencoders.load(restorer)
    assert {path.name for path in restorer.iterdir()} == {
        "README.md", "config.json", "model.safetensors", "restorer.onnx"
    }  # fmt: skip
    graph = fresh.of_onnx(restorer)
    for count, height, width in ((1, 28, 28), (3, 28, 28), (2, 31, 64), (1, 2, 5), (1, 1, 1)):
        images = torch.rand(count, 1, height, width).numpy()
        wanted = ours.reconstruct(images)
        assert np.abs(wanted - images).max() > 0.01
        assert np.array_equal(theirs.reconstruct(images), wanted)
        assert np.abs(graph("restorer.onnx", images) - wanted).max() < 1e-5
    assert "has no code" in str(line_of(lambda: theirs.encode(images)))


def test_the_card_of_a_model_without_a_code_says_so(restorer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = (restorer / "README.md").read_text()
    assert "| code | none" in card
    assert "| reads | images (N, 1, H, W)" in card
    assert "encoder.onnx" not in card
    assert "encode(" not in card
    assert "It was not compared with" in card  # as there is no evaluation
    data: Any = ModelCard(card).data
    assert (data.pipeline_tag, data.tags[1]) == ("image-to-image", "restoration")
    monkeypatch.chdir(restorer.parent)
    for block in re.findall(r"^```python\n(.*?)^```", card, re.M | re.S):
        names: dict[str, Any] = {}
        exec(block, names)
        assert names["reconstructions"].shape == (8, 1, 28, 28)


def test_a_run_and_its_export_have_the_same_data(
    run: Path, exported: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = autoencoders.load(run), autoencoders.load(exported)
    theirs.config.data.root = str(data_root)
    assert torch.equal(theirs.data.test.corrupted, ours.data.test.corrupted)
    assert torch.equal(theirs.data.train.images, ours.data.train.images)


def test_there_is_nothing_else(exported: Path, run: Path) -> None:
    inside = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert inside == FILES | {"figures/reconstructions.png"}
    assert [path.name for path in exported.parent.iterdir()] == ["digits"]
    for path in exported.rglob("*"):
        if path.is_file():  # nor a word about this machine
            content = path.read_bytes()
            for word in (str(tiny.REPOSITORY), str(run.parent), sys.prefix, "site-packages", "stack_trace"):
                assert word.encode() not in content, (path.name, word)


def test_secrets_stay_at_home(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "sesame-open")
    cfg = composed("+data.token=${oc.env:MY_TOKEN}", "+model.of=${trainer.max_epochs}")
    content = folder.portable(cfg, None)
    assert content["data"] | {"token": "***", "root": None} == content["data"]
    assert "sesame" not in json.dumps(content)
    assert content["model"]["of"] == 1
    assert content["model"]["network"] == "${network}"
    assert content.keys() == {
        "seed", "objective", "model", "network", "data", "corruption", "optimizer", "scheduler"
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_exported(model: str, data_root: Path, tmp_path: Path) -> None:
    """With the networks of its own choice, through fresh processes."""
    network = {"linear": "linear", "colorization": "conv_direct", "restoration": "unet"}.get(model, "conv")
    code = [] if model == "restoration" else ["model.code_dim=16"]
    made = make(tmp_path / "run", data_root, f"model={model}", f"network={network}", *code)
    main([f"run={made}", f"out={tmp_path / 'out'}"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert ("posterior" in card) == (model == "vae")
    assert ("clip them" in card) == (model == "linear")
    restores = model in ("denoising", "colorization", "restoration")
    assert ModelCard(card).data.to_dict()["pipeline_tag"] == (
        "image-to-image" if restores else "image-feature-extraction"
    )


# ---- the card ----------------------------------------------------------------------------------------------


def test_the_hub_can_read_the_card(exported: Path) -> None:
    data: Any = ModelCard((exported / "README.md").read_text()).data
    assert data.library_name == "autoencoders"
    assert data.pipeline_tag == "image-to-image"
    assert data.license is None
    assert data.datasets == ["ylecun/mnist"]
    assert {"autoencoder", "vae", "onnx", "safetensors"} <= set(data.tags)
    results = {result.metric_type: result for result in data.eval_results}
    assert results.keys() == {"mse", "psnr"}
    assert (results["mse"].dataset_name, results["mse"].dataset_split) == ("MNIST", "test")
    assert 0 < results["mse"].metric_value < 1


def test_the_card_says_what_was_measured(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert "| PCA 3 | 0.03125 |" in card  # beside the model
    assert "It was not compared with" not in card
    assert "| pixels \\| raw | 0.4375 |" in card
    assert "Gaussian(mean=0.5, std=0.5, clip=True)" in card
    assert "the mean of the posterior" in card
    assert "![reconstructions](figures/reconstructions.png)" in card
    assert f"On the {tiny.TEST} test images" in card
    assert hashlib.sha256((exported / "model.safetensors").read_bytes()).hexdigest() in card
    for file in fresh.GRAPHS:
        (difference,) = re.findall(rf"^\| `{file}` \| (\S+) \| 0\.000\d+ \|$", card, re.M)
        assert float(difference) <= 1e-4


def test_the_card_s_python_runs(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported.parent)
    blocks = re.findall(r"^```python\n(.*?)^```", (exported / "README.md").read_text(), re.M | re.S)
    assert len(blocks) == 2
    for block in blocks:
        assert len(block.splitlines()) <= 6
        names: dict[str, Any] = {}
        exec(block, names)
        assert names["reconstructions"].shape == (8, 1, 28, 28)


# ---- what is not exported ----------------------------------------------------------------------------------


def refusal(run: Path, out: Path, *more: str) -> str:
    """The line that an export is refused with; nothing is left of it."""
    around = out.parent
    before = sorted(around.parent.rglob("*"))
    line = line_of(lambda: main([f"run={run}", f"out={out}", *more]))
    assert line is not None, "it was exported"
    assert sorted(around.parent.rglob("*")) == before
    return line


def test_what_differs_is_not_exported(
    run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the graphs are those of other weights."""

    def of_the_export(built: Path, model: Any) -> None:
        for file in fresh.GRAPHS:
            shutil.copy(exported / file, built)

    monkeypatch.setattr(onnx_files, "write", of_the_export)
    monkeypatch.setattr(checking, "KINDS", ("onnx",))
    other = Path(shutil.copytree(run, tmp_path / "other"))
    checkpoint = untrusted.read_checkpoint(other / "checkpoints" / "best.ckpt")
    next(value for name, value in checkpoint["state_dict"].items() if name.startswith("decoder")).add_(0.1)
    torch.save(checkpoint, other / "checkpoints" / "best.ckpt")
    line = refusal(other, tmp_path / "new" / "out")
    assert re.match(r"decoder\.onnx differs from the run by 0\.\d+, more than 0\.0001: nothing", line)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports to ONNX cost seconds, which what is refused before or after does not need."""
    monkeypatch.setattr(onnx_files, "write", lambda built, model: None)
    found = checking.Checked(tiny.TEST, 0.25, {}, (3,), 1.0, {}, {"onnx": 0.25, "package": 0.25})
    monkeypatch.setattr(checking, "check", lambda *_: found)


def only(metrics: Path, content: dict[str, float]) -> None:
    """... of a run that has not been evaluated."""
    metrics.write_text(json.dumps(content))
    shutil.rmtree(metrics.parent / "evaluation")


SPOILED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "test/mse": ("metrics.json", lambda p: only(p, {"test/mse": 0.1}), "best checkpoint has 0.25"),
    "another corruption": ("evaluation/metrics.json", lambda p: None, "scores other data or another corr"),
    "no evaluation": ("evaluation/metrics.json", lambda p: p.write_text("[]"), "must hold names and values"),
    "no rows": ("evaluation/metrics.json", lambda p: p.write_text('{"a": 1}'), "not hold an evaluation"),
    "no numbers": ("evaluation/metrics.json", lambda p: p.write_text('{"a": {"b": {"c": "d"}}}'), "number"),
    "no picture": ("evaluation/figures/a.png", lambda p: p.write_bytes(b"\x80\x04}"), "not a PNG picture"),
    "no checkpoint": ("checkpoints/best.ckpt", lambda p: p.unlink(), "never validated"),
    "no weights": ("checkpoints/best.ckpt", lambda p: p.write_bytes(b"PK"), "not a checkpoint"),
    "no run": (".hydra/config.yaml", lambda p: p.unlink(), "is not a run folder"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", SPOILED)
def test_a_run_that_is_not_what_it_says_is_not_exported(name: str, run: Path, tmp_path: Path) -> None:
    file, spoil, said = SPOILED[name]
    spoilt = Path(shutil.copytree(run, tmp_path / "run"))
    spoil(spoilt / file)
    assert said in refusal(spoilt, tmp_path / "new" / "out")


def test_an_evaluation_that_is_not_of_the_run_s_own_data_is_refused_at_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... before the minutes of the export."""
    monkeypatch.setattr(checking, "check", None)
    other = Path(shutil.copytree(run, tmp_path / "run"))
    (other / "metrics.json").write_text('{"test/mse": 0.1}')
    (other / "evaluation" / "metrics.json").write_text('{"reconstruction": {"model": {"mse": 0.103}}}')
    assert "(mse 0.103, not 0.1); evaluate it again with: python " in refusal(other, tmp_path / "new" / "out")


@pytest.mark.usefixtures("unchecked")
def test_arguments_are_refused_in_one_line(run: Path, exported: Path, tmp_path: Path) -> None:
    full, file, link = tmp_path / "full", tmp_path / "file", tmp_path / "link"
    full.mkdir()
    (full / "mine").touch()
    file.touch()
    link.symlink_to(tmp_path / "nowhere")
    assert "is not empty" in refusal(run, full)
    assert "is not a folder" in refusal(run, file)
    assert "is not a folder" in refusal(run, link)
    assert "no run folder" in refusal(tmp_path / "nowhere", tmp_path / "out")
    assert "exported folder already" in refusal(exported, tmp_path / "out")
    assert "no key format: there are: data.root, out, run, trust" in refusal(run, full, "format=onnx")
    assert "trust=maybe must be true or false" in refusal(run, full, "trust=maybe")
    assert "out= is missing" in str(line_of(lambda: main([f"run={run}"])))


@pytest.mark.usefixtures("unchecked")
def test_an_interrupted_export_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checking, "check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main([f"run={run}", f"out={tmp_path / 'new' / 'out'}"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["safetensors", "onnx", "onnxscript", "onnxruntime"])
def test_what_to_install_is_said(
    module: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.torch", None)
    assert f"needs {module}" in refusal(run, tmp_path / "out")
    assert "pip install 'autoencoders[export]'" in refusal(run, tmp_path / "out")


class Encoder(nn.Sequential):
    def __init__(self, code_dim: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, code_dim))


class Decoder(nn.Sequential):
    def __init__(self, code_dim: int) -> None:
        super().__init__(nn.Linear(code_dim, 784), nn.Unflatten(1, (1, 28, 28)))


OWN = [
    "network=own", f"network.encoder._target_={__name__}.Encoder",
    f"network.decoder._target_={__name__}.Decoder", "network.output=logits",
]  # fmt: skip


@pytest.mark.slow
def test_own_classes_are_exported_and_loaded_with_trust(data_root: Path, tmp_path: Path) -> None:
    made = make(tmp_path / "run", data_root, "model=autoencoder", *OWN)
    assert "trust=true" in refusal(made, tmp_path / "new" / "out")
    out = tmp_path / "out"
    main([f"run={made}", f"out={out}", "trust=true"])
    assert f"autoencoders.load('{out}', trust=True)" in str(line_of(lambda: autoencoders.load(out)))
    assert autoencoders.load(out, trust=True).encode(np.zeros((28, 28))).shape == (2,)


# ---- a stranger's folder -----------------------------------------------------------------------------------


def put(path: Path, key: str, value: Any) -> None:
    """Sets a key, such as "config.model.x", of config.json."""
    content = node = json.loads(path.read_text())
    *parents, last = key.split(".")
    for name in parents:
        node = node.setdefault(name, {})
    node[last] = value
    path.write_text(json.dumps(content))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": [value]}
    return value


CONFIGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: p.write_text(""), "not valid JSON"),
    "cut": (lambda p: p.write_text(p.read_text()[:500]), "not valid JSON"),
    "binary": (lambda p: p.write_bytes(b"\xff\xfe"), "not a text file"),
    "a list": (lambda p: p.write_text("[1]"), "must hold names and values"),
    "huge": (lambda p: p.write_text(json.dumps({"a": "b" * 2**18})), "too large"),
    "deep": (lambda p: put(p, "config.deep", nested(60)), "nested too deeply"),
    "deeper": (lambda p: p.write_text('{"a":' * 10**4), "not valid JSON"),
    "a later format": (lambda p: put(p, "format", 2), "format=2 must be 1"),
    "no config": (lambda p: put(p, "config", 3), "holds no config"),
    "no model": (lambda p: put(p, "config.model", None), "model must be names and values"),
    "a class": (lambda p: put(p, "config.model._target_", "os.system"), "not a class of this project"),
    "a class within": (lambda p: put(p, "config.corruption.x", {"_target_": "os.system"}), "not a class"),
    "another group's": (lambda p: put(p, "config.model._target_", "lightning.Trainer"), "not a class"),
    "arguments": (lambda p: put(p, "config.model._args_", ["x"]), "not a plain value"),
    "the environment": (lambda p: put(p, "config.seed", "${oc.env:HOME}"), "more than another key's value"),
    "itself": (lambda p: put(p, "config.seed", "${seed}"), "refers to itself"),
    "a place": (lambda p: put(p, "config.data.path", "/etc"), "leads out"),
    "a part of Hydra": (lambda p: put(p, "config.hydra", {"a": 1}), "has a key hydra"),
    "other shapes": (lambda p: put(p, "config.model.code_dim", 4), "not hold this model's weights"),
    "a bad value": (lambda p: put(p, "config.model.code_dim", -1), "model.code_dim=-1 must be"),
    "an unknown key": (lambda p: put(p, "config.model.width", 4), "no key model.width"),
    "no sum": (lambda p: put(p, "sha256", None), "is damaged"),
    "a sum": (lambda p: put(p, "sha256", {"model.safetensors": 1}), "is damaged"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_says_no_more_than_a_run_s(name: str, stranger: Path) -> None:
    spoil, said = CONFIGS[name]
    spoil(stranger / "config.json")
    line = line_of(lambda: autoencoders.load(stranger))
    assert line is not None, "it was taken"
    assert said in line


def header(tensors: Mapping[str, Any], body: bytes = b"") -> bytes:
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text + body


F32 = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
WEIGHTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[:-10],
    "cut in the header": lambda whole: whole[:50],
    "a flipped bit": lambda whole: bytes([whole[0] ^ 64, *whole[1:]]),
    "a huge header": lambda whole: (2**62).to_bytes(8, "little") + whole[8:],
    "a pickle": lambda whole: b"\x80\x04cos\nsystem\n.",
    "other tensors": lambda whole: header({"a": F32}, bytes(16)),
    "no tensors": lambda whole: header({}),
    "too much": lambda whole: header({"a": F32 | {"shape": [2**60]}}, bytes(16)),
    "beyond its end": lambda whole: header({"a": F32 | {"data_offsets": [0, 2**40]}}, bytes(16)),
    "no offsets": lambda whole: header({"a": {"dtype": "F32"}}),
    "deep": lambda whole: len(b"[" * 9999).to_bytes(8, "little") + b"[" * 9999,
    "large": lambda whole: whole + bytes(2**22),
    "other dtypes": lambda whole: whole.replace(b"F32", b"I99"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_whole_and_the_model_s(name: str, stranger: Path) -> None:
    """Also where the sum in config.json is that of what lies there."""
    path = stranger / "model.safetensors"
    path.write_bytes(WEIGHTS[name](path.read_bytes()))
    assert str(path) in str(line_of(lambda: autoencoders.load(stranger)))
    put(stranger / "config.json", "sha256", {path.name: hashlib.sha256(path.read_bytes()).hexdigest()})
    line = line_of(lambda: autoencoders.load(stranger))
    assert line is not None, "it was taken"
    assert str(path) in line


def test_no_link_leads_out_of_an_exported_folder(stranger: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (stranger / "model.safetensors").rename(elsewhere)
    assert "has no model.safetensors" in str(line_of(lambda: autoencoders.load(stranger)))
    (stranger / "model.safetensors").symlink_to(elsewhere)
    assert "leads out of" in str(line_of(lambda: autoencoders.load(stranger)))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x08\x07" * 9, b"not a graph"])
def test_an_onnx_file_that_is_none_is_said_in_one_line(
    content: bytes, stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (stranger / "decoder.onnx").write_bytes(content)
    fresh.main("onnx", str(stranger))
    error = json.loads(capsys.readouterr().out)["error"]
    assert f"{stranger / 'decoder.onnx'} is not an ONNX model" in error
    assert autoencoders.load(stranger)  # which does not read it


# ---- without a clone ---------------------------------------------------------------------------------------

FROM_A_WHEEL = """
import sys
from pathlib import Path

import tiny
import autoencoders
from autoencoders import config
from autoencoders.export.__main__ import main

run, exported, out, root = map(Path, sys.argv[1:])
print(autoencoders.__file__)
assert not config.IS_CLONE
assert autoencoders.load(exported).model.code_dim == 3
tiny.install(root)
main([f"run={run}", f"out={out}"])
assert autoencoders.load(out).model.code_dim == 3
"""


@pytest.mark.slow
def test_an_installed_wheel_loads_and_exports(
    run: Path, exported: Path, data_root: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    for name in ("src", "conf"):  # in src/ a link to conf/
        shutil.copytree(tiny.REPOSITORY / name, repository / name, symlinks=True)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(tiny.REPOSITORY / name, repository)
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    pip = [sys.executable, "-m", "pip"]
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    subprocess.run(
        [*pip, "wheel", str(repository), *quiet, "--no-build-isolation", "--wheel-dir", str(wheels)],
        check=True,
    )
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", str(wheel), *quiet, "--target", str(site)], check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(tiny.__file__, elsewhere)
    (elsewhere / "script.py").write_text(FROM_A_WHEEL)

    def python(*arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=elsewhere, env=environment, capture_output=True, text=True,
        )  # fmt: skip

    done = python("script.py", run, exported, elsewhere / "out", data_root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    done = python("-m", "autoencoders.ledger")
    assert done.returncode == 1
    assert re.fullmatch(r"error: .* needs a clone of the repository.*\n", done.stderr)
