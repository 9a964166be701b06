"""The site that `make docs` makes of these pages, of the notebook as it is stored, and of docstrings."""

import re
from typing import Any

from sphinx.application import Sphinx

project = "Autoencoders"
author = "the authors of this laboratory"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_heading_anchors = 3  # links to headings are as on GitHub
nb_execution_mode = "off"  # `make lecture` executes it
nb_merge_streams = True  # lines that were printed one after another
nb_ipywidgets_js: dict[str, Any] = {}  # there are none, and their scripts would be fetched from elsewhere

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # not Lightning's
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
default_role = "code"

html_theme = "furo"
html_title = "Autoencoders"
html_static_path = html_css_files = ["site.css"]
html_show_sphinx = html_show_copyright = False
html_copy_source = html_show_sourcelink = False


def as_prose(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings are prose with `code` in it: elsewhere a bar or a star is itself, and what is indented after
    a colon and an empty line is code."""
    for number, line in enumerate(lines):
        lines[number] = re.sub(r"(`[^`]*`)|([|*])", lambda found: found[1] or "\\" + found[2], line)
        before = lines[number - 2] if number > 1 and not lines[number - 1] else ""
        if before.endswith(":") and indentation(line) > indentation(before):
            lines[number - 2] = before + ":"


def indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", as_prose, priority=400)  # before napoleon's, which reads "Args:"
