"""Entries of expected.toml, and which verdicts they cover. Pure."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

from pytest_pdserve.values.expected import ExpectedChange

Covers = Callable[[str, float], ExpectedChange | None]
"""Returns the entry that covers a metric that is worse by a fraction; None if none does."""


@dataclass(slots=True, kw_only=True)
class ExpectedChanges:
    """The entries of a system's expected.toml, and which of them covered something."""

    entries: Sequence[ExpectedChange] = ()
    """In the order of the file."""
    source: str = ""
    """Path of the file."""
    today: str = ""
    """Date, ISO 8601."""
    used: list[ExpectedChange] = field(default_factory=list)
    """Entries that covered something."""
    judged: list[ExpectedChange] = field(default_factory=list)
    """Entries that name something that was judged."""
    recovered: list[str] = field(default_factory=list)
    """A sentence for each entry that names cells in which its claim holds again."""

    def covers_for_cell(self, topology: str, names: Collection[str]) -> Covers:
        """Return a function that finds the entry that covers a metric of a cell.

        :param names: names that an entry may give the cell: its workload id and its lengths; empty
            for the topology as a whole.
        """

        def covers(metric: str, worse: float) -> ExpectedChange | None:
            for entry in self._valid:
                if (
                    entry.claims is None
                    and topology in (entry.topologies or (topology,))
                    and (entry.cells is None or set(names) & set(entry.cells))
                    and metric in (entry.metrics or (metric,))
                    and (entry.max_worse is None or worse <= entry.max_worse)
                ):
                    self._use(entry)
                    return entry
            return None

        self._mark_judged(topology, names)
        return covers

    def _mark_judged(self, topology: str, names: Collection[str]) -> None:
        for entry in self._valid:
            names_cell = entry.cells is None or bool(set(names) & set(entry.cells))
            names_topology = topology in (entry.topologies or (topology,))
            if entry.claims is None and names_topology and names_cell:
                self._add_judged(entry)

    def entry_for_claim(
        self, claim: str, contradicted: Collection[str], holding: Collection[str]
    ) -> ExpectedChange | None:
        """Return the entry that covers a claim; None if a contradicting cell is not covered.

        :param contradicted: names of the cells that contradict the claim.
        :param holding: names of the cells in which the claim holds.
        """
        entries = [entry for entry in self._valid if claim in (entry.claims or ())]
        for entry in entries:
            self._add_judged(entry)
        if not contradicted:
            return None
        for entry in entries:
            self._use(entry)
            self._add_recovered(entry, claim, holding)
        against = set(contradicted)
        covering = [entry for entry in entries if against & set(entry.cells or against)]
        covered = {cell for entry in covering for cell in entry.cells or against}
        return covering[0] if against <= covered else None

    def _add_recovered(self, entry: ExpectedChange, claim: str, holding: Collection[str]) -> None:
        recovered = [cell for cell in entry.cells or () if cell in holding]
        them = "it" if len(recovered) == 1 else "them"
        sentence = f"{self._name(entry)}: {claim} holds in {', '.join(recovered)}; remove {them}"
        if recovered and sentence not in self.recovered:  # a claim is judged again after each rerun
            self.recovered.append(sentence)

    def unknown_names(self, cells: Mapping[str, Collection[str]]) -> Iterator[str]:
        """Yield a sentence for each entry that names a claim or a cell that does not exist.

        :param cells: names of the cells of every existing claim, by claim id.
        """
        for entry in self._valid:
            claims = entry.claims or ()
            if unknown := [claim for claim in claims if claim not in cells]:
                yield f"{self._name(entry)}: no claim is called {', '.join(unknown)}"
            existing = dict.fromkeys(cell for claim in claims for cell in cells.get(claim, ()))
            missing = [cell for cell in entry.cells or () if existing and cell not in existing]
            if missing:
                yield (
                    f"{self._name(entry)}: no cell of {', '.join(claims)} is called "
                    f"{', '.join(missing)}; the cells are {', '.join(existing)}"
                )

    @property
    def _valid(self) -> list[ExpectedChange]:
        return [entry for entry in self.entries if self.today <= entry.until]

    def _use(self, entry: ExpectedChange) -> None:
        if entry not in self.used:
            self.used.append(entry)

    def _add_judged(self, entry: ExpectedChange) -> None:
        if entry not in self.judged:
            self.judged.append(entry)

    def _name(self, entry: ExpectedChange) -> str:
        place = list(self.entries).index(entry) + 1
        return f"{self.source}: entry {place} ({entry.owner}: {entry.reason})"

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each entry that expired, covered nothing, or names recovered cells."""
        sentences = []
        for entry in self.entries:
            if entry not in self._valid:
                sentences.append(
                    f"{self._name(entry)} expired on {entry.until} and covers nothing; remove it"
                )
            elif entry in self.judged and entry not in self.used:
                sentences.append(f"{self._name(entry)} covered nothing tonight; remove it")
        return (*sentences, *self.recovered)
