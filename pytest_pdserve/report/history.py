"""The output of ``pdserve history list`` and ``show``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from pytest_pdserve.judge.wording import number
from pytest_pdserve.report.table import text_table
from pytest_pdserve.values.metrics import METRICS
from pytest_pdserve.values.trend import COUNTED_STATUSES

if TYPE_CHECKING:
    import pandas as pd

MIB = 2**20


def size_text(size: int) -> str:
    """Return a size in KiB or MiB."""
    return f"{size / MIB:.1f} MiB" if size >= MIB else f"{size / 1024:.1f} KiB"


def folder_size(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def night_text(night: Any) -> str:
    """Return a night's date; a dash where unknown."""
    import pandas as pd

    return "-" if pd.isna(night) else night.date().isoformat()


def session_lines(sessions: pd.DataFrame, folder: Path, last: int) -> list[str]:
    """Return a table of the newest sessions, and a line on the whole store.

    :param sessions: as of :meth:`.history.store.Store.sessions`.
    :param last: how many sessions are shown.
    """
    count, excluded = len(sessions), int(sessions["excluded"].sum())
    whole = f"history {folder}: {count} sessions, {size_text(folder_size(folder))}"
    if not count:
        return [whole]
    rows = [_session_row(row) for row in sessions.tail(last).itertuples()]
    columns = ("night", "session", "system", "vLLM", "valid", "unproven", "invalid", "excluded")
    return [*text_table(columns, rows, "llllrrrl"), f"{whole}, {excluded} excluded"]


def _session_row(row: Any) -> tuple[str, ...]:
    return (
        night_text(row.night),
        row.session,
        row.system,
        json.loads(row.versions).get("vllm", "-"),
        *(str(row.valid), str(row.unproven), str(row.invalid)),
        row.reason if row.excluded else "",
    )


def one_session_lines(session: Any, values: pd.DataFrame) -> Iterator[str]:
    """Return what the store holds of one session: its facts, and a table of its cells.

    :param session: its row of :meth:`.history.store.Store.sessions`.
    :param values: its rows of :meth:`.history.store.Store.values`.
    """
    versions = json.loads(session.versions)
    yield f"{session.session}, night {night_text(session.night)}, system {session.system}"
    yield f"  versions     {', '.join(f'{k} {v}' for k, v in versions.items()) or 'unknown'}"
    yield f"  nodes        {session.nodes or 'unknown'}"
    yield f"  client       {session.client_kind}, fingerprint {session.fingerprint}"
    counts = (f"{getattr(session, status)} {status}" for status in (*COUNTED_STATUSES, "invalid"))
    yield f"  runs         {', '.join(counts)}"
    yield f"  source       {session.source}"
    if session.excluded:
        yield f"  EXCLUDED     {session.reason}"
    table = _wide(values, ["topology", "workload"])
    yield from _value_table(["topology", "workload"], table)
    rejected = values[~values["status"].isin(COUNTED_STATUSES)]
    for (topology, workload, why), rows in rejected.groupby(["topology", "workload", "reason"]):
        names = ", ".join(sorted(set(rows["metric"])))
        yield f"  {rows['status'].iloc[0]}: {topology} {workload} {names}: {why}"


def cell_lines(values: pd.DataFrame, last: int) -> Iterator[str]:
    """Return a table of one cell's newest nights: the median of each metric's runs.

    :param values: the cell's rows of :meth:`.history.store.Store.values`.
    """
    marked = values.assign(
        night=values["night"].map(night_text),
        excluded=values["excluded"].map({True: "excluded", False: ""}),
    )
    keys = ["night", "session", "client_kind", "excluded"]
    yield from _value_table(keys, _wide(marked, keys).tail(last))
    out = values.loc[values["excluded"], ["night", "session", "reason"]].drop_duplicates("session")
    for row in out.itertuples():
        yield f"excluded: {night_text(row.night)} {row.session}: {row.reason}"


def _wide(values: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return the median of the values that count, with a column for each metric that is shown."""
    counted = values[values["status"].isin(COUNTED_STATUSES)]
    wide = counted.pivot_table(
        index=list(keys), columns="metric", values="value", aggfunc="median", sort=True
    )
    names = [metric.name for metric in METRICS.shown if metric.name in wide.columns]
    return wide[names or list(wide.columns)]


def _value_table(keys: Sequence[str], wide: pd.DataFrame) -> list[str]:
    if wide.empty:
        return ["no value that counts"]
    heads = [_heading(str(name)) for name in wide.columns]
    rows = [
        (*(str(part) for part in index), *("-" if v != v else number(v) for v in row))
        for index, *row in wide.itertuples(name=None)
    ]
    return text_table([*keys, *heads], rows, "l" * len(keys) + "r" * len(heads))


def _heading(name: str) -> str:
    metric = METRICS.get(name)
    return name if metric is None else f"{metric.heading or name}\n{metric.unit}"
