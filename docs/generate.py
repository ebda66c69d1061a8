"""Hook of MkDocs: adds the generated pages, and unlinks what lies outside docs/."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_OUTSIDE = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)#\s]+)(?:#[^)]*)?\)")
_BOOSTS = {
    "troubles.md": 3.0,
    "judging.md": 1.5,
    "glossary.md": 1.5,
    "gate.md": 1.5,
    "reference/formats.md": 0.3,
    "reference/messages.md": 0.3,
    "reference/names.md": 0.5,
    "changelog.md": 0.3,
}
"""How much a page counts in the search, where it is not 1: long lists match many words."""
_log = get_plugin_logger("generate")

sys.path.insert(0, str(ROOT))  # MkDocs puts the path back when the hook is loaded
from docs.reference_pages.pages import generated_files  # noqa: E402


def on_files(files: Files, *, config: MkDocsConfig, **_: Any) -> Files:
    """Add the generated pages and the JSON schemas."""
    for path, text in generated_files().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Show links to files outside docs/ as text: the site has no such pages, the repository has.

    The page's weight in the search is set here too: front matter would show on other sites.
    """
    if page.file.src_uri in _BOOSTS:
        page.meta["search"] = {"boost": _BOOSTS[page.file.src_uri]}
    folder = (ROOT / "docs" / page.file.src_uri).parent

    def unlinked(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        if target.is_relative_to(ROOT / "docs"):
            return match[0]
        if not target.exists():
            _log.warning("%s links to %s, which does not exist", page.file.src_uri, match[2])
        return match[1]

    return _OUTSIDE.sub(unlinked, markdown)
