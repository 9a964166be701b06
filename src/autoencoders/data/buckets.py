"""Where the chunks of a split are: in a folder, or in a bucket, from which they are fetched when needed."""

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from autoencoders.errors import UserError, one_line

SCHEMES = ("s3://", "gs://", "azure://", "r2://")  # of litdata's downloaders
AT_ONCE = 4  # files that are fetched side by side
EXTRA = "this needs litdata, which is not installed: pip install 'autoencoders[stream]'"


class Folder:
    """One on this machine, whoever made it."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)

    def file(self, name: str) -> Path:
        """
        Raises:
            UserError: it isn't there, or is a link that leads out of the folder.
        """
        path = self.path / name
        if not path.is_file():
            raise UserError(f"{path} is missing")
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.path)):
            raise UserError(f"{path} leads out of {self.path}")
        return path

    def fetch(self, names: Iterable[str]) -> None:
        """Nothing: they are here."""


class Bucket:
    """A folder of a bucket, by litdata's downloaders, with the user's own credentials.

    Files are kept in `cache`, which the processes of a machine share.

    Args:
        most: bytes of files to keep when others are fetched; None: all. What was announced last is kept.
    """

    def __init__(self, url: str, cache: Path, most: int | None) -> None:
        self.url, self.name, self.most = url.rstrip("/"), url, most
        self.cache = cache / f"chunks-{hashlib.sha256(self.url.encode()).hexdigest()[:20]}"
        self.downloader = _downloader(self.url, self.cache)
        self.threads = ThreadPoolExecutor(AT_ONCE)
        self.fetched, self.needed = dict[str, Future[Path]](), set[str]()

    def file(self, name: str) -> Path:
        """
        Raises:
            UserError: it can't be fetched.
        """
        if name in self.fetched and (path := self.fetched.pop(name).result()).is_file():
            return path
        return self._fetch(name)

    def fetch(self, names: Iterable[str]) -> None:
        """Announces the files that are needed next."""
        before, self.needed = self.needed, set(names)
        if self.most is not None:
            self._make_room(self.most)
        for name in sorted(self.needed - before):
            self.fetched[name] = self.threads.submit(self._fetch, name)

    def _fetch(self, name: str) -> Path:
        path = self.cache / name
        if not path.is_file():
            self.cache.mkdir(parents=True, exist_ok=True)
            with FileLock(self.cache / f".{name}.lock"):  # other processes wait for it, and find it
                if not path.is_file():
                    _in_one_line(
                        lambda: self.downloader.download_file(f"{self.url}/{name}", str(path)), self.url
                    )
        if not path.is_file():
            raise UserError(f"{self.url}/{name} could not be fetched")
        return path

    def _make_room(self, most: int) -> None:
        """Removes the oldest files, so that what is kept and what is needed have `most` bytes at most.
        Another process that still reads one has it mapped, or fetches it again."""
        found = list[tuple[float, int, Path]]()
        for path in self.cache.glob("*.bin"):
            with suppress(FileNotFoundError):  # another process does the same
                found.append((path.stat().st_mtime, path.stat().st_size, path))
        coming = len(self.needed - {path.name for _, _, path in found})
        total = sum(size for _, size, _ in found) * (1 + coming / max(1, len(found)))  # files being as large
        for _, size, path in sorted(found):
            if total > most and path.name not in self.needed:
                total -= size
                path.unlink(missing_ok=True)


def is_bucket(root: object) -> bool:
    return str(root).startswith(SCHEMES)


def _downloader(url: str, cache: Path) -> Any:
    try:
        from litdata.streaming.downloader import get_downloader
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] == "litdata":
            raise UserError(EXTRA) from None
        raise
    return _in_one_line(lambda: get_downloader(url, str(cache), []), url)


def _in_one_line(call: Callable[[], Any], url: str) -> Any:
    """What a bucket's client gives, its errors, which are of all kinds, in one line."""
    try:
        return call()
    except Exception as error:
        raise UserError(f"{url}: {one_line(str(error) or type(error).__name__)[:300]}") from None
