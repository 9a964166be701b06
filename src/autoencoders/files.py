"""Files that are written whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write to, which becomes `path` once all is written, and is removed otherwise.

    Its folder is created, but not the folder around that: one that was deleted is an error, not a new start.

    Raises:
        OSError: it can't be written; the error names `path`, which writing into an open file does not.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def clear_unfinished(folder: Path) -> None:
    """Removes what a process that was killed had not finished writing."""
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def replace_between(path: Path, start: str, end: str, text: str) -> None:
    """Puts `text` between two marks in a file; a file without both stays as it is."""
    before, found, rest = path.read_text("utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if found and closed:
        with atomic_write(path) as temporary:
            temporary.write_text(f"{before}{start}\n{text}\n{end}{after}", "utf-8")


def write_json(path: Path, content: Any) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
