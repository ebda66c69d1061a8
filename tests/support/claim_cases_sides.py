"""Claims whose verdicts follow from what is known of their sides, cells and entries."""

from __future__ import annotations

from dataclasses import replace

from tests.support.claim_case import ALL
from tests.support.claim_case import ENTRY
from tests.support.claim_case import NAMES
from tests.support.claim_case import NOISY
from tests.support.claim_case import RATE
from tests.support.claim_case import SIZES
from tests.support.claim_case import SWEEP
from tests.support.claim_case import VOID
from tests.support.claim_case import Case
from tests.support.claim_case import three
from tests.support.claim_case import two
from tests.support.claims import APART
from tests.support.claims import DIFFERENCE
from tests.support.claims import JOINT
from tests.support.claims import RANK
from tests.support.claims import WITHIN

SIDES = {
    "holds": Case(tonight=two(9)),
    "holds in three pairs": Case(tonight=two(9, runs=3)),
    "ties": Case(tonight=two(10)),
    "violated within noise": Case(tonight=two(10.2)),
    "violated within noise, three pairs": Case(tonight=two(10.2, runs=3)),
    "violated by more, one pair": Case(tonight=two(12)),
    "violated by more, two pairs": Case(tonight=two(12, runs=2)),
    "violated by more, three pairs": Case(tonight=two(12, runs=3)),
    "violated by more, last night too": Case(tonight=two(12), last_night=two(13)),
    "violated by more, last night within noise": Case(tonight=two(12), last_night=two(10.2)),
    "violated by more, last night held": Case(tonight=two(12), last_night=two(9)),
    "violated in the middle": Case(tonight={"1p3d": (10.1, 13.0, 12.0), "dp": (10.0,) * 3}),
    "violated, the median within noise": Case(
        tonight={"1p3d": (10.1, 13.0, 10.2), "dp": (10.0,) * 3}
    ),
    "violated in two of three": Case(tonight={"1p3d": (13.0, 9.0, 13.0), "dp": (10.0,) * 3}),
    "pairs are of one start": Case(tonight={"1p3d": (9.0, 12.0), "dp": (10.0, 13.0)}),
    "the range of pairs": Case(tonight={"1p3d": (12.0, 16.0, 14.0), "dp": (10.0,) * 3}),
    "unequally many runs hold": Case(tonight={"1p3d": (9.0, 8.0, 12.0), "dp": (10.0,)}),
    "unequally many runs do not": Case(tonight={"1p3d": (9.0, 13.0, 12.0), "dp": (10.0,)}),
    "noisy nights": Case(tonight=two(12, runs=3), nights=NOISY),
    "no nights, within noise": Case(tonight=two(11.5, runs=3), nights=None),
    "no nights, beyond": Case(tonight=two(12, runs=3), nights=None),
    "nights that lack the subject": Case(tonight=two(12, runs=3), first_night={"1p3d": 8}),
    "nights that lack the other": Case(tonight=two(12, runs=3), first_night={"dp": 8}),
    "a floor of the system": Case(tonight=two(12, runs=3), known={"floors": {"mean_itl_ms": 0.25}}),
    "a cell of two": Case(
        tonight={"dp": (10.0,) * 3, "1p3d": (9.0,) * 3, "1p3d 512-512": (12.0,) * 3},
        cells=("512-256", "512-512"),
    ),
    "no cell": Case(fields={"output_lens": [99]}, tonight=two(9)),
    "missing": Case(tonight={"1p3d": (9.0,)}),
    "missing beside a contradiction": Case(
        tonight={"dp 512-256": (10.0,) * 3, "1p3d": (12.0,) * 3}, cells=("512-256", "512-512")
    ),
    "zero": Case(tonight=two(0)),
    "void": Case(tonight=two(9), findings=(VOID,)),
    "invalid": Case(tonight={"1p3d": (9.0,)}, known={"invalid": {("dp", SWEEP[0].id)}}),
    "broken": Case(tonight={"1p3d": (9.0,)}, known={"broken": {"dp"}}),
    "derived": Case(
        fields={"metric": "decoding_requests"},
        tonight={
            **two(12, runs=3),
            "request_throughput 1p3d": (2.0,) * 3,
            "request_throughput dp": (2.0,) * 3,
        },
        usual={**two(9), "request_throughput 1p3d": (2.0,), "request_throughput dp": (2.0,)},
    ),
    "derived, by pairs": Case(
        fields={"metric": "decoding_requests"},
        tonight={
            "1p3d": (30.0, 10.0, 40.0),
            "dp": (20.0,) * 3,
            "request_throughput 1p3d": (1.0, 3.0, 2.0),
            "request_throughput dp": (2.0,) * 3,
        },
    ),
    "derived, missing": Case(
        fields={"metric": "decoding_requests"},
        tonight={**two(9), "request_throughput 1p3d": ()},
    ),
    "per GPU": Case(
        fields={**RATE, "per": "gpu"},
        tonight={"1p3d": (160.0,) * 3, "dp": (320.0,) * 3},
        usual={"1p3d": (160.0,), "dp": (320.0,)},
        known={"per_gpu": True, "sizes": SIZES},
    ),
    "per GPU without sizes": Case(
        fields={**RATE, "per": "gpu"}, tonight=two(160), known={"per_gpu": True}
    ),
    "expected": Case(tonight=two(12, runs=3), entries=[ENTRY]),
    "expected, one pair": Case(tonight=two(12), entries=[ENTRY]),
    "expected elsewhere": Case(
        tonight={"dp": (10.0,) * 3, "1p3d": (9.0,) * 3, "1p3d 512-512": (12.0,) * 3},
        cells=("512-256", "512-512"),
        entries=[ENTRY],
    ),
    "expected, and another cell": Case(
        tonight=two(12, runs=3), cells=("512-256", "512-512"), entries=[ENTRY]
    ),
    "expected in vain": Case(tonight=two(9), entries=[ENTRY]),
    "expected, within noise": Case(tonight=two(10.2), entries=[ENTRY]),
    "expected everywhere": Case(
        tonight=two(12, runs=3),
        cells=("512-256", "512-512"),
        entries=[replace(ENTRY, cells=None)],
    ),
    "expected of another claim": Case(
        tonight=two(12, runs=3), entries=[replace(ENTRY, claims=("other",))]
    ),
    "expected of two, one of which holds": Case(
        tonight={"dp": (10.0,) * 3, "1p3d 512-256": (12.0,) * 3, "1p3d": (9.0,) * 3},
        cells=ALL,
        entries=[replace(ENTRY, cells=("512-512", "512-1024"), owner="bob"), ENTRY],
    ),
    "expected, and missing": Case(
        tonight={"dp 512-256": (10.0,) * 3, "1p3d": (12.0,) * 3},
        cells=("512-256", "512-512"),
        entries=[ENTRY],
    ),
    "derived, nights of one metric": Case(
        fields={"metric": "decoding_requests"},
        tonight={
            **two(12, runs=3),
            "request_throughput 1p3d": (2.0,) * 3,
            "request_throughput dp": (2.0,) * 3,
        },
        usual={**two(9), "request_throughput 1p3d": (), "request_throughput dp": ()},
    ),
    "derived, last night too": Case(
        fields={"metric": "decoding_requests"},
        tonight={
            **two(12),
            "request_throughput 1p3d": (2.0,),
            "request_throughput dp": (2.0,),
        },
        last_night={
            **two(12),
            "request_throughput 1p3d": (2.0,),
            "request_throughput dp": (2.0,),
        },
    ),
    "per GPU, last night too": Case(
        fields={**RATE, "per": "gpu"},
        tonight={"1p3d": (160.0,), "dp": (800.0,)},
        last_night={"1p3d": (160.0,), "dp": (800.0,)},
        usual={"1p3d": (160.0,), "dp": (320.0,)},
        known={"per_gpu": True, "sizes": SIZES},
    ),
    "latency per GPU": Case(
        fields={**JOINT, "per": "gpu"},
        tonight={**two(9), "output_throughput 1p3d": (4.0,)},
        known={"per_gpu": True, "sizes": SIZES},
    ),
    "sizes that differ": Case(tonight=two(9), known={"sizes": SIZES}),
    "two entries": Case(
        tonight=two(12, runs=3),
        cells=("512-256", "512-512"),
        entries=[replace(ENTRY, claims=None), ENTRY, replace(ENTRY, cells=("512-512",))],
    ),
    "the second run is void": Case(tonight=two(9, runs=2), findings=(VOID,), void_from=1),
    "read: holds": Case(tonight=two(9), off=0.1),
    "read: does not": Case(tonight=two(11), off=0.1),
    "read: may be off": Case(tonight=two(9.9), off=0.1),
    "read: may be off above": Case(tonight=two(10.1), off=0.1),
    "read: ties": Case(tonight=two(10), off=0.0),
    "read: above ties": Case(fields={"kind": "above"}, tonight=two(10), off=0.0),
    "read: off by all": Case(tonight=two(30), off=10.0),
    "read: difference may be off": Case(fields=DIFFERENCE, tonight=two(10.9), off=0.1),
    "read: difference": Case(fields=DIFFERENCE, tonight=two(10.9), off=0.01),
    "read: not that difference": Case(fields=DIFFERENCE, tonight=two(12), off=0.1),
    "read: within": Case(fields={**WITHIN, "high": 10.0}, tonight=two(9.8), off=0.1),
    "read: within may be off": Case(fields={**WITHIN, "high": 10.0}, tonight=two(9.95), off=0.1),
    "read: rank": Case(fields=RANK, tonight=three(9, 10, 8), off=0.1),
    "read: rank that ties": Case(fields=RANK, tonight=three(8, 10, 8), off=0.0),
    "read: rank may be off": Case(fields=RANK, tonight=three(8.1, 10, 8), off=0.1),
    "read: not of that rank": Case(fields=RANK, tonight=three(7, 10, 8), off=0.1),
    "read: apart": Case(
        fields=APART, tonight={**two(12), "1p3d 1024-256": (12.5,)}, off=0.1, cells=ALL
    ),
    "read: apart may be off": Case(
        fields=APART, tonight={**two(12), "1p3d 1024-256": (12.3,)}, off=0.1, cells=ALL
    ),
    "read: apart by ratio": Case(
        fields={**APART, "measure": "ratio"},
        tonight={**two(12), "1p3d 1024-256": (12.5,)},
        off=0.1,
        cells=ALL,
    ),
    "read: derived": Case(
        fields={"metric": "decoding_requests"},
        tonight={**two(9), "request_throughput 1p3d": (2.0,), "request_throughput dp": (2.0,)},
        off=0.1,
    ),
    "read: per GPU": Case(
        fields={**RATE, "per": "gpu"},
        tonight={"1p3d": (160.0,), "dp": (600.0,)},
        off=10.0,
        known={"per_gpu": True, "sizes": SIZES},
    ),
    "read: missing": Case(tonight={"1p3d": (9.0,)}, off=0.1),
    "a clear violation is named first": Case(
        tonight={"dp": (10.0,), "1p3d 512-256": (10.2,), "1p3d": (12.0,)},
        cells=("512-256", "512-512"),
    ),
    "no cell of the panel": Case(tonight=two(9), cells=("1024-256",)),
    "no cell of either panel": Case(fields={"panel": "both", "output_lens": [99]}, tonight=two(9)),
    "too large to be true": Case(tonight=two(9, 1e19)),
    "too large in one run": Case(tonight={"1p3d": (9.0, 1e19), "dp": (10.0, 10.0)}),
    "zero in one run": Case(tonight={"1p3d": (9.0, 0.0), "dp": (10.0, 10.0)}),
    "derived, the second metric is missing": Case(
        fields={"metric": "decoding_requests"},
        tonight={**two(2), "mean_itl_ms 1p3d": ()},
    ),
    "derived, a floor of the system": Case(
        fields={"metric": "decoding_requests"},
        tonight=two(12, runs=3),
        known={"floors": {"mean_itl_ms": 0.25}},
    ),
    "derived, noisy nights": Case(
        fields={"metric": "decoding_requests"}, tonight=two(20, runs=3), nights=NOISY
    ),
    "per GPU, last night held": Case(
        fields={**RATE, "per": "gpu"},
        tonight={"1p3d": (160.0,), "dp": (800.0,)},
        last_night={"1p3d": (160.0,), "dp": (320.0,)},
        known={"per_gpu": True, "sizes": SIZES},
    ),
    "per GPU, missing": Case(
        fields={**RATE, "per": "gpu"},
        tonight={"1p3d": (160.0,)},
        known={"per_gpu": True, "sizes": SIZES},
    ),
    "per GPU, nights that lack a side": Case(
        fields={**RATE, "per": "gpu"},
        tonight={"1p3d": (160.0,), "dp": (800.0,)},
        first_night={"dp": 8},
        known={"per_gpu": True, "sizes": SIZES},
    ),
    "apart per GPU": Case(
        fields={**APART, "metric": "output_throughput", "per": "gpu"},
        tonight={"1p3d": (160.0,) * 3, "dp": (320.0,) * 3, "dp 1024-256": (600.0,) * 3},
        usual={"1p3d": (160.0,), "dp": (320.0,), "dp 1024-256": (600.0,)},
        known={"per_gpu": True, "sizes": SIZES},
        nights=NOISY,
        cells=ALL,
    ),
    "equal sizes": Case(tonight=two(9), known={"sizes": dict.fromkeys(NAMES[:2], SIZES["dp"])}),
    "one size is known": Case(tonight=two(9), known={"sizes": {"dp": SIZES["dp"]}}),
    "read: apart, of three": Case(
        fields={**APART, "topologies": list(NAMES)},
        tonight={**three(12, 10, 11), "1p3d 1024-256": (12.5,)},
        off=0.1,
        cells=ALL,
    ),
}
