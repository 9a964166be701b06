"""What every autoencoder shares: the step, the logging, the optimizer."""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, cast

import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.optimizer import Optimizer
from torchmetrics import MeanMetric

from autoencoders import checks
from autoencoders.corruption import Identity
from autoencoders.data.pairs import Batch
from autoencoders.errors import UserError
from autoencoders.likelihoods import LIKELIHOODS
from autoencoders.losses import with_slope
from autoencoders.metrics import reconstruction_metrics, squared_error
from autoencoders.networks import Conv, Network, Shape
from autoencoders.randomness import Randomness
from autoencoders.schedulers import warmup_cosine

# In runs as short as these, forgetting squared gradients sooner than Adam's usual 0.999 trains further.
ADAMW = partial(torch.optim.AdamW, lr=1.2e-2, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
# What a scheduler may call the number of steps that it is to end after.
LENGTHS = ("total_steps", "T_max")


NONE: Mapping[str, Tensor] = MappingProxyType({})


class Coded(NamedTuple):
    """What an autoencoder makes of a batch in training. Penalties and monitors are one value an image, (B,),
    or one of the whole batch, ()."""

    code: Tensor  # (B, *code_shape), what the decoder reads
    penalties: Mapping[str, Tensor] = NONE  # added to the loss, times the model's `weights`
    monitors: Mapping[str, Tensor] = NONE  # logged, and never added


class Terms(NamedTuple):
    """What a batch costs, (B,) or () each, and what is worth knowing of it."""

    losses: Mapping[str, Tensor]  # before they are weighted; the loss is their sum
    monitors: Mapping[str, Tensor] = NONE


def is_unchanged(data: LightningDataModule) -> bool:
    """Whether x̃ is x: there is no corruption, no x̃ was measured, and no pixel has to be guessed."""
    guessed = getattr(data, "supervision", "clean") == "noise2void"
    measured = getattr(data, "measured", False)
    return isinstance(getattr(data, "corruption", None), Identity) and not measured and not guessed


class BaseModel(LightningModule):
    """Minimises a loss over pairs (x̃, x) that the data gives, and says what can be done with it.

    A model that has no code, and so nothing to explore or to sample from, overrides `forward` and `terms`;
    all others are a `BaseAutoencoder`.

    Args:
        input_shape: (C, H, W) of x̃.
        target_shape: (C, H, W) of x; that of x̃ if None.
        likelihood: p_dec(x|h), one of `likelihoods.LIKELIHOODS`.
        likelihood_std: the standard deviation of "gaussian" and "laplace", from which that of
            "gaussian_learned" starts, 1e-3..1e3, pixels being in [0, 1]. √½ makes −log p of a gaussian
            the sum of squared errors, plus a constant.
        optimizer: makes an optimizer of the parameters, as a partial of torch's does; `ADAMW` if None.
        scheduler: makes a learning-rate scheduler of the optimizer; `schedulers.warmup_cosine` if None. One
            with a parameter `total_steps` or `T_max` is given the number of steps, unless it is set, and is
            stepped by the batch (with `T_max` set: by the epoch); `ReduceLROnPlateau` is stepped by `monitor`
            after each validation, others once an epoch.

    Raises:
        ValueError: an argument is out of its range, in one line that begins with its name and value.
    """

    # What the rows of its figure are called, in this order.
    row_titles: ClassVar[Mapping[str, str]] = {
        "clean": "original",
        "corrupted": "corrupted",
        "reconstruction": "reconstruction",
    }
    evaluations: tuple[str, ...] = ()  # groups of an evaluation that only this model has
    affine: ClassVar[bool] = False  # whether the decoder is affine in the code
    bounded: bool = True  # whether a likelihood's mean is kept in [0, 1] where it could leave it
    weighs_pixels: ClassVar[bool] = False  # whether the loss heeds the `weights` of a batch
    any_size: ClassVar[bool] = False  # whether images may have another height and width than in training
    couples_batch: bool = False  # whether a term depends on several images, through `gathered`
    initialized: bool = False  # whether it starts from trained weights
    code_shape: tuple[int, ...] = ()  # (D,), or (C, h, w) of a code with places; () if there is none
    sample_columns: int = 10  # of a figure of 100 codes of `prior_codes`

    def __init__(
        self,
        input_shape: Shape = (1, 28, 28),
        target_shape: Shape | None = None,
        likelihood: str = "gaussian",
        likelihood_std: float = math.sqrt(0.5),
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
    ) -> None:
        super().__init__()
        # Those of the subclasses too. A checkpoint with objects other than plain values could not be loaded
        # safely.
        self.save_hyperparameters(ignore=["network", "optimizer", "scheduler"], logger=False)
        target_shape = target_shape or input_shape
        for name, shape in (("input_shape", input_shape), ("target_shape", target_shape)):
            checks.integers(name, shape, at_least=1)
            if len(shape) != 3:
                raise ValueError(f"{name}={list(shape)} must be three numbers: channels, height, width")
        checks.choice("likelihood", likelihood, tuple(LIKELIHOODS))
        checks.number("likelihood_std", likelihood_std, at_least=1e-3, at_most=1e3)
        self.input_shape, self.target_shape = tuple(input_shape), tuple(target_shape)
        self.optimizer, self.scheduler = optimizer or ADAMW, scheduler or warmup_cosine
        self.monitor = "val/mse"  # what ReduceLROnPlateau looks at
        self.weights: dict[str, float] = {}  # of the terms that are not simply added to the loss
        self._has_none = False  # images of the batch that is being gathered
        self.averages = nn.ModuleDict()  # the running mean of each validation and test metric

    def check_data(self, data: LightningDataModule) -> None:
        """Raises ValueError for data that this model cannot be trained on. Called when training begins."""
        compared = 1 if self.any_size else 3  # of channels, height, width
        for name in ("input_shape", "target_shape"):
            mine, theirs = getattr(self, name), tuple(getattr(data, name, getattr(self, name)))
            if mine[:compared] != theirs[:compared]:
                raise ValueError(f"{name}={list(mine)} must be {list(theirs)}, that of {_name(data)}")
        if getattr(data, "supervision", "clean") == "noise2void" and not self.weighs_pixels:
            raise ValueError(
                f"data.supervision=noise2void needs a loss of single pixels, which {_name(self)} does not "
                "have: use model=restoration"
            )

    # ---- what it computes ----

    @property
    def code_dim(self) -> int:
        """Numbers in the code; 0 if there is none."""
        return math.prod(self.code_shape) if self.code_shape else 0

    @property
    def code_bits(self) -> float:
        """The size of a code: of float32 numbers, where it isn't one of a finite number of symbols."""
        return 32 * self.code_dim

    @property
    def has_code(self) -> bool:
        """Whether images go through a code, so that `encode` and `decode` do something."""
        return self.code_dim > 0

    def encode(self, corrupted: Tensor) -> Tensor:
        """Images (B, C, H, W) to codes (B, *code_shape), without any sampling.

        Raises:
            ValueError: there is no code.
        """
        raise ValueError(self._no_code())

    def decode(self, code: Tensor) -> Tensor:
        """Codes (B, *code_shape), or (B, code_dim), to images (B, C, H, W).

        Raises:
            ValueError: there is no code.
        """
        raise ValueError(self._no_code())

    def decode_beside(self, code: Tensor, corrupted: Tensor) -> Tensor:
        """`decode`, with what a model takes from x̃ (1 or B, C, H, W) itself where its code doesn't tell all
        (`decodes_alone`)."""
        return self.decode(code)

    def _no_code(self) -> str:
        return f"{_name(self)} has no code: it makes an image of an image"

    def forward(self, corrupted: Tensor) -> Tensor:
        """The reconstruction r of x̃."""
        raise NotImplementedError

    def terms(self, batch: Batch) -> Terms:
        """What the loss consists of, and what is only logged."""
        raise NotImplementedError

    def prior_codes(self, count: int, seed: int) -> Tensor | None:
        """Codes (count, *code_shape) drawn from the model's own prior; None where it has none."""
        return None

    def clusters_of(self, code: Tensor) -> Tensor | None:
        """The model's own clusters (B,), int64, of codes (B, *code_shape); None where it has none."""
        return None

    def _checked_terms(self, batch: Batch) -> Terms:
        """The terms, one value an image (B,) each; what is one of the whole batch is that of each image.

        Raises:
            UserError: one is neither.
        """
        count, terms = len(batch.clean), self.terms(batch)
        for name, term in {**terms.losses, **terms.monitors}.items():
            if term.shape not in ((count,), ()):
                raise UserError(
                    f"{_name(self)}: the term {name} must be one value per image, ({count},), or one of the "
                    f"whole batch, (), not {tuple(term.shape)}"
                )
        losses, monitors = ({name: term.expand(count) for name, term in some.items()} for some in terms)
        return Terms(losses, monitors)

    def gathered(self, of_images: Tensor) -> Tensor:
        """What all processes have for their images of a batch, (B, ...) on each, in the order of the global
        batch and with gradients. A term that depends on several images at once is computed of this, so that
        it is the same on any number of devices; `couples_batch` is true then.

        The gradient is right for a term that every process computes alike, as DDP averages them.
        """
        trainer = self._trainer
        if trainer is None or trainer.world_size == 1:
            return of_images
        of_images = of_images[: 0 if self._has_none else None]
        counts = cast(Tensor, self.all_gather(torch.tensor(len(of_images), device=of_images.device)))
        missing = int(counts.max()) - len(of_images)
        padded = torch.cat([of_images, of_images.new_zeros(missing, *of_images.shape[1:])])
        # (W, B, ...): of the images r, r + W, ... of each process r
        by_process = cast(Tensor, self.all_gather(padded, sync_grads=True))
        return by_process.transpose(0, 1).flatten(0, 1)[: int(counts.sum())]

    def _only_gather(self, batch: Batch) -> None:
        """Takes part in what the others gather, with nothing of its own: computed of one black image, as some
        layers take no empty batch."""
        shapes = (self.input_shape, self.target_shape)
        corrupted, clean = (torch.zeros(1, *shape, device=self.device) for shape in shapes)
        self._has_none = True
        noise = Randomness(0, rows=1, device=self.device)  # of the batch there is none for this process
        self.terms(Batch(corrupted, clean, batch.labels.new_zeros(1), noise))
        self._has_none = False

    def share_of_training(self, share: float) -> int:
        """The steps that are a share, 0..1, of those of the whole training.

        Raises:
            UserError: that has no end.
        """
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise UserError(f"{_name(self)} needs to know how long training takes: set trainer.max_epochs")
        return int(share * steps)

    def parameter_groups(self) -> Iterable[Any]:
        """What the optimizer is made of: parameters, or groups of them with settings of their own."""
        return self.parameters()

    def in_weights_type(self, numbers: Tensor) -> Tensor:
        """As the layers take them where precision=64-true or bf16-true has changed the weights."""
        return numbers if torch.is_autocast_enabled(numbers.device.type) else numbers.to(self.dtype)

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The loss: the sum of its terms, each of any one shape, times their `weights`."""
        weighted = [
            term * self.weights[name] if name in self.weights else term for name, term in terms.items()
        ]
        return torch.stack(weighted).sum(0)

    # ---- what a variant may measure beside others ----

    def image_metrics(self, batch: Batch, reconstruction: Tensor) -> dict[str, Tensor]:
        """One value an image (B,) of everything that the test reports."""
        return reconstruction_metrics(reconstruction, batch.clean)

    def references(self, batch: Batch) -> dict[str, Tensor]:
        """What one could have done without a model: images (B, C, H, W) to be scored as reconstructions."""
        return {}

    # ---- Lightning ----

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and data is not None:
            self.check_data(data)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        losses, monitors = self._checked_terms(batch)
        terms = {name: term.mean() for name, term in losses.items()}
        loss = self.total(terms)
        # Every call of self.log takes as long as a small layer, so it is called only when it is written.
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:
            self.log("train/loss", loss, prog_bar=True, sync_dist=True)
            self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
            shown = (terms if len(terms) > 1 else {}) | {name: m.mean() for name, m in monitors.items()}
            if shown:
                self.log_dict({f"train/{name}": term for name, term in shown.items()}, sync_dist=True)
        return {"loss": loss, **{name: term.detach() for name, term in terms.items()}}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if not len(batch.clean):  # this device's share of a last batch of fewer images than devices
            if self.couples_batch:
                self._only_gather(batch)
            return
        losses, monitors = self._checked_terms(batch)
        self._average(
            "val",
            {
                "loss": self.total(losses),
                **(losses if len(losses) > 1 else {}),
                **monitors,
                "mse": squared_error(self(batch.corrupted), batch.clean, batch.weights),
            },
        )

    def on_validation_end(self) -> None:
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            for config in self.trainer.lr_scheduler_configs:
                if isinstance(config.scheduler, ReduceLROnPlateau):
                    config.scheduler.step(float(self.trainer.callback_metrics[self.monitor]))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        if not len(batch.clean):
            return
        reconstruction = self(batch.corrupted)
        with torch.autocast(self.device.type, enabled=False):  # SSIM convolves, which bfloat16 would falsify
            self._average("test", self.image_metrics(batch, reconstruction))

    def _average(self, stage: str, values: Mapping[str, Tensor]) -> None:
        """Keeps exact means over images; torchmetrics adds up sums and counts over the devices."""
        for name, value in values.items():
            key = f"{stage}_{name}"
            if key not in self.averages:
                # "disable" lets a NaN through, which the mean would otherwise leave out.
                mean = MeanMetric(nan_strategy="disable").set_dtype(torch.float32)
                self.averages[key] = mean.to(self.device)
            average = self.averages[key]
            assert isinstance(average, MeanMetric)
            average.update(value)
            self.log(
                f"{stage}/{name}",
                average,
                prog_bar=name == "mse",
                batch_size=len(value),
                logger=self.trainer.state.fn != TrainerFn.VALIDATING,  # of the best model again, at the end
                metric_attribute=f"averages.{key}",
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        make = self.optimizer
        if self.trainer.gradient_clip_val and getattr(make, "keywords", {}).get("fused"):
            make = partial(make, fused=False)  # which Lightning refuses to clip for under mixed precision
        optimizer = make(self.parameter_groups())
        by_step = self._unset_length() is not None or "total_steps" in _parameters(self.scheduler)
        scheduler = self._scheduler(optimizer, self.trainer.estimated_stepping_batches if by_step else 0)
        chosen: dict[str, Any] = {"scheduler": scheduler, "interval": "step" if by_step else "epoch"}
        if isinstance(scheduler, ReduceLROnPlateau):
            # Never by Lightning, which counts epochs and batches, not validations: see on_validation_end.
            chosen |= {"monitor": self.monitor, "frequency": 2**62}
        return {"optimizer": optimizer, "lr_scheduler": chosen}  # type: ignore[return-value]

    def _unset_length(self) -> str | None:
        """What the scheduler calls the number of steps, if it has yet to be told."""
        parameters, known = _parameters(self.scheduler), getattr(self.scheduler, "keywords", {})
        return next((name for name in LENGTHS if name in parameters and known.get(name) is None), None)

    def _scheduler(self, optimizer: Optimizer, steps: float) -> LRScheduler:
        make: Callable[..., LRScheduler] = self.scheduler
        if (name := self._unset_length()) is None:
            return make(optimizer)
        if not math.isfinite(steps):
            raise UserError(
                "the learning-rate schedule needs to know how long training takes: set trainer.max_epochs or "
                "trainer.max_steps, or scheduler=constant"
            )
        return make(optimizer, **{name: int(steps)})

    def check_optimization(self) -> None:
        """Makes optimizer and scheduler once, for nothing but what they refuse, before any data is read."""
        for part, make in (("optimizer", self.optimizer), ("scheduler", self.scheduler)):
            _check_keywords(part, make)
        with of_part("optimizer"):
            keywords = getattr(self.optimizer, "keywords", {})
            if "lr" in keywords:
                checks.number("lr", keywords["lr"], above=0)
            optimizer = self.optimizer(self.parameter_groups())
        with of_part("scheduler"):
            self._scheduler(optimizer, 100)


class BaseAutoencoder(BaseModel):
    """Minimises E[−log p_dec(x | f(x̃))] + penalties, over pairs (x̃, x) that the data gives.

    A variant overrides how a code and what it costs come from a batch (`coded`), or what it measures and
    shows.

    Args:
        network: builds encoder and decoder; `networks.Conv()` if None.
        input_shape: (C, H, W) of x̃.
        target_shape: (C, H, W) of x; that of x̃ if None.
        code_dim: numbers in the code, 1..65536. Its shape is (code_dim,), or (C, h, w) where the network says
            so.
        likelihood_mixtures: distributions in the mixture of "discretized_logistic", 1..100.
        likelihood, likelihood_std, optimizer, scheduler: as for `BaseModel`.

    Raises:
        ValueError: an argument is out of its range, in one line that begins with its name and value.
    """

    weighs_pixels = True
    decodes_alone: bool = True  # whether images depend on their code alone, and not on x̃ beside it
    normal_prior: ClassVar[bool] = False  # whether codes have the prior N(0, 1), to be sampled from
    features_per_code: ClassVar[int] = 1  # how many numbers the encoder gives for each number of the code

    def __init__(
        self,
        network: Network | None = None,
        input_shape: Shape = (1, 28, 28),
        target_shape: Shape | None = None,
        code_dim: int = 16,
        likelihood: str = "gaussian",
        likelihood_std: float = math.sqrt(0.5),
        likelihood_mixtures: int = 5,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRScheduler] | None = None,
    ) -> None:
        super().__init__(input_shape, target_shape, likelihood, likelihood_std, optimizer, scheduler)
        network = network or Conv()
        checks.integer("code_dim", code_dim, at_least=1, at_most=65536)
        if not hasattr(network, "encoder") and not hasattr(network, "restorer"):
            raise ValueError(f"network={network!r} must be a network such as MLP()")
        if not hasattr(network, "encoder"):
            raise ValueError(
                f"network={_name(network)} has no code, which {_name(self)} needs: use model=restoration, or "
                "network=conv"
            )
        self.code_shape = code_shape(network, self.input_shape, code_dim)
        self.likelihood = LIKELIHOODS[likelihood](likelihood_std, likelihood_mixtures, self.bounded)
        self.bounded = self.likelihood.squash
        with of_part("network"):
            self.encoder = network.encoder(self.input_shape, code_dim * self.features_per_code)
            channels, *size = self.target_shape
            self.decoder = network.decoder(code_dim, (self.likelihood.channels(channels), *size))
        if getattr(self.decoder, "gives_pixels", False):
            self.likelihood.take_pixels()
        self.check_optimization()

    def encode(self, corrupted: Tensor) -> Tensor:
        """f: images (B, C, H, W) to codes (B, *code_shape), without any sampling."""
        code: Tensor = self.encoder(self.in_weights_type(corrupted))
        return code

    def decode(self, code: Tensor) -> Tensor:
        """g: codes (B, *code_shape), or (B, code_dim), to reconstructions (B, C, H, W), the mean of
        p_dec(x|h)."""
        return self.likelihood.mean(self.output(code.reshape(-1, *self.code_shape)))

    def output(self, code: Tensor) -> Tensor:
        """What the decoder gives, which the likelihood is defined by: (B, likelihood.channels(C), H, W)."""
        output: Tensor = self.decoder(self.in_weights_type(code)).float()
        return output

    def forward(self, corrupted: Tensor) -> Tensor:
        """r = g(f(x̃))."""
        return self.decode(self.encode(corrupted))

    def coded(self, batch: Batch) -> Coded:
        """The code that the decoder is trained on, its penalties and its monitors."""
        return Coded(self.encode(batch.corrupted))

    def reconstruction_loss(self, output: Tensor, batch: Batch) -> Tensor:
        """−log p_dec(x|h) of what the decoder gives, (B,): of all pixels, but learnt of each as it counts."""
        return self.likelihood.nll(with_slope(output, batch.weights), batch.clean, self.gathered)

    def terms(self, batch: Batch) -> Terms:
        """The loss of the reconstruction and the penalties; the monitors."""
        code, penalties, monitors = self.coded(batch)
        return Terms({"nll": self.reconstruction_loss(self.output(code), batch), **penalties}, monitors)

    def prior_codes(self, count: int, seed: int) -> Tensor | None:
        """Codes (count, *code_shape) drawn from the model's own prior; None where it has none."""
        if not self.normal_prior:
            return None
        return Randomness(seed, rows=count, device=self.device).normal(count, *self.code_shape)

    def sample(self, count: int, seed: int) -> Tensor:
        """Images (count, C, H, W) decoded from codes of the prior.

        Raises:
            ValueError: there is no prior.
        """
        codes = self.prior_codes(count, seed)
        if codes is None:
            raise ValueError(f"{_name(self)} has no prior to sample from")
        return self.decode(codes)


def code_shape(network: Network, input_shape: Shape, code_dim: int) -> tuple[int, ...]:
    """That of the codes that a network makes: (code_dim,) unless it says otherwise.

    Raises:
        ValueError: the network makes no code of so many numbers.
    """
    of_network: Callable[..., Shape] | None = getattr(network, "code_shape", None)
    return tuple(of_network(input_shape, code_dim)) if of_network else (code_dim,)


def code_places(network: Network, input_shape: Shape) -> int:
    """How many places a code has that a network makes: 1 where it is a vector."""
    of_network: Callable[..., Shape] | None = getattr(network, "places", None)
    with of_part("network"):
        return math.prod(of_network(input_shape)) if of_network else 1


def with_rate_of_part(model: nn.Module, part: str, lr: float) -> list[dict[str, Any]]:
    """Groups of a model's parameters in which those of one part have a learning rate of their own, which is
    scheduled as the others' is."""
    own, others = list[nn.Parameter](), list[nn.Parameter]()
    for name, parameter in model.named_parameters():
        (own if name.startswith(f"{part}.") else others).append(parameter)
    return [{"params": others}, {"params": own, "lr": lr}]


@contextmanager
def of_part(part: str) -> Iterator[None]:
    """Says which argument an error is about: "patch=3 must ..." becomes "network.patch=3 must ..."."""
    try:
        yield
    except (TypeError, ValueError) as error:
        text = str(error)
        raise ValueError(f"{part}.{text}" if re.match(r"\w+=", text) else f"{part}: {text}") from error


def _check_keywords(part: str, make: Callable[..., Any]) -> None:
    """Raises ValueError for keywords of a partial that its function does not take, all at once: another
    class chosen by its `_target_` leaves those of the class before."""
    parameters = _parameters(make)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    if unknown := [name for name in getattr(make, "keywords", {}) if name not in parameters]:
        name = getattr(make, "func", make).__name__
        without = " ".join(f"~{part}.{name}" for name in unknown)
        raise ValueError(f"{part}: {name} does not take {', '.join(unknown)}; leave out with: {without}")


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """A function's parameters by name; a partial's are those of its function."""
    return inspect.signature(getattr(function, "func", function)).parameters


def _name(of: object) -> str:
    return type(of).__name__
