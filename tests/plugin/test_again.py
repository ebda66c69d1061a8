"""What failed beside other tests runs once more, alone; what fails again fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import again

TESTS = """
from pathlib import Path

import pytest

@pytest.mark.parametrize("name", [{names}])
def test_one(name):
    if name == "good":
        return
    seen = Path(name)
    before = seen.exists()
    seen.touch()
    assert before and name != "bad"
"""


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("names", "code", "said"),
    [
        (("a", "bad"), 1, "2 failed beside other tests; once more, alone:"),
        (("good", "a", "b"), 0, "passed alone, and should be mended:"),
        (("a", "b", "c", "d"), 1, None),
        (("good",), 0, None),
    ],
    ids=["one that fails twice", "two that pass alone", "too many", "none"],
)
def test_failures_run_again(
    names: tuple[str, ...], code: int, said: str | None, tmp_path: Path
) -> None:
    (tmp_path / "test_it.py").write_text(TESTS.format(names=", ".join(map(repr, names))))
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:pdserve -p no:benchmark\n")
    program = Path(sys.executable).with_name("pytest")
    argv = [sys.executable, str(again.__file__), str(program), "-q"]
    ran = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == code, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    if said is None:
        assert not any("alone" in line for line in lines)
    else:
        assert said in lines
    if code == 0 and said:
        assert lines[-2:] == ["  test_it.py::test_one[a]", "  test_it.py::test_one[b]"]
