"""What the README says of tests and files is so."""

import re

from autoencoders.config import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


def test_every_promise_has_its_test() -> None:
    named = set(re.findall(r"`(test_\w+)`", README))
    written = "\n".join(path.read_text() for path in (REPOSITORY / "tests").glob("test_*.py"))
    assert len(named) > 20
    assert {name for name in named if f"def {name}(" not in written} == set()


def test_every_file_that_is_named_is_there() -> None:
    files = re.findall(r"`((?:src|tests|conf|benchmarks|docs|sweeps)/[\w/.]+\.(?:py|yaml|md|png))`", README)
    assert len(files) > 5
    assert [name for name in files if not (REPOSITORY / name).exists()] == []
