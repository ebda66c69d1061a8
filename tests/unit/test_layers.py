"""What ruff and import-linter leave to check, and that import-linter's contracts hold.

Layers and what planning and judging may import are ``[tool.importlinter]`` of ``pyproject.toml``;
libraries that are imported where they are used are ruff's TID253. A package with one import too
many is seen to break each contract.
"""

from __future__ import annotations

import ast
import itertools
import sys
import tomllib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent

import pytest

from pytest_pdserve.backends.registry import OWN

PACKAGE = "pytest_pdserve"
ROOT = Path(__file__).parents[2]
Sources = Mapping[str, str]
"""Module name to source text."""


def sources() -> Sources:
    found = {}
    for path in (ROOT / PACKAGE).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return found


# Import-linter's contracts.

CONFIG = ROOT / "pyproject.toml"
LINTER = tomllib.loads(CONFIG.read_text(encoding="utf-8"))["tool"]["importlinter"]
LAYERS = [name for line in LINTER["contracts"][0]["layers"] for name in line.split(" | ")]
SOUND = {
    **{layer: "" for layer in LAYERS},
    "backends.local": "",
    "backends.slurm": "",
    "values.a": "x = 1",
    "plan.b": f"from {PACKAGE}.values.a import x",
    "report.c": f"from {PACKAGE}.session import d",
    "session.d": f"from {PACKAGE}.values import a",
}
"""A small package of the same layers that keeps every contract, by name below the package."""


@pytest.fixture
def broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Sources], list[str]]:
    """A function from a package to the names of the contracts that it breaks."""
    cli = pytest.importorskip("importlinter.cli", reason="make lint runs it where it is installed")

    def lint(planted: Sources) -> list[str]:
        for name, text in {"": "", **planted}.items():
            folder = Path(PACKAGE, *name.split("."))
            inner = any(other.startswith(f"{name}.") for other in planted)
            path = folder / "__init__.py" if inner or name in LAYERS else folder.with_suffix(".py")
            path = tmp_path / (path if name else folder / "__init__.py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)  # the linter looks there first
            patch.syspath_prepend(tmp_path)
            for name in [n for n in sys.modules if n.partition(".")[0] == PACKAGE]:
                patch.delitem(sys.modules, name)
            code = cli.lint_imports(config_filename=str(CONFIG), no_cache=True, no_logo=True)
        said = capsys.readouterr().out.splitlines()
        found = [line.removesuffix(" BROKEN") for line in said if line.endswith(" BROKEN")]
        assert (code == 0) is (found == []), "\n".join(said)
        return found

    return lint


def test_a_sound_package_keeps_every_contract(broken: Callable[[Sources], list[str]]) -> None:
    assert broken(SOUND) == []


def test_this_package_keeps_every_contract(broken: Callable[[Sources], list[str]]) -> None:
    tree = {name.removeprefix(PACKAGE).removeprefix("."): text for name, text in sources().items()}
    assert broken(tree) == []


@pytest.mark.parametrize(
    ("module", "text", "contract"),
    [
        ("values.a", f"from {PACKAGE}.plan.b import y", "Layers"),
        ("values.a", f"def f():\n    import {PACKAGE}.plan.b", "Layers"),
        ("values.a", "if TYPE_CHECKING:\n    from ..plan import b", "Layers"),
        ("plan.b", f"from {PACKAGE}.judge import verdict", "Layers"),
        ("judge.v", f"from {PACKAGE}.plan import b", "Layers"),
        ("session.d", f"from {PACKAGE}.commands import main", "Layers"),
        ("backends.local", f"from {PACKAGE}.simulation import x", "Layers"),
        ("utils", "", "Layers"),
        ("simulation", f"from {PACKAGE}.backends.local import x", "A backend knows no other"),
        ("backends.slurm", f"from {PACKAGE}.backends import local", "A backend knows no other"),
        *(
            (f"{layer}.d", f"def f():\n    from {library} import x", "What decides does nothing")
            for layer in ("values", "plan", "judge")
            for library in ("subprocess", "socket", "time", "submitit", "pytest", "httpx")
        ),
    ],
)
def test_a_planted_import_breaks_its_contract(
    broken: Callable[[Sources], list[str]], module: str, text: str, contract: str
) -> None:
    assert contract in broken({**SOUND, module: text})


# Imports within a layer, and what is heavy at second hand.

ARRAYS = {"numpy", "scipy"}


def imports_of(nodes: Iterable[ast.AST], tree: Sources) -> set[str]:
    """Return what *nodes* import; the package has no relative imports."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & set(tree)) or {str(node.module)}
    return found


def imported_when_run(module: str, tree: Sources) -> set[str]:
    """Return what *module* imports anywhere in it, but for types alone."""

    def walked(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                continue
            yield child
            yield from walked(child)

    return imports_of(walked(ast.parse(tree[module])), tree)


def imported_at_head(module: str, tree: Sources) -> set[str]:
    """Return what *module* imports when it is imported itself."""
    return imports_of(ast.parse(tree[module]).body, tree)


def cycles(tree: Sources) -> list[str]:
    """Return one cycle through each module that lies on any, as ``a -> b -> a``."""
    edges = {module: imported_when_run(module, tree) & set(tree) for module in tree}
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


def arrays_at_second_hand(tree: Sources) -> list[str]:
    """Return head imports of arithmetic on arrays by modules that are none themselves.

    What studies noise is all arithmetic, and imported by the commands that ask for it.
    """
    heads = {module: imported_at_head(module, tree) for module in tree}
    roots = {m: {name.partition(".")[0] for name in names} for m, names in heads.items()}
    arrays = {module for module in tree if roots[module] & ARRAYS}
    study = {module for module in tree if module.startswith(f"{PACKAGE}.study.")}
    return [
        f"{module} imports {name}"
        for module in sorted(set(tree) - arrays - study)
        for name in sorted(heads[module] & (arrays | study))
    ]


def test_no_modules_import_each_other() -> None:
    assert cycles(sources()) == []


def test_arithmetic_on_arrays_is_imported_where_it_is_used() -> None:
    assert arrays_at_second_hand(sources()) == []


@pytest.mark.parametrize("indent", ["", "def f():\n    "], ids=["head", "in a function"])
def test_a_planted_cycle_is_seen(indent: str) -> None:
    a, b = f"{PACKAGE}.values.a", f"{PACKAGE}.values.b"
    planted = {a: f"from {b} import y", b: f"{indent}from {a} import x"}
    assert cycles(planted) == [f"{a} -> {b} -> {a}", f"{b} -> {a} -> {b}"]
    assert cycles({**planted, b: f"if TYPE_CHECKING:\n    from {a} import x"}) == []


@pytest.mark.parametrize("text", ["import numpy as np", "from scipy import special"])
def test_arithmetic_that_is_imported_at_a_planted_head_is_seen(text: str) -> None:
    a, b, c = (f"{PACKAGE}.judge.{name}" for name in "abc")
    planted = {a: text, b: f"def f():\n    from {a} import x", c: f"from {a} import x"}
    assert arrays_at_second_hand(planted) == [f"{c} imports {a}"]


# A backend differs by its methods, so nobody asks which one it is.

MAY_ASK = (f"{PACKAGE}.backends.registry", f"{PACKAGE}.backends.systems")
"""They find the backend by its name."""
_HOLDERS = ("cluster", "allocation")


def _last_name(node: ast.AST) -> str:
    """Return ``b`` of ``a.b``, of ``b`` and of ``_b``; the empty string of anything else."""
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return str(name).lstrip("_")


def _is_kind_of_cluster(node: ast.AST) -> bool:
    """Tell whether *node* is ``….cluster.kind``, ``allocation.kind`` or ``cluster["kind"]``."""
    if isinstance(node, ast.Attribute):
        return node.attr == "kind" and _last_name(node.value) in _HOLDERS
    if isinstance(node, ast.Subscript):
        key: ast.AST = node.slice
        of = node.value
    elif isinstance(node, ast.Call) and _last_name(node.func) == "get" and node.args:
        key, of = node.args[0], getattr(node.func, "value", node)
    else:
        return False
    return isinstance(key, ast.Constant) and key.value == "kind" and _last_name(of) in _HOLDERS


def _operands(node: ast.AST) -> list[ast.AST]:
    """Return what *node* compares: of ``==``, ``in``, ``match`` and of a look-up by key."""
    found: list[ast.AST] = []
    if isinstance(node, ast.Compare):
        found = [node.left, *node.comparators]
    elif isinstance(node, ast.Match):
        patterns = [part for case in node.cases for part in ast.walk(case.pattern)]
        found = [node.subject, *(p.value for p in patterns if isinstance(p, ast.MatchValue))]
    elif isinstance(node, ast.Subscript):
        found = [node.slice]
    elif isinstance(node, ast.Call) and _last_name(node.func) == "get":
        found = [*node.args]
    several = [each.elts for each in found if isinstance(each, ast.Tuple | ast.List | ast.Set)]
    return [*found, *itertools.chain(*several)]


def asks_for_a_backend(node: ast.AST) -> bool:
    operands = _operands(node)
    names = any(isinstance(each, ast.Constant) and each.value in OWN for each in operands)
    backend = any(
        isinstance(e, ast.Attribute) and e.attr == "name" and _last_name(e.value) == "backend"
        for e in operands
    )
    kind = any(_last_name(each) == "kind" for each in operands)
    return any(map(_is_kind_of_cluster, operands)) or (names and (kind or backend))


def askers(tree: Sources) -> list[str]:
    return [
        f"{module}: {ast.unparse(node)}"
        for module in sorted(set(tree) - set(MAY_ASK))
        for node in ast.walk(ast.parse(tree[module]))
        if asks_for_a_backend(node)
    ]


def test_nobody_asks_which_backend_it_is() -> None:
    tree = sources()
    assert set(MAY_ASK) <= set(tree)
    assert askers(tree) == []


@pytest.mark.parametrize(
    "text",
    [
        "if system.cluster.kind == 'slurm': pass",
        "if 'local' != self.system.cluster.kind: pass",
        "if self._session.system.cluster.kind in ('local', 'simulated'): pass",
        "if settings.system.cluster.kind is None: pass",
        "if cluster.kind == other: pass",
        "if self._allocation.kind == wanted: pass",
        "if allocation.kind != 'attached': pass",
        "def f(kind):\n    return kind == 'slurm'",
        "def f(kind):\n    return kind in {'slurm', 'local'}",
        "def f(kind):\n    return 'docker' if 'attached' == kind else ''",
        "if self.kind == 'simulated': pass",
        "if backend.name == 'slurm': pass",
        "if self._backend.name in ['slurm']: pass",
        "if record.cluster['kind'] == what: pass",
        "if record.cluster.get('kind') == what: pass",
        "made = {'slurm': 1}[system.cluster.kind]",
        "made = TABLE.get(system.cluster.kind)",
        "match system.cluster.kind:\n    case 'slurm':\n        pass",
        "match kind:\n    case 'docker' | 'slurm':\n        pass",
    ],
)
def test_a_planted_question_for_a_backend_is_seen(text: str) -> None:
    assert len(askers({f"{PACKAGE}.serving.a": text})) == 1
    assert askers({MAY_ASK[0]: text}) == []


@pytest.mark.parametrize(
    "text",
    [
        "if spec.container.kind == 'docker': pass",
        "if kind == 'docker': pass",
        "if relation.kind in ('below', 'above'): pass",
        "found = find_backend(system.cluster.kind)",
        "kind = 'local'",
        "made = {'kind': allocation.kind}",
        "if backend.simulated: pass",
        "match relation.kind:\n    case 'joint':\n        pass",
    ],
)
def test_other_kinds_and_other_uses_are_no_question_for_a_backend(text: str) -> None:
    assert askers({f"{PACKAGE}.serving.a": text}) == []


# Lengths.

MODULE_LINES = 400
FUNCTION_LINES = 40
REASONED_LINES = 60
REASON = "# Long, because "
"""How a comment begins that says why a function is longer: right above it, or its first line."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def is_reasoned(function: Function, lines: list[str]) -> bool:
    """Tell whether a comment says why *function* is long."""
    top = min([function.lineno, *(each.lineno for each in function.decorator_list)])
    body = function.body[1:] if ast.get_docstring(function) else function.body
    first = body[0].lineno if body else function.end_lineno
    return any(REASON in line for line in lines[max(top - 2, 0) : (first or top) - 1])


def too_long(tree: Sources) -> list[str]:
    found = []
    for module, text in sorted(tree.items()):
        lines = text.splitlines()
        if len(lines) > MODULE_LINES:
            found.append(f"{module}: {len(lines)} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, Function):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                most = REASONED_LINES if is_reasoned(node, lines) else FUNCTION_LINES
                if length > most:
                    found.append(f"{module}.{node.name}: {length} lines")
    return found


def test_no_module_and_no_function_is_longer_than_a_person_reads() -> None:
    assert too_long(sources()) == []


def function_of(lines: int, *, above: str = "", head: str = "def f():", first: str = "") -> str:
    """Return a function of so many lines, with comments."""
    begin = [*head.split("\n"), *(f"    {line}" for line in first.split("\n") if first)]
    made = "\n".join([*begin, *["    pass"] * (lines - len(begin))])
    return f"{above}\n{made}" if above else made


WHY = f"{REASON}it is a table."
WIDE = "async def f(\n    a: int,\n    *,\n    b: int,\n) -> None:"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (function_of(40), []),
        (function_of(41), ["f: 41 lines"]),
        (indent(function_of(41), "    ").replace("    ", "class A:\n    ", 1), ["f: 41 lines"]),
        (function_of(41, first='"""Do."""'), ["f: 41 lines"]),
        (function_of(41, above="# Another comment."), ["f: 41 lines"]),
        (function_of(41, above=f"{WHY}\n"), ["f: 41 lines"]),
        (function_of(60, above=WHY), []),
        (function_of(60, above=f"{WHY}\n@decorated"), []),
        (function_of(60, first=WHY), []),
        (function_of(60, head=f"def f():  {WHY}"), []),
        (function_of(60, first=f'"""Do."""\n{WHY}'), []),
        (function_of(60, first=f'"""Do.\n\n    More.\n    """\n{WHY}'), []),
        (function_of(60, first=f"pass\n{WHY}"), ["f: 60 lines"]),
        (function_of(60, head=WIDE, first=WHY), []),
        (function_of(60, head=WIDE), ["f: 60 lines"]),
        (function_of(61, above=WHY), ["f: 61 lines"]),
        ("x = 1\n" * 400, []),
        ("x = 1\n" * 401, [": 401 lines"]),
    ],
)
def test_a_planted_length_is_seen(text: str, said: list[str]) -> None:
    assert [line.removeprefix("a").removeprefix(".") for line in too_long({"a": text})] == said
