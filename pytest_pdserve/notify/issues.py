"""Open, update and close one issue per regression; repeated events have no further effect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytest_pdserve.notify import issue_text
from pytest_pdserve.notify.comments import comment_once
from pytest_pdserve.notify.github import GitHub
from pytest_pdserve.notify.github import GitHubError
from pytest_pdserve.notify.github import convert_answer
from pytest_pdserve.values.nightly import Event

REGRESSION = "pdserve-regression"
"""Label of issues about regressions."""
CLUSTER = "pdserve-cluster"
"""Label of issues about failed machines."""
_DESCRIPTIONS = {
    REGRESSION: "Opened and closed by pdserve: a confirmed regression",
    CLUSTER: "Opened and closed by pdserve: machines or servers failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A label, as GitHub returns it."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """An issue or pull request, as GitHub returns it in lists of issues."""

    number: int
    state: str
    title: str
    body: str | None = None
    labels: tuple[Label, ...] = ()
    pull_request: Any = None
    """None for an issue."""

    @property
    def text(self) -> str:
        """The body; empty without one."""
        return self.body or ""

    @property
    def is_open(self) -> bool:
        """True if the issue is open."""
        return self.state == "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issues:
    """The issues in a repository that pdserve maintains."""

    github: GitHub
    run_url: str = ""
    """Page of the workflow run; empty without one."""

    def apply(self, event: Event) -> str:
        """Open, update or close the issue about an event; return what was done, one line.

        :raises GitHubError: if GitHub rejects a request, or does not answer.
        """
        label = CLUSTER if event.kind in ("cluster-trouble", "cluster-ok") else REGRESSION
        issue = self._find(event, label)
        if event.kind in ("gone", "cluster-ok"):
            return self._close(event, issue)
        if issue is None:
            self._make_label(label)
            return self._open(event, label)
        return self._update(event, issue)

    def _find(self, event: Event, label: str) -> Issue | None:
        """Return the oldest issue about the event's key, open ones first; None without one.

        Only users who may set labels can create an issue that is taken for one of these.
        """
        first_line = issue_text.marker(event.key)
        issues = (
            convert_answer(Issue, each)
            for each in self.github.list_all("issues", labels=label, state="all")
        )
        found = [
            issue
            for issue in issues
            if issue.pull_request is None and issue.text.splitlines()[:1] == [first_line]
        ]
        return min(found, key=lambda issue: (not issue.is_open, issue.number), default=None)

    def _make_label(self, label: str) -> None:
        """Create the label if it is missing: GitHub drops unknown labels of some tokens."""

        def found() -> Any:
            return self.github.request("GET", f"labels/{label}", missing=False) or None

        if found() is None:
            data = {"name": label, "color": "b60205", "description": _DESCRIPTIONS[label]}
            self.github.request("POST", "labels", data, done=found)

    def _open(self, event: Event, label: str) -> str:
        issue = self._post(event, label)
        if label not in [each.name for each in issue.labels]:
            self.github.request("PATCH", f"issues/{issue.number}", {"state": "closed"})
            raise GitHubError(
                f"issue {issue.number} got no label {label} and was closed again, as later nights "
                "could not find it; the token needs permission to set labels"
            )
        return f"opened issue {issue.number}"

    def _post(self, event: Event, label: str) -> Issue:
        data = {**self._texts(event), "labels": [label]}
        answer = self.github.request("POST", "issues", data, done=lambda: self._find(event, label))
        return answer if isinstance(answer, Issue) else convert_answer(Issue, answer)

    def _update(self, event: Event, issue: Issue) -> str:
        """Update or reopen an existing issue."""
        state = issue_text.state_of(issue.text)
        path, data = f"issues/{issue.number}", self._texts(event)
        if state and state.closed and state.closed >= event.night:
            return f"left issue {issue.number} unchanged: a later night has closed it"
        if not issue.is_open:
            if state and not state.closed and event.since <= state.since:
                return f"left issue {issue.number} closed: a user closed it"
            self._comment(event, issue.number, issue_text.back_comment(event))
            self.github.request("PATCH", path, {**data, "state": "open"})
            return f"reopened issue {issue.number}"
        if state is None or state.change != issue_text.change_of(event):
            self._comment(event, issue.number, issue_text.change_comment(event))
        elif {"title": issue.title, "body": issue.body} == data:
            return f"left issue {issue.number} unchanged: it is up to date"
        self.github.request("PATCH", path, data)
        return f"updated issue {issue.number}"

    def _close(self, event: Event, issue: Issue | None) -> str:
        if issue is None:
            return "nothing to close: there is no issue about it"
        if not issue.is_open:
            return f"left issue {issue.number} unchanged: it is closed already"
        self._comment(event, issue.number, issue_text.gone_comment(event))
        data = {
            "body": issue_text.body(event, run_url=self.run_url, closed=True),
            "state": "closed",
            "state_reason": "completed",
        }
        self.github.request("PATCH", f"issues/{issue.number}", data)
        return f"closed issue {issue.number}"

    def _texts(self, event: Event) -> dict[str, str]:
        text = issue_text.body(event, run_url=self.run_url)
        return {"title": issue_text.title(event), "body": text}

    def _comment(self, event: Event, number: int, text: str) -> None:
        """Comment on an issue, unless an earlier try did."""
        comment_once(self.github, number, issue_text.comment_marker(event), text)
