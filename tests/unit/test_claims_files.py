"""Files of claims and figures that are wrong: one sentence each, and nothing of them is judged."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from pytest_pdserve.results.claims import load_claims
from pytest_pdserve.results.claims import load_figures
from pytest_pdserve.values.claim_checks import SHAPES
from pytest_pdserve.values.errors import ConfigError
from pytest_pdserve.values.sweep import Sweep

ROOT = Path(__file__).parents[2]
TOML = """schema_version = 1
[[claim]]
id = "a"
number = 1
text = "t"
kind = "below"
metric = "mean_itl_ms"
subject = "1p3d"
others = ["dp"]
panel = "decode"
output_lens = [256]
load = "saturated"
margin = 0.05
reason = "r"
source = "s"
"""
BODY = TOML.split("\n", 1)[1]
JOINT = """kind = "joint"
relations = [
  { kind = "below", metric = "mean_itl_ms", subject = "1p3d", others = ["dp"] },
  { kind = "ratio", metric = "output_throughput", subject = "1p3d", others = ["dp"], low = 1.0 },
]
"""
SIDES = 'kind = "below"\nmetric = "mean_itl_ms"\nsubject = "1p3d"\nothers = ["dp"]\n'
MARGIN = "margin = 0.05\n"


def kind(name: str, *lines: str) -> str:
    """The keys that take the place of those of a below."""
    return "\n".join([f'kind = "{name}"', 'metric = "mean_itl_ms"', *lines]) + "\n"


PAIR = ('subject = "1p3d"', 'others = ["dp"]')
ONE = 'topologies = ["1p3d"]'

BROKEN = {
    "unknown metric": ("mean_itl_ms", "mean_tfft", ": claim 'a': unknown metric 'mean_tfft'; "),
    "a count": ("mean_itl_ms", "failed", ": claim 'a': unknown metric 'failed'; known are mean"),
    "no topology": ('"1p3d"', '"3"', ": claim 'a': topology '3' is not of the form 'dp'"),
    "no decode": (
        '"1p3d"',
        '"3p"',
        ": claim 'a': topology '3p' has 3 prefill and 0 decode instances; each must be at least 1",
    ),
    "second spelling": (
        '["dp"]',
        '["dp", "route1"]',
        ": claim 'a': topology 'route1' is the same as 'dp'",
    ),
    "itself": ('["dp"]', '["1p3d"]', ": claim 'a': '1p3d' is compared with itself"),
    "twice the same": ('["dp"]', '["dp", "dp"]', ": /claim/0/others: ['dp', 'dp'] has non-unique"),
    "unknown kind": ('"below"', '"better"', ": /claim/0/kind: 'better' is not one of"),
    "no others": ('["dp"]', "[]", ": /claim/0/others: [] should be non-empty"),
    "others are text": ('["dp"]', '"dp"', ": /claim/0/others: 'dp' is not of type 'array'"),
    "no id": ('id = "a"\n', "", ": /claim/0: 'id' is a required property"),
    "an id with spaces": ('id = "a"', 'id = "a b"', ": /claim/0/id: 'a b' does not match"),
    "no text": ('text = "t"\n', "", ": /claim/0: 'text' is a required property"),
    "empty text": ('text = "t"', 'text = ""', ": /claim/0/text: '' should be non-empty"),
    "no reason": ('reason = "r"\n', "", ": /claim/0: 'reason' is a required property"),
    "no source": ('source = "s"\n', "", ": /claim/0: 'source' is a required property"),
    "no kind": ('kind = "below"\n', "", ": claim 'a': needs 'kind', or 'undecidable'"),
    "no metric": ('metric = "mean_itl_ms"\n', "", ": claim 'a': kind 'below' needs 'metric'"),
    "no subject": ('subject = "1p3d"\n', "", ": claim 'a': kind 'below' needs 'subject'"),
    "no panel": ('panel = "decode"\n', "", ": claim 'a': needs 'panel'"),
    "unknown panel": ('"decode"', '"load"', ": /claim/0/panel: 'load' is not one of"),
    "a length of 0": ("[256]", "[0]", ": /claim/0/output_lens/0: 0 is less than the minimum"),
    "half a token": ("[256]", "[0.5]", ": /claim/0/output_lens/0: 0.5 is not of type 'integer'"),
    "no lengths": ("[256]", "[]", ": /claim/0/output_lens: [] should be non-empty"),
    "margin of 1": ("0.05", "1.0", ": /claim/0/margin: 1.0 is greater than or equal to the"),
    "margin below 0": ("0.05", "-0.05", ": /claim/0/margin: -0.05 is less than the minimum"),
    "margin is text": ("0.05", '"5 %"', ": /claim/0/margin: '5 %' is not of type 'number'"),
    "margin is nan": ("0.05", "nan", " holds nan, expected a number"),
    "unknown key": (MARGIN, "margn = 0.05\n", ": /claim/0: Additional properties are not"),
    "key of another kind": (MARGIN, "low = 0.5\n", ": claim 'a': kind 'below' takes no 'low'"),
    "unknown load": (
        '"saturated"',
        '"full"',
        ": /claim/0/load: 'full' is not one of ['saturated']",
    ),
    "empty load": (
        '"saturated"',
        "{}",
        ": claim 'a': load needs 'request_rate' or 'max_concurrency'",
    ),
    "rate of 0": ('"saturated"', "{ request_rate = 0 }", ": /claim/0/load/request_rate: 0 is "),
    "infinite rate": (
        '"saturated"',
        "{ request_rate = inf }",
        ": claim 'a': load.request_rate is inf; write load = \"saturated\"",
    ),
    "known issue": (  # baselines/<system>/expected.toml says it
        MARGIN,
        'known_issue = { cells = ["512-256"] }\n',
        ": /claim/0: Additional properties are not allowed ('known_issue' was unexpected)",
    ),
    "per node": (MARGIN, 'per = "node"\n', ": /claim/0/per: 'node' is not one of ['gpu']"),
    "latency per GPU": (
        MARGIN,
        'per = "gpu"\n',
        ": claim 'a': per = 'gpu' divides throughput, but the claim has no throughput metric",
    ),
    "number 0": ("number = 1", "number = 0", ": /claim/0/number: 0 is less than the minimum"),
    "undecidable and judged": (MARGIN, 'undecidable = "u"\n', "it is undecidable, so it takes no"),
    "an id twice": ('"s"\n', '"s"\n' + BODY, ": claim id 'a' appears 2 times"),
    "no version": ("schema_version = 1", "", ": /: 'schema_version' is a required property"),
    "another version": ("version = 1", "version = 2", ": /schema_version: 2, expected 1; "),
    "no claims": (BODY, "claim = []\n", ": /claim: [] should be non-empty"),
    "no TOML": ("[[claim]]", "[[claim]", " is not valid TOML: "),
    "a key twice": ('id = "a"\n', 'id = "a"\nid = "b"\n', " is not valid TOML: "),
    "ratio of anything": (SIDES, kind("ratio", *PAIR), "needs 'low' or 'high'"),
    "ratio upside down": (
        SIDES,
        kind("ratio", *PAIR, "low = 2.0", "high = 1.0"),
        "low = 2 is above high = 1, so nothing can hold",
    ),
    "ratio of 0": (SIDES, kind("ratio", *PAIR, "low = 0"), "must be above 0"),
    "endless ratio": (SIDES, kind("ratio", *PAIR, "high = inf"), "'high' is inf; leave it out"),
    **{
        f"400 digits in {key}": (SIDES, kind("ratio", *PAIR, f"{key} = {'9' * 400}"), said)
        for key, said in (
            ("low", ": /claim/0/low: an integer of 1329 bits, expected at most 64"),
            ("high", ": /claim/0/high: an integer of 1329 bits, expected at most 64"),
        )
    },
    "5000 hexadecimal digits": (
        SIDES,
        kind("difference", *PAIR, f"low = 0x{'f' * 5000}"),
        ": /claim/0/low: an integer of 20000 bits",
    ),
    "400 digits of margin": ("0.05", "9" * 400, ": /claim/0/margin: 9999"),
    "5000 hexadecimal digits of margin": (
        "0.05",
        f"0x{'f' * 5000}",
        ": /claim/0/margin: an integer of 20000 bits",
    ),
    "400 digits of rate": (
        '"saturated"',
        f"{{ request_rate = {'9' * 400} }}",
        ": /claim/0/load/request_rate: an integer of 1329 bits",
    ),
    "negative value": (SIDES, kind("within", ONE, "high = -1"), "must be above 0"),
    "value of a pair": (
        SIDES,
        kind("within", *PAIR, "low = 1"),
        "kind 'within' needs 'topologies'",
    ),
    "rank 3 of 2": (SIDES, kind("rank", *PAIR, "low = 3"), "'low' is 3, but ranks are 1 to 2"),
    "rank 1.5": (SIDES, kind("rank", *PAIR, "high = 1.5"), "'high' is 1.5, but ranks are 1 to 2"),
    "no direction": (SIDES, kind("monotone", ONE), "kind 'monotone' needs 'direction'"),
    "strange direction": (
        SIDES,
        kind("monotone", ONE, 'direction = "smaller"'),
        "direction 'smaller' must be 'rises' or 'falls'",
    ),
    "crossing at one point": (
        SIDES,
        kind("crossover", *PAIR, "better_at = [256]", "worse_at = [256]"),
        "256 is in better_at and in worse_at",
    ),
    "spread of one": (
        SIDES,
        kind("spread", ONE, 'direction = "smaller"', 'versus = { panel = "prefill" }'),
        "a spread needs two topologies or more",
    ),
    "joint of one": (
        SIDES + 'panel = "decode"\n',
        JOINT.replace(JOINT.splitlines()[3] + "\n", "") + 'panel = "decode"\n',
        "/claim/0/relations: ",
    ),
    "joint of a sweep": (SIDES, JOINT.replace('"below"', '"monotone"'), "is about several cells"),
    "joint with a metric": (SIDES, JOINT + 'metric = "mean_itl_ms"\n', "'joint' takes no 'metric'"),
    "joint without margin's kind": (SIDES, JOINT, "kind 'joint' takes no 'margin'"),
    "joint of nothing": (SIDES, 'kind = "joint"\n', "kind 'joint' needs 'relations'"),
}


def test_the_file_that_is_broken_below_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "claims.toml"
    path.write_text(TOML)
    assert [claim.id for claim in load_claims(path)] == ["a"]
    path.write_text(TOML.replace(SIDES, JOINT).replace(MARGIN, ""))
    assert [claim.kind for claim in load_claims(path)] == ["joint"]
    assert len(BROKEN) >= 50


@pytest.mark.parametrize(("old", "new", "message"), BROKEN.values(), ids=list(BROKEN))
def test_a_mistake_is_one_sentence(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "claims.toml"
    assert old in TOML
    text = TOML.replace(old, new, 1)
    if new.startswith("kind") and "joint" not in message:
        text = text.replace(MARGIN, "", 1)
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_claims(path)
    said = str(refused.value)
    assert said.startswith(str(path))
    assert message in said
    assert "\n" not in said


def test_both_panels_have_no_axis(tmp_path: Path) -> None:
    path = tmp_path / "claims.toml"
    text = TOML.replace(SIDES, kind("monotone", ONE, 'direction = "rises"'))
    path.write_text(text.replace('"decode"', '"both"'))
    with pytest.raises(ConfigError, match="kind 'monotone' needs one panel, whose axis it follows"):
        load_claims(path)


def test_every_example_of_the_docs_is_a_claim(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    path = tmp_path / "claims.toml"
    seen = set()
    for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
        given = {line.partition(" = ")[0] for line in block.splitlines()}
        rest = {"id": '"e"', "text": '"t"', "reason": '"r"', "source": '"s"', "panel": '"both"'}
        lines = [f"{key} = {value}" for key, value in rest.items() if key not in given]
        head = "" if "[[claim]]" in block else "[[claim]]\n"
        path.write_text("\n".join(["schema_version = 1", head + block, *lines]), encoding="utf-8")
        (claim,) = load_claims(path)
        seen.add(claim.kind)
    assert seen >= set(SHAPES) - {"above", "lowest", "best"}


def test_random_damage_is_refused_or_leaves_claims(tmp_path: Path) -> None:
    """Whatever is done to a file: a sentence with its name, or claims as a whole."""
    shipped = (ROOT / "suites" / "claims" / "article.toml").read_text(encoding="utf-8")
    entries = re.split(r"(?=\n\[\[claim\]\])", shipped)[1:]
    path = tmp_path / "claims.toml"
    rng = random.Random(4)
    refused = 0
    for _ in range(300):
        text = f"schema_version = 1\n{rng.choice(entries)}"
        for _ in range(rng.randint(1, 3)):
            words = re.split(r"(\W+)", text)
            at = rng.randrange(len(words))
            words[at] = rng.choice(["", '"', "[", "}", "-1", "inf", "x", rng.choice(words)])
            text = "".join(words)
        path.write_text(text, encoding="utf-8")
        said = sentence(path)
        refused += said is not None
        assert said is None or said.startswith(str(path))
    assert refused > 150


def sentence(path: Path) -> str | None:
    """What is said against a file, or None if there is nothing."""
    try:
        claims = load_claims(path)
    except ConfigError as error:
        return str(error)
    assert all(claim.undecidable or claim.relations for claim in claims)
    return None


def test_the_shipped_claims_speak_of_the_articles_five() -> None:
    for name in ("claims.toml", "article.toml"):
        shipped = load_claims(ROOT / "suites" / "claims" / name)
        named = {topology for made in shipped for topology in made.topologies}
        assert named == {"dp", "route2", "route4", "1p3d", "2p2d"}
        for made in shipped:
            assert any(made.admits(point) for point in Sweep().points()), made.id


FIGURES = """schema_version = 1
title = "t"
date = "2026-03-10"
versions = {}
method = "m"
[[record]]
source = "figure"
runs = 1
topology = "dp"
input_len = 512
output_len = 256
num_prompts = 1024
metrics.mean_itl_ms = { value = 49.09, uncertainty = 0.005 }
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"figure"', '"run"', ": /record/0/source: 'run' is not one of ['figure']"),
        ("runs = 1\n", "runs = 2\n", ": /record/0/runs: 2 is not one of [1]"),
        ("49.09", "0", ": /record/0/metrics/mean_itl_ms/value: 0 is less than or equal to"),
        ("49.09", "nan", " holds nan, expected a number"),
        ("49.09", "inf", ": /record/0/metrics/mean_itl_ms/value: inf is greater than"),
        (", uncertainty = 0.005", "", ": /record/0/metrics/mean_itl_ms: 'uncertainty' is a"),
        ("mean_itl_ms", "mean_speed", ": /record/0: unknown metric 'mean_speed'"),
        ('"dp"', '"pd"', ": /record/0: topology 'pd' is not of the form"),
        ("0.005 }\n", "0.005 }\n" + FIGURES.split('"m"\n')[1], ": a cell appears twice"),
        ("[[record]]", "[[records]]", ": /: "),
    ],
)
def test_figures_that_are_wrong_are_one_sentence(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "figures.toml"
    path.write_text(FIGURES)
    assert load_figures(path).cells["dp", "random-512-256-n1024"]["mean_itl_ms"].value == 49.09
    assert old in FIGURES
    path.write_text(FIGURES.replace(old, new, 1))
    with pytest.raises(ConfigError) as refused:
        load_figures(path)
    assert str(refused.value).startswith(f"{path}{message}")


def test_figures_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"figures\.toml cannot be read"):
        load_figures(tmp_path / "figures.toml")
