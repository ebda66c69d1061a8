"""``pdserve notify-github`` against a stand-in for GitHub that checks what it is sent."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pytest_pdserve.commands.main import main
from pytest_pdserve.notify.github import LIMIT_S
from pytest_pdserve.notify.github import GitHubError
from pytest_pdserve.notify.github import Timer
from pytest_pdserve.notify.github import connected
from pytest_pdserve.notify.issues import CLUSTER
from pytest_pdserve.notify.issues import REGRESSION
from pytest_pdserve.notify.issues import Issues
from pytest_pdserve.notify.texts import comment_text
from pytest_pdserve.notify.texts import read_markdown
from pytest_pdserve.results.kinds import NIGHTLY_EVENT
from pytest_pdserve.values.nightly import Event
from tests.support.github import REPOSITORY
from tests.support.github import TOKEN
from tests.support.github import Fault
from tests.support.github import StandIn
from tests.support.github import github_stand_in

NEW = Event(
    kind="new",
    key="sim/1p3d/random-512-256-n64/speed",
    title="1p3d random-512-256-n64 is slower on sim",
    system="sim",
    topology="1p3d",
    cells=("1p3d random-512-256-n64",),
    metrics=("mean_itl_ms",),
    since=date(2026, 11, 20),
    night=date(2026, 11, 20),
    evidence=("mean_itl_ms 5.21 ms, reference 4.71 ms (20 nights): +10.6 %, limit +5 %",),
)
STILL = replace(NEW, kind="still", night=date(2026, 11, 21))
GONE = replace(NEW, kind="gone", night=date(2026, 11, 24), evidence=("2 nights found nothing.",))
BACK = replace(NEW, since=date(2026, 12, 2), night=date(2026, 12, 3))
TROUBLE = Event(
    kind="cluster-trouble",
    key="sim/cluster",
    title="The night on sim could not be measured in full",
    system="sim",
    since=date(2026, 11, 20),
    night=date(2026, 11, 20),
    evidence=("dp: no node is free",),
)


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in, which the environment names as GitHub Actions does."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "GITHUB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with github_stand_in() as server:
        monkeypatch.setenv("GITHUB_API_URL", server.url)
        monkeypatch.setenv("GITHUB_REPOSITORY", REPOSITORY)
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        yield server


@dataclass(kw_only=True)
class Clock:
    """A time that passes only where it is waited for."""

    passed_s: float = 0.0
    waits: list[float] = field(default_factory=list)

    @property
    def timer(self) -> Timer:
        def sleep(seconds: float) -> None:
            self.waits.append(seconds)
            self.passed_s += seconds

        return Timer(
            clock=lambda: self.passed_s, now=lambda: 1_800_000_000 + self.passed_s, sleep=sleep
        )


def tell(server: StandIn, *events: Event, clock: Clock | None = None) -> list[str]:
    """Tell events one by one, each with a client of its own; what was done."""
    said = []
    for event in events:
        timer = (clock or Clock()).timer
        with connected(api=server.url, repository=REPOSITORY, token=TOKEN, timer=timer) as github:
            said.append(Issues(github=github).apply(event))
    return said


def given(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """Give *text* on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


def as_json(event: Event) -> bytes:
    return json.dumps(NIGHTLY_EVENT.dump(event, "event")).encode()


def test_the_command_opens_an_issue_with_a_label_by_which_it_is_found_again(
    github: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given(monkeypatch, as_json(NEW))
    assert main(["notify-github"]) == 0
    assert capsys.readouterr() == (f"pdserve: new {NEW.key}: opened issue 1\n", "")
    (issue,) = github.open_issues()
    assert issue["title"] == "1p3d random-512-256-n64 is slower on sim"
    assert issue["labels"] == [{"name": REGRESSION}]
    assert github.changes == [("POST", "labels"), ("POST", "issues")]


def test_one_issue_lives_from_the_first_night_to_the_last(github: StandIn) -> None:
    wider = replace(STILL, night=date(2026, 11, 22), cells=(*NEW.cells, "1p3d other"))
    assert tell(github, NEW, STILL, wider, GONE, BACK) == [
        "opened issue 1",
        "updated issue 1",
        "updated issue 1",
        "closed issue 1",
        "reopened issue 1",
    ]
    (issue,) = github.issues
    assert issue["state"] == "open"
    assert "first seen: night of 2026-12-02" in issue["body"]
    changed, gone, back = (each["body"].splitlines() for each in github.comments[1])
    assert changed[1] == "Changed on the night of 2026-11-22. It is now:"
    assert "- 1p3d other" in changed
    assert gone[1:] == ["Closed by the night of 2026-11-24.", "", "- 2 nights found nothing."]
    assert back[1:] == ["It is back: seen since the night of 2026-12-02, confirmed on 2026-12-03."]


def test_a_night_that_shows_the_same_writes_no_comment(github: StandIn) -> None:
    tell(github, NEW)
    for day in range(21, 25):
        tell(
            github,
            replace(STILL, night=date(2026, 11, day), evidence=(f"{day} ms",), metrics=(str(day),)),
        )
    assert github.comments == {}
    assert "24 ms" in github.issues[0]["body"]


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("first", "again"), [((), NEW), ((NEW,), STILL), ((NEW,), GONE), ((NEW, GONE), BACK)]
)
def test_an_event_that_is_told_twice_changes_nothing_more(
    github: StandIn, first: tuple[Event, ...], again: Event
) -> None:
    tell(github, *first, again)
    before = (json.dumps(github.issues), json.dumps(github.comments))
    asked = len(github.changes)
    tell(github, again)
    assert (json.dumps(github.issues), json.dumps(github.comments)) == before
    assert len(github.changes) == asked


def test_regressions_and_trouble_with_machines_have_issues_of_their_own(github: StandIn) -> None:
    other = replace(NEW, key="sim/dp/random-512-256-n64/speed")
    tell(github, NEW, other, TROUBLE, replace(TROUBLE, night=date(2026, 11, 21)))
    assert [each["labels"][0]["name"] for each in github.issues] == [REGRESSION] * 2 + [CLUSTER]
    tell(github, replace(TROUBLE, kind="cluster-ok", night=date(2026, 11, 22)))
    assert [each["state"] for each in github.issues] == ["open", "open", "closed"]


def test_an_issue_beyond_the_first_hundred_is_found(github: StandIn) -> None:
    tell(github, NEW)
    for number in range(2, 240):
        github.issues.append({**github.issues[0], "number": number, "body": "other"})
    github.issues[100]["pull_request"] = {}
    assert tell(github, STILL) == ["updated issue 1"]


def test_an_issue_that_only_looks_like_one_is_left_alone(github: StandIn) -> None:
    tell(github, NEW)
    marker = github.issues[0]["body"].splitlines()[0]
    github.issues[0]["body"] = f"> {marker}\nquoted"
    github.issues.append({**github.issues[0], "number": 2, "body": marker, "labels": []})
    assert tell(github, STILL) == ["opened issue 3"]


def test_an_issue_that_a_person_closed_stays_closed_until_it_begins_anew(github: StandIn) -> None:
    tell(github, NEW)
    github.issues[0]["state"] = "closed"
    assert tell(github, STILL) == ["left issue 1 closed: a user closed it"]
    assert tell(github, BACK) == ["reopened issue 1"]


def test_a_late_event_does_not_reopen_what_a_later_night_closed(github: StandIn) -> None:
    tell(github, NEW, GONE)
    assert tell(github, STILL) == ["left issue 1 unchanged: a later night has closed it"]


def test_the_end_of_what_was_never_told_opens_nothing(github: StandIn) -> None:
    assert tell(github, GONE) == ["nothing to close: there is no issue about it"]
    assert github.issues == []


def test_an_issue_without_its_label_is_closed_at_once(github: StandIn) -> None:
    github.drops_labels = True
    with pytest.raises(GitHubError, match="issue 1 got no label pdserve-regression"):
        tell(github, NEW)
    assert github.open_issues() == []


def posts(method: str, path: str) -> bool:
    return (method, path) == ("POST", "issues")


@pytest.mark.parametrize("done", [False, True], ids=["not carried out", "carried out"])
@pytest.mark.parametrize("status", [500, 502, 503])
def test_an_issue_is_opened_once_where_the_answer_is_an_error(
    github: StandIn, status: int, done: bool
) -> None:
    github.faults = [Fault(status=status, done=done, matches=posts)]
    clock = Clock()
    assert tell(github, NEW, clock=clock) == ["opened issue 1"]
    assert len(github.issues) == 1
    assert clock.waits == [1.0]


LIMITED = {
    "429 with Retry-After": (Fault(status=429, headers={"Retry-After": "7"}), 7.0),
    "403 with Retry-After": (Fault(status=403, headers={"Retry-After": "3"}), 3.0),
    "403, rate limit used up": (
        Fault(
            status=403,
            headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1800000020"},
        ),
        20.0,
    ),
    "429 without a word": (Fault(status=429), 1.0),
    "Retry-After that is no number": (Fault(status=429, headers={"Retry-After": "soon"}), 1.0),
}


@pytest.mark.parametrize(("fault", "waited"), LIMITED.values(), ids=LIMITED)
def test_a_rate_limit_is_waited_for_as_long_as_github_asks(
    github: StandIn, fault: Fault, waited: float
) -> None:
    github.faults = [fault]
    clock = Clock()
    assert tell(github, NEW, clock=clock) == ["opened issue 1"]
    assert clock.waits == [waited]


ENDS: dict[str, tuple[list[Fault], str]] = {
    "expired token": (
        [Fault(status=401)],
        '/issues answered 401 Unauthorized: {"message": "as told"}; the token in GITHUB_TOKEN is '
        "invalid or has expired: set a new one",
    ),
    "missing permission": (
        [Fault(status=403)],
        '/issues answered 403 Forbidden: {"message": "as told"}; the token in GITHUB_TOKEN may not '
        "do this: docs/github.md lists the permissions",
    ),
    "no such repository": (
        [Fault(status=404)],
        '/issues answered 404 Not Found: {"message": "as told"}; there is no such repository, or '
        "the token in GITHUB_TOKEN may not read it",
    ),
    "refused for good": (
        [Fault(status=422, matches=posts)],
        '/issues answered 422 Unprocessable Entity: {"message": "as told"}; do not retry '
        "this request",
    ),
    "renamed repository": (
        [Fault(status=301, headers={"Location": "http://127.0.0.2:9/elsewhere"})],
        "/issues answered 301 with a redirect, which is not followed as the token is for {url} "
        "only; give the repository's current name with --repo",
    ),
    "error after error": (
        [Fault(status=500)] * 4,
        '/issues answered 500 Internal Server Error: {"message": "as told"} (4 tries); run the '
        "command again later: steps that are done are not repeated",
    ),
    "an hour to wait": (
        [Fault(status=429, headers={"Retry-After": "3600"})],
        '/issues answered 429 Too Many Requests: {"message": "as told"}; the next try is due in '
        f"3600 s, but all requests together may take {LIMIT_S:g} s; run the command again later: "
        "steps that are done are not repeated",
    ),
}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(("faults", "said"), ENDS.values(), ids=ENDS)
def test_trouble_ends_in_one_sentence(github: StandIn, faults: list[Fault], said: str) -> None:
    github.faults = faults
    with pytest.raises(GitHubError) as error:
        tell(github, NEW)
    beginning = f"{github.url}/repos/{REPOSITORY}"
    assert str(error.value) == beginning + said.replace("{url}", github.url)
    assert tell(github, NEW) == ["opened issue 1"]  # run again, it goes on


def test_an_answer_that_never_comes_ends_too(
    github: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_pdserve.notify.github.ANSWER_S", 0.2)
    github.faults = [Fault(silent=True)] * 4
    with pytest.raises(GitHubError, match=r"/issues did not answer within 0\.2 s \(4 tries\)"):
        tell(github, NEW)


def test_a_failure_between_comment_and_update_does_not_comment_twice(github: StandIn) -> None:
    tell(github, NEW)

    def patches(method: str, path: str) -> bool:
        return method == "PATCH"

    github.faults = [Fault(status=422, matches=patches)]
    with pytest.raises(GitHubError):
        tell(github, GONE)
    assert len(github.open_issues()) == 1
    assert tell(github, GONE) == ["closed issue 1"]
    assert len(github.comments[1]) == 1


@pytest.mark.parametrize("answer", [{}, [1], [{"number": "x"}]], ids=repr)
def test_an_answer_of_another_form_is_an_error(
    github: StandIn, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(github, "answer", lambda *_: (200, answer))
    with pytest.raises(GitHubError, match="check --api"):
        tell(github, NEW)


BAD: dict[str, tuple[dict[str, str], bytes, list[str], str]] = {
    "no token": ({"GITHUB_TOKEN": ""}, b"", [], "GITHUB_TOKEN is not set"),
    "token of two lines": ({"GITHUB_TOKEN": "ghs_a\nb"}, b"", [], "GITHUB_TOKEN is not a token"),
    "no repository": ({"GITHUB_REPOSITORY": ""}, b"", [], "the repository is unknown"),
    "odd repository": ({}, b"", ["--repo", "../../x"], "--repo '../../x': expected OWNER/NAME"),
    "token in clear": (
        {},
        b"",
        ["--api", "http://github.example"],
        "--api 'http://github.example': expected an https:// URL, since a token is sent to it",
    ),
    "no event": ({}, b"no json", [], "standard input: expected an event of pdserve nightly"),
    "another event": ({}, b'{"schema_version": 1}', [], "standard input: /: 'kind' is a required"),
    "text for nothing": ({}, b"", ["--text", "x"], "--text needs --pull or --summary"),
}


@pytest.mark.parametrize(("environment", "event", "options", "said"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_before_anything_is_asked(
    github: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    event: bytes,
    options: list[str],
    said: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    given(monkeypatch, event or as_json(NEW))
    assert main(["notify-github", *options]) == 4
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"pdserve: {said}")
    assert errors.count("\n") == 1
    assert "ghs_" not in errors
    assert github.asked == []


def test_a_secret_in_an_event_does_not_reach_github(
    github: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, as_json(replace(NEW, evidence=(f"the log has {TOKEN} in it",))))
    assert main(["notify-github"]) == 0
    assert "the log has &lt;GITHUB\\_TOKEN&gt; in it" in github.issues[0]["body"]


def test_the_page_of_the_workflow_run_is_named(
    github: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://github.example")
    monkeypatch.setenv("GITHUB_RUN_ID", "77")
    given(monkeypatch, as_json(NEW))
    assert main(["notify-github"]) == 0
    url = f"https://github.example/{REPOSITORY}/actions/runs/77"
    assert f"Workflow run of that night: {url}" in github.issues[0]["body"]


Written = Callable[[str], Path]


@pytest.fixture
def gate(tmp_path: Path) -> Written:
    """Writes a verdict as ``pdserve gate`` leaves it."""

    def write(text: str) -> Path:
        folder = tmp_path / "20261128-p5-gate"
        folder.mkdir(exist_ok=True)
        (folder / "gate.md").write_text(text)
        return tmp_path

    return write


def test_a_verdict_is_one_comment_of_its_pull_request(
    github: StandIn, gate: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    for verdict, done in (
        ("NOT ENOUGH EVIDENCE", "commented on 3"),
        ("GO", "updated the comment on 3"),
        ("GO", "left the comment on 3 unchanged: it is up to date"),
    ):
        folder = gate(f"# {verdict}\n")
        assert main(["notify-github", "--pull", "3", "--text", str(folder)]) == 0
        assert capsys.readouterr().out == f"pdserve: {done}\n"
    assert [each["body"] for each in github.comments[3]] == ["<!-- pdserve-gate -->\n# GO"]


def test_a_gate_that_left_nothing_is_said_to_have(github: StandIn, tmp_path: Path) -> None:
    assert main(["notify-github", "--pull", "3", "--text", str(tmp_path / "gates")]) == 0
    assert "the measurement did not complete" in github.comments[3][0]["body"]


def test_a_long_verdict_is_cut(github: StandIn, gate: Written) -> None:
    text = read_markdown(gate("x" * 100_000))
    with connected(api=github.url, repository=REPOSITORY, token=TOKEN) as connection:
        comment_text(connection, 3, text)
    assert github.comments[3][0]["body"].endswith(
        "… cut here: the full text is in the files of the run"
    )


def test_a_summary_needs_no_token_and_no_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gate: Written
) -> None:
    for name in ("GITHUB_TOKEN", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
    summary = tmp_path / "summary"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert main(["notify-github", "--summary", "--text", str(gate("# GO"))]) == 0
    assert summary.read_text() == "before\n# GO\n"
