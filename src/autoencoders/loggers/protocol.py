"""What a run tells its loggers beyond the curves, and what no logger is told."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from lightning.pytorch.utilities import rank_zero_warn

from autoencoders.errors import UserError, one_line, redacted


@runtime_checkable
class RunLogger(Protocol):
    """A Lightning logger that also takes pictures, tables and texts. It exists in a run's first process only.

    Curves and hyper-parameters reach every Lightning logger by its own `log_metrics` and `log_hyperparams`.
    """

    leaves: ClassVar[str]  # the file or folder by which it recognises its run in a run folder

    def log_images(self, images: Mapping[str, Path], step: int | None) -> None:
        """PNG files by name, such as "pictures/reconstructions"; `step` is None after training."""

    def log_table(
        self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]], *, step: int | None
    ) -> None:
        """Rows of cells. A cell is a number, a text, None, or an image: a uint8 array (H, W, 3)."""

    def log_document(self, name: str, text: str) -> None:
        """A text of several lines, such as the model's layers."""

    def log_summary(self, values: Mapping[str, float]) -> None:
        """Numbers of the run as a whole, which belong to no step."""

    def finish(self, failed: bool) -> None:
        """Ends the run; nothing is logged after it."""

    def where(self) -> str:
        """One line on how to look at it."""


@runtime_checkable
class CheckpointLogger(Protocol):
    """A `RunLogger` that also takes a run's checkpoints."""

    def log_checkpoints(self, checkpoints: Mapping[str, tuple[Path, Mapping[str, Any]]]) -> None:
        """Files by what they are called, "best" and "last", each with plain values that are said about it:
        metrics by name, and the run's configuration. Called once, when the training has ended."""


class NotStartedError(Exception):
    """A service is out of reach; the run does without its logger."""


class Service:
    """A logger whose service may be lost: then it says so once, and the training continues without it."""

    service: ClassVar[str]
    experiment: Any  # what `send` sends things to
    lost = False

    def send(self, what: Callable[[Any], object]) -> None:
        """Calls `what` with the service's run or client, unless it is lost."""
        if self.lost:
            return
        try:
            what(self.experiment)
        except Exception as error:
            self.lost = True
            rank_zero_warn(f"{self.service} is lost ({reason(error)}); the run continues without it")


def reason(error: Exception) -> str:
    """The first line of what an error says, without what may be secret in it."""
    return one_line((str(error).strip() or type(error).__name__).splitlines()[0])


def require(modules: Sequence[str], service: str, extra: str, asked: str = "") -> None:
    """Raises UserError unless the modules of an extra of pyproject.toml are installed.

    Args:
        asked: what needs them; the logger of the extra's name if empty.
    """
    if any(find_spec(module) is None for module in modules):
        raise UserError(f"{asked or f'logger={extra}'} needs {service}: pip install -e '.[{extra}]'")


def flatten(params: Mapping[str, Any]) -> dict[str, Any]:
    """Nested hyper-parameters by their keys on the command line.

    >>> flatten({"model": {"code_dim": 16}, "seed": 0})
    {'model.code_dim': 16, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for name, value in params.items():
        inner = flatten(value) if isinstance(value, Mapping) else None
        flat |= {name: value} if inner is None else {f"{name}.{key}": leaf for key, leaf in inner.items()}
    return flat


def redact(params: Any, key: str = "") -> Any:
    """Nested hyper-parameters with "***" for every password and key.

    >>> redact({"comet": {"api_key": "abc"}, "hosts": ["https://me:hidden@host"]})
    {'comet': {'api_key': '***'}, 'hosts': ['https://***@host']}
    """
    if isinstance(params, Mapping):
        return {name: redact(value, str(name)) for name, value in params.items()}
    if isinstance(params, list | tuple):
        return [redact(value, key) for value in params]
    # With its name before it, since the name is what tells a key from other texts.
    return redacted(f"{key}={params}").removeprefix(f"{key}=") if isinstance(params, str) else params
