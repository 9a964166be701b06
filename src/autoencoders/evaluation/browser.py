"""A decoder as plain data, which pages/decoder.js runs in a browser: torch's operators in their order, and
the weights in half precision.
"""

import base64
import copy
import operator
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import Node

from autoencoders.models import BaseModel
from autoencoders.pages import asset

MOST_WEIGHTS = 2_200_000  # of a decoder: 6 MB of a page
MOST_PRODUCTS = 150_000_000  # of weights and numbers, for one image: some tenths of a second
FEW = 256  # numbers of a weight that is kept as it is: what half precision would save is nothing
CLOSE = 0.01  # the largest difference of a pixel, of 1, that half precision may make
SAME = {  # operators that change nothing but the shape
    "reshape", "view", "_unsafe_view", "unflatten", "flatten", "squeeze", "unsqueeze", "to", "clone", "alias",
    "detach", "detach_", "lift_fresh_copy", "contiguous", "dropout", "_to_copy", "float",
}  # fmt: skip
PARTS = {"unbind"}  # that give several tensors


class Undecodable(Exception):
    """Why a decoder can't be run in a page, as the end of a sentence."""


class Decode(nn.Module):
    """A model's codes (B, code_dim) to images (B, C, H, W), beside an image (1, C, H, W) that it reads, as a
    module, which is what torch exports."""

    model: BaseModel
    beside: Tensor

    def __init__(self, model: BaseModel, beside: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("beside", beside)

    def forward(self, codes: Tensor) -> Tensor:
        images: Tensor = self.model.decode_beside(codes, self.beside)
        return images


def program(model: BaseModel, codes: Tensor, beside: Tensor) -> tuple[dict[str, Any], float]:
    """What decoder.js needs to decode beside an image (1, C, H, W), and the largest difference that half
    precision makes to a pixel of what is decoded of some codes (N, code_dim).

    Raises:
        Undecodable: it is too large, or has operators that decoder.js doesn't.
    """
    decode = Decode(copy.deepcopy(model).cpu().float().eval(), beside.cpu().float())
    decoder = getattr(decode.model, "decoder", decode.model)
    if sum(weight.numel() for weight in decoder.parameters()) > MOST_WEIGHTS:
        raise Undecodable(f"it has more than {MOST_WEIGHTS:,} weights")
    try:
        with torch.no_grad():
            exported = torch.export.export(decode, (codes[:1],))
    except Exception as error:  # torch raises all kinds for what it can't follow in a module of one's own
        raise Undecodable("torch can't follow it") from error
    traced = _Traced(exported)
    difference = _difference(decode, traced.weights, codes)
    if not difference <= CLOSE:  # also true of NaN
        raise Undecodable(f"half precision would change a pixel by {difference:.2g}")
    return traced.data(), difference


class _Traced:
    """The operators of an exported program, each with its arguments and the shape of what it gives. Values
    are numbered as they come."""

    def __init__(self, exported: Any) -> None:
        self.operators, self.steps = _operators(), list[dict[str, Any]]()
        self.weights: dict[str, Tensor] = {}
        self.numbers: dict[Node, int] = {}
        self.products = 0
        stored = {**exported.state_dict, **exported.constants}
        inputs = {spec.arg.name: spec.target for spec in exported.graph_signature.input_specs}
        for node in exported.graph.nodes:
            if node.op == "placeholder" and node.users:  # the encoder's weights have none
                self._placeholder(node, inputs[node.name], stored)
            elif node.op == "call_function" and isinstance(node.meta.get("val"), Tensor):
                self._call(node)
            elif node.op == "output":
                self.output = self.numbers[node.args[0][0]]
        if self.products > MOST_PRODUCTS:
            raise Undecodable(f"an image takes {self.products / 1e6:,.0f} million products")

    def data(self) -> dict[str, Any]:
        halves = [w.ravel() for w in self.weights.values() if w.numel() > FEW]
        numbers = torch.cat(halves).numpy() if halves else np.zeros(0)
        return {"steps": self.steps, "output": self.output, "halves": base64_of(numbers, "<f2")}

    def _placeholder(self, node: Node, target: str | None, stored: dict[str, Tensor]) -> None:
        self.numbers[node] = len(self.numbers)
        if target is None:
            self.steps.append({"op": "input"})
            return
        weight = stored[target].detach()
        if not weight.is_floating_point():
            raise Undecodable(f"{target} is not of real numbers")
        self.weights[target.removeprefix("model.")] = weight = weight.float().contiguous()
        few = weight.numel() <= FEW
        self.steps.append(
            {
                "op": "weight",
                "shape": list(weight.shape),
                **({"data": weight.ravel().tolist()} if few else {}),
            }
        )

    def _call(self, node: Node) -> None:
        name, arguments = _call_of(node)
        if name in SAME:
            name, arguments = "same", arguments[:1]
        if name not in self.operators:
            raise Undecodable(f"it uses {name}, which pages can't compute")
        shape = [int(size) for size in node.meta["val"].shape]
        if name in ("linear", "conv2d", "conv_transpose2d"):
            weight = arguments[1].meta["val"]
            places = arguments[0].meta["val"] if name == "conv_transpose2d" else node.meta["val"]
            width = weight.shape[0]
            self.products += weight.numel() * places.numel() // width
        self.numbers[node] = len(self.numbers)
        self.steps.append({"op": name, "args": [self._argument(a) for a in arguments], "shape": shape})

    def _argument(self, argument: Any) -> Any:
        """As JSON: another value is {"value": its number}."""
        if isinstance(argument, Node):
            return {"value": self.numbers[argument]}
        if isinstance(argument, Sequence) and not isinstance(argument, str):
            return [self._argument(part) for part in argument]
        if argument is None or isinstance(argument, bool | int | float | str):
            return argument if argument not in (float("inf"), float("-inf")) else None
        return None  # a type or a layout of memory


def _call_of(node: Node) -> tuple[str, list[Any]]:
    """The name of an operator and all its arguments in their order; of several that do the same, one."""
    target: Any = node.target
    if target is operator.getitem:  # a part of what gives several
        parts: Any
        index: Any
        parts, index = node.args
        name, (whole, dim, *_) = _call_of(parts)
        if name not in PARTS:
            raise Undecodable(f"it uses {name}, which pages can't compute")
        return "select", [whole, dim, index]
    schema = target._schema
    arguments: list[Any] = [
        node.args[place] if place < len(node.args) else node.kwargs.get(argument.name, argument.default_value)
        for place, argument in enumerate(schema.arguments)
    ]
    name = schema.name.partition("::")[2]
    if name in ("transpose", "t"):
        whole = arguments[0]
        first, second = arguments[1:] if name == "transpose" else (0, 1)
        order = list(range(whole.meta["val"].ndim))
        order[first], order[second] = order[second], order[first]
        return "permute", [whole, order]
    return name, arguments


def _operators() -> set[str]:
    """Those that decoder.js has."""
    return set(re.findall(r"^  (\w+)[(:]", asset("decoder.js").partition("const operators")[2], re.MULTILINE))


@torch.inference_mode()
def _difference(decode: Decode, weights: dict[str, Tensor], codes: Tensor) -> float:
    rounded = {name: w.half().float() if w.numel() > FEW else w for name, w in weights.items()}
    known = dict(decode.model.state_dict())
    rounded = {f"model.{name}": weight for name, weight in rounded.items() if name in known}
    halves = torch.func.functional_call(decode, rounded, codes)
    return float((halves - decode(codes)).abs().max())


def base64_of(numbers: NDArray[Any], kind: str) -> str:
    """Numbers as they lie in a script's array, "<f2" or "<f4", little-endian halves or singles."""
    return base64.b64encode(np.ascontiguousarray(numbers).astype(kind).tobytes()).decode()
