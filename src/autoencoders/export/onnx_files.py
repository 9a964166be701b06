"""Encoder, decoder and whole model as ONNX graphs, for any number of images, of any size if it takes any."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from autoencoders.errors import UserError
from autoencoders.export import fresh
from autoencoders.export.folder import of_the_extra
from autoencoders.untrusted import beginning


class Method(nn.Module):
    """One of a model's methods as a module, which is what torch exports."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, numbers: Tensor) -> Tensor:
        given: Tensor = getattr(self.model, self.name)(numbers)
        return given


def write(folder: Path, model: Any) -> None:
    """Writes the files of `fresh.graphs`.

    Raises:
        UserError: torch can't export a layer of the user's own, or what exporting takes is not installed.
    """
    with of_the_extra():
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    # Two images, as torch would take a single one for the only size there is.
    images, any_size = torch.rand(2, *model.input_shape), {}
    if model.any_size:
        images, any_size = torch.rand(2, model.input_shape[0], 61, 59), {2: Dim("H"), 3: Dim("W")}
    graphs, examples = fresh.graphs(model.has_code), {"images": images}
    if model.has_code:
        with torch.inference_mode():
            examples["codes"] = model.encode(images).clone()
    for file, graph in graphs.items():
        module = Method(model, graph.method).eval()
        sizes = {0: Dim("N"), **(any_size if graph.input == "images" else {})}
        (folder / file).write_bytes(_exported(module, examples[graph.input], sizes, graph))


def _exported(module: Method, example: Tensor, sizes: Mapping[int, Any], graph: fresh.Graph) -> bytes:
    """The graph for inputs like the example but for the named `sizes`, which may be any."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # of warnings about what this project does not use
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=[graph.input],
                output_names=[graph.output],
                dynamic_shapes=(dict(sizes),),
            )
        assert program is not None
        proto = program.model_proto
        _forget_places(proto)
        serialized: bytes = proto.SerializeToString()
    except Exception as error:  # torch raises all kinds
        raise UserError(f"torch can't export {module.name} to ONNX: {beginning(error)}") from error
    finally:
        logger.setLevel(level)
    return serialized


def _forget_places(proto: Any) -> None:
    """Removes from a graph which line of which file of this machine each node comes from."""
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.functions):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        value.ClearField("metadata_props")
    for function in proto.functions:
        for node in function.node:
            node.ClearField("metadata_props")
