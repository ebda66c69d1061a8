"""Commands of the documentation that need Slurm, with stub engines on a Slurm of one host."""

from __future__ import annotations

import shutil

import pytest

from tests.support.doc_lines import SLURM
from tests.support.doc_lines import PageLines
from tests.support.house import House
from tests.support.onehost import OneHost
from tests.support.typist import Typist
from tests.support.typist import params
from tests.support.wheel import ROOT

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm-b")]


@pytest.mark.parametrize("part", params(SLURM))
def test_commands_on_a_cluster_run(
    part: PageLines, slurm_house: House, slurm: OneHost, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "suites", slurm_house.path / "suites", dirs_exist_ok=True)
    slurm_house.system("p5-efa")
    typist = Typist(pytester=slurm_house.pytester, capsys=capsys)
    with slurm.held(4) as job:
        assert "\n\n".join(typist.wrong(part, {"4711": job})) == ""
