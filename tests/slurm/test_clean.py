"""``pdserve clean`` ends the job of a session that was killed together with its guard."""

from __future__ import annotations

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.values.exit_codes import ExitCode
from tests.support.house import House
from tests.support.house import wait_text
from tests.support.killed import inventories
from tests.support.killed import live_session
from tests.support.onehost import OneHost
from tests.support.onehost import hold
from tests.support.onehost import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm-c")]


def test_a_job_that_waits_in_the_queue(
    slurm_house: House, slurm: OneHost, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else ends it: no node has a holder that misses the heartbeat."""
    slurm_house.may_be_interrupted()
    hold(slurm_house)
    with slurm.held(8) as other:
        process = slurm_house.start()
        wait_text(process, slurm_house.path / "pytest.log", " waits")
        session = live_session(process)
        (job,) = (each for each in slurm.jobs() if each != other)
        session.kill()
        (command,) = session.inventory.read().commands
        assert (command.kind, command.id) == ("job", job)
        assert main(["clean"]) == ExitCode.OK
        assert f"job    {command.name}   {job}" in capsys.readouterr().out
        wait_until(lambda: slurm.jobs() == [other], 20)
        assert (slurm_house.survivors(10.0), inventories()) == ([], [])
