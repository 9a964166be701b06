"""Muon for whole models: torch's own takes nothing but matrices."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from autoencoders import checks

# A quintic that takes singular values of 0..1 towards 1, fastest where they are small, and how often it is
# applied (Jordan 2024). More steps would amplify the rounding error of a Gram matrix.
QUINTIC, STEPS = (3.4445, -4.7750, 2.0315), 5
TINY = 1e-7  # the norm up to which a matrix is not scaled up to 1, as in torch's Muon
Moved = tuple[Tensor, Tensor]  # a parameter and its gradient


class Muon(Optimizer):
    """Muon (Jordan 2024) for large matrices and convolutions, AdamW for all other parameters.

    The update of a matrix is its momentum with all singular values brought near 1; a convolution is read as
    the matrix (first dimension, all others). At full rank the update's root mean square is near the learning
    rate, as that of Adam's first step is, so that one rate serves both parts (after Liu et al. 2025, §2.2,
    without their factor of 0.2).

    Args:
        params: parameters, or groups of them with settings of their own.
        lr: learning rate, > 0.
        betas: of the momentum, in both parts, and of AdamW's squares, in [0, 1).
        weight_decay: decoupled, ≥ 0.
        eps: AdamW's, > 0.
        min_side: the smallest side of a matrix that is updated with Muon, ≥ 1. The layers next to a small
            code are better left to AdamW: Muon would change every direction of the code as much as any other.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.2e-2,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        eps: float = 1e-8,
        min_side: int = 64,
    ) -> None:
        settings = {
            "lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": eps, "min_side": min_side,
            "fused": True,  # has torch load AdamW's step to the device
        }  # fmt: skip
        super().__init__(params, settings)
        for group in self.param_groups:
            checks.number("lr", group["lr"], above=0)
            betas = group["betas"]
            pair = isinstance(betas, Sequence) and len(betas) == 2
            if not pair or not all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in betas):
                raise ValueError(f"betas={betas} must be two numbers ≥ 0 and < 1")
            checks.number("weight_decay", group["weight_decay"], at_least=0)
            checks.number("eps", group["eps"], above=0)
            checks.integer("min_side", group["min_side"], at_least=1)

    def division(self) -> str:
        """Which part of the parameters is Muon's, in words."""
        matrices, others = list[Tensor](), list[Tensor]()
        for group in self.param_groups:
            for parameter in group["params"]:
                kind = matrices if _is_matrix(parameter, group["min_side"]) else others
                kind.append(parameter)
        if not matrices:
            sides = min(group["min_side"] for group in self.param_groups)
            return f"AdamW alone: Muon takes layers of at least {sides} on both sides (optimizer.min_side)"
        numbers, rest = (sum(parameter.numel() for parameter in kind) for kind in (matrices, others))
        layers = f"{len(matrices)} layer{'s' * (len(matrices) > 1)}"
        return f"Muon for {layers}, {numbers / (numbers + rest):.0%} of all parameters; AdamW for the others"

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            matrices, others = list[Moved](), list[Moved]()
            for parameter in group["params"]:
                if parameter.grad is not None:
                    kind = matrices if _is_matrix(parameter, group["min_side"]) else others
                    kind.append((parameter, parameter.grad))
            self._step_matrices(matrices, group)
            self._step_others(others, group)
        return loss

    def _step_matrices(self, moved: list[Moved], group: dict[str, Any]) -> None:
        updates = []
        for parameter, gradient in moved:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum = state["momentum"].lerp_(gradient, 1 - group["betas"][0])
            updates.append(gradient.lerp(momentum, group["betas"][0]).flatten(1))  # Nesterov's
        for (parameter, _), update in zip(moved, orthogonalised(updates), strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.sub_(update.view_as(parameter), alpha=group["lr"] * max(update.shape) ** 0.5)

    def _step_others(self, moved: list[Moved], group: dict[str, Any]) -> None:
        for parameter, _ in moved:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter, _ in moved]
        adamw(
            [parameter for parameter, _ in moved],
            [gradient for _, gradient in moved],
            exp_avgs=[state["exp_avg"] for state in states],
            exp_avg_sqs=[state["exp_avg_sq"] for state in states],
            max_exp_avg_sqs=[],
            state_steps=[state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def _is_matrix(parameter: Tensor, min_side: int) -> bool:
    """Whether it is the weight of a linear layer or of a convolution of images, and large enough."""
    return parameter.ndim in (2, 4) and min(len(parameter), parameter[:1].numel()) >= min_side


def orthogonalised(matrices: list[Tensor]) -> list[Tensor]:
    """The matrices with their singular values brought to 0.7..1.2, except very small ones.

    Each of Newton and Schulz's steps multiplies X by a polynomial of its Gram matrix X Xᵀ. So the steps run
    on Gram matrices, which are small, and on all of one size at once; then each X is multiplied by their
    product.
    """
    wide = [matrix if len(matrix) <= matrix.shape[1] else matrix.mT for matrix in matrices]
    wide = [matrix.to(torch.promote_types(matrix.dtype, torch.float32)) for matrix in wide]
    sizes = defaultdict(list)
    for index, matrix in enumerate(wide):
        sizes[len(matrix)].append(index)
    for indices in sizes.values():
        gram = torch.stack([wide[index] @ wide[index].mT for index in indices])
        norm = gram.diagonal(dim1=1, dim2=2).sum(1).sqrt().clamp(min=TINY)[:, None, None]  # Frobenius
        product = _quintic(gram / norm.square()) / norm
        for _ in range(STEPS - 1):
            product = _quintic(product @ gram @ product) @ product
        for index, factor in zip(indices, product, strict=True):
            wide[index] = factor @ wide[index]
    return [
        short if short.shape == matrix.shape else short.mT
        for short, matrix in zip(wide, matrices, strict=True)
    ]


def _quintic(gram: Tensor) -> Tensor:
    """a + b G + c G² of (N, D, D): times X it is a quintic of X, as G has two of it."""
    a, b, c = QUINTIC
    result = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    result.diagonal(dim1=1, dim2=2).add_(a)
    return result
