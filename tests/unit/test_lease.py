"""The heartbeat, as the session writes it and as nodes read it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pytest_pdserve.backends.hosts.runner import Lease
from pytest_pdserve.backends.slurm.lease import Heartbeat


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


def test_a_lease_holds_while_beats_change(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "lease"
    lease = Lease(path, 30.0)
    for beat in range(5):
        path.write_text(f"beat {beat}")
        clock.now += 25.0
        lease.update()
        assert lease.holds()


def test_a_lease_ends_without_a_new_beat(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "lease"
    path.write_text("beat 1")
    lease = Lease(path, 30.0)
    lease.update()
    clock.now = 30.0
    lease.update()
    assert lease.holds()
    clock.now = 30.1
    lease.update()
    assert not lease.holds()


def test_a_lease_ends_also_if_nobody_can_look(tmp_path: Path, clock: Clock) -> None:
    lease = Lease(tmp_path / "no such folder" / "lease", 30.0)
    lease.update()
    assert lease.holds()
    clock.now = 31.0
    assert not lease.holds()


def test_a_session_that_is_over_ends_its_lease_at_once(tmp_path: Path, clock: Clock) -> None:
    beat = Heartbeat(tmp_path / "lease", 3600.0)
    lease = Lease(tmp_path / "lease", 30.0)
    lease.update()
    assert lease.holds()
    beat.end()
    lease.update()
    assert not lease.holds()


def test_beats_have_one_length_so_that_a_full_disk_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    beat = Heartbeat(path, 3600.0)
    size = path.stat().st_size
    beat.end()
    assert path.stat().st_size == size
    assert path.read_text().startswith("over")
