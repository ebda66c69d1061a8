"""Compute events from the state of the last night and tonight's report. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from datetime import date

from pytest_pdserve.nightly.observations import Observation
from pytest_pdserve.values.baseline import LABELS
from pytest_pdserve.values.nightly import Event
from pytest_pdserve.values.nightly import EventKind
from pytest_pdserve.values.nightly import Followed
from pytest_pdserve.values.nightly import NightlyState
from pytest_pdserve.values.report import Report

GONE_NIGHTS = 2
"""Consecutive nights without a regression after which it is gone."""
UNMEASURED_NIGHTS = 14
"""Consecutive nights without a measurement after which a regression is no longer followed."""
_MAX_SENTENCES = 30
"""Maximum number of sentences and of records of one event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tonight:
    """Results of a night."""

    night: date
    system: str
    """Name of the system."""
    seen: Mapping[str, Observation]
    """Observations that can be regressions, by key."""
    troubles: tuple[str, ...]
    """Failures of machines, a sentence each."""
    changed: tuple[str, ...]
    """Differences from the last night with measurements, a sentence each."""
    measured: bool = True
    """True if anything was measured; otherwise the night does not count for any cell."""


def what_changed(last: NightlyState | None, report: Report) -> tuple[str, ...]:
    """Return the versions, images and nodes that differ from the last night with measurements."""
    if last is None or not report.measured:
        return ()
    names, labels = sorted({*last.versions, *report.versions}), dict(LABELS)
    sentences = [
        f"{labels.get(name, name)} {last.versions.get(name, 'unknown')} -> "
        f"{report.versions.get(name, 'unknown')}"
        for name in names
        if last.versions and last.versions.get(name) != report.versions.get(name)
    ]
    if last.nodes and report.nodes:
        new = sorted(set(report.nodes) - set(last.nodes))
        lost = sorted(set(last.nodes) - set(report.nodes))
        sentences += [f"nodes that are new: {', '.join(new)}"] if new else []
        sentences += [f"nodes that are no longer used: {', '.join(lost)}"] if lost else []
    return tuple(sentences)


def advance(
    last: NightlyState | None, tonight: Tonight
) -> tuple[tuple[Followed, ...], tuple[Event, ...]]:
    """Return the regressions that are followed after tonight, and tonight's events.

    A second session of the same night updates what is followed and reports new regressions, but
    does not count as another night.

    :param last: state of the last night; None if there was none.
    """
    before = {each.key: each for each in last.followed} if last else {}
    another = last is None or last.night != tonight.night.isoformat()
    seen, since = _merged_into_topologies(tonight.seen, before)
    followed: list[Followed] = []
    events: list[Event] = []
    merged_keys = tonight.seen.keys() - seen.keys()
    for key in dict.fromkeys((*before, *seen)):
        if key in merged_keys:
            continue
        step = _Step(before.get(key), seen.get(key), tonight, another=another)
        kept, event = step.advance(since.get(key))
        followed += [kept] if kept else []
        events += [event] if event else []
    return tuple(followed), tuple(events)


def _merged_into_topologies(
    seen: Mapping[str, Observation], before: Mapping[str, Followed]
) -> tuple[dict[str, Observation], dict[str, Followed]]:
    """Merge slow cells into their topology if it is slower as a whole.

    A slower topology is one regression, not one for each of its cells. A cell that already was a
    regression stays one.

    :returns: the observations, and for each topology the oldest suspicion that was merged into it.
    """
    topologies = {each.key: each for each in seen.values() if each.whole}
    for each in before.values():  # too few of its cells were measured to judge the topology
        if each.whole and each.confirmed and each.key not in topologies:
            topologies[each.key] = _unseen(each)
    left = {**seen, **topologies}
    oldest: dict[str, Followed] = {}
    for topology in topologies.values():
        followed = before.get(topology.key)
        own_cells = followed.cells if followed is not None and followed.confirmed else ()
        if topology.seen != "worse" and not own_cells:
            continue
        for cell in seen.values():
            own = before.get(cell.key)
            belongs = (
                cell.topology == topology.topology and cell.group == "speed" and not cell.whole
            )
            if not belongs or cell.seen in ("fine", "unmeasured") or (own and own.confirmed):
                continue
            if topology.seen != "worse" and not set(cell.cells) <= set(own_cells):
                continue
            left[topology.key] = left[topology.key].joined(left.pop(cell.key))
            if own and (topology.key not in oldest or own.since < oldest[topology.key].since):
                oldest[topology.key] = own
    return left, oldest


def _unseen(topology: Followed) -> Observation:
    return Observation(
        key=topology.key,
        title=topology.title,
        topology=topology.topology,
        group=topology.group,
        seen="unmeasured",
        whole=True,
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """The step of one possible regression from the last night to tonight."""

    before: Followed | None
    seen: Observation | None
    tonight: Tonight
    another: bool = True
    """True if tonight is another night than the last one."""

    def advance(self, older: Followed | None) -> tuple[Followed | None, Event | None]:
        """Return how it is followed from now on, and the event of this night.

        :param older: an older suspicion that is merged into it.
        """
        what = self.seen.seen if self.seen is not None else "unmeasured"
        if what == "unmeasured" or self.seen is None:
            return self._unmeasured()
        if what == "fine":
            return self._fine()
        if what == "expected" and (self.before is None or not self.before.confirmed):
            return None, None
        kept = self._kept(self.seen, older)
        if what == "suspicious":
            return kept, None
        if not kept.confirmed:
            kept = replace(kept, confirmed=True)
            return kept, self._event("new", kept, self.seen)
        return kept, self._event("still", kept, self.seen) if self.another else None

    def _kept(self, seen: Observation, older: Followed | None) -> Followed:
        """Return it as followed, updated with tonight's observation."""
        first = min(filter(None, (self.before, older)), key=lambda each: each.since, default=None)
        return Followed(
            key=seen.key,
            title=seen.title,
            topology=seen.topology,
            group=seen.group,
            whole=seen.whole,
            cells=tuple(dict.fromkeys((*(self.before.cells if self.before else ()), *seen.cells))),
            metrics=seen.metrics,
            # a clock that was set back must not make the start a day in the future
            since=min(first.since, self.tonight.night) if first else self.tonight.night,
            changed=first.changed if first else self.tonight.changed,
            confirmed=self.before is not None and self.before.confirmed,
        )

    def _fine(self) -> tuple[Followed | None, Event | None]:
        if self.before is None or not self.before.confirmed:
            return None, None
        gone = self.before.nights_gone + self.another
        if gone < GONE_NIGHTS:
            return replace(self.before, nights_gone=gone, nights_unmeasured=0), None
        sentence = f"{GONE_NIGHTS} nights in a row measured it without finding it."
        return None, self._event("gone", self.before, self.seen, sentence)

    def _unmeasured(self) -> tuple[Followed | None, Event | None]:
        if self.before is None:
            return None, None
        nights = self.before.nights_unmeasured + (self.another and self.tonight.measured)
        if nights < UNMEASURED_NIGHTS:
            return replace(self.before, nights_unmeasured=nights), None
        if not self.before.confirmed:
            return None, None
        sentence = (
            f"It has not been measured for {nights} nights in a row, and is no longer followed: "
            "the cell was renamed or removed, or was always left out. It may still be there."
        )
        return None, self._event("gone", self.before, None, sentence)

    def _event(
        self, kind: EventKind, followed: Followed, seen: Observation | None, *sentences: str
    ) -> Event:
        evidence = (*sentences, *(seen.evidence if seen is not None else ()))
        return Event(
            kind=kind,
            key=followed.key,
            title=followed.title,
            system=self.tonight.system,
            topology=followed.topology,
            cells=followed.cells,
            metrics=followed.metrics,
            since=min(followed.since, self.tonight.night),
            night=self.tonight.night,
            evidence=_cut(evidence),
            changed=followed.changed,
            confirmed=seen.confirmed if seen is not None else "",
            records=_cut(seen.records if seen is not None else ()),
            expected=seen.expected if seen is not None else (),
        )


def _cut(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the first of many sentences, and the number of the others."""
    more = len(texts) - _MAX_SENTENCES
    return (*texts[:_MAX_SENTENCES], *((f"… and {more} more",) if more > 0 else ()))


def trouble_events(
    last: NightlyState | None, tonight: Tonight
) -> tuple[date | None, tuple[Event, ...]]:
    """Return since when machines fail, None if they do not, and tonight's event."""
    since = last.trouble_since if last else None
    another = last is None or last.night != tonight.night.isoformat()
    return _now(since, tonight), tuple(_trouble(since, tonight, another=another))


def _now(since: date | None, tonight: Tonight) -> date | None:
    return min(since or tonight.night, tonight.night) if tonight.troubles else None


def _trouble(since: date | None, tonight: Tonight, *, another: bool) -> Iterator[Event]:
    kind: EventKind
    if tonight.troubles and (another or since is None):
        kind, evidence = "cluster-trouble", _cut(tonight.troubles)
    elif not tonight.troubles and since is not None:
        kind, evidence = "cluster-ok", ("Nothing failed tonight.",)
    else:
        return
    yield Event(
        kind=kind,
        key=f"{tonight.system}/cluster",
        title=f"The night on {tonight.system} could not be measured in full",
        system=tonight.system,
        since=min(since or tonight.night, tonight.night),
        night=tonight.night,
        evidence=evidence,
        changed=tonight.changed if kind == "cluster-trouble" else (),
    )


def undelivered_events(waiting: Sequence[Event], new: Sequence[Event]) -> tuple[Event, ...]:
    """Return all events to be delivered, oldest first.

    Of several consecutive events of one kind with the same key, only the newest is kept.
    """
    kept = list(waiting)
    for event in new:
        mine = [each for each in kept if each.key == event.key]
        if mine and mine[-1].kind == event.kind:
            kept.remove(mine[-1])
        kept.append(event)
    return tuple(kept)
