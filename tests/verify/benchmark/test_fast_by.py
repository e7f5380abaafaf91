"""The words that say by what measure a machine is fast: never the bare word, and never better than what was found."""

import math

import pytest

from alexnet_repro.verify.benchmark.fast_by import fast_by
from alexnet_repro.verify.benchmark.gate import GateCase, judge_speeds, no_reference
from alexnet_repro.verify.benchmark.noise import Level
from alexnet_repro.verify.benchmark.tolerances import Tolerances
from alexnet_repro.verify.finding import Finding

WEAK = "No reference here is strong enough to fail by"
OWN = "fast by its own measure"


def cases(results, *, can_fail=True):
    """Return a finding for each letter: `=` the same, `+` faster, `s` slower by half, `S` 3.68 times, `~` noisy."""
    words = {"=": "same", "+": "faster", "s": "slower", "S": "slower", "~": "noisy"}
    numbers = {"=": 1.0, "+": 0.5, "s": 1.5, "S": 3.68, "~": 1.0}
    return [
        Finding(
            "speed",
            "INCONCLUSIVE" if letter in "sS~" or not can_fail else "PASS",
            "",
            number=numbers[letter],
            bound=1.03,
            data={"result": words[letter], "can_fail": can_fail},
        )
        for letter in results
    ]


NONE = no_reference(["resize", "forward"], "cpu:0", "none is on file")
DIGESTS = Finding("golden", "INCONCLUSIVE", "no digests are on file")


NO_FILE = "No reference of this machine and software is on file"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        pytest.param([], (f"{OWN} alone", []), id="reference=not asked"),
        pytest.param([DIGESTS], (f"{OWN} alone", []), id="reference=digests only"),
        pytest.param([NONE], (OWN, [NO_FILE]), id="reference=none"),
        pytest.param(
            [Finding("speed", "FAIL", "references can't be read")], (OWN, [NO_FILE]), id="reference=unreadable"
        ),
        pytest.param(
            [*cases("==="), DIGESTS], (OWN, ["It is as fast as its reference in 3 of 3 cases"]), id="cases=same"
        ),
        pytest.param(cases("=+="), (OWN, ["It is as fast as its reference in 3 of 3 cases"]), id="cases=faster"),
        pytest.param(
            cases("=s=S="),
            (OWN, ["It is slower than its reference in 2 of 5 cases (worst 3.68 ×)"]),
            id="cases=slower",
        ),
        pytest.param(
            cases("==~"),
            (OWN, ["It is as fast as its reference in 2 of 3 cases, 1 too noisy to compare"]),
            id="cases=noisy",
        ),
        pytest.param(
            cases("s~~"),
            (OWN, ["It is slower than its reference in 1 of 3 cases (worst 1.50 ×), 2 too noisy to compare"]),
            id="cases=slower and noisy",
        ),
        pytest.param(
            cases("~~"),
            (OWN, ["How fast it is beside its reference is unknown, 2 too noisy to compare"]),
            id="cases=all noisy",
        ),
        pytest.param(
            [Finding("speed", "PASS", "", number=1.0)],
            (OWN, ["How fast it is beside its reference is unknown, 1 too noisy to compare"]),
            id="cases=without a result",
        ),
        pytest.param(
            [*cases("=="), NONE],
            (OWN, ["It is as fast as its reference in 2 of 4 cases, 2 without one"]),
            id="cases=without",
        ),
        pytest.param(
            cases("==", can_fail=False),
            (OWN, ["It is as fast as its reference in 2 of 2 cases", WEAK]),
            id="weak=same",
        ),
        pytest.param(
            cases("=S", can_fail=False),
            (
                OWN,
                [
                    "It is slower than its reference in 1 of 2 cases (worst 3.68 ×)",
                    WEAK,
                ],
            ),
            id="weak=slower",
        ),
        pytest.param(
            [*cases("=="), *cases("=", can_fail=False)],
            (
                OWN,
                [
                    "It is as fast as its reference in 3 of 3 cases",
                    f"Not every{WEAK[2:]}",
                ],
            ),
            id="weak=some",
        ),
    ],
)
def test_words(found, words):
    """The word comes with how timings compare with references, and with that they couldn't have failed."""
    assert fast_by({"reference": found}) == words


def test_several_machines():
    """Of several machines it is their measure and their references."""
    words = ["They are as fast as their references in 1 of 1 cases"]
    assert fast_by({"reference": cases("=")}, machines=2) == ("fast by their own measure", words)
    noisy = ["How fast they are beside their references is unknown, 1 too noisy to compare"]
    assert fast_by({"reference": cases("~")}, machines=2) == ("fast by their own measure", noisy)


def test_gate_and_words_agree():
    """Of what the gate finds by a reference of five processes, twice as slow, the words are these."""
    reference = [Level(0.001 * each, 0.0) for each in (-2, -1, 0, 1, 2)]
    slow = GateCase("resize", "cpu:0", "float32", reference, [Level(math.log(2), 0.0)])
    words = [
        "It is slower than its reference in 1 of 1 cases (worst 2.00 ×)",
        WEAK,
    ]
    assert fast_by({"reference": judge_speeds([slow], Tolerances())}) == (OWN, words)
