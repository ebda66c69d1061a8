"""Print the twenty slowest tests of several runs of pytest, from their JUnit files.

Usage: python tests/support/slowest.py FILE...
"""

from __future__ import annotations

import sys
from xml.etree import ElementTree

SHOWN = 20


def main(paths: list[str]) -> None:
    """Print seconds and name of each, the slowest first; setup and teardown are part of a test."""
    cases = [
        (float(case.attrib["time"]), f"{case.attrib['classname']}::{case.attrib['name']}")
        for path in paths
        for case in ElementTree.parse(path).iter("testcase")
    ]
    print(f"{len(cases)} tests, the slowest:")
    for seconds, name in sorted(cases, reverse=True)[:SHOWN]:
        print(f"{seconds:8.1f} s  {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
