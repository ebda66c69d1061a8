#!/usr/bin/env python3
"""Says whether an image holds what it was built from, and whether it fits together.

Runs at the end of a build, and by hand in a container: ``python3 /opt/pdserve/validate.py``.
A build has neither GPU nor EFA. What needs one is then `left`; ``--gpu`` does it, on a node.
All findings are printed, one sentence each. The exit status is 1 if any failed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Literal

VERSIONS = "/opt/pdserve/versions"
PACKAGES = {
    "torch": "torch",
    "flash-attn": "flash_attn",
    "deepgemm": "deep_gemm",
    "nixl": "nixl",
    "vllm": "vllm",
    "vllm-router": "vllm_router",
}
"""Python packages by the name of their build argument, and the module that each brings."""
DISTRIBUTIONS = {"deepgemm": "deep_gemm", "nixl": "nixl-cu12"}
"""Where it is another; `nixl` itself only chooses between `nixl-cu12` and `nixl-cu13`."""
SOURCES = ("gdrcopy", "ucx", "nixl", "etcd", "deepgemm")
PLUGINS = {"LIBFABRIC": ("libfabric.so.1", "/opt/amazon/efa/"), "UCX": ("libucp.so.0", "/opt/ucx/")}
"""NIXL's plugins, each with the library that it must find, and where."""
PLUGIN_FOLDERS = (
    "opt/nixl/lib/plugins",
    "opt/venv/lib/python3.*/site-packages/.nixl_cu12.mesonpy.libs/plugins",
)
DRIVER = ("libcuda.so.1", "libnvidia-ml.so.1")
UCX_MODULES = ("libuct_ib.so", "libuct_ib_efa.so", "libuct_rdmacm.so", "libuct_cuda.so")
UCX_OPTIONS = ("--with-verbs", "--with-rdmacm", "--with-efa", "--with-cuda", "--with-gdrcopy")
COMMANDS = {
    ("vllm-router", "--help"): "--vllm-pd-disaggregation",
    ("vllm", "bench", "serve", "--help"): "usage",
    ("nixlbench", "--help"): "etcd",
}
"""Commands and a word of their help; nixlbench's exit status after help differs by version."""
ENVIRONMENT = {
    "FI_PROVIDER": "efa",
    "FI_EFA_FORK_SAFE": "1",
    "FI_EFA_USE_DEVICE_RDMA": "1",
    "FI_LOG_LEVEL": "warn",
    "UCX_TLS": "^cuda_ipc",
    "UCX_NET_DEVICES": "all",
    "VLLM_USE_DEEP_GEMM": "1",
}
AGENT = (
    "from nixl._api import nixl_agent, nixl_agent_config;"
    " nixl_agent('validate', nixl_agent_config(backends=['LIBFABRIC']))"
)
ON_A_NODE: dict[str, tuple[tuple[str, ...], str]] = {
    "gpu": (("python3", "-c", "import torch; print(torch.cuda.get_device_name())"), r"\S"),
    "efa": (("fi_info", "-p", "efa", "-t", "FI_EP_RDM"), r"provider: efa"),
    "ucx-efa": (("ucx_info", "-d"), r"Transport: (srd|ud_verbs)"),
    "nixl-agent": (("python3", "-c", AGENT), r""),
}
"""What a GPU and an EFA device are needed for: a command, and what it must print."""
_NO_DRIVER = re.compile(
    r"lib(cuda|nvidia-ml)\.so\.1: cannot open|Failed to infer device type|Found no NVIDIA driver"
    r"|no CUDA-capable device|CUDA driver (version is insufficient|initialization failed)"
)
_LIMIT_S = 300.0

Verdict = Literal["ok", "FAILED", "left"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a command ended."""

    code: int
    """Exit status; 127 if it could not be started."""
    text: str
    """Standard output and standard error."""

    @property
    def last(self) -> str:
        """Its last line, which in Python's and the loader's errors is the one that says why."""
        lines = self.text.strip().splitlines()
        return lines[-1].strip() if lines else "it says nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check saw."""

    name: str
    verdict: Verdict
    message: str


Runner = Callable[[Sequence[str]], Answer]


def run(argv: Sequence[str]) -> Answer:
    """Run a command to its end."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(code=124, text=f"no end after {_LIMIT_S:.0f} s")
    except OSError as error:
        return Answer(code=127, text=str(error))
    return Answer(code=done.returncode, text=done.stdout.decode(errors="replace"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The image that is looked at, which is the one that this runs in."""

    expected: Mapping[str, str]
    """Version by name, as the build's arguments are."""
    run: Runner = run
    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    gpu: bool = False
    """Whether a GPU, its driver and an EFA device are here."""

    def python(self, code: str) -> Answer:
        """Let the image's Python run a line."""
        return self.run(("python3", "-c", code))

    def judged(self, name: str, answer: Answer, *, well: bool, message: str) -> Finding:
        """A finding on a command; one that lacks nothing but a driver is left in a build."""
        if well:
            return Finding(name=name, verdict="ok", message=message)
        if not self.gpu and _NO_DRIVER.search(answer.text):
            return Finding(name=name, verdict="left", message=f"needs a GPU: {answer.last}")
        why = f"{message}; exit status {answer.code}: {answer.last}"
        return Finding(name=name, verdict="FAILED", message=why)


Check = Callable[[Image], Finding]


def _plain(name: str, fault: str, message: str) -> Finding:
    """A finding that no missing driver can excuse; *fault* is empty if all is well."""
    return Finding(name=name, verdict="FAILED" if fault else "ok", message=fault or message)


def released(tag: str) -> str:
    """The version that a package of DeepGEMM's *tag* calls itself: v2.1.1.post3 is 2.1.1."""
    return re.sub(r"\.post\d+$", "", tag)


def check_version(image: Image, name: str) -> Finding:
    """A Python package is of the version that was asked for."""
    asked = image.expected[name]
    distribution = DISTRIBUTIONS.get(name, name)
    answer = image.python(f"import importlib.metadata as m; print(m.version({distribution!r}))")
    installed = answer.text.strip()
    if answer.code:
        return _plain(name, f"{distribution} is not installed: {answer.last}", "")
    wanted = released(asked) if name == "deepgemm" else asked
    same = installed.partition("+")[0] == wanted
    fault = "" if same else f"{distribution} is {installed}, and {asked} was asked for"
    return _plain(name, fault, f"{distribution} {installed} is installed")


def check_import(image: Image, name: str) -> Finding:
    """A Python package can be imported."""
    module = PACKAGES[name]
    answer = image.python(f"import {module}")
    well = answer.code == 0
    message = f"{module} is imported" if well else f"{module} cannot be imported"
    return image.judged(f"import-{name}", answer, well=well, message=message)


def check_cuda(image: Image) -> Finding:
    """PyTorch and nvcc are of the image's CUDA: what one compiles, the other loads."""
    wanted = ".".join(image.expected["cuda"].split(".")[:2])
    torch = image.python("import torch; print(torch.version.cuda)").text.strip()
    nvcc = image.run(("/usr/local/cuda/bin/nvcc", "--version")).text
    found = re.search(r"release ([\d.]+)", nvcc)
    release = found[1] if found else "absent"
    fault = f"CUDA is {wanted}, PyTorch is for {torch.splitlines()[-1] if torch else 'none'}"
    fault += f" and nvcc is {release}"
    well = torch == release == wanted
    return _plain("cuda", "" if well else fault, f"PyTorch and nvcc are of CUDA {wanted}")


def check_source(image: Image, name: str) -> Finding:
    """What was compiled is the tag that was asked for."""
    path = image.root / "opt/pdserve/sources" / name
    asked = f"v{image.expected[name]}"
    if not path.is_file():
        return _plain(f"source-{name}", f"{path} is absent: nothing says what was compiled", "")
    tag, _, commit = path.read_text().strip().partition(" ")
    fault = "" if tag == asked else f"{name} is from {tag}, and {asked} was asked for"
    return _plain(f"source-{name}", fault, f"{name} is {tag}, commit {commit}")


def check_efa(image: Image) -> Finding:
    """EFA's installer is of the version that was asked for."""
    path = image.root / "opt/amazon/efa_installed_packages"
    asked = image.expected["efa"]
    text = path.read_text() if path.is_file() else ""
    found = re.search(r"EFA installer version: (\S+)", text)
    version = found[1] if found else "absent"
    fault = "" if version == asked else f"EFA installer is {version}, {asked} was asked for"
    return _plain("efa-installer", fault, f"EFA installer {version} was run")


def check_libfabric(image: Image) -> Finding:
    """The libfabric that answers is EFA's: Amazon's builds have it in their version."""
    answer = image.run(("fi_info", "--version"))
    found = re.search(r"libfabric: (\S+)", answer.text)
    version = found[1] if found else answer.last
    well = answer.code == 0 and "amzn" in version
    fault = "" if well else f"fi_info is not EFA's: {version}"
    return _plain("libfabric", fault, f"libfabric is EFA's, {version}")


def check_ucx(image: Image) -> Finding:
    """UCX is of the version that was asked for, and was configured with what EFA needs."""
    asked = image.expected["ucx"]
    text = image.run(("ucx_info", "-v")).text
    found = re.search(r"(?:Library version: |version=)(\S+)", text)
    version = found[1] if found else "absent"
    lacking = [option for option in UCX_OPTIONS if option not in text]
    if version != asked:
        return _plain("ucx", f"UCX is {version}, and {asked} was asked for", "")
    fault = f"UCX {version} was configured without {', '.join(lacking)}" if lacking else ""
    return _plain("ucx", fault, f"UCX {version} is configured with verbs, rdmacm and EFA")


def unresolved(listing: str) -> list[str]:
    """Libraries that ``ldd`` does not find; the driver's are not the image's to bring."""
    missing = re.findall(r"^\s*(\S+) => not found", listing, re.MULTILINE)
    return [name for name in missing if name not in DRIVER]


def check_linked(image: Image, path: Path) -> Finding:
    """A library or program finds all its libraries."""
    answer = image.run(("ldd", str(path)))
    missing = unresolved(answer.text)
    fault = f"{path} does not find {', '.join(missing)}" if missing else ""
    if answer.code:
        fault = f"{path} cannot be read by ldd: {answer.last}"
    return _plain(f"ldd-{path.name}", fault, f"{path} finds its libraries")


def check_ucx_module(image: Image, name: str) -> Finding:
    """A transport of UCX is there, and can be loaded."""
    path = image.root / "opt/ucx/lib/ucx" / name
    if not path.is_file():
        return _plain(f"ldd-{name}", f"{path} is absent: UCX was built without it", "")
    return check_linked(image, path)


def check_plugin(image: Image, name: str) -> Finding:
    """A plugin of NIXL is there for Python and for nixlbench, and is linked to ours."""
    library, home = PLUGINS[name]
    title = f"nixl-{name}"
    for folder in PLUGIN_FOLDERS:
        path = next(image.root.glob(f"{folder}/libplugin_{name}.so"), None)
        if path is None:
            return _plain(title, f"NIXL has no plugin {name} in /{folder}", "")
        linked = check_linked(image, path)
        if linked.verdict == "FAILED":
            return _plain(title, linked.message, "")
        if f"{library} => {home}" not in image.run(("ldd", str(path))).text:
            return _plain(title, f"{path} does not take {library} from {home}", "")
    return _plain(title, "", f"plugin {name} finds its libraries, {library} in {home}")


def check_gdrcopy(image: Image) -> Finding:
    """GDRCopy's library is there, of the release that was asked for (it counts two places)."""
    release = ".".join(image.expected["gdrcopy"].split(".")[:2])
    path = image.root / "opt/gdrcopy/lib" / f"libgdrapi.so.{release}"
    fault = "" if path.is_file() else f"{path} is absent"
    return _plain("gdrcopy", fault, f"{path} is there; gdrdrv is the node's")


def check_nixlbench(image: Image) -> Finding:
    """The benchmark of NIXL finds its libraries, and was built with its etcd client."""
    path = image.root / "opt/nixlbench/bin/nixlbench"
    linked = check_linked(image, path)
    listing = image.run(("ldd", str(path))).text
    fault = linked.message if linked.verdict == "FAILED" else ""
    if not fault and "libetcd-cpp-api" not in listing:
        fault = f"{path} was built without etcd: its processes cannot find each other"
    return _plain("nixlbench", fault, "nixlbench finds its libraries, etcd's client too")


def check_command(image: Image, argv: tuple[str, ...]) -> Finding:
    """A command gives its help."""
    answer, word = image.run(argv), COMMANDS[argv]
    told = word.lower() in answer.text.lower()
    well = told and (answer.code == 0 or argv[0] == "nixlbench")
    line = " ".join(argv)
    message = f"'{line}' runs" if well else f"'{line}' does not give its help"
    return image.judged(f"run-{argv[0]}", answer, well=well, message=message)


def check_environment(image: Image) -> Finding:
    """The environment is the one that the image sets."""
    wrong = [
        f"{name}={image.environ.get(name, '')}, not {value}"
        for name, value in ENVIRONMENT.items()
        if image.environ.get(name) != value
    ]
    return _plain("environment", "; ".join(wrong), "the image's variables are set")


def check_on_node(image: Image, name: str) -> Finding:
    """What only a node with GPU and EFA can show."""
    argv, pattern = ON_A_NODE[name]
    if not image.gpu:
        message = "needs a GPU and EFA: run this with --gpu on a node"
        return Finding(name=name, verdict="left", message=message)
    answer = image.run(argv)
    well = answer.code == 0 and re.search(pattern, answer.text) is not None
    message = answer.last if well else f"{' '.join(argv[:2])} shows no {name}"
    return image.judged(name, answer, well=well, message=message)


CHECKS: tuple[Check, ...] = (
    *(partial(check_version, name=name) for name in PACKAGES),
    *(partial(check_import, name=name) for name in PACKAGES),
    check_cuda,
    *(partial(check_source, name=name) for name in SOURCES),
    check_efa,
    check_libfabric,
    check_ucx,
    *(partial(check_ucx_module, name=name) for name in UCX_MODULES),
    *(partial(check_plugin, name=name) for name in PLUGINS),
    check_gdrcopy,
    check_nixlbench,
    *(partial(check_command, argv=argv) for argv in COMMANDS),
    check_environment,
    *(partial(check_on_node, name=name) for name in ON_A_NODE),
)


def parse_versions(text: str) -> dict[str, str]:
    """Read lines ``name=version``.

    :raises ValueError: if a line is of another form, or a version that is checked is not given.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    pairs = {}
    for line in lines:
        name, separator, version = line.partition("=")
        if not (name and separator and version):
            raise ValueError(f"{line!r} is not of the form 'vllm=0.15.1'")
        pairs[name] = version
    needed = {"cuda", "efa", "ucx", "gdrcopy", *PACKAGES, *SOURCES}
    lacking = ", ".join(sorted(needed - set(pairs)))
    if lacking:
        raise ValueError(f"no version is given of {lacking}")
    return pairs


def main(argv: Sequence[str] | None = None, *, runner: Runner = run, root: Path = Path("/")) -> int:
    """Check everything and print it.

    :returns: exit status: 0, or 1 if a check failed, or 2 if the versions cannot be read.
    """
    parser = argparse.ArgumentParser(description="Check an image of pytest-pdserve.")
    parser.add_argument(
        "--expect",
        metavar="FILE",
        default=VERSIONS,
        help=f"Versions asked for, a line 'vllm=0.15.1' each (default {VERSIONS})",
    )
    parser.add_argument(
        "--gpu", action="store_true", help="Also what needs a GPU, its driver and EFA"
    )
    options = parser.parse_args(argv)
    try:
        expected = parse_versions(Path(options.expect).read_text())
    except (OSError, ValueError) as error:
        print(f"versions {options.expect} cannot be read: {error}", file=sys.stderr)
        return 2
    image = Image(expected=expected, run=runner, root=root, gpu=options.gpu)
    findings = [check(image) for check in CHECKS]
    for finding in findings:
        print(f"{finding.verdict:6}  {finding.name}: {finding.message}")
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in ("ok", "FAILED")}
    left = len(findings) - sum(counts.values())
    print(f"{counts['ok']} ok, {counts['FAILED']} failed, {left} left for --gpu")
    return 1 if counts["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
