"""Matplotlib's SVG made small, with ids that are unique in a page."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from pytest_pdserve.report.figures.style import TEXT_PX

OVERLAY = "pdserve-overlay"
"""Class of the groups that hold the article's curves; their names in Matplotlib begin so."""
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_ROOT = (
    f"font-family: system-ui, sans-serif; font-size: {TEXT_PX}px; stroke-linejoin: round; "
    "stroke-linecap: butt"
)
"""Style of the root; Matplotlib repeats the last two on every element."""
_INVALID = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""Characters that names may contain, and XML may not."""
_LONG = re.compile(r"-?\d+\.\d{2,}")
_REFERENCE = re.compile(r"#([\w-]+)")
_DEFAULTS = (
    *(f"font-size: {TEXT_PX}px", "stroke-dashoffset: 0", "stroke-opacity: 1", "fill-opacity: 1"),
    *("stroke-linejoin: round", "stroke-linecap: butt"),
)


def tidied(text: str, name: str) -> ET.Element:
    """Return Matplotlib's SVG *text* without what a page does not need.

    Ids that nothing refers to are dropped; the others begin with *name*. Coordinates have two
    decimals.
    """
    # Text of our own Matplotlib, no file of others.
    root = ET.fromstring(_INVALID.sub("\ufffd", text))  # noqa: S314
    for parent in list(root.iter()):
        for child in list(parent):
            if _tag(child) in ("metadata", "style"):
                parent.remove(child)
    _flatten(root)
    _rename(root, name)
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            element.set(key, " ".join(_LONG.sub(_rounded, value).split()))
        _restyle(element)
        element.tail = None
        if _tag(element) != "text":
            element.text = None
    root.attrib.pop("version", None)
    root.set("style", _ROOT)
    return root


def written(root: ET.Element) -> str:
    """Return an SVG as text, without an XML declaration."""
    ET.register_namespace("", _SVG)
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def describe(root: ET.Element, name: str, title: str, text: str) -> None:
    """Give an SVG a title and a description, which screen readers read out."""
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    for place, (tag, content) in enumerate((("title", title), ("desc", text))):
        element = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = _INVALID.sub("\ufffd", content)
        root.insert(place, element)


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _flatten(element: ET.Element) -> None:
    """Drop empty groups, and groups without attributes around their contents."""
    for child in element:
        _flatten(child)
    kept: list[ET.Element] = []
    for child in element:
        named = child.get("id", "").startswith(OVERLAY)
        if _tag(child) != "g" or named or set(child.attrib) - {"id"}:
            kept.append(child)
        else:
            kept += list(child)
    element[:] = [child for child in kept if _tag(child) not in ("g", "defs") or len(child)]


def _rename(root: ET.Element, name: str) -> None:
    used = {found for element in root.iter() for found in _references(element)}
    numbers = itertools.count(1)
    new = {
        old: f"{name}-{next(numbers)}"
        for element in root.iter()
        if (old := element.get("id")) in used and old is not None
    }
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old in new:
            element.set("id", new[old])
        elif old is not None and old.startswith(OVERLAY):
            element.set("class", OVERLAY)
        if (target := element.attrib.pop(_XLINK, None)) is not None:
            element.set("href", f"#{new[target.removeprefix('#')]}")
        if (clip := element.get("clip-path")) is not None:
            element.set("clip-path", _REFERENCE.sub(lambda found: f"#{new[found[1]]}", clip))


def _references(element: ET.Element) -> Iterator[str]:
    for value in (element.get(_XLINK, ""), element.get("clip-path", "")):
        yield from _REFERENCE.findall(value)


def _restyle(element: ET.Element) -> None:
    """Drop styles that the root sets, and rotations by 0 degrees."""
    turn = element.get("transform", "")
    if turn.startswith(("rotate(-0 ", "rotate(0 ")):
        del element.attrib["transform"]
    parts = [part.strip() for part in element.get("style", "").split(";")]
    kept = [
        part for part in parts if part and part not in _DEFAULTS and not part.startswith("font-fam")
    ]
    if kept:
        element.set("style", "; ".join(kept))
    else:
        element.attrib.pop("style", None)


def _rounded(number: re.Match[str]) -> str:
    text = f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
