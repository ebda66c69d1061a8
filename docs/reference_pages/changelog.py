"""The changelog, made from the files of ``changelog.d``: ``make changelog``."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_HEADINGS = {"feature": "Added", "change": "Changed", "fix": "Fixed", "removal": "Removed"}
_LINK = re.compile(r"\]\(docs/")


def changelog_page(*, links: bool) -> str:
    """Return the changelog.

    :param links: whether links are relative to docs/ instead of the repository's root.
    """
    parts = [
        "# Changelog",
        "",
        "What a user notices, newest release first. Each entry ends with the number of its issue. "
        "Before 1.0 a minor version may change anything public.",
        "",
        "## Unreleased",
    ]
    for kind, heading in _HEADINGS.items():
        entries = [line for path in _fragments(kind) for line in _entries(path)]
        if entries:
            parts += ["", f"### {heading}", "", *entries]
    text = "\n".join(parts) + "\n"
    return _LINK.sub("](", text) if links else text


def _fragments(kind: str) -> list[Path]:
    """Return the files of one type, the newest issue first."""
    found = (ROOT / "changelog.d").glob(f"*.{kind}.md")
    return sorted(found, key=lambda path: -int(path.name.partition(".")[0]))


def _entries(path: Path) -> list[str]:
    number = path.name.partition(".")[0]
    lines = path.read_text("utf-8").splitlines()
    return [f"- {line.removeprefix('- ')} (#{number})" for line in lines if line.strip()]


if __name__ == "__main__":
    (ROOT / "CHANGELOG.md").write_text(changelog_page(links=False), encoding="utf-8")
