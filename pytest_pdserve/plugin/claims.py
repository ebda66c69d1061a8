"""Claims as tests: read at collection, and refused there if they name what does not exist."""

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
"""The article's cells: claims may speak of them on a system that measures others."""
claims_key = pytest.StashKey[dict[str, tuple[str, ...]]]()
"""Names of the cells of every claim that was collected, by its id."""


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
    """Keep which cells claims have, to tell what entries of ``expected.toml`` name in vain.

    :param points: the cells that the system measures.
    """
    known = config.stash.setdefault(claims_key, {})
    for claim in claims:
        known[claim.id] = tuple(point.name for point in points if claim.admits(point))


def unknown_names(config: pytest.Config, session: Session) -> list[str]:
    """Say which claims and cells ``expected.toml`` names that do not exist, a sentence each."""
    cells = config.stash.get(claims_key, None)
    return [*session.session_judge.expected.unknown(cells)] if cells else []


def _check_lengths(claim: Claim, settings: Settings, where: str) -> None:
    points = (*ARTICLE.points(), *settings.system.sweep.points())
    there = [lengths for point in points if (lengths := point.article_lengths) is not None]
    for key, axis, named in _lengths(claim):
        known = sorted({lengths[axis] for lengths in there})
        if strange := [str(length) for length in named if length not in known]:
            raise ConfigError(
                f"{where}: {key} has {', '.join(strange)}; the article's cells and those of "
                f"{settings.system.name!r} have {', '.join(map(str, known))}"
            )


def _lengths(claim: Claim) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """Every list of lengths of a claim: key, 0 for prompts and 1 for output, lengths."""
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
    """Refuse to compare topologies of unequal size, where all of them will be run."""
    system = settings.system
    asked = {topology.id for topology in settings.topologies}
    if system.figures is None:
        if not asked.issuperset(claim.topologies) or not backend_of(system).starts_servers:
            return
    sizes = {topology: size_on(system, topology) for topology in claim.topologies}
    if claim.per is None and len({size for size in sizes.values() if size is not None}) > 1:
        said = ", ".join(f"{topology} ({size})" for topology, size in sizes.items() if size)
        raise ConfigError(
            f"{where} compares topologies of unequal size on {system.name!r}: {said}; choose "
            "topologies of equal size, or write per = 'gpu' to compare throughput per GPU"
        )
