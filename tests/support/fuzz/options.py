"""Tries that give options of pdserve and of pytest, and ini keys, what nobody would."""

from __future__ import annotations

import os
import random

from tests.support.fuzz.changes import HUGE
from tests.support.fuzz.changes import TEXTS
from tests.support.fuzz.files import ENCODINGS
from tests.support.fuzz.world import Outcome
from tests.support.fuzz.world import World

_NUMBERS = (
    *("0", "-1", "2", "1.5", "1e3", "nan", "inf", "-inf", "1e999", "0x10", "1_0", "٣", "½"),
    *("", " 2", "2 ", "+2", str(2**63), str(10**30), HUGE, "9" * 5000),
)
"""None of them is a number of runs, prompts or nights that takes long."""
_PLACES = (
    *("nowhere", "runs", ".", "./.", "pyproject.toml", "suites/claims.toml", "baselines/mine"),
    *("runs/../runs", "imports/vllm-0.6.6.json", "series/runs.csv", "a\nb/c", "é/世界", "-"),
    *("x" * 300, "x/" * 3000, "a\0b", "", "/dev/null", "/dev/null/x", "/proc/self/x"),
)
_COMMON = {"--system": "name", "--rootdir": "place", "-c": "place", "--config-file": "place"}
_COMMANDS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "plan": (("plan",), {**_COMMON, "--topology": "topology"}),
    "explore": (
        ("plan", "--explore", "--num-prompts", "4", "--nodes", "2"),
        {
            **_COMMON,
            **dict.fromkeys(("--input-len", "--output-len", "--rate", "--num-prompts"), "number"),
            **dict.fromkeys(("--slo-ttft-ms", "--slo-itl-ms", "--nodes", "--seed"), "number"),
        },
    ),
    "judge": (
        ("judge",),
        {
            **_COMMON,
            "--runs": "place",
            "--format": "text",
            "--claims": "place",
            "--partial": "",
            "--strict": "",
            "": "run",
        },
    ),
    "report": (("report",), {"--format": "text", "--rootdir": "place", "": "place"}),
    "show": (("show",), {**_COMMON, "--runs": "place", "--format": "text", "": "run"}),
    "doctor": (("doctor", "--system", "mine"), {"--runs": "place", "--format": "text"}),
    "calibrate": (
        ("calibrate",),
        {**_COMMON, "--runs": "place", "--series": "place", "--any-version": "", "": "run"},
    ),
    "selftest": (
        ("selftest", "--series", "series/nights.csv"),
        {
            "--series": "place",
            "--noise": "name",
            "--gate": "",
            **dict.fromkeys(("--nights", "--gates", "--seed", "--workers"), "number"),
        },
    ),
    "propose": (
        ("baseline", "propose"),
        {
            **_COMMON,
            "--runs": "place",
            "--last": "number",
            "--every-session": "",
            "--any-version": "",
            "": "run",
        },
    ),
    "diff": (("baseline", "diff"), {**_COMMON, "--all": ""}),
    "accept": (
        ("baseline", "accept", "--approver", "ann"),
        {**_COMMON, "--approver": "text", "--note": "text"},
    ),
    "import": (
        ("import", "--system", "real", "--topology", "dp", "imports/vllm-0.6.6.json"),
        {
            **_COMMON,
            "--runs": "place",
            "--topology": "topology",
            "--dataset": "text",
            "--vllm-version": "text",
            "": "place",
        },
    ),
    "init": (("init",), {"": "place"}),
    "serve": (("serve", "--system", "mine"), {"--runs": "place", "--topology": "topology"}),
    "clean": (("clean", "--dry-run"), {"": "text"}),
    "none": ((), {"--version": "", "--help": "", "": "text"}),
}
_SESSION = {
    "--topology": "topology",
    "--system": "name",
    "--pdserve-runs": "place",
    "--pdserve-base-url": "url",
    "--pdserve-model": "text",
    "--pdserve-instance-url": "url",
    "--pdserve-job-id": "number",
    "--pdserve-repeats": "number",
    "--pdserve-first-runs": "number",
    "--pdserve-report": "place",
    "--pdserve-no-record": "",
    "--pdserve-strict": "",
}
_TOPOLOGIES = (
    *("", ",", ",,", " ", "dp,", "dp,dp", "all", "all,dp", "ALL", "dp,1p3d", "1p1d", "route2"),
    *("0p0d", "1p", "p", "1p3d-tp", "1p3d-tp0", "1p3d-tp8x", "9" * 400, "999999p999999d"),
    *(
        "route999999",
        "999999x999999p999999d-tp999999",
        "1p3d\n",
        "１p３d",
        "1p3d-tp8x8x8",
        "dp-tp2",
    ),
)
_NAMES = ("mine", "real", "my-simulated", "my-article", "../mine", "mine/../mine", "mine/", ".")
_URLS = (
    *("http://", "http://h:99999", "http://[::1", "http://u:p@h", "ftp://h", "h:1", "http://h/\n"),
    *(
        "prefill=http://127.0.0.1:9",
        "decode=",
        "=http://h",
        "http://é",
        "http://xn--",
        "http://h:0",
    ),
    *("http://127.0.0.1:9", "prefill=http://127.0.0.1:9/v1?x#y", "http://h" + "x" * 5000),
)


def command(rng: random.Random, world: World) -> Outcome:
    """Give a command of pdserve one or two options that are odd."""
    base, options = _COMMANDS[rng.choice(sorted(_COMMANDS))]
    argv, folders = [*base], [""]
    for _ in range(rng.choice((1, 1, 1, 2))):
        name = rng.choice(sorted(options))
        given = _given(rng, options[name]) if options[name] else ""
        argv += [word for word in (name, given) if word or (options[name] and word == given)]
        folders.append(given)
    if base == ("init",):
        argv = ["init", rng.choice(_PLACES)]
        folders = argv
    return world.pdserve(*argv, encoding=rng.choice(ENCODINGS), allowed=_folders(world, folders))


def session(rng: random.Random, world: World) -> Outcome:
    """Give pytest one or two options of the plugin that are odd."""
    argv, folders = ["suites", "-q", "--pdserve-first-runs", "1"], [""]
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(sorted(_SESSION))
        given = _given(rng, _SESSION[name]) if _SESSION[name] else ""
        argv.append(f"{name}={given}" if _SESSION[name] else name)
        folders.append(given)
    if any(word.startswith(("--system=real", "--system=my-")) for word in argv):
        argv.append("--co")  # no servers are started here
    return world.pytest(*argv, encoding=rng.choice(ENCODINGS), allowed=_folders(world, folders))


def ini_key(rng: random.Random, world: World) -> Outcome:
    """Give an ini key an odd value, and collect."""
    name = rng.choice(sorted(_SESSION))
    key = "pdserve_" + name.removeprefix("--pdserve-").removeprefix("--").replace("-", "_")
    kind = _SESSION[name] or rng.choice(("text", "number"))
    given = _given(rng, kind).replace("\0", "")
    if rng.random() < 0.5:
        return world.pytest("suites", "--co", "-q", "-o", f"{key}={given}")
    path = world.project / "pyproject.toml"
    shown = rng.choice((_toml(given), f"[{_toml(given)}]", "1", "1.5", "true", "{}", "[]"))
    path.write_text(f"[tool.pytest.ini_options]\ntestpaths = ['suites']\n{key} = {shown}\n")
    if rng.random() < 0.3:
        return world.pdserve(rng.choice(("plan", "judge", "show", "calibrate")))
    return world.pytest("--co", "-q")


def _toml(text: str) -> str:
    named = "".join(
        f"\\U{ord(each):08X}" if not each.isprintable() or each in '"\\' else each
        for each in text
        if not 0xD800 <= ord(each) < 0xE000
    )
    return f'"{named}"'


def _given(rng: random.Random, kind: str) -> str:
    if rng.random() < 0.25:
        return rng.choice(TEXTS)
    return rng.choice(
        {
            "number": _NUMBERS,
            "place": _PLACES,
            "topology": _TOPOLOGIES,
            "name": (*_NAMES, *TEXTS),
            "url": (*_URLS, *TEXTS),
            "run": ("..", ".", "runs", "nothing", "", *TEXTS),
            "text": TEXTS,
        }[kind]
    )


def _folders(world: World, given: list[str]) -> tuple[str, ...]:
    """Where a command was told to write, beside the project."""
    paths = (os.path.normpath(world.project / text) for text in given if text)
    return tuple(f"{path}/" for path in paths if len(path) > 1)
