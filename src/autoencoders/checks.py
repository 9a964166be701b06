"""Ranges of constructor arguments.

A message begins with "name=value", to which Hydra's full_key is prefixed: `corruption.std=-1 must be ≥ 0`.
"""

import math
from collections.abc import Sequence
from typing import Any


def integer(name: str, value: Any, at_least: int | None = None, at_most: int | None = None) -> None:
    """Raises ValueError unless `value` is a whole number in [at_least, at_most]."""
    if isinstance(value, str) and value.lstrip("-").isdecimal():
        raise ValueError(
            f"{name}={value} is a text and must be a whole number: one from the environment is written as "
            f"'{name}=\"${{oc.decode:${{oc.env:NAME}}}}\"'"
        )
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name}={value} must be a whole number{_bounds(' ', at_least, at_most)}")
    _check_bounds(name, value, at_least, at_most, None)


def number(
    name: str,
    value: Any,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Raises ValueError unless `value` is a finite number in the range; `above` and `below` are exclusive."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}={value} must be a number{_bounds(' ', at_least, at_most, above, below)}")
    _check_bounds(name, value, at_least, at_most, above, below)


def boolean(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is true or false."""
    choice(name, value, (True, False))


def choice(name: str, value: Any, options: Sequence[object]) -> None:
    """Raises ValueError unless `value` is one of the options."""
    if not any(value is option or (type(value) is type(option) and value == option) for option in options):
        said = " or ".join(str(o).lower() if isinstance(o, bool) else str(o) for o in options)
        raise ValueError(f"{name}={value} must be {said}")


def integers(name: str, value: Any, at_least: int | None = None, at_most: int | None = None) -> None:
    """Raises ValueError unless `value` is a list of whole numbers in [at_least, at_most]."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name}={value} must be a list, such as [256,128]")
    for index, item in enumerate(value):
        integer(f"{name}[{index}]", item, at_least, at_most)


def _check_bounds(
    name: str,
    value: float,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    if (
        (at_least is not None and value < at_least)
        or (at_most is not None and value > at_most)
        or (above is not None and value <= above)
        or (below is not None and value >= below)
    ):
        raise ValueError(f"{name}={value} must be {_bounds('', at_least, at_most, above, below)}")


def _bounds(
    before: str,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> str:
    signs = {"≥": at_least, ">": above, "≤": at_most, "<": below}
    bounds = " and ".join(f"{sign} {limit:.15g}" for sign, limit in signs.items() if limit is not None)
    return before + bounds if bounds else ""
