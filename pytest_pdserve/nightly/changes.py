"""What changed since the last night: from its state and tonight's report to events. Pure."""

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
"""Nights in a row that must find nothing of a regression before it counts as gone."""
UNMEASURED_NIGHTS = 14
"""Nights in a row after which what is not measured any more is no longer followed."""
_MOST = 30
"""Sentences and records of one event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tonight:
    """What a night showed."""

    night: date
    """The night."""
    system: str
    """Name of the system."""
    seen: Mapping[str, Observation]
    """What can be a regression, by key."""
    troubles: tuple[str, ...]
    """What failed on machines, a sentence each."""
    changed: tuple[str, ...]
    """What differs from the last night that measured anything, a sentence each."""
    measured: bool = True
    """Whether anything was measured; a night without is no night of any cell."""


def what_changed(last: NightlyState | None, report: Report) -> tuple[str, ...]:
    """Return which versions, images and nodes are not those of the last night that measured."""
    if last is None or not report.measured:
        return ()
    names, labels = sorted({*last.versions, *report.versions}), dict(LABELS)
    said = [
        f"{labels.get(name, name)} {last.versions.get(name, 'unknown')} -> "
        f"{report.versions.get(name, 'unknown')}"
        for name in names
        if last.versions and last.versions.get(name) != report.versions.get(name)
    ]
    if last.nodes and report.nodes:
        new = sorted(set(report.nodes) - set(last.nodes))
        lost = sorted(set(last.nodes) - set(report.nodes))
        said += [f"nodes that are new: {', '.join(new)}"] if new else []
        said += [f"nodes that are no longer used: {', '.join(lost)}"] if lost else []
    return tuple(said)


def advance(
    last: NightlyState | None, tonight: Tonight
) -> tuple[tuple[Followed, ...], tuple[Event, ...]]:
    """Return what is followed after tonight, and the events of regressions.

    A second session of the same night changes what is followed and tells what is new, but counts
    as no further night.

    :param last: what the last night left; None if there was none.
    """
    before = {each.key: each for each in last.followed} if last else {}
    another = last is None or last.night != tonight.night.isoformat()
    seen, since = _folded(tonight.seen, before)
    followed: list[Followed] = []
    events: list[Event] = []
    folded_away = tonight.seen.keys() - seen.keys()
    for key in dict.fromkeys((*before, *seen)):
        if key in folded_away:
            continue
        step = _Step(before.get(key), seen.get(key), tonight, another=another)
        kept, event = step.taken(since.get(key))
        followed += [kept] if kept else []
        events += [event] if event else []
    return tuple(followed), tuple(events)


def _folded(
    seen: Mapping[str, Observation], before: Mapping[str, Followed]
) -> tuple[dict[str, Observation], dict[str, Followed]]:
    """Join what is seen of cells to their topology where that is slower as a whole.

    A slower topology is one regression, not one for each of its cells. A cell that was a regression
    of its own before stays one.

    :returns: what is seen, and for a whole that takes up older suspicions the oldest of them.
    """
    wholes = {each.key: each for each in seen.values() if each.whole}
    for each in before.values():  # too few of its cells were measured to judge the whole
        if each.whole and each.confirmed and each.key not in wholes:
            wholes[each.key] = _unseen(each)
    left = {**seen, **wholes}
    oldest: dict[str, Followed] = {}
    for whole in wholes.values():
        known = before.get(whole.key)
        mine = known.cells if known is not None and known.confirmed else ()
        if whole.seen != "worse" and not mine:
            continue
        for cell in seen.values():
            own = before.get(cell.key)
            belongs = cell.topology == whole.topology and cell.group == "speed" and not cell.whole
            if not belongs or cell.seen in ("fine", "unmeasured") or (own and own.confirmed):
                continue
            if whole.seen != "worse" and not set(cell.cells) <= set(mine):
                continue
            left[whole.key] = left[whole.key].joined(left.pop(cell.key))
            if own and (whole.key not in oldest or own.since < oldest[whole.key].since):
                oldest[whole.key] = own
    return left, oldest


def _unseen(whole: Followed) -> Observation:
    return Observation(
        key=whole.key,
        title=whole.title,
        topology=whole.topology,
        group=whole.group,
        seen="unmeasured",
        whole=True,
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """One thing from the last night to tonight."""

    before: Followed | None
    seen: Observation | None
    tonight: Tonight
    another: bool = True
    """Whether tonight is another night than the last one."""

    def taken(self, older: Followed | None) -> tuple[Followed | None, Event | None]:
        """Return how it is followed from now on, and the event that this is.

        :param older: an older suspicion that it takes up.
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
        """Return it as it is followed, with what was seen tonight."""
        first = min(filter(None, (self.before, older)), key=lambda each: each.since, default=None)
        return Followed(
            key=seen.key,
            title=seen.title,
            topology=seen.topology,
            group=seen.group,
            whole=seen.whole,
            cells=tuple(dict.fromkeys((*(self.before.cells if self.before else ()), *seen.cells))),
            metrics=seen.metrics,
            # a clock that was put back must not make the beginning a day that is to come
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
        said = f"{GONE_NIGHTS} nights in a row that measured it found nothing."
        return None, self._event("gone", self.before, self.seen, said)

    def _unmeasured(self) -> tuple[Followed | None, Event | None]:
        if self.before is None:
            return None, None
        nights = self.before.nights_unmeasured + (self.another and self.tonight.measured)
        if nights < UNMEASURED_NIGHTS:
            return replace(self.before, nights_unmeasured=nights), None
        if not self.before.confirmed:
            return None, None
        said = (
            f"It has not been measured on {nights} nights in a row, and is no longer followed: the "
            "cell was renamed or removed, or never had its turn. Nothing shows that it is gone."
        )
        return None, self._event("gone", self.before, None, said)

    def _event(
        self, kind: EventKind, followed: Followed, seen: Observation | None, *said: str
    ) -> Event:
        evidence = (*said, *(seen.evidence if seen is not None else ()))
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
    """Return the first of many sentences, and how many there are beyond."""
    more = len(texts) - _MOST
    return (*texts[:_MOST], *((f"… and {more} more",) if more > 0 else ()))


def trouble_events(
    last: NightlyState | None, tonight: Tonight
) -> tuple[date | None, tuple[Event, ...]]:
    """Return since when machines fail, None if they do not, and the event of tonight."""
    since = last.trouble_since if last else None
    another = last is None or last.night != tonight.night.isoformat()
    return _now(since, tonight), tuple(_trouble(since, tonight, another=another))


def _now(since: date | None, tonight: Tonight) -> date | None:
    return min(since or tonight.night, tonight.night) if tonight.troubles else None


def _trouble(since: date | None, tonight: Tonight, *, another: bool) -> Iterator[Event]:
    kind: EventKind
    if tonight.troubles and (another or since is None):
        kind, said = "cluster-trouble", _cut(tonight.troubles)
    elif not tonight.troubles and since is not None:
        kind, said = "cluster-ok", ("Nothing failed tonight.",)
    else:
        return
    yield Event(
        kind=kind,
        key=f"{tonight.system}/cluster",
        title=f"The night on {tonight.system} could not be measured in full",
        system=tonight.system,
        since=min(since or tonight.night, tonight.night),
        night=tonight.night,
        evidence=said,
        changed=tonight.changed if kind == "cluster-trouble" else (),
    )


def still_undelivered(waiting: Sequence[Event], new: Sequence[Event]) -> tuple[Event, ...]:
    """Return all events that are to be delivered, oldest first.

    Of several that say that one thing is still so, the newest is enough.
    """
    kept = list(waiting)
    for event in new:
        mine = [each for each in kept if each.key == event.key]
        if mine and mine[-1].kind == event.kind:
            kept.remove(mine[-1])
        kept.append(event)
    return tuple(kept)
