"""What an exported folder gives in a process of its own: python -m autoencoders.export.fresh onnx <folder>.

Of stdin it reads batches of what goes in and of what should come out, and prints how far off the folder's
outputs are. With "onnx" it needs onnxruntime and NumPy alone, as those who get the folder may have no more.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoencoders.errors import one_line

Array = NDArray[np.float32]


class Graph(NamedTuple):
    method: str  # of the model
    input: str
    output: str


class Batch(NamedTuple):
    """Images as the model reads them, what they should become, and what the run makes of them."""

    images: Array
    clean: Array
    codes: Array  # (N, 0) of a model that has none
    decoded: Array  # from the codes alone
    reconstructions: Array
    counted: bool  # in the error: not where other batches have these images too


RESTORER = "restorer.onnx"
# By file; the whole model comes last.
GRAPHS = {
    "encoder.onnx": Graph("encode", "images", "codes"),
    "decoder.onnx": Graph("decode", "codes", "images"),
    "autoencoder.onnx": Graph("forward", "images", "reconstructions"),
}
GRAPHS_WITHOUT_CODE = {RESTORER: Graph("forward", "images", "reconstructions")}


def graphs(has_code: bool) -> Mapping[str, Graph]:
    """The graphs of a model, by file."""
    return GRAPHS if has_code else GRAPHS_WITHOUT_CODE


def graphs_in(folder: Path) -> Mapping[str, Graph]:
    """The graphs that an exported folder has."""
    return graphs(has_code=not (folder / RESTORER).exists())


def write_batch(stream: IO[bytes], batch: Batch) -> None:
    *arrays, counted = batch
    stream.write(json.dumps([counted, [array.shape for array in arrays]]).encode() + b"\n")
    for array in arrays:
        stream.write(np.ascontiguousarray(array, dtype=np.float32).tobytes())


def read_batches(stream: IO[bytes]) -> Iterator[Batch]:
    while line := stream.readline():
        counted, shapes = json.loads(line)
        images, clean, codes, decoded, reconstructions = (
            np.frombuffer(stream.read(4 * math.prod(shape)), dtype=np.float32).reshape(shape)
            for shape in shapes
        )
        yield Batch(images, clean, codes, decoded, reconstructions, counted)


def of_onnx(folder: Path) -> Callable[[str, Array], Array]:
    """Runs a file's graph.

    Raises:
        ValueError: it isn't one.
    """
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # its warnings are about hardware
    sessions, known = {}, graphs_in(folder)
    for file, graph in known.items():
        path = folder / file
        try:
            session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
            names = [value.name for value in (*session.get_inputs(), *session.get_outputs())]
        except Exception as error:  # onnxruntime raises all kinds
            raise ValueError(f"{path} is not an ONNX model: {one_line(str(error))[:200]}") from None
        if names != [graph.input, graph.output]:
            raise ValueError(
                f"{path} must make {graph.output} of {graph.input}: it has {one_line(', '.join(names))[:200]}"
            )
        sessions[file] = session

    def run(file: str, numbers: Array) -> Array:
        try:
            (given,) = sessions[file].run(None, {known[file].input: numbers})
        except Exception as error:
            raise ValueError(
                f"{folder / file} does not take {numbers.shape}: {one_line(str(error))[:200]}"
            ) from None
        return given

    return run


def of_package(folder: Path, trust: bool) -> Callable[[str, Array], Array]:
    """Runs the method of the model that `autoencoders.load` gives."""
    import torch

    from autoencoders import trained

    model = trained.read(folder, trust, "trust=true").model
    known = graphs_in(folder)

    def run(file: str, numbers: Array) -> Array:
        with torch.inference_mode():
            given: Array = getattr(model, known[file].method)(torch.tensor(numbers)).float().numpy()
        return given

    return run


def compared(
    known: Mapping[str, Graph], run: Callable[[str, Array], Array], batches: Iterator[Batch]
) -> dict[str, Any]:
    """How far off each file's outputs are: the largest absolute difference; the mean squared error."""
    differences, squared, count = dict.fromkeys(known, 0.0), 0.0, 0
    for batch in batches:
        inputs = {"images": batch.images, "codes": batch.codes}
        outputs = {"encode": batch.codes, "decode": batch.decoded, "forward": batch.reconstructions}
        for file, graph in known.items():
            given, wanted = inputs[graph.input], outputs[graph.method]
            found = run(file, given)
            if found.shape != wanted.shape:
                raise ValueError(f"{file} gives {found.shape} for {given.shape}, not {wanted.shape}")
            # np.maximum, as a NaN is a difference.
            differences[file] = float(np.maximum(differences[file], np.abs(found - wanted).max()))
        if batch.counted:
            squared += float(np.square(found - batch.clean, dtype=np.float64).mean() * len(batch.clean))
            count += len(batch.clean)
    return {"differences": differences, "mse": squared / max(count, 1), "images": count}


def main(kind: str, folder: str, trust: str = "") -> None:
    from autoencoders.errors import explain

    try:
        run = of_onnx(Path(folder)) if kind == "onnx" else of_package(Path(folder), trust == "trust=true")
        known = graphs_in(Path(folder))
        print(json.dumps(compared(known, run, read_batches(sys.stdin.buffer))))
    except Exception as error:
        line = str(error) if isinstance(error, ValueError) else explain(error)
        if line is None:
            raise
        print(json.dumps({"error": line}))


if __name__ == "__main__":
    main(*sys.argv[1:])
