"""Claims of every kind whose verdicts are known."""

from __future__ import annotations

from tests.support.claim_case import ALL
from tests.support.claim_case import GAP
from tests.support.claim_case import NOISY
from tests.support.claim_case import Case
from tests.support.claim_case import along
from tests.support.claim_case import three
from tests.support.claim_case import two
from tests.support.claims import APART
from tests.support.claims import CROSSING
from tests.support.claims import DIFFERENCE
from tests.support.claims import JOINT
from tests.support.claims import MONOTONE
from tests.support.claims import RANK
from tests.support.claims import RATIO
from tests.support.claims import WITHIN

KINDS = {
    "margin, too little": Case(fields={"margin": 0.1}, tonight=two(9.5, runs=3)),
    "margin, enough": Case(fields={"margin": 0.1}, tonight=two(8.5, runs=3)),
    "above": Case(fields={"kind": "above"}, tonight=two(12)),
    "above, too little": Case(fields={"kind": "above", "margin": 0.1}, tonight=two(10.5)),
    "not above": Case(fields={"kind": "above"}, tonight=two(9, runs=3)),
    "best of latency": Case(fields={"kind": "best"}, tonight=two(9)),
    "best of rate": Case(fields={"kind": "best", "metric": "output_throughput"}, tonight=two(11)),
    "one of two others": Case(
        fields={"kind": "lowest", "others": ["dp", "route4"]}, tonight=three(9, 10, 8, runs=3)
    ),
    "ratio holds": Case(fields=RATIO, tonight=two(7, runs=3)),
    "ratio too small": Case(fields=RATIO, tonight=two(4, runs=3)),
    "ratio too large": Case(fields=RATIO, tonight=two(10, runs=3)),
    "ratio at its end": Case(fields=RATIO, tonight=two(9)),
    "difference holds": Case(fields=DIFFERENCE, tonight=two(9)),
    "difference within noise": Case(fields=DIFFERENCE, tonight=two(11.3, runs=3)),
    "difference too small": Case(fields=DIFFERENCE, tonight=two(6, runs=3)),
    "difference too large": Case(fields=DIFFERENCE, tonight=two(13), last_night=two(13)),
    "within": Case(fields={**WITHIN, "low": 8.0, "high": 10.0}, tonight={"1p3d": (9.0,)}),
    "within, noisy": Case(
        fields={**WITHIN, "high": 10.0}, tonight={"1p3d": (12.0,) * 3}, nights=NOISY
    ),
    "not within": Case(
        fields={**WITHIN, "high": 10.0}, tonight={"1p3d": (12.0,)}, last_night={"1p3d": (12.0,)}
    ),
    "rank holds": Case(fields=RANK, tonight=three(9, 10, 8)),
    "rank too high": Case(fields=RANK, tonight=three(7, 10, 8, runs=3)),
    "rank too low": Case(fields=RANK, tonight=three(12, 10, 8, runs=3)),
    "rank too high, one pair": Case(fields=RANK, tonight=three(7, 10, 8)),
    "rank within noise": Case(fields=RANK, tonight=three(7.9, 10, 8, runs=3)),
    "rank that ties": Case(fields={**RANK, "low": 1, "high": 1}, tonight=three(8, 10, 8)),
    "rank of rate": Case(
        fields={**RANK, "metric": "output_throughput", "low": 1, "high": 1},
        tonight=three(12, 10, 8),
    ),
    "rank among pairs": Case(
        fields={**RANK, "low": 1, "high": 2},
        tonight={"1p3d": (9.0, 11.0), "dp": (10.0, 10.0), "route4": (8.0, 8.0)},
    ),
    "rises": Case(fields=MONOTONE, tonight=along(10, 11, 12), cells=ALL),
    "does not rise": Case(fields=MONOTONE, tonight=along(10, 11, 9, runs=3), cells=ALL),
    "does not fall": Case(
        fields={**MONOTONE, "direction": "falls"}, tonight=along(12, 11, 14, runs=3), cells=ALL
    ),
    "one cell is no sweep": Case(fields=MONOTONE, tonight=along(10, 11, 12)),
    "crosses": Case(
        fields=CROSSING,
        tonight={"dp": (10.0,), "1p3d 512-256": (11.0,), "1p3d 512-1024": (9.0,)},
        cells=ALL,
    ),
    "does not cross": Case(
        fields=CROSSING,
        tonight={"dp": (10.0,) * 3, "1p3d 512-256": (9.0,) * 3, "1p3d 512-1024": (9.0,) * 3},
        cells=ALL,
    ),
    "crosses nowhere": Case(fields=CROSSING, tonight=two(9)),
    "apart by less": Case(fields=APART, tonight={**GAP, "1p3d 1024-256": (15.0,) * 3}, cells=ALL),
    "apart by more": Case(fields=APART, tonight={**GAP, "1p3d 1024-256": (10.5,) * 3}, cells=ALL),
    "apart by more, within noise": Case(
        fields=APART, tonight={**GAP, "1p3d 1024-256": (11.8,) * 3}, cells=ALL
    ),
    "apart by ratio": Case(
        fields={**APART, "measure": "ratio"},
        tonight={**GAP, "dp 1024-256": (20.0,) * 3, "1p3d 1024-256": (22.0,) * 3},
        cells=ALL,
    ),
    "apart, unequally many runs": Case(
        fields=APART,
        tonight={"dp": (10.0,), "1p3d": (12.0, 13.0, 11.0), "1p3d 1024-256": (15.0,)},
        cells=ALL,
    ),
    "apart by pairs": Case(
        fields={**APART, "output_lens": [512]},
        tonight={
            "dp": (1.0, 2.0, 3.0),
            "1p3d": (6.0, 7.0, 8.0),
            "dp 1024-256": (1.0, 10.0, 20.0),
            "1p3d 1024-256": (10.0, 20.0, 1.0),
        },
        cells=ALL,
    ),
    "nothing to lie apart from": Case(
        fields={**APART, "versus": {"panel": "prefill", "input_lens": [4096]}},
        tonight=GAP,
        cells=ALL,
    ),
    "a side of a gap is missing": Case(fields=APART, tonight={**GAP, "dp 1024-256": ()}, cells=ALL),
    "joint holds": Case(fields=JOINT, tonight={**two(9), "output_throughput 1p3d": (11.0,)}),
    "joint fails by its second part": Case(
        fields=JOINT,
        tonight={**two(9, runs=3), "output_throughput 1p3d": (8.0,) * 3},
    ),
    "difference too large, last night held": Case(
        fields=DIFFERENCE, tonight=two(13), last_night=two(9)
    ),
    "difference, a value of zero last night": Case(
        fields=DIFFERENCE, tonight=two(13), last_night=two(13, 0)
    ),
    "difference, missing": Case(fields=DIFFERENCE, tonight={"1p3d": (9.0,)}),
    "within, missing": Case(fields={**WITHIN, "high": 10.0}, tonight={"dp": (9.0,)}),
    "rank, missing": Case(fields=RANK, tonight=two(9)),
    "rank, one of two last night too": Case(
        fields={**RANK, "low": 3, "high": 3},
        tonight=three(7, 10, 10),
        last_night=two(7),
    ),
    "rank 2, one of two last night too": Case(
        fields=RANK, tonight=three(7, 10, 10), last_night=two(7)
    ),
    "not of that rank of rate": Case(
        fields={**RANK, "metric": "output_throughput"}, tonight=three(12, 10, 8, runs=3)
    ),
    "two cells rise": Case(fields=MONOTONE, tonight=along(10, 11), cells=ALL[::2]),
    "rises, missing": Case(fields=MONOTONE, tonight=along(10, 11), cells=ALL),
    "rate crosses": Case(
        fields={**CROSSING, "metric": "output_throughput"},
        tonight={"dp": (10.0,), "1p3d 512-256": (9.0,), "1p3d 512-1024": (11.0,)},
        cells=ALL,
    ),
    "crosses with a margin": Case(
        fields={**CROSSING, "margin": 0.2},
        tonight={"dp": (10.0,) * 3, "1p3d 512-256": (11.0,) * 3, "1p3d 512-1024": (9.0,) * 3},
        cells=ALL,
    ),
    "apart by more, as claimed": Case(
        fields={**APART, "direction": "larger"},
        tonight={**GAP, "1p3d 1024-256": (10.5,) * 3},
        cells=ALL,
    ),
    "apart by more in one of two": Case(
        fields={**APART, "versus": {"panel": "prefill", "input_lens": [512, 1024]}},
        tonight={**GAP, "1p3d 512-256": (15.0,) * 3, "1p3d 1024-256": (10.5,) * 3},
        cells=ALL,
    ),
    "apart, one pair": Case(
        fields=APART, tonight={"dp": (10.0,), "1p3d": (12.0,), "1p3d 1024-256": (10.5,)}, cells=ALL
    ),
    "apart, last night too": Case(
        fields=APART,
        tonight={"dp": (10.0,), "1p3d": (12.0,), "1p3d 1024-256": (10.5,)},
        last_night={"dp": (10.0,), "1p3d": (12.0,), "1p3d 1024-256": (10.5,)},
        cells=ALL,
    ),
    "apart, noisy nights": Case(
        fields=APART, tonight={**GAP, "1p3d 1024-256": (10.5,) * 3}, cells=ALL, nights=NOISY
    ),
    "a gap is missing": Case(
        fields={**APART, "output_lens": [512]},
        tonight={**GAP, "dp 512-512": (), "1p3d 1024-256": (15.0,) * 3},
        cells=ALL,
    ),
}
