"""Claims as tests: read and validated at collection."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_pdserve.backends.registry import backend_of
from pytest_pdserve.plan.placement import size_on
from pytest_pdserve.results.claims import figures_path
from pytest_pdserve.results.claims import load_claims
from pytest_pdserve.results.claims import load_figures
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.sweep import Sweep

if TYPE_CHECKING:
    from pytest_pdserve.session.session import Session
    from pytest_pdserve.session.settings import Settings
    from pytest_pdserve.values.claim import Claim
    from pytest_pdserve.values.claim_parts import Cells
    from pytest_pdserve.values.sweep import Point

ARTICLE = Sweep()
"""The article's cells: claims may name them even on a system that measures others."""
claims_key = pytest.StashKey[dict[str, tuple[str, ...]]]()
"""Names of the cells of every collected claim, by its id."""


def collect_claims(path: Path, settings: Settings) -> tuple[Claim, ...]:
    """Read the claims of a file.

    :raises pytest.UsageError: if it is malformed, or a claim names lengths that do not exist, or
        compares topologies of unequal size.
    """
    try:
        if settings.system.figures is not None:
            load_figures(figures_path(settings.system))
        claims = load_claims(path)
        for claim in claims:
            where = f"{path}: claim {claim.id!r}"
            _check_lengths(claim, settings, where)
            _check_sizes(claim, settings, where)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from error
    return claims


def remember_claims(
    claims: Sequence[Claim], config: pytest.Config, points: Sequence[Point]
) -> None:
    """Store the cells of claims, to find entries of ``expected.toml`` without effect.

    :param points: cells that the system measures.
    """
    cells_by_claim = config.stash.setdefault(claims_key, {})
    for claim in claims:
        cells_by_claim[claim.id] = tuple(point.name for point in points if claim.admits(point))


def unknown_names(config: pytest.Config, session: Session) -> list[str]:
    """Return a sentence on each claim and cell in ``expected.toml`` that does not exist."""
    cells = config.stash.get(claims_key, None)
    return [*session.session_judge.expected.unknown_names(cells)] if cells else []


def _check_lengths(claim: Claim, settings: Settings, where: str) -> None:
    points = (*ARTICLE.points(), *settings.system.sweep.points())
    all_lengths = [lengths for point in points if (lengths := point.article_lengths) is not None]
    for key, axis, named in _lengths(claim):
        valid = sorted({lengths[axis] for lengths in all_lengths})
        if invalid := [str(length) for length in named if length not in valid]:
            raise ConfigError(
                f"{where}: {key} has {', '.join(invalid)}; the article's cells and those of "
                f"{settings.system.name!r} have {', '.join(map(str, valid))}"
            )


def _lengths(claim: Claim) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """Yield every list of lengths of a claim: key, 0 for prompts or 1 for output, lengths."""
    regimes: list[tuple[str, Cells]] = [("", claim.regime)]
    regimes += [("versus.", r.versus) for r in claim.relations if r.versus is not None]
    for prefix, cells in regimes:
        yield f"{prefix}input_lens", 0, cells.input_lens
        yield f"{prefix}output_lens", 1, cells.output_lens
    axis = 0 if claim.regime.panel == "prefill" else 1
    for relation in claim.relations:
        yield "better_at", axis, relation.better_at
        yield "worse_at", axis, relation.worse_at


def _check_sizes(claim: Claim, settings: Settings, where: str) -> None:
    """Raise if a claim compares topologies of unequal size, and all of them will run."""
    system = settings.system
    requested = {topology.id for topology in settings.topologies}
    if system.figures is None:
        if not requested.issuperset(claim.topologies) or not backend_of(system).starts_servers:
            return
    sizes = {topology: size_on(system, topology) for topology in claim.topologies}
    if claim.per is None and len({size for size in sizes.values() if size is not None}) > 1:
        unequal = ", ".join(f"{topology} ({size})" for topology, size in sizes.items() if size)
        raise ConfigError(
            f"{where} compares topologies of unequal size on {system.name!r}: {unequal}; choose "
            "topologies of equal size, or write per = 'gpu' to compare throughput per GPU"
        )
