"""What lies where a file is expected: it is read, or refused in one sentence; nothing waits."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.results.baselines import present_path
from pytest_pdserve.results.calibration import load_series
from pytest_pdserve.results.expected import expected_path
from pytest_pdserve.results.files import load_json
from pytest_pdserve.results.files import load_toml
from pytest_pdserve.results.reading import is_there
from pytest_pdserve.results.reading import read_bytes
from pytest_pdserve.study import series_file
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.system import System

MARK = b"\xef\xbb\xbf"


def ring(path: Path) -> None:
    other = path.with_name("other")
    path.symlink_to(other)
    other.symlink_to(path)


def folder_in_itself(path: Path) -> None:
    """*path* is a link to a file in a folder that is a link to itself."""
    loop = path.with_name("loop")
    loop.symlink_to("loop")
    path.symlink_to(loop / "file")


def link_to_a_pipe(path: Path) -> None:
    os.mkfifo(f"{path}.pipe")
    path.symlink_to(f"{path}.pipe")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(200 * 2**30)


PLACED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pipe": (os.mkfifo, "FILE is a pipe: expected a file"),
    "socket": (
        lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
        "FILE is a socket: expected a file",
    ),
    "device": (lambda path: path.symlink_to("/dev/zero"), "FILE is a device: expected a file"),
    "folder": (Path.mkdir, "FILE cannot be read: Is a directory"),
    "nothing": (lambda path: None, "FILE cannot be read: No such file or directory"),
    "link to nothing": (
        lambda path: path.symlink_to("nowhere"),
        "FILE cannot be read: No such file or directory",
    ),
    "link to itself": (
        lambda path: path.symlink_to(path.name),
        "FILE cannot be read: Too many levels of symbolic links",
    ),
    "ring of links": (ring, "FILE cannot be read: Too many levels of symbolic links"),
    "folder in itself": (
        folder_in_itself,
        "FILE cannot be read: Too many levels of symbolic links",
    ),
    "link to a pipe": (
        link_to_a_pipe,
        "FILE is a pipe: expected a file",
    ),
    "200 GiB of nothing": (sparse, "FILE has 204800.0 MiB: expected at most {most} MiB"),
}
LOADERS: dict[str, tuple[Callable[[Path], Any], str, int]] = {
    "TOML": (load_toml, "", 1),
    "JSON": (load_json, "", 64),
    "runs": (load_series, "", 64),
    "nights": (series_file.load_series, "--series ", 64),
}


def refusal(loader: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        loader(path)
    return str(refused.value).replace(str(path), "FILE")


@pytest.mark.parametrize(("loader", "before", "most"), LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize(("place", "said"), PLACED.values(), ids=PLACED)
def test_what_is_no_file_is_refused_and_not_waited_for(
    place: Callable[[Path], Any],
    said: str,
    loader: Callable[[Path], Any],
    before: str,
    most: int,
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    place(path)
    assert refusal(loader, path) == before + said.format(most=most)


@pytest.mark.parametrize("loader", [load_toml, load_json])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (MARK, "begins with a byte order mark: save it as UTF-8 without one"),
        (MARK + b"a = 1\n", "begins with a byte order mark: save it as UTF-8 without one"),
        (MARK * 2 + b"{}", "begins with a byte order mark: save it as UTF-8 without one"),
        ("a = 1\n".encode("utf-16"), "is not UTF-8 text: byte 0"),
        ("a = 1\n".encode("utf-32"), "is not UTF-8 text: byte 0"),
        ('a = "é"\n'.encode("latin-1"), "is not UTF-8 text: byte 5"),
        (b'{"a": "\xed\xa0\x80"}', "is not UTF-8 text: byte 7"),
    ],
    ids=[
        *("a mark alone", "a mark", "two marks", "UTF-16", "UTF-32", "Latin-1"),
        "an encoded surrogate",
    ],
)
def test_text_that_is_not_plain_utf_8_is_refused(
    loader: Callable[[Path], Any], content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert refusal(loader, path) == f"FILE {said}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a\0b", "Invalid argument"),
        ("x" * 300, "File name too long"),
        ("x/" * 3000, "File name too long"),
    ],
    ids=["a null character", "a long name", "a long path"],
)
def test_a_name_that_no_file_can_have_is_refused(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"cannot be read: {said}$"):
        read_bytes(tmp_path / name, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (".".join("a" * 1002) + " = 1", "FILE is not valid TOML: line 1 has over 1000 dots"),
        (f"[{'.'.join('a' * 9000)}]", "FILE is not valid TOML: line 1 has over 1000 dots"),
        ('a = 1\nb = "x\\u0000y"', "FILE: /b: text with a null character"),
        ('a = [{ b = ["\\u0000"] }]', "FILE: /a/0/b/0: text with a null character"),
    ],
    ids=["a key of many parts", "a table of many parts", "null", "null in a list"],
)
def test_toml_that_takes_long_or_no_program_is_given_is_refused(
    text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    assert refusal(load_toml, path) == said


def test_a_file_of_just_the_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"#" * 2**20)
    assert load_toml(path) == {}
    path.write_bytes(b"#" * (2**20 + 1))
    assert refusal(load_toml, path) == "FILE has 1.0 MiB: expected at most 1 MiB"


def test_a_file_that_does_not_say_its_size_is_read_up_to_the_limit() -> None:
    assert read_bytes(Path("/proc/self/status"), 1).startswith(b"Name:")


@pytest.mark.parametrize(
    ("place", "there"),
    [
        (lambda path: None, False),
        (lambda path: path.write_text(""), True),
        (lambda path: path.symlink_to("nowhere"), True),
        (lambda path: path.symlink_to(path.name), True),
        (ring, True),
        (os.mkfifo, True),
    ],
    ids=["nothing", "file", "link to nothing", "link to itself", "ring", "pipe"],
)
def test_what_cannot_be_read_is_there(
    place: Callable[[Path], Any], there: bool, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    place(path)
    assert is_there(path) is there


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "file/below"])
def test_what_no_file_can_be_called_is_not_there(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not is_there(tmp_path / name)


def test_a_file_in_a_folder_that_is_a_link_to_itself_is_there(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert is_there(tmp_path / "loop" / "file")


@pytest.mark.parametrize("find", [present_path, expected_path])
@pytest.mark.parametrize("target", ["nowhere", "{name}"], ids=["nothing", "itself"])
def test_a_link_in_the_project_is_not_passed_over_for_the_shipped_file(
    target: str, find: Callable[[System, Path], Path], tmp_path: Path, p5_efa: System
) -> None:
    shipped = find(p5_efa, tmp_path)
    own = tmp_path / "baselines" / "p5-efa" / shipped.name
    own.parent.mkdir(parents=True)
    own.symlink_to(target.format(name=own.name))
    assert (shipped.parent, find(p5_efa, tmp_path)) == (Path(p5_efa.source).parent, own)
