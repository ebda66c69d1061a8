"""A session's report as one HTML file that needs nothing else: no network, no script."""

from __future__ import annotations

from pytest_pdserve.report.page.page import page_html

__all__ = ["page_html"]
