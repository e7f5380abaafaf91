"""By what measure a machine is fast: its own, and that of its references, in the words of the verdict."""

import math

from alexnet_repro.verify.finding import REFERENCE, Findings


def fast_by(findings: Findings, machines: int = 1) -> str:
    """Return "fast" with what it is measured by, for the verdict's sentence, whose subject has that many machines."""
    speed = [each for each in findings.get(REFERENCE, ()) if each.check == "speed"]
    compared = [each for each in speed if each.number is not None]
    own, its = ("its own measure", "its reference") if machines == 1 else ("their own measure", "their references")
    fast = f"fast by {own}"
    if not compared:
        return f"{fast}; no reference of this machine and software is on file" if speed else f"{fast} alone"
    without = sum(len(cases) for each in speed if isinstance(cases := each.data.get("cases"), list))
    slower = [each for each in compared if each.data.get("result") == "slower"]
    # Not in words of the gate's: of a results file that somebody made.
    noisy = sum(each.data.get("result") not in ("slower", "same", "faster") for each in compared)
    total = len(compared) + without
    if slower:
        worst = max(each.number or math.nan for each in slower)
        parts = [f"{fast}; slower than {its} in {len(slower)} of {total} cases (worst {worst:.2f} ×)"]
    else:
        parts = [f"{fast}; as fast as {its} in {len(compared) - noisy} of {total} cases"]
    parts += [f"{noisy} too noisy to compare"] if noisy else []
    parts += [f"{without} without one"] if without else []
    if weak := sum(each.data.get("can_fail") is False for each in compared):
        which = "nothing can fail by that" if weak == len(compared) else f"{weak} of them can't fail by it"
        parts.append(f"though {which}")
    return ", ".join(parts)
