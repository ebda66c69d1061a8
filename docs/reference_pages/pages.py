"""All generated files by their path in the site."""

from __future__ import annotations

from docs.reference_pages.api import names_page
from docs.reference_pages.changelog import changelog_page
from docs.reference_pages.commands import commands_page
from docs.reference_pages.formats import formats_page
from docs.reference_pages.formats import schema_files
from docs.reference_pages.messages import messages_page
from docs.reference_pages.options import markers_page
from docs.reference_pages.options import options_page
from docs.reference_pages.results import results_page
from docs.reference_pages.system import system_page


def generated_files() -> dict[str, str]:
    """Return the text of every generated page, and of every JSON schema."""
    return {
        "reference/options.md": options_page(),
        "reference/markers.md": markers_page(),
        "reference/commands.md": commands_page(),
        "reference/results.md": results_page(),
        "reference/messages.md": messages_page(),
        "reference/system.md": system_page(),
        "reference/formats.md": formats_page(),
        "reference/names.md": names_page(),
        "changelog.md": changelog_page(links=True),
        **{f"reference/schema/{name}": text for name, text in schema_files().items()},
    }
