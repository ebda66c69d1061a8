"""One session: its nodes, what it measured, and what that is held against."""

from pytest_pdserve.session.cell import Cell
from pytest_pdserve.session.nodes import acquire
from pytest_pdserve.session.nodes import check_acquirable
from pytest_pdserve.session.nodes import client_only
from pytest_pdserve.session.nodes import host_of
from pytest_pdserve.session.session import Session
from pytest_pdserve.session.yardstick import SUITE
from pytest_pdserve.session.yardstick import Yardstick

__all__ = [
    "SUITE",
    "Cell",
    "Session",
    "Yardstick",
    "acquire",
    "check_acquirable",
    "client_only",
    "host_of",
]
