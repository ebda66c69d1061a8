"""Run pytest; run what failed beside other tests once more, alone, and name what then passes.

Usage: python tests/support/again.py PYTEST ARGUMENT...

Thousands of tests run side by side on few cores. One that fails there and passes alone has a race
of its own or waits too short a time: it is named at the end, to be mended, and fails nothing else.
A test that fails twice fails the run, and so do more than MOST at once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MOST = 3
FAILED = 1
LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")


def main(command: list[str]) -> int:
    """Return pytest's exit code."""
    code = subprocess.run([*command, "--cache-clear"], check=False).returncode
    failed = list(json.loads(LAST_FAILED.read_text())) if LAST_FAILED.exists() else []
    if code != FAILED or not 0 < len(failed) <= MOST:
        return code
    sys.stdout.write(f"{len(failed)} failed beside other tests; once more, alone:\n")
    sys.stdout.flush()
    code = subprocess.run([command[0], *failed], check=False).returncode
    if code == 0:
        sys.stdout.write("passed alone, and should be mended:\n")
        sys.stdout.write("".join(f"  {name}\n" for name in failed))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
