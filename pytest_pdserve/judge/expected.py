"""Which expected changes cover what was seen. Pure."""

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
"""The entry that covers a metric that is worse by a fraction; None if there is none."""


@dataclass(slots=True, kw_only=True)
class ExpectedChanges:
    """The entries of a system, and which of them covered something."""

    entries: Sequence[ExpectedChange] = ()
    """As the file has them."""
    source: str = ""
    """The file."""
    today: str = ""
    """The day, ISO 8601."""
    used: list[ExpectedChange] = field(default_factory=list)
    """Entries that covered something."""
    looked_at: list[ExpectedChange] = field(default_factory=list)
    """Entries of which something was judged."""
    healed: list[str] = field(default_factory=list)
    """Cells of an entry in which a claim holds, a sentence each."""

    def of_cell(self, topology: str, names: Collection[str]) -> Covers:
        """Return what finds the entry for a metric of a cell.

        :param names: what an entry may call the cell: its workload id, and its lengths; none for
            the topology as a whole.
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

        self._look_at(topology, names)
        return covers

    def _look_at(self, topology: str, names: Collection[str]) -> None:
        for entry in self._valid:
            there = entry.cells is None or bool(set(names) & set(entry.cells))
            if entry.claims is None and topology in (entry.topologies or (topology,)) and there:
                self._remember(entry)

    def of_claim(
        self, claim: str, contradicted: Collection[str], holding: Collection[str]
    ) -> ExpectedChange | None:
        """Return the entry that covers a claim; None if not all that contradicts it is covered.

        :param contradicted: names of the cells that contradict it.
        :param holding: names of the cells in which it holds.
        """
        entries = [entry for entry in self._valid if claim in (entry.claims or ())]
        for entry in entries:
            self._remember(entry)
        if not contradicted:
            return None
        for entry in entries:
            self._use(entry)
            self._remember_healed(entry, claim, holding)
        against = set(contradicted)
        covering = [entry for entry in entries if against & set(entry.cells or against)]
        covered = {cell for entry in covering for cell in entry.cells or against}
        return covering[0] if against <= covered else None

    def _remember_healed(self, entry: ExpectedChange, claim: str, holding: Collection[str]) -> None:
        healed = [cell for cell in entry.cells or () if cell in holding]
        them = "it" if len(healed) == 1 else "them"
        said = f"{self._name(entry)}: {claim} holds in {', '.join(healed)}; remove {them}"
        if healed and said not in self.healed:  # a claim is judged again after each rerun
            self.healed.append(said)

    def unknown(self, cells: Mapping[str, Collection[str]]) -> Iterator[str]:
        """Say which claims, and which of their cells, entries name that do not exist.

        :param cells: names of the cells of every claim that there is, by its id.
        """
        for entry in self._valid:
            claims = entry.claims or ()
            if strange := [claim for claim in claims if claim not in cells]:
                yield f"{self._name(entry)}: no claim is called {', '.join(strange)}"
            there = dict.fromkeys(cell for claim in claims for cell in cells.get(claim, ()))
            lost = [cell for cell in entry.cells or () if there and cell not in there]
            if lost:
                yield (
                    f"{self._name(entry)}: no cell of {', '.join(claims)} is called "
                    f"{', '.join(lost)}; the cells are {', '.join(there)}"
                )

    @property
    def _valid(self) -> list[ExpectedChange]:
        return [entry for entry in self.entries if self.today <= entry.until]

    def _use(self, entry: ExpectedChange) -> None:
        if entry not in self.used:
            self.used.append(entry)

    def _remember(self, entry: ExpectedChange) -> None:
        if entry not in self.looked_at:
            self.looked_at.append(entry)

    def _name(self, entry: ExpectedChange) -> str:
        place = list(self.entries).index(entry) + 1
        return f"{self.source}: entry {place} ({entry.owner}: {entry.reason})"

    @property
    def troubles(self) -> tuple[str, ...]:
        """What is wrong with entries, a sentence each: expired, or nothing of it was seen."""
        said = []
        for entry in self.entries:
            if entry not in self._valid:
                said.append(
                    f"{self._name(entry)} expired on {entry.until} and covers nothing; remove it"
                )
            elif entry in self.looked_at and entry not in self.used:
                said.append(f"{self._name(entry)} covered nothing tonight; remove it")
        return (*said, *self.healed)
