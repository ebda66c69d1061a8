"""Names that suites and other packages import from ``pytest_pdserve``."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import pytest_pdserve

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", pytest_pdserve.__all__)
def test_every_name_can_be_imported_and_says_what_it_is(name: str) -> None:
    found = getattr(pytest_pdserve, name)
    assert found.__name__ == name
    assert inspect.getdoc(found)


def test_the_page_has_every_name_and_no_other() -> None:
    table = PAGE.partition("## What else")[0]
    first_cells = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    readers = set(re.findall(r"`(load_\w+)\(", table))
    named = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}
    assert named | readers == set(pytest_pdserve.__all__)


def test_names_are_listed_before_they_are_imported() -> None:
    assert set(pytest_pdserve.__all__) <= set(dir(pytest_pdserve))


def test_what_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Missing'"):
        getattr(pytest_pdserve, "Missing")  # noqa: B009


def test_the_package_is_typed() -> None:
    assert (ROOT / "pytest_pdserve" / "py.typed").exists()
