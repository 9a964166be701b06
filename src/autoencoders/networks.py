"""Encoders and decoders: linear, fully connected, convolutional, transformers, or your own; and a U-Net,
which has no code.

An encoder maps images (B, C, H, W) to features (B, F), or (B, F / (h w), h, w) where a code has places; a
decoder maps codes (B, *code_shape) to images (B, C, H, W), without a squashing function at the end: the
likelihood makes pixels of its output. A decoder mirrors its encoder. A restorer maps images to images of the
same size.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from itertools import pairwise
from typing import Any, Protocol

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from autoencoders import checks

Shape = Sequence[int]  # (C, H, W)
WIDEST = 65536  # units or channels of a layer
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU, "relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid
}  # fmt: skip


class Network(Protocol):
    """Builds the encoder and the decoder of a model. A decoder with a true attribute `gives_pixels` ends in
    pixels in [0, 1] rather than in logits, and is not squashed again.

    A network whose codes are (C, h, w) says so by the methods `code_shape(input_shape, code_dim)` and
    `places(input_shape)`, which gives (h, w).
    """

    def encoder(self, input_shape: Shape, features: int) -> nn.Module:
        """Images (B, *input_shape) to (B, features)."""
        ...

    def decoder(self, code_dim: int, target_shape: Shape) -> nn.Module:
        """Codes (B, code_dim) to (B, *target_shape)."""
        ...


class RestorationNetwork(Protocol):
    """Builds the network of a model that has no code."""

    def restorer(self, input_shape: Shape, target_shape: Shape) -> nn.Module:
        """Images (B, C_in, H, W) to (B, C_out, H, W), of any height and width."""
        ...


class ClassifyingNetwork(Protocol):
    """Builds the network of a model that chooses among classes at each place."""

    def classifier(self, input_shape: Shape, classes: int) -> nn.Module:
        """Images (B, C_in, H, W) to logits (B, classes, ⌈H / patch⌉, ⌈W / patch⌉), of any height and width.
        The module says what its `patch` is, if that is not 1."""
        ...


@dataclass(frozen=True)
class Linear:
    """Affine maps, whose best autoencoder is PCA (Baldi & Hornik 1989)."""

    def encoder(self, input_shape: Shape, features: int) -> nn.Module:
        return _mlp_encoder(input_shape, features)

    def decoder(self, code_dim: int, target_shape: Shape) -> nn.Module:
        return _mlp_decoder(code_dim, target_shape)


@dataclass(frozen=True)
class MLP:
    """Fully connected layers.

    Args:
        hidden: units of each hidden layer from the image to the code, 1..65536; the decoder mirrors them.
        activation: of the hidden layers, one of `ACTIVATIONS`.
        linear_path: add an affine map beside the network, which then only has to learn what PCA cannot.
        norm: normalise the units of every layer but the last (Ba et al. 2016).
    """

    hidden: Sequence[int] = (512, 256, 128)
    linear_path: bool = False
    norm: bool = False
    activation: str = "silu"

    def __post_init__(self) -> None:
        checks.integers("hidden", self.hidden, at_least=1, at_most=WIDEST)
        checks.choice("activation", self.activation, tuple(ACTIVATIONS))
        checks.boolean("linear_path", self.linear_path)
        checks.boolean("norm", self.norm)

    def encoder(self, input_shape: Shape, features: int) -> nn.Module:
        body = _mlp_encoder(input_shape, features, self.hidden, self.norm, ACTIVATIONS[self.activation])
        return Sum(body, _mlp_encoder(input_shape, features)) if self.linear_path else body

    def decoder(self, code_dim: int, target_shape: Shape) -> nn.Module:
        body = _mlp_decoder(code_dim, target_shape, self.hidden, self.norm, ACTIVATIONS[self.activation])
        return Sum(body, _mlp_decoder(code_dim, target_shape)) if self.linear_path else body


@dataclass(frozen=True)
class Conv:
    """Convolutions that each halve the side of a square image, then fully connected layers.

    Args:
        patch: side of the patches of pixels that the image is first cut into, 1..32; it divides the image's
            side. Patches become channels, which makes the first layer, the most expensive one on a full-size
            image, cheap.
        channels: of each convolution, 1..65536.
        hidden: units of the fully connected layers between the last convolution and the code, 1..65536.
        depth: residual blocks (He et al. 2016) after each convolution, before each of the decoder, 0..100.
        linear_path: as for `MLP`.
        norm: as for `MLP`.
    """

    patch: int = 2
    channels: Sequence[int] = (32, 128)
    hidden: Sequence[int] = (128,)
    depth: int = 0
    linear_path: bool = True
    norm: bool = True

    def __post_init__(self) -> None:
        checks.integer("patch", self.patch, at_least=1, at_most=32)
        checks.integers("channels", self.channels, at_least=1, at_most=WIDEST)
        checks.integers("hidden", self.hidden, at_least=1, at_most=WIDEST)
        checks.integer("depth", self.depth, at_least=0, at_most=100)
        checks.boolean("linear_path", self.linear_path)
        checks.boolean("norm", self.norm)

    def encoder(self, input_shape: Shape, features: int) -> nn.Module:
        widths, sides = self._sizes(input_shape)
        layers: list[nn.Module] = [nn.PixelUnshuffle(self.patch)]
        for (before, after), side in zip(pairwise(widths), sides, strict=False):
            convolution = nn.Conv2d(before, after, _kernel(side), stride=2, padding=1)
            layers += [convolution, *self._blocks(after), *_activation(after, self.norm)]
        flat = widths[-1] * sides[-1] ** 2
        body = nn.Sequential(*layers, nn.Flatten(), *_layers([flat, *self.hidden, features], self.norm))
        return Sum(body, _mlp_encoder(input_shape, features)) if self.linear_path else body

    def decoder(self, code_dim: int, target_shape: Shape) -> nn.Module:
        widths, sides = self._sizes(target_shape)
        flat = widths[-1] * sides[-1] ** 2
        layers: list[nn.Module] = [
            *_layers([code_dim, *reversed(self.hidden), flat], self.norm),
            nn.Unflatten(1, (widths[-1], sides[-1], sides[-1])),
        ]
        for (before, after), side in zip(pairwise(widths[::-1]), sides[-2::-1], strict=True):
            # No bias: with one, oneDNN takes another bfloat16 algorithm, 5 times slower from 4 to 7 pixels.
            transposed = nn.ConvTranspose2d(before, after, _kernel(side), stride=2, padding=1, bias=False)
            layers += [*self._blocks(before), *_activation(before, self.norm), transposed]
        body = nn.Sequential(*layers, nn.PixelShuffle(self.patch))
        return Sum(body, _mlp_decoder(code_dim, target_shape)) if self.linear_path else body

    def _blocks(self, width: int) -> list[nn.Module]:
        return [
            Residual(nn.Sequential(*_activation(width, self.norm), nn.Conv2d(width, width, 3, padding=1)))
            for _ in range(self.depth)
        ]

    def _sizes(self, shape: Shape) -> tuple[list[int], list[int]]:
        """Channels and sides of the images between the convolutions, from the image to the code."""
        depth, sides = shape[0], [_patches(shape, self.patch)]
        for _ in self.channels:
            sides.append((sides[-1] + 1) // 2)
        return [depth * self.patch**2, *self.channels], sides


@dataclass(frozen=True)
class ResNet:
    """Residual convolutions (He et al. 2016) at several resolutions, each half the one before. Its code keeps
    its places, (C, h, w) at the coarsest of them, without any fully connected layer.

    Args:
        patch: side of the patches of pixels that the image is first cut into, 1..32, as for `Conv`.
        widths: channels at each resolution, from the finest to the coarsest, 1..65536.
        depth: residual blocks at the coarsest resolution, 0..100.
        hidden: channels within a residual block, 1..65536.
        norm: as for `MLP`.
    """

    patch: int = 2
    widths: Sequence[int] = (64, 128, 128)
    depth: int = 2
    hidden: int = 64
    norm: bool = True

    def __post_init__(self) -> None:
        checks.integer("patch", self.patch, at_least=1, at_most=32)
        checks.integers("widths", self.widths, at_least=1, at_most=WIDEST)
        if not self.widths:
            raise ValueError("widths=[] must have at least one number")
        checks.integer("depth", self.depth, at_least=0, at_most=100)
        checks.integer("hidden", self.hidden, at_least=1, at_most=WIDEST)
        checks.boolean("norm", self.norm)

    def code_shape(self, input_shape: Shape, code_dim: int) -> Shape:
        """(C, h, w) of a code of so many numbers."""
        height, width = self.places(input_shape)
        if code_dim % (height * width):
            raise ValueError(
                f"code_dim={code_dim} must be a multiple of {height * width}: with this network a code has "
                f"{height} x {width} places"
            )
        return code_dim // (height * width), height, width

    def places(self, input_shape: Shape) -> Shape:
        """(h, w) of a code."""
        side = self._sides(input_shape)[-1]
        return side, side

    def encoder(self, input_shape: Shape, features: int) -> nn.Module:
        sides, last = self._sides(input_shape), self.widths[-1]
        area = input_shape[0] * self.patch**2
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(self.patch),
            nn.Conv2d(area, self.widths[0], 3, padding=1),
        ]
        for (before, after), side in zip(pairwise(self.widths), sides, strict=False):
            halved = nn.Conv2d(before, after, _kernel(side), stride=2, padding=1)
            layers += [*_activation(before, self.norm), halved]
        return nn.Sequential(*layers, *self._blocks(), nn.Conv2d(last, features // sides[-1] ** 2, 1))

    def decoder(self, code_dim: int, target_shape: Shape) -> nn.Module:
        sides, last = self._sides(target_shape), self.widths[-1]
        layers: list[nn.Module] = [nn.Conv2d(code_dim // sides[-1] ** 2, last, 1), *self._blocks()]
        for (before, after), side in zip(pairwise(self.widths[::-1]), sides[-2::-1], strict=True):
            doubled = nn.ConvTranspose2d(before, after, _kernel(side), stride=2, padding=1)
            layers += [doubled, *_activation(after, self.norm)]
        area = target_shape[0] * self.patch**2
        return nn.Sequential(
            *layers, nn.Conv2d(self.widths[0], area, 3, padding=1), nn.PixelShuffle(self.patch)
        )

    def _sides(self, shape: Shape) -> list[int]:
        """Of the images at each resolution."""
        sides = [_patches(shape, self.patch)]
        for _ in self.widths[1:]:
            sides.append((sides[-1] + 1) // 2)
        return sides

    def _blocks(self) -> list[nn.Module]:
        """Residual blocks, and what follows them."""
        width = self.widths[-1]
        blocks: list[nn.Module] = [
            Residual(
                nn.Sequential(
                    *_activation(width, self.norm),
                    nn.Conv2d(width, self.hidden, 3, padding=1),
                    *_activation(self.hidden, self.norm),
                    nn.Conv2d(self.hidden, width, 1),
                )
            )
            for _ in range(self.depth)
        ]
        return [*blocks, *_activation(width, self.norm)]


@dataclass(frozen=True)
class ViT:
    """Transformers over the patches of an image, an encoder and a decoder (Dosovitskiy et al. 2021; He et al.
    2022), with learnt positions and a normalisation before each layer. The code is a vector, affine in all
    patches.

    Args:
        patch: side of the patches, in pixels, 1..32; it divides the image's side.
        width: numbers a patch is made of between layers, 1..65536.
        depth: layers of the encoder, and as many of the decoder, 1..100.
        heads: of each layer's attention, 1..65536; they divide the width.
    """

    patch: int = 4
    width: int = 64
    depth: int = 2
    heads: int = 4

    def __post_init__(self) -> None:
        checks.integer("patch", self.patch, at_least=1, at_most=32)
        checks.integer("width", self.width, at_least=1, at_most=WIDEST)
        checks.integer("depth", self.depth, at_least=1, at_most=100)
        checks.integer("heads", self.heads, at_least=1, at_most=WIDEST)
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} must divide width={self.width}")

    def encoder(self, input_shape: Shape, features: int) -> nn.Module:
        places = _patches(input_shape, self.patch) ** 2
        embedding = nn.Conv2d(input_shape[0], self.width, self.patch, stride=self.patch)
        flat = places * self.width
        return nn.Sequential(
            embedding,
            nn.Flatten(2),
            Transposed(),
            *self._layers(places),
            nn.Flatten(),
            nn.Linear(flat, features),
        )

    def decoder(self, code_dim: int, target_shape: Shape) -> nn.Module:
        side, area = _patches(target_shape, self.patch), target_shape[0] * self.patch**2
        return nn.Sequential(
            nn.Linear(code_dim, side**2 * self.width),
            nn.Unflatten(1, (side**2, self.width)),
            *self._layers(side**2),
            nn.Linear(self.width, area),
            Transposed(),
            nn.Unflatten(2, (side, side)),
            nn.PixelShuffle(self.patch),
        )

    def _layers(self, places: int) -> list[nn.Module]:
        """What makes (B, places, width) of as many, normalised at the end."""
        layers: list[nn.Module] = [Positions(places, self.width)]
        for _ in range(self.depth):
            wide = 4 * self.width
            perceptron = [nn.Linear(self.width, wide), nn.GELU(), nn.Linear(wide, self.width)]
            for body in ([Attention(self.width, self.heads)], perceptron):
                layers.append(Residual(nn.Sequential(nn.LayerNorm(self.width), *body)))
        return [*layers, nn.LayerNorm(self.width)]


@dataclass(frozen=True)
class UNet:
    """A U-Net that corrects images of any size (Ronneberger et al. 2015): residual blocks at several
    resolutions, each half the one above it, without normalisation and with skips that are added, as in DRUNet
    (Zhang et al. 2021).

    Args:
        patch: side of the patches of pixels that become channels, 1..32, as FFDNet does (Zhang et al. 2018):
            convolutions on a full-size image are the slowest and gain the least.
        widths: channels at each resolution, from the finest to the coarsest, 1..65536.
        depth: residual blocks at each resolution on the way down, and as many on the way up, 1..100.
    """

    patch: int = 2
    widths: Sequence[int] = (32, 64, 128)
    depth: int = 1

    def __post_init__(self) -> None:
        checks.integer("patch", self.patch, at_least=1, at_most=32)
        checks.integers("widths", self.widths, at_least=1, at_most=WIDEST)
        if not self.widths:
            raise ValueError("widths=[] must have at least one number")
        checks.integer("depth", self.depth, at_least=1, at_most=100)

    def restorer(self, input_shape: Shape, target_shape: Shape) -> nn.Module:
        read, given = input_shape[0], target_shape[0]
        if read not in (1, given):
            raise ValueError(f"UNet makes no image of {given} channels of one of {read}")
        levels = nn.Sequential(*self._levels(read, given * self.patch**2), nn.PixelShuffle(self.patch))
        return Correction(levels, given, self._multiple)

    def classifier(self, input_shape: Shape, classes: int) -> nn.Module:
        """Images (B, C, H, W) to logits (B, classes, ⌈H / patch⌉, ⌈W / patch⌉), of each patch."""
        return OfPatches(nn.Sequential(*self._levels(input_shape[0], classes)), self.patch, self._multiple)

    @property
    def _multiple(self) -> int:
        """What the sides of its images are a multiple of."""
        return self.patch * 2 ** (len(self.widths) - 1)

    def _levels(self, read: int, given: int) -> list[nn.Module]:
        """Images to `given` channels of their patches."""
        inner = self._blocks(self.widths[-1])
        for width, wider in reversed([*pairwise(self.widths)]):
            down = nn.Conv2d(width, wider, 2, stride=2)
            up = nn.ConvTranspose2d(wider, width, 2, stride=2, bias=False)
            below = Residual(nn.Sequential(down, inner, up))
            inner = nn.Sequential(self._blocks(width), below, self._blocks(width))
        width = self.widths[0]
        first = nn.Conv2d(read * self.patch**2, width, 3, padding=1)
        last = nn.Conv2d(width, given, 3, padding=1)
        for weight in last.parameters():  # so training starts at x̃ itself
            nn.init.zeros_(weight)
        return [nn.PixelUnshuffle(self.patch), first, inner, last]

    def _blocks(self, width: int) -> nn.Sequential:
        """No normalisation: over all of an image, it would make each pixel depend on its size."""
        return nn.Sequential(
            *(
                Residual(
                    nn.Sequential(
                        nn.Conv2d(width, width, 3, padding=1),
                        nn.ReLU(),
                        nn.Conv2d(width, width, 3, padding=1),
                    )
                )
                for _ in range(self.depth)
            )
        )


class Own:
    """Your own encoder and decoder: two plain nn.Module classes, functions that return modules, partials of
    either (`_partial_: true`), or two ready modules.

    A constructor is called with those of these that it has as parameters, or with all of them if it takes
    **kwargs; anything else it needs is yours to set (`+network.encoder.width=64`):

        encoder: input_shape, the (C, H, W) of its images; code_dim, the number of features it must give: that
            of the code, and twice as many for a VAE (means, then log variances).
        decoder: code_dim; target_shape, the (C, H, W) of what it must give: images, with more channels where
            the likelihood needs them.

    Args:
        encoder: gives (B, code_dim), or (B, code_dim, 1, 1), for images (B, *input_shape).
        decoder: gives (B, *target_shape) for codes (B, code_dim).
        output: what the decoder gives: "pixels" in [0, 1], or "logits", of which a sigmoid makes pixels.
            "auto": pixels if it stays in [0, 1] whatever its weights and codes, as after a final nn.Sigmoid;
            there is a warning where it does not visibly end in one.

    Raises (by `encoder` and `decoder`):
        ValueError: a module does not fit, in one line that names it, the shape it gave and the one wanted.
    """

    def __init__(
        self, encoder: Callable[..., Any], decoder: Callable[..., Any], output: str = "auto"
    ) -> None:
        checks.choice("output", output, ("auto", "pixels", "logits"))
        self._encoder, self._decoder, self._output = encoder, decoder, output

    def encoder(self, input_shape: Shape, features: int) -> nn.Module:
        module = _built("encoder", self._encoder, input_shape=tuple(input_shape), code_dim=features)
        shape = _output_shape("encoder", module, torch.rand(2, *input_shape, generator=_generator()))
        if shape == (2, features, 1, 1):
            return nn.Sequential(module, nn.Flatten())
        _check_shape("encoder", module, shape, (features,))
        return module

    def decoder(self, code_dim: int, target_shape: Shape) -> nn.Module:
        module = _built("decoder", self._decoder, code_dim=code_dim, target_shape=tuple(target_shape))
        shape = _output_shape("decoder", module, torch.randn(2, code_dim, generator=_generator()))
        _check_shape("decoder", module, shape, target_shape)
        pixels = self._output == "pixels" or (self._output == "auto" and _gives_pixels(module, code_dim))
        module.gives_pixels = pixels  # type: ignore[assignment]
        return module


def _built(part: str, maker: Callable[..., Any], **offered: Any) -> nn.Module:
    if isinstance(maker, nn.Module):
        return maker
    function, positional, known = (
        (maker.func, maker.args, maker.keywords) if isinstance(maker, partial) else (maker, (), {})
    )
    parameters = dict([*inspect.signature(function).parameters.items()][len(positional) :])
    # nn.Module's own constructor has **kwargs but takes none; a function's are for what it calls.
    all_taken = inspect.isclass(function) and function.__init__ is not nn.Module.__init__
    if not (all_taken and any(p.kind is p.VAR_KEYWORD for p in parameters.values())):
        offered = {name: value for name, value in offered.items() if name in parameters}
    arguments = {name: value for name, value in offered.items() if name not in known}
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and name not in {**arguments, **known}
    ]
    if missing:
        raise ValueError(
            f"{part}={_path(function)} needs its {', '.join(missing)}: "
            + " ".join(f"+network.{part}.{name}=..." for name in missing)
        )
    module = maker(**arguments)
    if not isinstance(module, nn.Module):
        raise ValueError(f"{part}={_path(function)} must give an nn.Module, not {type(module).__name__}")
    return module


def _output_shape(part: str, module: nn.Module, inputs: Tensor) -> tuple[int, ...]:
    """The shape of what the module makes of `inputs`."""
    with _probing(module):
        try:
            output = module(_like(module, inputs))
        except RuntimeError as error:  # how torch says that shapes do not fit
            raise ValueError(
                f"{_named(part, module)} must take {_batch(inputs.shape[1:])}: {error}"
            ) from error
    if not isinstance(output, Tensor):
        raise ValueError(f"{_named(part, module)} must give one tensor, not a {type(output).__name__}")
    return tuple(output.shape)


def _check_shape(part: str, module: nn.Module, shape: Sequence[int], wanted: Shape) -> None:
    if tuple(shape) != (2, *wanted):
        gave = _batch(shape[1:]) if shape[:1] == (2,) else f"{tuple(shape)} for a batch of 2"
        raise ValueError(f"{_named(part, module)} must give {_batch(wanted)}, not {gave}")


def _gives_pixels(decoder: nn.Module, code_dim: int) -> bool:
    """Whether the decoder's output stays in [0, 1] by construction: for random codes and weights of several
    scales. (Its own weights would make the answer depend on the seed.)"""
    generator, outputs = _generator(), list[Tensor]()
    scales = torch.tensor([1.0, 10.0, 100.0]).repeat(4)[:, None]
    codes = scales * torch.randn(12, code_dim, generator=generator)
    with _probing(decoder):
        for gain in (1.0, 4.0):
            weights = {
                name: _like(weight, torch.randn(weight.shape, generator=generator))
                * gain
                / _root_fan_in(weight)
                for name, weight in decoder.named_parameters()
            }
            outputs.append(torch.func.functional_call(decoder, weights, _like(decoder, codes)).float())
    output = torch.cat(outputs)
    low, high = float(output.min()), float(output.max())
    if not -1 <= low < high <= 1:
        return False
    name = _named("decoder", decoder)
    if low < 0:
        rank_zero_warn(
            f"network.{name} gives numbers in [-1, 1], as a Tanh does. Taken for logits, they make no pixel "
            "darker than 0.27 or brighter than 0.73: end it in a Sigmoid, or in no squashing function"
        )
        return False
    layers = [module for module in decoder.modules() if not list(module.children())]
    while layers and isinstance(layers[-1], nn.Flatten | nn.Unflatten | nn.Identity):
        layers.pop()
    if not (layers and isinstance(layers[-1], nn.Sigmoid | nn.Hardsigmoid)):
        rank_zero_warn(
            f"network.{name} gives numbers in [0, 1], which are taken for pixels: "
            "say network.output=pixels, or network.output=logits if they are not"
        )
    return True


def _root_fan_in(weight: Tensor) -> float:
    return math.sqrt(weight[0].numel()) if weight.ndim > 1 else 1.0


@contextmanager
def _probing(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, and the modes that were there before afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes.items():
            part.training = training


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _like(of: nn.Module | Tensor, numbers: Tensor) -> Tensor:
    """The numbers on the device and in the type of a tensor, or of a module's weights."""
    weight = of if isinstance(of, Tensor) else next(of.parameters(), numbers)
    return numbers.to(device=weight.device, dtype=weight.dtype)


def _named(part: str, module: nn.Module) -> str:
    return f"{part}={_path(type(module))}"


def _path(maker: Any) -> str:
    return f"{maker.__module__}.{maker.__qualname__}"


def _batch(shape: Shape) -> str:
    return f"(B, {', '.join(map(str, shape))})"


class Sum(nn.Module):
    """The sum of what several networks make of the same input."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return reduce(torch.add, (branch(x) for branch in self.branches))


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Transposed(nn.Module):
    """(B, N, M) to (B, M, N)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class Positions(nn.Module):
    """Adds to each place of (B, places, width) what is learnt for it."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.of_place = nn.Parameter(0.02 * torch.randn(places, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.of_place


class Attention(nn.Module):
    """Each place of (B, places, width) reads from all of them (Vaswani et al. 2017, §3.2).

    Written out, as torch's fused one has no second derivative, which a penalty on a Jacobian needs.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.read, self.given = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        # (B, heads, places, width / heads) each
        query, key, value = self.read(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        similar = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
        return self.given((similar.softmax(3) @ value).transpose(1, 2).flatten(2))


class Correction(nn.Module):
    """x̃ plus what a network makes of it; gray is repeated where colour is wanted.

    The network takes sides that are a multiple of some number: images of other sizes are continued below and
    on the right as in a mirror, and cut again.

    Args:
        network: (B, C_in, H, W) to (B, channels, H, W).
        channels: of the corrected image.
        multiple: the number.
    """

    def __init__(self, network: nn.Module, channels: int, multiple: int) -> None:
        super().__init__()
        self.network, self.channels, self.multiple = network, channels, multiple

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        correction = self.network(mirrored(mirrored(images, -2, self.multiple), -1, self.multiple))
        return images.expand(-1, self.channels, -1, -1) + correction[..., :height, :width]


class OfPatches(nn.Module):
    """What a network makes of each patch of images, which are continued as in `Correction`.

    Args:
        network: (B, C, H, W) to (B, K, H / patch, W / patch).
        patch: side of the patches; those at the lower and the right edge may be incomplete.
        multiple: of which the network takes sides.
    """

    def __init__(self, network: nn.Module, patch: int, multiple: int) -> None:
        super().__init__()
        self.network, self.patch, self.multiple = network, patch, multiple

    def forward(self, images: Tensor) -> Tensor:
        height, width = (-(-side // self.patch) for side in images.shape[-2:])
        made: Tensor = self.network(mirrored(mirrored(images, -2, self.multiple), -1, self.multiple))
        return made[..., :height, :width]


def mirrored(images: Tensor, axis: int, multiple: int) -> Tensor:
    """Images continued at the end of an axis, to a multiple of its size, as in mirrors at both edges' pixels:
    for sizes of any number of pixels, where torch's reflection needs more of them than it adds."""
    size = images.shape[axis]
    # An exported graph has no ifs: it reads one size as it reads another.
    if size % multiple == 0 and not torch.compiler.is_exporting():
        return images
    forth = torch.arange(size, device=images.device)
    forth_and_back = torch.cat([forth, forth[1:-1].flip(0)])  # with the pixel at each end once
    places = forth_and_back.repeat(multiple)[: (size + multiple - 1) // multiple * multiple]
    return images.index_select(axis, places)


def _mlp_encoder(
    shape: Shape,
    features: int,
    hidden: Sequence[int] = (),
    norm: bool = False,
    activation: type[nn.Module] = nn.SiLU,
) -> nn.Sequential:
    channels, height, width = shape
    widths = [channels * height * width, *hidden, features]
    return nn.Sequential(nn.Flatten(), *_layers(widths, norm, activation))


def _mlp_decoder(
    code_dim: int,
    shape: Shape,
    hidden: Sequence[int] = (),
    norm: bool = False,
    activation: type[nn.Module] = nn.SiLU,
) -> nn.Sequential:
    channels, height, width = shape
    layers = _layers([code_dim, *reversed(hidden), channels * height * width], norm, activation)
    return nn.Sequential(*layers, nn.Unflatten(1, tuple(shape)))


def parameter_count(module: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(weights.numel() for weights in module.parameters() if weights.requires_grad)


def fully_connected_layers(network: nn.Module) -> list[nn.Sequential]:
    """The layers of an encoder or a decoder, each with what follows it up to the next; none where it isn't
    made of fully connected ones alone."""
    parts = list(network) if isinstance(network, nn.Sequential) else []
    starts = [place for place, part in enumerate(parts) if isinstance(part, nn.Linear)]
    others = [part for place, part in enumerate(parts) if place not in starts]
    if not starts or any(weight.ndim > 1 for part in others for weight in part.parameters()):
        return []
    edges = [0, *starts[1:], len(parts)]  # what is before the first layer belongs to it
    return [nn.Sequential(*parts[start:end]) for start, end in pairwise(edges)]


def _patches(shape: Shape, patch: int) -> int:
    """How many patches there are along each side of a square image.

    Raises:
        ValueError: it isn't square, or not of whole patches.
    """
    _, height, width = shape
    if height != width or height % patch:
        raise ValueError(
            f"patch={patch} must divide the side of a square image, not one of {height} x {width}: "
            "use network=mlp, or resize the images with data.size=32"
        )
    return height // patch


def _kernel(side: int) -> int:
    """The kernel that halves `side` (rounded up) and whose transpose gives it back exactly, at padding 1."""
    return 4 - side % 2


def _layers(widths: Sequence[int], norm: bool, activation: type[nn.Module] = nn.SiLU) -> list[nn.Module]:
    """Fully connected layers with an activation between them, none after the last."""
    layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
    for before, after in pairwise(widths[1:]):
        layers += [*_activation(before, norm, activation), nn.Linear(before, after)]
    return layers


def _activation(width: int, norm: bool, activation: type[nn.Module] = nn.SiLU) -> list[nn.Module]:
    """It, after a normalisation over all units of the layer if wanted. (Over a batch, what an image becomes
    would depend on the others, and on the number of devices.)"""
    return [nn.GroupNorm(1, width), activation()] if norm else [activation()]
