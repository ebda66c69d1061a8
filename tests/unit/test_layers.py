"""Each floor of the house imports only from floors above it, and planning and judging are pure.

``options`` and ``session`` are faces by name, but the report shows a session and a session holds
what the options say: they are floors of their own, below ``serving`` and above ``report``.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

PACKAGE = "pytest_pdserve"
FLOORS = (
    *("values", "plan", "judge", "results", "cluster", "serving"),
    *("options", "session", "report", "faces"),
)
PURE = ("values", "plan", "judge")
ARRAYS = {
    *(f"{PACKAGE}.judge.{m}" for m in ("dependence", "estimation", "evidence", "night")),
    *(f"{PACKAGE}.judge.{m}" for m in ("noise", "power", "expectation")),
    *(f"{PACKAGE}.judge.{m}" for m in ("calibration", "suitability")),
    f"{PACKAGE}.selftest",
}
"""Modules that are arithmetic on arrays from head to foot: nobody else imports them at its head."""
IMPURE = {"subprocess", "socket", "time", "submitit", "pytest"}
Sources = Mapping[str, str]
"""Module name to source text."""


def sources() -> Sources:
    root = Path(__file__).parents[2]
    found = {}
    for path in (root / PACKAGE).rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path.read_text()
    return found


def floor_of(module: str) -> int:
    room = [*module.split("."), ""][1]
    return FLOORS.index(room if room in FLOORS else "faces")


def imports_of(module: str, tree: Sources) -> set[str]:
    """What *module* imports anywhere in it, functions and TYPE_CHECKING included."""
    found = set()
    for node in ast.walk(ast.parse(tree[module])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inner = {f"{base}.{alias.name}" for alias in node.names}
            found |= (inner & set(tree)) or {base}
    return found


def upward(tree: Sources) -> list[str]:
    return [
        f"{module} imports {name}"
        for module in sorted(tree)
        for name in sorted(imports_of(module, tree))
        if name.split(".")[0] == PACKAGE and floor_of(name) > floor_of(module)
    ]


def impure(tree: Sources) -> list[str]:
    return [
        f"{module} imports {name}"
        for module in sorted(tree)
        if FLOORS[floor_of(module)] in PURE
        for name in sorted(imports_of(module, tree))
        if name.split(".")[0] in IMPURE
    ]


def cycles(tree: Sources) -> list[str]:
    """One cycle through each module that lies on any, as ``a -> b -> a``."""
    edges = {module: imports_of(module, tree) & set(tree) for module in tree}
    found = []
    for start in sorted(tree):
        paths: list[tuple[str, ...]] = [(start,)]
        seen: set[str] = set()
        while paths:
            path = paths.pop()
            for following in sorted(edges[path[-1]] - seen):
                if following == start:
                    found.append(" -> ".join([*path, start]))
                    paths.clear()
                    break
                seen.add(following)
                paths.append((*path, following))
    return found


def test_the_house_has_its_rooms() -> None:
    rooms = {FLOORS[floor_of(module)] for module in sources()}
    assert rooms == set(FLOORS)


@pytest.mark.parametrize("rule", [upward, impure, cycles])
def test_nothing_in_the_house_breaks_the_rule(rule: object) -> None:
    assert callable(rule)
    assert rule(sources()) == []


def test_judging_knows_nothing_of_planning() -> None:
    tree = sources()
    judging = {m: imports_of(m, tree) for m in tree if m.startswith(f"{PACKAGE}.judge")}
    assert [m for m, names in judging.items() if any(".plan" in name for name in names)] == []


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    tree = sources()
    heavy = {
        f"{module} imports {name}"
        for module in tree
        for node in ast.parse(tree[module]).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in imports_of(module, {**tree, module: ast.unparse(node)})
        if name.split(".")[0] in {"pandas", "pyarrow", "submitit", "scipy", "numpy", "vllm"}
    }
    allowed = {f"{module} imports {name}" for module in ARRAYS for name in ("numpy", "scipy")}
    assert heavy - allowed == set()


def test_arithmetic_on_arrays_is_imported_where_it_is_used() -> None:
    tree = sources()
    assert set(tree) >= ARRAYS
    loading = {
        f"{module} imports {name}"
        for module in set(tree) - ARRAYS
        for node in ast.parse(tree[module]).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in imports_of(module, {**tree, module: ast.unparse(node)})
        if name in ARRAYS
    }
    assert loading == set()


PLANTED = {
    f"{PACKAGE}.values.a": "x = 1",
    f"{PACKAGE}.plan.b": "from pytest_pdserve.values.a import x",
    f"{PACKAGE}.report.c": "from pytest_pdserve.session import Session",
    f"{PACKAGE}.session": "from pytest_pdserve.values import a",
}


def test_a_sound_tree_passes() -> None:
    assert upward(PLANTED) == impure(PLANTED) == cycles(PLANTED) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("values.a", "from pytest_pdserve.plan.b import y"),
        ("values.a", "def f():\n    import pytest_pdserve.plan.b"),
        ("values.a", "if TYPE_CHECKING:\n    from ..plan import b"),
        ("plan.b", "from pytest_pdserve.judge import verdict"),
        ("session", "from pytest_pdserve.commands.main import main"),
    ],
    ids=["from", "in a function", "relative, for types", "a package", "a face"],
)
def test_a_planted_upward_import_is_seen(module: str, text: str) -> None:
    seen = upward({**PLANTED, f"{PACKAGE}.{module}": text})
    assert [line.partition(" ")[0] for line in seen] == [f"{PACKAGE}.{module}"]


@pytest.mark.parametrize("library", sorted(IMPURE))
def test_a_planted_effect_is_seen(library: str) -> None:
    planted = {**PLANTED, f"{PACKAGE}.judge.d": f"def f():\n    from {library} import x"}
    assert impure(planted) == [f"{PACKAGE}.judge.d imports {library}"]


def test_a_planted_cycle_is_seen() -> None:
    a, b = f"{PACKAGE}.values.a", f"{PACKAGE}.values.b"
    planted = {a: f"from {b} import y", b: f"def f():\n    from {a} import x"}
    assert cycles(planted) == [f"{a} -> {b} -> {a}", f"{b} -> {a} -> {b}"]
