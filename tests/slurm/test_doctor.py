"""``pdserve doctor`` and a real Slurm: what it answers, and that no job is left of the question."""

from __future__ import annotations

import json

import pytest

from pytest_pdserve.commands.main import main
from tests.support.house import House
from tests.support.onehost import OneHost

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm-a")]


def test_a_real_slurm_tells_version_and_partition(
    slurm: OneHost, slurm_house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["doctor", "--system", "stub", "--format", "json"])
    rows = {row["what"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["Slurm"]["found"] in slurm.ask("sinfo", "--version")[0]
    assert rows["Slurm partition"]["status"] == "ok"
    assert rows["Slurm partition"]["found"].startswith("pd is up, ")
    assert slurm.jobs() == []
