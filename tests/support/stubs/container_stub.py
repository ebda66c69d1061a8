#!/usr/bin/env python3
"""A stand-in for ``docker``, ``podman`` and ``enroot``: no container, but a process of its own.

Each node has its own images and containers in the folder ``PDSTUB_ENGINE``; every call is a line of
``calls.jsonl`` there. As with the real ones, a container outlives a client that is killed. On node
``PDSTUB_ENGINE_BROKEN`` no image can be pulled, and on the others it then takes long.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ALONE = {"--rm", "--init", "--privileged", "--rw"}
STATE = Path(os.environ["PDSTUB_ENGINE"])
NODE = os.environ.get("SLURMD_NODENAME", "login")


def say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def complain(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def record(engine: str, argv: list[str]) -> None:
    line = json.dumps({"engine": engine, "node": NODE, "argv": argv}) + "\n"
    with (STATE / "calls.jsonl").open("a") as file:
        file.write(line)


def images() -> dict[str, str]:
    path = STATE / f"images-{NODE}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def add_image(name: str, number: str) -> None:
    (STATE / f"images-{NODE}.json").write_text(json.dumps({**images(), name: number}))


def load() -> None:
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if member.name == "manifest.json" and file is not None:
                for entry in json.load(file):
                    add_image(entry["RepoTags"][0], f"sha256:{Path(entry['Config']).name}")
                    say(f"Loaded image: {entry['RepoTags'][0]}")


def parse(argv: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Options in order, and what follows them."""
    options = []
    rest = list(argv)
    while rest and rest[0].startswith("--"):
        option = rest.pop(0)
        options.append((option, "" if option in ALONE else rest.pop(0)))
    return options, rest


def environment(options: list[tuple[str, str]]) -> dict[str, str]:
    given = [value.partition("=") for option, value in options if option == "--env"]
    return {**os.environ, **{k: v if equals else os.environ[k] for k, equals, v in given}}


def run(argv: list[str]) -> int:
    options, (image, *rest) = parse(argv)
    if image not in images():
        complain(f"Unable to find image '{image}' locally")
        return 125
    for source in (v.split("source=")[1].split(",")[0] for o, v in options if o == "--mount"):
        if not os.path.exists(source):
            complain(f"bind source path does not exist: {source}")
            return 125
    once = dict(options)
    path = STATE / f"container-{uuid.uuid4().hex}.json"
    children: list[subprocess.Popen[bytes]] = []

    def forward(number: int, _: object) -> None:
        for each in children:
            each.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    command = [once["--entrypoint"], *rest]
    child = subprocess.Popen(command, env=environment(options), start_new_session=True)
    children.append(child)
    labels = [value for option, value in options if option == "--label"]
    container = {"node": NODE, "name": once["--name"], "labels": labels, "pid": child.pid}
    path.write_text(json.dumps(container))
    code = child.wait()
    end(child.pid)
    path.unlink(missing_ok=True)
    return code if code >= 0 else 128 - code


def end(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Id and facts of each container of this node."""
    for path in sorted(STATE.glob("container-*.json")):
        facts = json.loads(path.read_text() or "{}")
        if facts.get("node") == NODE:
            yield path.stem.removeprefix("container-"), facts


def remove(names: list[str]) -> None:
    for number, facts in containers():
        if number in names or facts["name"] in names:
            end(facts["pid"])
            (STATE / f"container-{number}.json").unlink(missing_ok=True)


def main() -> int:
    engine, *argv = sys.argv[1:]
    record(engine, argv)
    match argv:
        case ["version"]:
            say("stub")
        case ["image", "inspect", name]:
            if name not in images():
                complain("No such image")
                return 1
            say(json.dumps([{"Id": images()[name], "RepoDigests": []}]))
        case ["load"]:
            load()
        case ["pull", name]:
            broken = os.environ.get("PDSTUB_ENGINE_BROKEN")
            if broken == NODE:
                complain("stub: no such image")
                return 1
            if broken:
                time.sleep(8)
            add_image(name, f"sha256:{'b' * 64}")
        case ["run", *rest]:
            return run(rest)
        case ["inspect", "--format", "{{.State.Pid}}", name]:
            say(*(str(facts["pid"]) for _, facts in containers() if facts["name"] == name))
        case ["ps", "--all", "--quiet", "--filter", label]:
            wanted = label.removeprefix("label=")
            say(*(n for n, facts in containers() if wanted in facts["labels"]))
        case ["rm", "--force", *names]:
            remove(names)
        case ["start", *rest]:
            options, (_, *command) = parse(rest)
            os.execvpe(command[0], command, environment(options))
        case _:
            complain(f"{engine}: {argv}?")
            return 64
    return 0


if __name__ == "__main__":
    sys.exit(main())
