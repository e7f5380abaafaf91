"""By what measure a machine is fast: its own, and that of its references, in the words of the verdict."""

import math

from alexnet_repro.verify.finding import REFERENCE, Findings


def fast_by(findings: Findings, machines: int = 1) -> tuple[str, list[str]]:
    """Return "fast" with what it is measured by, and sentences about references, whose subject has that many machines.

    The first is of the verdict's own sentence, and claims nothing about references.
    """
    speed = [each for each in findings.get(REFERENCE, ()) if each.check == "speed"]
    compared = [each for each in speed if each.number is not None]
    own, its = ("its own measure", "its reference") if machines == 1 else ("their own measure", "their references")
    they_are = "it is" if machines == 1 else "they are"
    fast = f"fast by {own}"
    if not compared:
        return (fast, ["No reference of this machine and software is on file"]) if speed else (f"{fast} alone", [])
    without = sum(len(cases) for each in speed if isinstance(cases := each.data.get("cases"), list))
    slower = [each for each in compared if each.data.get("result") == "slower"]
    # Not in words of the gate's: of a results file that somebody made.
    noisy = sum(each.data.get("result") not in ("slower", "same", "faster") for each in compared)
    total = len(compared) + without
    same = len(compared) - noisy
    if slower:
        worst = max(each.number or math.nan for each in slower)
        parts = [f"{they_are} slower than {its} in {len(slower)} of {total} cases (worst {worst:.2f} ×)"]
    elif same:
        parts = [f"{they_are} as fast as {its} in {same} of {total} cases"]
    else:
        parts = [f"how fast {they_are} beside {its} is unknown"]
    parts += [f"{noisy} too noisy to compare"] if noisy else []
    parts += [f"{without} without one"] if without else []
    weak = sum(each.data.get("can_fail") is False for each in compared)
    which = "No" if weak == len(compared) else "Not every"
    sentence = ", ".join(parts)
    weakness = [f"{which} reference here is strong enough to fail by"] if weak else []
    return fast, [f"{sentence[0].upper()}{sentence[1:]}", *weakness]
