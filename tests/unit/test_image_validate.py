"""What the image's own check says of a sound image, and of each thing that can be wrong."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "docker" / "validate.py"
SPEC = importlib.util.spec_from_file_location("image_validate", SCRIPT)
assert SPEC is not None
assert SPEC.loader is not None
validate: Any = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = validate
SPEC.loader.exec_module(validate)

VERSIONS = """
cuda=12.8.1
gdrcopy=2.5.1
efa=1.47.0
ucx=1.20.0
nixl=0.10.1
etcd=0.15.4
torch=2.9.1
flash-attn=2.8.1
deepgemm=2.1.1.post3
vllm=0.15.1
vllm-router=0.1.17
"""
INSTALLED = {
    "torch": "2.9.1+cu128",
    "flash-attn": "2.8.1",
    "deep_gemm": "2.1.1+c0ffee0",
    "nixl-cu12": "0.10.1",
    "vllm": "0.15.1",
    "vllm-router": "0.1.17",
}
UCX = (
    "# Library version: 1.20.0\n# Configured with: --prefix=/opt/ucx --with-cuda=/usr/local/cuda"
    " --with-efa --with-gdrcopy=/opt/gdrcopy --with-rdmacm --with-verbs\n"
)
LIBRARIES = """
\tlibfabric.so.1 => /opt/amazon/efa/lib/libfabric.so.1 (0x00007f)
\tlibucp.so.0 => /opt/ucx/lib/libucp.so.0 (0x00007f)
\tlibetcd-cpp-api-core.so => /opt/nixlbench/lib/libetcd-cpp-api-core.so (0x00007f)
\tlibcuda.so.1 => not found
"""
NO_DRIVER = "Traceback …\nImportError: libcuda.so.1: cannot open shared object file: No such file"
PLUGINS = (
    "opt/nixl/lib/plugins",
    "opt/venv/lib/python3.12/site-packages/.nixl_cu12.mesonpy.libs/plugins",
)


class Machine:
    """Answers as a sound image does, but for what it is told; refuses commands it does not know."""

    def __init__(self, told: Mapping[str, tuple[int, str]]) -> None:
        self._told = told

    def __call__(self, argv: Sequence[str]) -> Any:
        line = " ".join(argv)
        for part, (code, text) in self._told.items():
            if part in line:
                return validate.Answer(code=code, text=text)
        return validate.Answer(code=0, text=self._usual(line))

    def _usual(self, line: str) -> str:
        for name, version in INSTALLED.items():
            if f"m.version({name!r})" in line:
                return version
        usual = {
            "torch.version.cuda": "12.8",
            "torch.cuda.get_device_name": "NVIDIA H100",
            "python3 -c import ": "",
            "python3 -c from nixl": "",
            "nvcc --version": "Cuda compilation tools, release 12.8, V12.8.93",
            "fi_info --version": "fi_info: 2.4.0amzn1.0\nlibfabric: 2.4.0amzn1.0",
            "fi_info -p efa": "provider: efa\n    fabric: efa-direct",
            "ucx_info -v": UCX,
            "ucx_info -d": "#      Transport: srd",
            "ldd ": LIBRARIES,
            "vllm-router --help": "  --vllm-pd-disaggregation",
            "vllm bench serve --help": "usage: vllm bench serve",
            "nixlbench --help": "--etcd_endpoints",
        }
        for part, text in usual.items():
            if part in line:
                return text
        raise AssertionError(f"unknown command: {line}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the files of a sound image."""
    files = {
        "opt/pdserve/versions": VERSIONS,
        "opt/pdserve/sources/gdrcopy": "v2.5.1 " + "a" * 40,
        "opt/pdserve/sources/ucx": "v1.20.0 " + "b" * 40,
        "opt/pdserve/sources/nixl": "v0.10.1 " + "c" * 40,
        "opt/pdserve/sources/etcd": "v0.15.4 " + "d" * 40,
        "opt/pdserve/sources/deepgemm": "v2.1.1.post3 " + "e" * 40,
        "opt/amazon/efa_installed_packages": "# EFA installer version: 1.47.0\n",
        "opt/gdrcopy/lib/libgdrapi.so.2.5": "",
        "opt/nixlbench/bin/nixlbench": "",
    }
    files |= {f"opt/ucx/lib/ucx/{name}": "" for name in validate.UCX_MODULES}
    files |= {
        f"{folder}/libplugin_{name}.so": "" for folder in PLUGINS for name in ("LIBFABRIC", "UCX")
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def check(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Check the image; keywords of the command line and what its commands answer."""
    for name, value in validate.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    def run(*options: str, told: Mapping[str, tuple[int, str]] | None = None) -> tuple[int, str]:
        argv = ["--expect", str(root / "opt/pdserve/versions"), *options]
        code = validate.main(argv, runner=Machine(told or {}), root=root)
        return code, capsys.readouterr().out

    return run


def failures(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("FAILED")]


def test_a_sound_image_leaves_what_needs_a_node(check: Callable[..., tuple[int, str]]) -> None:
    code, text = check()
    assert (code, failures(text)) == (0, [])
    assert text.splitlines()[-1] == "33 ok, 0 failed, 4 left for --gpu"
    assert "left    efa: needs a GPU and EFA: run this with --gpu on a node\n" in text


def test_on_a_node_nothing_is_left(check: Callable[..., tuple[int, str]]) -> None:
    code, text = check("--gpu")
    assert code == 0
    assert text.splitlines()[-1] == "37 ok, 0 failed, 0 left for --gpu"


def test_a_build_has_no_driver(check: Callable[..., tuple[int, str]]) -> None:
    code, text = check(
        told={"-c import deep_gemm": (1, NO_DRIVER), "nixlbench --help": (127, NO_DRIVER)}
    )
    assert code == 0
    assert "left    import-deepgemm: needs a GPU: ImportError: libcuda.so.1" in text
    assert text.splitlines()[-1] == "31 ok, 0 failed, 6 left for --gpu"


def test_a_node_without_driver_fails(check: Callable[..., tuple[int, str]]) -> None:
    code, text = check("--gpu", told={"-c import deep_gemm": (1, NO_DRIVER)})
    assert code == 1
    assert len(failures(text)) == 1
    assert "deep_gemm cannot be imported; exit status 1: ImportError: libcuda" in text


@pytest.mark.parametrize(
    ("command", "answer", "message"),
    [
        (
            "m.version('vllm')",
            (0, "0.16.0\n"),
            "vllm: vllm is 0.16.0, expected 0.15.1",
        ),
        (
            "m.version('nixl-cu12')",
            (0, "1.5.1\n"),
            "nixl: nixl-cu12 is 1.5.1, expected 0.10.1",
        ),
        (
            "m.version('deep_gemm')",
            (0, "2.2.0\n"),
            "deepgemm: deep_gemm is 2.2.0, expected 2.1.1.post3",
        ),
        (
            "m.version('flash-attn')",
            (1, "PackageNotFoundError: flash-attn"),
            "flash-attn: flash-attn is not installed: PackageNotFoundError: flash-attn",
        ),
        (
            "-c import flash_attn",
            (1, "ImportError: undefined symbol: _ZN3c10"),
            "import-flash-attn: flash_attn cannot be imported; exit status 1:"
            " ImportError: undefined symbol: _ZN3c10",
        ),
        (
            "torch.version.cuda",
            (0, "13.0\n"),
            "cuda: CUDA is 12.8, PyTorch is for 13.0 and nvcc is 12.8",
        ),
        ("fi_info --version", (0, "libfabric: 2.1.0"), "libfabric: fi_info is not EFA's: 2.1.0"),
        (
            "ucx_info -v",
            (0, "# Library version: 1.16.0"),
            "ucx: UCX is 1.16.0, expected 1.20.0",
        ),
        (
            "ucx_info -v",
            (0, UCX.replace("--with-efa", "")),
            "ucx: UCX 1.20.0 was configured without --with-efa",
        ),
        (
            "vllm-router --help",
            (0, "usage: another router"),
            "run-vllm-router: 'vllm-router --help' does not print its help; exit status 0:"
            " usage: another router",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_commands_show(
    check: Callable[..., tuple[int, str]], command: str, answer: tuple[int, str], message: str
) -> None:
    code, text = check(told={command: answer})
    assert code == 1
    assert failures(text) == [f"FAILED  {message}"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "opt/amazon/efa_installed_packages",
            "# EFA installer version: 1.46.0\n",
            "efa-installer: EFA installer is 1.46.0, expected 1.47.0",
        ),
        (
            "opt/pdserve/sources/ucx",
            "v1.19.0 abc",
            "source-ucx: ucx is from v1.19.0, expected v1.20.0",
        ),
        ("opt/gdrcopy/lib/libgdrapi.so.2.5", None, "gdrcopy: {root}/{name} is missing"),
        (
            "opt/ucx/lib/ucx/libuct_ib_efa.so",
            None,
            "ldd-libuct_ib_efa.so: {root}/{name} is missing: UCX was built without it",
        ),
        (
            f"{PLUGINS[0]}/libplugin_LIBFABRIC.so",
            None,
            "nixl-LIBFABRIC: NIXL has no plugin LIBFABRIC in /opt/nixl/lib/plugins",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_files_show(
    check: Callable[..., tuple[int, str]], root: Path, name: str, text: str | None, message: str
) -> None:
    if text is None:
        (root / name).unlink()
    else:
        (root / name).write_text(text)
    code, said = check()
    assert code == 1
    assert failures(said) == [f"FAILED  {message.format(root=root, name=name)}"]


def test_a_plugin_of_another_libfabric_fails(check: Callable[..., tuple[int, str]]) -> None:
    other = LIBRARIES.replace("/opt/amazon/efa/lib", "/usr/local/lib")
    _, text = check(told={"libplugin_LIBFABRIC.so": (0, other)})
    assert len(failures(text)) == 1
    assert "does not take libfabric.so.1 from /opt/amazon/efa/" in failures(text)[0]


def test_a_lacking_library_is_named(check: Callable[..., tuple[int, str]]) -> None:
    _, text = check(told={"ldd": (0, LIBRARIES + "\tlibgrpc++.so.1.51 => not found\n")})
    assert len(failures(text)) == len(validate.UCX_MODULES) + 3
    assert all("does not find libgrpc++.so.1.51" in line for line in failures(text))


def test_nixlbench_without_etcd_fails(check: Callable[..., tuple[int, str]]) -> None:
    without = LIBRARIES.replace("libetcd-cpp-api-core", "libother")
    _, text = check(told={"bin/nixlbench": (0, without)})
    assert len(failures(text)) == 1
    assert "was built without etcd" in failures(text)[0]


def test_a_variable_that_is_not_set_fails(
    check: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UCX_TLS", "all")
    code, text = check()
    assert code == 1
    assert failures(text) == ["FAILED  environment: UCX_TLS=all, not ^cuda_ipc"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vllm", "'vllm' is invalid, expected a line like 'vllm=0.15.1'"),
        (VERSIONS.replace("etcd=0.15.4", ""), "versions are missing: etcd"),
    ],
)
def test_versions_are_needed(
    root: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = root / "opt/pdserve/versions"
    path.write_text(text)
    assert validate.main(["--expect", str(path)], runner=Machine({}), root=root) == 2
    assert capsys.readouterr().err == f"versions {path} cannot be read: {message}\n"
