"""What the pages are made of: reports, comparisons, sweeps and the index of all runs.

A page is one file that needs no network, and forbids itself one. Its scripts are the .js files beside this
one. What it shows comes from folders that anyone may have made: every value is escaped, in HTML by the
templates, in scripts by `embedded`, and in charts by `charts.plain`.
"""

import base64
import io
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

FOLDER = Path(__file__).parent


def template(name: str) -> Any:
    """A page's template, `<name>.html.j2`; every value that is put into it is escaped."""
    return _environment().get_template(f"{name}.html.j2")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"asset": asset, "embedded": embedded, "words": words}
    return environment


def asset(name: str) -> Markup:
    """A style sheet or a script of this folder, to be put into a page as it is."""
    return Markup((FOLDER / name).read_text(encoding="utf-8"))


def embedded(data: Any) -> Markup:
    """Data for a page's scripts, in a `<script type="application/json">`, which no text in it can end."""
    return Markup(json.dumps(data, allow_nan=False).replace("<", "\\u003c"))


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def png(pixels: NDArray[np.uint8]) -> str:
    """A picture (H, W), (H, W, 2), (H, W, 3) or (H, W, 4), gray or RGB and perhaps opacity, as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", optimize=True)
    return data_uri(buffer.getvalue())


def words(name: str) -> str:
    """A class's name as words: "Denoising Autoencoder", "Gray CIFAR10"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
