"""Compare three libraries on the same years of nights: import time, speed, size.

Simulated: 45 cells x 8 metrics, one file for each night, for 1 system x 365 nights and for
3 systems x 3 x 365. Each step runs in a process of its own, the median of five is printed:
``first use`` is importing the library and reading one metric of one cell; ``series`` is that read
again; ``all`` is the median of each metric, cell and night. ``disk`` is the installed library.
``python benchmarks/history/stores.py FOLDER`` in an environment that has pyarrow, pandas, duckdb
and polars; the project needs the first two only. docs/history.md has what was found.
"""

from __future__ import annotations

import importlib.util
import json
import random
import statistics
import subprocess
import sys
import time
from datetime import datetime
from datetime import timedelta
from pathlib import Path

CELLS, METRICS = 45, 8
REPEATS = 5
ONE = "topology = '1p3d' and workload = 'w7' and metric = 'm3'"
WAYS = ("pyarrow", "duckdb on parquet", "polars", "duckdb database")


def write(folder: Path, systems: int, nights: int) -> None:
    """Write one Parquet file for each night and system."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = random.Random(1)  # noqa: S311 - noise, no secret
    count = CELLS * METRICS
    for system in range(systems):
        for night in range(nights):
            at = datetime(2024, 1, 1) + timedelta(days=night)
            names = [f"w{i // METRICS // 3}" for i in range(count)]
            columns = {
                "night": [at] * count,
                "system": [f"s{system}"] * count,
                "topology": [("dp", "route4", "1p3d")[i // METRICS % 3] for i in range(count)],
                "workload": names,
                "metric": [f"m{i % METRICS}" for i in range(count)],
                "value": [source.gauss(100, 1) for _ in range(count)],
            }
            path = folder / f"{at:%Y-%m}" / f"s{system}-{at:%Y%m%d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(columns), path, compression="zstd")


def read(way: str, folder: Path, *, whole: bool) -> int:
    """Read one metric of one cell, or the median of all, and return the number of rows."""
    if way == "pyarrow":
        import pyarrow.dataset as ds

        if not whole:
            where = (
                (ds.field("topology") == "1p3d")
                & (ds.field("workload") == "w7")
                & (ds.field("metric") == "m3")
            )
            return len(ds.dataset(folder, format="parquet").to_table(filter=where))
        frame = ds.dataset(folder, format="parquet").to_table().to_pandas()
        keys = ["system", "topology", "workload", "metric", "night"]
        return len(frame.groupby(keys, sort=False)["value"].median())
    if way == "polars":
        import polars as pl

        lazy = pl.scan_parquet(f"{folder}/**/*.parquet")
        if not whole:
            return len(lazy.sql(f"select * from self where {ONE}").collect())  # noqa: S608
        keys = ["system", "topology", "workload", "metric", "night"]
        return len(lazy.group_by(keys).agg(pl.col("value").median()).collect())
    import duckdb

    table = f"read_parquet('{folder}/**/*.parquet')"
    connection = duckdb.connect()
    if way == "duckdb database":
        connection, table = duckdb.connect(str(database(folder)), read_only=True), "nights"
    if not whole:
        return len(connection.sql(f"select * from {table} where {ONE}").fetchall())  # noqa: S608
    keys = "system, topology, workload, metric, night"
    query = f"select {keys}, median(value) from {table} group by {keys}"  # noqa: S608
    return len(connection.sql(query).arrow().read_all())


def database(folder: Path) -> Path:
    """Return the database file of a folder."""
    return folder.with_suffix(".duckdb")


def make_database(folder: Path) -> None:
    """Put all nights into one database file."""
    import duckdb

    database(folder).unlink(missing_ok=True)
    connection = duckdb.connect(str(database(folder)))
    table = f"read_parquet('{folder}/**/*.parquet')"
    connection.sql(f"create table nights as select * from {table}")  # noqa: S608
    connection.close()


def second_writer(folder: Path) -> str:
    """Return what a second process gets that opens a database which one writes to."""
    import duckdb

    held = duckdb.connect(str(database(folder)))
    code = "import duckdb, sys; duckdb.connect(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(database(folder))], capture_output=True, text=True
    )
    held.close()
    return done.stderr.strip().splitlines()[-1][:90] if done.returncode else "opens it"


def measured(way: str, folder: Path) -> dict[str, float]:
    """Return seconds of each step, medians over processes."""
    found: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        said = subprocess.run(
            [sys.executable, __file__, "--step", way, str(folder)],
            capture_output=True,
            text=True,
            check=True,
        )
        for name, seconds in json.loads(said.stdout).items():
            found.setdefault(name, []).append(seconds)
    return {name: statistics.median(each) for name, each in found.items()}


def step(way: str, folder: Path) -> dict[str, float]:
    """Return seconds of each step in this process."""
    times = {}
    for name, whole in (("first use", False), ("series", False), ("all", True)):
        began = time.perf_counter()
        rows = read(way, folder, whole=whole)
        times[name] = time.perf_counter() - began
        if not rows:
            raise SystemExit(f"{way}: nothing was read")
    return times


def disk_mib(*names: str) -> float:
    """Return the size of installed packages, MiB."""
    total = 0
    for name in names:
        found = importlib.util.find_spec(name)
        if found is None:
            continue
        for top in found.submodule_search_locations or [str(found.origin)]:
            path = Path(top)
            files = [path] if path.is_file() else path.rglob("*")
            total += sum(each.stat().st_size for each in files if each.is_file())
    return total / 2**20


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(folder: Path) -> None:
    """Print a table for each size."""
    for systems, nights in ((1, 365), (3, 3 * 365)):
        made = folder / f"{systems}x{nights}"
        if not made.exists():
            write(made, systems, nights)
        make_database(made)
        size = sum(p.stat().st_size for p in made.rglob("*.parquet")) / 2**20
        say(
            f"{systems} systems x {nights} nights: {size:.1f} MiB of Parquet, "
            f"{database(made).stat().st_size / 2**20:.1f} MiB of database"
        )
        for way in WAYS:
            times = measured(way, made)
            say(f"  {way:18} " + "  ".join(f"{name} {s:6.2f} s" for name, s in times.items()))
    say(f"second writer of a duckdb database: {second_writer(made)}")
    say(
        f"disk: pyarrow {disk_mib('pyarrow'):.0f} MiB, duckdb "
        f"{disk_mib('duckdb', '_duckdb'):.0f} MiB, polars "
        f"{disk_mib('polars', '_polars_runtime_32'):.0f} MiB"
    )


if __name__ == "__main__":
    if sys.argv[1] == "--step":
        sys.stdout.write(json.dumps(step(sys.argv[2], Path(sys.argv[3]))))
    else:
        main(Path(sys.argv[1]))
