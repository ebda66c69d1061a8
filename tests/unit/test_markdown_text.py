"""Text within Markdown: whatever a record holds, none of it is markup."""

from __future__ import annotations

import pytest

from pytest_pdserve.report.formats.markdown_text import escaped

GITHUB_ISSUES = r"\#&#8203;123, vllm-project/vllm\#&#8203;4, GH-&#8203;5"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mean_itl_ms", r"mean\_itl\_ms"),
        ("a|b", r"a\|b"),
        (r"a\|b", r"a\\\|b"),
        ("`rm`", r"\`rm\`"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("&lt;", "&amp;lt;"),
        ("[x](y)", r"\[x\](y)"),
        ("a\n\n# b", r"a \# b"),
        ("@octocat and a@b.example", "@&#8203;octocat and a@&#8203;b.example"),
        ("#123, vllm-project/vllm#4, GH-5", GITHUB_ISSUES),
        ("https://a.example, HTTP://b", "https:&#8203;//a.example, HTTP:&#8203;//b"),
        ("www.a.example", "www&#8203;.a.example"),
        ("50 % @ 3 nodes, # 3, a:b, c//d", r"50 % @ 3 nodes, \# 3, a:b, c//d"),
        ("a\x00\x1bb", "aU+0000U+001Bb"),
        ("a\u202eb", "aU+202Eb"),
        ("a\u05d0b", "aU+05D0b"),
        ("Ünïcode 漢", "Ünïcode 漢"),
        ("", ""),
    ],
)
def test_text_is_shown_as_it_is_written(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_long_names_are_cut() -> None:
    assert escaped("n" * 300) == "n" * 300
    assert escaped("n" * 301) == "n" * 299 + "…"
    assert escaped("|" * 9, limit=3) == r"\|\|…"
