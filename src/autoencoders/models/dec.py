"""Deep embedded clustering: codes that gather around centres."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from autoencoders import checks
from autoencoders.data.modules import ImageDataModule, flipped_and_shifted
from autoencoders.data.pairs import Batch
from autoencoders.errors import UserError
from autoencoders.losses import kl_of_assignments, sharpened, soft_assignments
from autoencoders.models.base import BaseAutoencoder, Coded

STARTS, STARTED_FROM = 20, 60_000  # of k-means: fewer of either, and it may miss its best solution
COUNTED = 20_000  # images that the clusters' frequencies come from
PART = 1000  # images that are encoded at once


class DEC(BaseAutoencoder):
    """First an autoencoder; then k-means finds centres among its codes, and encoder and centres learn to make
    the assignments of images to clusters surer than they are (Xie et al. 2016), with the reconstruction kept
    up beside (IDEC, Guo et al. 2017).

    The surer assignments are those of a copy of encoder and centres, which is made anew every so many steps,
    together with the clusters' frequencies among training images.

    Args:
        clusters: K, 2..1000.
        reconstruction_weight: γ, what the reconstruction weighs beside the clustering, 0..1e6; 0 is DEC. (0.1
            with a mean over an image's pixels, as in IDEC, is 0.1 over their number here.)
        pretraining_steps: of the reconstruction alone, 0..1e9; None: half of the training. With 0 and trained
            weights to start from, the centres are found at once.
        shift: pixels, 0..16, by which images are moved before they are encoded, at random and each way, once
            there are clusters; what is to be decoded, and the surer assignments, are of the image as it is
            (after Guo et al. 2018, who also move what is to be decoded).
        update_steps: after which the copy is made anew, 1..1e9.
        **base: as for `BaseAutoencoder`.
    """

    found: Tensor  # (), whether there are centres
    copied_centres: Tensor  # (K, D)
    frequencies: Tensor  # (K,), of the clusters, soft; their sum is 1

    def __init__(
        self,
        clusters: int = 10,
        reconstruction_weight: float = 0.0128,
        pretraining_steps: int | None = None,
        shift: int = 0,
        update_steps: int = 140,
        **base: Any,
    ) -> None:
        checks.integer("clusters", clusters, at_least=2, at_most=1000)
        checks.number("reconstruction_weight", reconstruction_weight, at_least=0, at_most=10**6)
        if pretraining_steps is not None:
            checks.integer("pretraining_steps", pretraining_steps, at_least=0, at_most=10**9)
        checks.integer("shift", shift, at_least=0, at_most=16)
        checks.integer("update_steps", update_steps, at_least=1, at_most=10**9)
        super().__init__(**base)
        self.reconstruction_weight, self.pretraining_steps = reconstruction_weight, pretraining_steps
        self.shift, self.update_steps = shift, update_steps
        self.centres = nn.Parameter(torch.randn(clusters, self.code_dim))
        self.copied_encoder = deepcopy(self.encoder).requires_grad_(False)
        self.register_buffer("copied_centres", self.centres.detach().clone())
        self.register_buffer("frequencies", torch.full((clusters,), 1 / clusters))
        self.register_buffer("found", torch.tensor(False))

    def assignments(self, code: Tensor) -> Tensor:
        """How much codes (B, *code_shape) belong to each cluster, (B, K); rows sum to 1."""
        return soft_assignments(code.float().flatten(1), self.centres.float())

    @torch.no_grad()
    def surer(self, corrupted: Tensor) -> Tensor:
        """The assignments of images (B, C, H, W) that are aimed at, (B, K)."""
        code = self.copied_encoder(self.in_weights_type(corrupted)).float().flatten(1)
        return sharpened(soft_assignments(code, self.copied_centres.float()), self.frequencies.float())

    def clusters_of(self, code: Tensor) -> Tensor | None:
        """Those that codes belong to most; none before there are centres."""
        return self.assignments(code).argmax(1) if self.found else None

    def coded(self, batch: Batch) -> Coded:
        """The code; KL(p ‖ q) of its assignments q from the surer ones p; and `unsure`, how much of the
        assignments is not to the likeliest cluster, all before there are any."""
        if not self.found:
            self.weights = {}
            # DDP waits for a gradient of every parameter.
            nothing = (self.centres.sum() * 0).expand(len(batch.clean))
            return Coded(self.encode(batch.corrupted), {"clustering": nothing}, {"unsure": nothing + 1})
        self.weights = {"nll": self.reconstruction_weight}
        code = self.encode(self._moved(batch) if self.training and self.shift else batch.corrupted)
        assignments = self.assignments(code)
        clustering = kl_of_assignments(self.surer(batch.corrupted), assignments)
        return Coded(code, {"clustering": clustering}, {"unsure": 1 - assignments.detach().amax(1)})

    def _moved(self, batch: Batch) -> Tensor:
        """What the encoder is to read of a batch in training, (B, C, H, W)."""
        return flipped_and_shifted(batch.corrupted, None, batch.noise, self.shift)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Finds the centres when it is time, and makes the copy."""
        first = self.share_of_training(0.5) if self.pretraining_steps is None else self.pretraining_steps
        if (steps := self.global_step - first) >= 0 and (not self.found or steps % self.update_steps == 0):
            self._copy()

    def on_train_end(self) -> None:
        """Says so where it was never time."""
        if not self.found:
            rank_zero_warn(
                f"there are no clusters yet: training ended within the model.pretraining_steps="
                f"{self.pretraining_steps}"
            )

    @torch.no_grad()
    def _copy(self) -> None:
        """Copies encoder and centres, and finds the frequencies; the centres too where there are none."""
        images = self._training_images(COUNTED if self.found else STARTED_FROM)
        codes = torch.cat([self.encode(part).float().flatten(1) for part in images])
        if not self.found:
            if not self.global_step and not self.initialized:
                rank_zero_warn(
                    "the encoder whose codes are clustered is not trained: start from one with init=<run>, "
                    "or leave out model.pretraining_steps=0"
                )
            self.centres.copy_(self._of_first_process(self._means(codes)))
            self.found.fill_(True)
        self.frequencies.copy_(self._of_first_process(self.assignments(codes).mean(0)))
        self.copied_centres.copy_(self.centres)
        self.copied_encoder.load_state_dict(self.encoder.state_dict())

    def _means(self, codes: Tensor) -> Tensor:
        """Where k-means finds the centres of codes (N, D), (K, D)."""
        from sklearn.cluster import KMeans  # which takes a second to import

        found = KMeans(len(self.centres), n_init=STARTS, random_state=0).fit(codes.cpu().numpy())
        return torch.from_numpy(found.cluster_centers_)

    def _of_first_process(self, numbers: Tensor) -> Tensor:
        """What is rounded differently elsewhere could give k-means another order."""
        return self.trainer.strategy.broadcast(numbers)

    def _training_images(self, most: int) -> Iterator[Tensor]:
        """So many at most, as the encoder reads them, (B, C, H, W) at a time.

        Raises:
            UserError: there is no data module to ask.
        """
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ImageDataModule):
            raise UserError("DEC finds its centres among the images of an ImageDataModule, and there is none")
        images = data.labelled(most)
        for rows in torch.arange(len(images)).split(PART):
            yield data.pair(images.take(rows).to(self.device), training=False).corrupted
