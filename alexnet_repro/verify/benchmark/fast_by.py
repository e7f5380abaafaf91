"""By what measure a machine is fast: its own, and that of its references, in the words of the verdict."""

import math
from collections.abc import Sequence

from alexnet_repro.verify.finding import REFERENCE, Finding, Findings


def fast_by(findings: Findings, machines: int = 1) -> str:
    """Return "fast" with what it is measured by, for the verdict's sentence, whose subject has that many machines."""
    speed = [each for each in findings.get(REFERENCE, ()) if each.check == "speed"]
    compared = [each for each in speed if each.number is not None]
    own, its = ("its own measure", "its reference") if machines == 1 else ("their own measure", "their references")
    fast = f"fast by {own}"
    if not compared:
        return f"{fast}; no reference of this machine and software is on file" if speed else f"{fast} alone"
    without = sum(len(cases) for each in speed if isinstance(cases := each.data.get("cases"), list))
    slower = [each for each in compared if _result(each) == "slower"]
    noisy = sum(_result(each) == "noisy" for each in compared)
    total = len(compared) + without
    if slower:
        worst = max(each.number or math.nan for each in slower)
        parts = [f"{fast}; slower than {its} in {len(slower)} of {total} cases (worst {worst:.2f} ×)"]
    else:
        parts = [f"{fast}; as fast as {its} in {len(compared) - noisy} of {total} cases"]
    parts += [f"{noisy} too noisy to compare"] if noisy else []
    parts += [f"{without} without one"] if without else []
    return ", ".join([*parts, *_weakness(compared)])


def _result(finding: Finding) -> str:
    """Return what the gate found of a case; of a results file that doesn't say, by its number and status."""
    if isinstance(result := finding.data.get("result"), str):
        return result
    if finding.number is not None and finding.bound is not None and finding.number > finding.bound:
        return "slower"
    return "same" if finding.status == "PASS" else "noisy"


def _weakness(compared: Sequence[Finding]) -> list[str]:
    """Return that nothing could fail by some references."""
    weak = sum(each.data.get("can_fail") is False for each in compared)
    if not weak:
        return []
    return ["though nothing can fail by that" if weak == len(compared) else f"though {weak} of them can't fail by it"]
