#!/usr/bin/env python3
"""Checks that an image has the expected versions, and that its libraries and programs load.

Runs at the end of a build, and by hand in a container: ``python3 /opt/pdserve/validate.py``.
A build has neither GPU nor EFA. Checks that need one are then `left`; ``--gpu`` runs them on a
node. All findings are printed, one sentence each. The exit status is 1 if any check failed.
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
"""Module of each Python package, by the name of its build argument."""
DISTRIBUTIONS = {"deepgemm": "deep_gemm", "nixl": "nixl-cu12"}
"""Distributions not named like their build argument; `nixl` only chooses `nixl-cu12` or `-cu13`."""
SOURCES = ("gdrcopy", "ucx", "nixl", "etcd", "deepgemm")
PLUGINS = {"LIBFABRIC": ("libfabric.so.1", "/opt/amazon/efa/"), "UCX": ("libucp.so.0", "/opt/ucx/")}
"""NIXL's plugins, each with a library that it must load, and that library's folder."""
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
"""Checks that need a GPU or an EFA device: a command, and a pattern that its output must have."""
_NO_DRIVER = re.compile(
    r"lib(cuda|nvidia-ml)\.so\.1: cannot open|Failed to infer device type|Found no NVIDIA driver"
    r"|no CUDA-capable device|CUDA driver (version is insufficient|initialization failed)"
)
_LIMIT_S = 300.0

Verdict = Literal["ok", "FAILED", "left"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Exit status and output of a command."""

    code: int
    """Exit status; 127 if it could not be started."""
    text: str
    """Standard output and standard error."""

    @property
    def last(self) -> str:
        """Last line of the output; in errors of Python and the loader, it has the reason."""
        lines = self.text.strip().splitlines()
        return lines[-1].strip() if lines else "no output"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check."""

    name: str
    verdict: Verdict
    message: str


Runner = Callable[[Sequence[str]], Answer]


def run(argv: Sequence[str]) -> Answer:
    """Run a command until it ends."""
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
    """The image to check, in which this script runs."""

    expected: Mapping[str, str]
    """Version by name of the build argument."""
    run: Runner = run
    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    gpu: bool = False
    """Whether a GPU, its driver and an EFA device are available."""

    def python(self, code: str) -> Answer:
        """Run a line with the image's Python."""
        return self.run(("python3", "-c", code))

    def finding_of(self, name: str, answer: Answer, *, ok: bool, message: str) -> Finding:
        """Return the finding of a command; in a build, a missing driver is no failure."""
        if ok:
            return Finding(name=name, verdict="ok", message=message)
        if not self.gpu and _NO_DRIVER.search(answer.text):
            return Finding(name=name, verdict="left", message=f"needs a GPU: {answer.last}")
        why = f"{message}; exit status {answer.code}: {answer.last}"
        return Finding(name=name, verdict="FAILED", message=why)


Check = Callable[[Image], Finding]


def _finding(name: str, fault: str, message: str) -> Finding:
    """Return the finding of a check that needs no driver; *fault* is empty if it passed."""
    return Finding(name=name, verdict="FAILED" if fault else "ok", message=fault or message)


def version_of_tag(tag: str) -> str:
    """Return the package version of a tag of DeepGEMM: that of v2.1.1.post3 is 2.1.1."""
    return re.sub(r"\.post\d+$", "", tag)


def check_version(image: Image, name: str) -> Finding:
    """Check the version of a Python package."""
    expected = image.expected[name]
    distribution = DISTRIBUTIONS.get(name, name)
    answer = image.python(f"import importlib.metadata as m; print(m.version({distribution!r}))")
    installed = answer.text.strip()
    if answer.code:
        return _finding(name, f"{distribution} is not installed: {answer.last}", "")
    wanted = version_of_tag(expected) if name == "deepgemm" else expected
    same = installed.partition("+")[0] == wanted
    fault = "" if same else f"{distribution} is {installed}, expected {expected}"
    return _finding(name, fault, f"{distribution} {installed} is installed")


def check_import(image: Image, name: str) -> Finding:
    """Check that a Python package can be imported."""
    module = PACKAGES[name]
    answer = image.python(f"import {module}")
    ok = answer.code == 0
    message = f"{module} is imported" if ok else f"{module} cannot be imported"
    return image.finding_of(f"import-{name}", answer, ok=ok, message=message)


def check_cuda(image: Image) -> Finding:
    """Check that PyTorch and nvcc have the CUDA version of the image."""
    wanted = ".".join(image.expected["cuda"].split(".")[:2])
    torch = image.python("import torch; print(torch.version.cuda)").text.strip()
    nvcc = image.run(("/usr/local/cuda/bin/nvcc", "--version")).text
    found = re.search(r"release ([\d.]+)", nvcc)
    release = found[1] if found else "missing"
    fault = f"CUDA is {wanted}, PyTorch is for {torch.splitlines()[-1] if torch else 'none'}"
    fault += f" and nvcc is {release}"
    ok = torch == release == wanted
    return _finding("cuda", "" if ok else fault, f"PyTorch and nvcc are for CUDA {wanted}")


def check_source(image: Image, name: str) -> Finding:
    """Check the tag from which a source was compiled."""
    path = image.root / "opt/pdserve/sources" / name
    expected = f"v{image.expected[name]}"
    if not path.is_file():
        return _finding(f"source-{name}", f"{path} is missing, so the compiled tag is unknown", "")
    tag, _, commit = path.read_text().strip().partition(" ")
    fault = "" if tag == expected else f"{name} is from {tag}, expected {expected}"
    return _finding(f"source-{name}", fault, f"{name} is {tag}, commit {commit}")


def check_efa(image: Image) -> Finding:
    """Check the version of EFA's installer."""
    path = image.root / "opt/amazon/efa_installed_packages"
    expected = image.expected["efa"]
    text = path.read_text() if path.is_file() else ""
    found = re.search(r"EFA installer version: (\S+)", text)
    version = found[1] if found else "missing"
    fault = "" if version == expected else f"EFA installer is {version}, expected {expected}"
    return _finding("efa-installer", fault, f"EFA installer {version} was run")


def check_libfabric(image: Image) -> Finding:
    """Check that libfabric is EFA's, which has ``amzn`` in its version."""
    answer = image.run(("fi_info", "--version"))
    found = re.search(r"libfabric: (\S+)", answer.text)
    version = found[1] if found else answer.last
    ok = answer.code == 0 and "amzn" in version
    fault = "" if ok else f"fi_info is not EFA's: {version}"
    return _finding("libfabric", fault, f"libfabric is EFA's, {version}")


def check_ucx(image: Image) -> Finding:
    """Check the version of UCX, and that it is configured with what EFA needs."""
    expected = image.expected["ucx"]
    text = image.run(("ucx_info", "-v")).text
    found = re.search(r"(?:Library version: |version=)(\S+)", text)
    version = found[1] if found else "missing"
    lacking = [option for option in UCX_OPTIONS if option not in text]
    if version != expected:
        return _finding("ucx", f"UCX is {version}, expected {expected}", "")
    fault = f"UCX {version} was configured without {', '.join(lacking)}" if lacking else ""
    return _finding("ucx", fault, f"UCX {version} is configured with verbs, rdmacm and EFA")


def unresolved(listing: str) -> list[str]:
    """Return the libraries that ``ldd`` does not find, without those of the driver."""
    missing = re.findall(r"^\s*(\S+) => not found", listing, re.MULTILINE)
    return [name for name in missing if name not in DRIVER]


def check_linked(image: Image, path: Path) -> Finding:
    """Check that a library or program finds all its libraries."""
    answer = image.run(("ldd", str(path)))
    missing = unresolved(answer.text)
    fault = f"{path} does not find {', '.join(missing)}" if missing else ""
    if answer.code:
        fault = f"{path} cannot be read by ldd: {answer.last}"
    return _finding(f"ldd-{path.name}", fault, f"{path} finds its libraries")


def check_ucx_module(image: Image, name: str) -> Finding:
    """Check that a transport of UCX is installed, and finds its libraries."""
    path = image.root / "opt/ucx/lib/ucx" / name
    if not path.is_file():
        return _finding(f"ldd-{name}", f"{path} is missing: UCX was built without it", "")
    return check_linked(image, path)


def check_plugin(image: Image, name: str) -> Finding:
    """Check that a NIXL plugin is installed for Python and nixlbench, and has our libraries."""
    library, home = PLUGINS[name]
    title = f"nixl-{name}"
    for folder in PLUGIN_FOLDERS:
        path = next(image.root.glob(f"{folder}/libplugin_{name}.so"), None)
        if path is None:
            return _finding(title, f"NIXL has no plugin {name} in /{folder}", "")
        linked = check_linked(image, path)
        if linked.verdict == "FAILED":
            return _finding(title, linked.message, "")
        if f"{library} => {home}" not in image.run(("ldd", str(path))).text:
            return _finding(title, f"{path} does not take {library} from {home}", "")
    return _finding(title, "", f"plugin {name} finds its libraries, {library} in {home}")


def check_gdrcopy(image: Image) -> Finding:
    """Check the version of GDRCopy's library, whose file name has its first two numbers."""
    release = ".".join(image.expected["gdrcopy"].split(".")[:2])
    path = image.root / "opt/gdrcopy/lib" / f"libgdrapi.so.{release}"
    fault = "" if path.is_file() else f"{path} is missing"
    return _finding("gdrcopy", fault, f"{path} is installed; gdrdrv is the node's")


def check_nixlbench(image: Image) -> Finding:
    """Check that nixlbench finds its libraries, and was built with its etcd client."""
    path = image.root / "opt/nixlbench/bin/nixlbench"
    linked = check_linked(image, path)
    listing = image.run(("ldd", str(path))).text
    fault = linked.message if linked.verdict == "FAILED" else ""
    if not fault and "libetcd-cpp-api" not in listing:
        fault = f"{path} was built without etcd: its processes cannot find each other"
    return _finding("nixlbench", fault, "nixlbench finds its libraries, etcd's client too")


def check_command(image: Image, argv: tuple[str, ...]) -> Finding:
    """Check that a command prints its help."""
    answer, word = image.run(argv), COMMANDS[argv]
    has_word = word.lower() in answer.text.lower()
    ok = has_word and (answer.code == 0 or argv[0] == "nixlbench")
    line = " ".join(argv)
    message = f"'{line}' runs" if ok else f"'{line}' does not print its help"
    return image.finding_of(f"run-{argv[0]}", answer, ok=ok, message=message)


def check_environment(image: Image) -> Finding:
    """Check the environment variables that the image sets."""
    wrong = [
        f"{name}={image.environ.get(name, '')}, not {value}"
        for name, value in ENVIRONMENT.items()
        if image.environ.get(name) != value
    ]
    return _finding("environment", "; ".join(wrong), "the image's variables are set")


def check_on_node(image: Image, name: str) -> Finding:
    """Run a check that needs a GPU or EFA; leave it in a build."""
    argv, pattern = ON_A_NODE[name]
    if not image.gpu:
        message = "needs a GPU and EFA: run this with --gpu on a node"
        return Finding(name=name, verdict="left", message=message)
    answer = image.run(argv)
    ok = answer.code == 0 and re.search(pattern, answer.text) is not None
    message = answer.last if ok else f"{' '.join(argv[:2])} shows no {name}"
    return image.finding_of(name, answer, ok=ok, message=message)


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
    """Parse lines ``name=version``.

    :raises ValueError: if a line has another form, or a version is missing.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    pairs = {}
    for line in lines:
        name, separator, version = line.partition("=")
        if not (name and separator and version):
            raise ValueError(f"{line!r} is invalid, expected a line like 'vllm=0.15.1'")
        pairs[name] = version
    needed = {"cuda", "efa", "ucx", "gdrcopy", *PACKAGES, *SOURCES}
    lacking = ", ".join(sorted(needed - set(pairs)))
    if lacking:
        raise ValueError(f"versions are missing: {lacking}")
    return pairs


def main(argv: Sequence[str] | None = None, *, runner: Runner = run, root: Path = Path("/")) -> int:
    """Run all checks and print the findings.

    :returns: exit status: 0, or 1 if a check failed, or 2 if the versions cannot be read.
    """
    parser = argparse.ArgumentParser(description="Check an image of pytest-pdserve.")
    parser.add_argument(
        "--expect",
        metavar="FILE",
        default=VERSIONS,
        help=f"Expected versions, lines like 'vllm=0.15.1' (default {VERSIONS})",
    )
    parser.add_argument(
        "--gpu", action="store_true", help="Also run checks that need a GPU, its driver and EFA"
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
