"""What every autoencoder shares: the step, the logging, the optimizer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric

from autoencoders import losses, networks
from autoencoders.corruption import Noise
from autoencoders.data.pairs import Batch
from autoencoders.metrics import reconstruction_metrics, squared_error


class BaseAutoencoder(LightningModule):
    """Minimises E[−log p_dec(x | f(x̃))] + penalties, over pairs (x̃, x) that the data gives.

    A variant overrides how a code and its penalties come from x̃, or what it measures and shows.

    Args:
        network: the family and sizes of encoder and decoder, as `networks.encoder` takes them.
        input_shape: (C, H, W) of x̃.
        target_shape: (C, H, W) of x.
        code_dim: how many numbers the code has.
        likelihood: p_dec(x|h), "gaussian" or "bernoulli".
        likelihood_std: the standard deviation of a gaussian likelihood, in units of a pixel's range.
        lr: the highest learning rate of the one-cycle schedule.
        beta2: of AdamW, how long it remembers squared gradients.
        weight_decay: AdamW's.
        warmup: the part of all steps in which the learning rate rises, in (0, 1).
    """

    # What the rows of its figure are called, in this order.
    row_titles: ClassVar[dict[str, str]] = {
        "clean": "original",
        "corrupted": "corrupted",
        "reconstruction": "reconstruction",
    }
    evaluations: ClassVar[tuple[str, ...]] = ()  # groups of an evaluation beside those of every model
    affine: ClassVar[bool] = False  # whether the decoder is affine in the code
    bounded: ClassVar[bool] = True  # whether a gaussian likelihood's mean is kept in [0, 1]
    code_parameters: ClassVar[int] = 1  # how many numbers the encoder gives for each number of the code

    def __init__(
        self,
        network: Mapping[str, Any],
        input_shape: Sequence[int],
        target_shape: Sequence[int],
        code_dim: int,
        likelihood: str,
        likelihood_std: float,
        lr: float,
        beta2: float,
        weight_decay: float,
        warmup: float,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.code_dim = code_dim
        self.optimization = {"lr": lr, "beta2": beta2, "weight_decay": weight_decay, "warmup": warmup}
        likelihoods: dict[str, losses.Likelihood] = {
            "gaussian": losses.Gaussian(likelihood_std, self.bounded),
            "bernoulli": losses.Bernoulli(),
        }
        self.likelihood = likelihoods[likelihood]
        self.encoder = networks.encoder(network, input_shape, code_dim * self.code_parameters)
        self.decoder = networks.decoder(network, code_dim, target_shape)
        self.averages = nn.ModuleDict()  # the running mean of each validation and test metric

    # ---- the autoencoder ----

    def encode(self, corrupted: Tensor) -> Tensor:
        """f: images (B, C, H, W) to codes (B, code_dim), without any sampling."""
        code: Tensor = self.encoder(corrupted)
        return code

    def decode(self, code: Tensor) -> Tensor:
        """g: codes (B, code_dim) to reconstructions (B, C, H, W), the mean of p_dec(x|h)."""
        return self.likelihood.mean(self.decoder(code).float())

    def forward(self, corrupted: Tensor) -> Tensor:
        """r = g(f(x̃))."""
        return self.decode(self.encode(corrupted))

    def prior_codes(self, count: int, seed: int) -> Tensor | None:
        """Codes (count, code_dim) drawn from the model's own prior; None where it has none."""
        return None

    def sample(self, count: int, seed: int) -> Tensor:
        """Images (count, C, H, W) decoded from codes of the prior."""
        codes = self.prior_codes(count, seed)
        assert codes is not None, f"{type(self).__name__} has no prior"
        return self.decode(codes)

    def code_and_penalties(self, corrupted: Tensor, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """The code (B, code_dim) that the decoder is trained on, and the penalties (B,) that it costs."""
        return self.encode(corrupted), {}

    def loss_terms(self, batch: Batch) -> dict[str, Tensor]:
        """What is summed to the loss: the reconstruction's −log p_dec(x|h) and the penalties, (B,) each."""
        code, penalties = self.code_and_penalties(batch.corrupted, batch.noise)
        return {"nll": self.likelihood.nll(self.decoder(code).float(), batch.clean), **penalties}

    # ---- what a variant may measure beside others ----

    def image_metrics(self, batch: Batch, reconstruction: Tensor) -> dict[str, Tensor]:
        """One value an image (B,) of everything that the test reports."""
        return reconstruction_metrics(reconstruction, batch.clean)

    def references(self, batch: Batch) -> dict[str, Tensor]:
        """What one could have done without a model: images (B, C, H, W) to be scored as reconstructions."""
        return {}

    # ---- Lightning ----

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        terms = {name: term.mean() for name, term in self.loss_terms(batch).items()}
        loss = torch.stack(list(terms.values())).sum()
        # Every call of self.log takes as long as a small layer, so it is called only when it is written.
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log("train/loss", loss, prog_bar=True, sync_dist=True)
            self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
            if len(terms) > 1:
                self.log_dict({f"train/{name}": term for name, term in terms.items()}, sync_dist=True)
        return {"loss": loss, **{name: term.detach() for name, term in terms.items()}}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if not len(batch.clean):
            return  # this device's share of a last batch of fewer images than devices
        terms = self.loss_terms(batch)
        self._average(
            "val",
            {
                "loss": torch.stack(list(terms.values())).sum(0),
                **(terms if len(terms) > 1 else {}),
                "mse": squared_error(self(batch.corrupted), batch.clean),
            },
        )

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
                # "disable" lets a value that is no number through, which the mean would else leave out.
                self.averages[key] = MeanMetric(nan_strategy="disable").to(self.device)
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
        """AdamW with a one-cycle schedule, stepped by the batch."""
        chosen = self.optimization
        optimizer = torch.optim.AdamW(
            self.parameters(),
            lr=chosen["lr"],
            betas=(0.9, chosen["beta2"]),
            weight_decay=chosen["weight_decay"],
            fused=True,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: one_cycle(step, steps, chosen["warmup"])
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """The part of the highest learning rate at a step: a linear rise over the first `warmup` of all steps,
    then half a cosine down to nothing (after Smith & Topin 2018)."""
    rise = max(1.0, warmup * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    fallen = (step - rise) / max(1.0, steps - rise)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, fallen)))
