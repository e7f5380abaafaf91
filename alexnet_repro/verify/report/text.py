"""The wording of reports: verdicts, names and numbers as plain text, without HTML, Markdown or terminal codes."""

import math
import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from alexnet_repro.layout import VERIFY
from alexnet_repro.verify.benchmark.fast_by import fast_by
from alexnet_repro.verify.finding import DOCTOR, IGNORED, Finding, Status, worst
from alexnet_repro.verify.report.fixes import MAX_TESTS, RERUN_TEST, steps
from alexnet_repro.verify.report.run_record import RunRecord
from alexnet_repro.verify.verdict import verdicts

SIGNS: dict[Status, str] = {"PASS": "✓", "FAIL": "✗", "INCONCLUSIVE": "?"}
NONE = "–"
TERMINAL_WIDTH = 100  # characters, where there is no terminal
LISTED = 3  # findings of one thing to do that are written out
MAX_NAMED = 3  # checks that the verdict's line names


def headline(record: RunRecord) -> str:
    """Return the verdict as sentences, after the level if it isn't the standard one."""
    text = in_words(record)
    if record.level != "standard":
        return f"{record.level.capitalize()} level: {text}."
    first, space, rest = text.partition(" ")
    return f"{first.capitalize() if first.isalpha() else first}{space}{rest}."  # a device's name stays as it is


def verdict_line(record: RunRecord) -> str:
    """Return the verdict, its level and what it says, as one line."""
    level = "" if record.level == "standard" else f" ({record.level})"
    return f"{record.verdict}{level}: {in_words(record)}"


def in_words(record: RunRecord) -> str:
    """Return what the verdict says, which claims no more than what ran, with why a run ended early.

    They are sentences, of which the first begins with a small letter and the last has no full stop.
    """
    words = {"PASS": _passed, "FAIL": _failed, "INCONCLUSIVE": _inconclusive}[record.verdict](record)
    return words if record.complete else f"{words}; the run didn't finish: {why_ended(record)}"


def _passed(record: RunRecord) -> str:
    count = machines(record)
    these, are = ("this machine", "is") if count == 1 else (f"these {count} machines", "are")
    fast, more = fast_by(record.findings, count)
    if record.level == "quick":
        fast += ", as far as the quick level looks"
        more = [*more, "Everything: --level=standard"]
    return ". ".join([f"{these} {are} correct, repeatable and {fast}", *more])


def _failed(record: RunRecord) -> str:
    """Return what failed: a GPU or else the set-up, where the doctor failed it; of the checks their devices by name."""
    failed = {group: [each for each in found if each.status == "FAIL"] for group, found in record.findings.items()}
    of_doctor = failed.pop(DOCTOR, [])
    of_gpus = [each for each in of_doctor if "gpu" in each.device.lower()]
    of_set_up = [each.check for each in of_doctor if "gpu" not in each.device.lower()]
    checks = [(each.device, f"{each.check} {each.precision}".strip()) for found in failed.values() for each in found]
    if not checks and not of_doctor:  # what died may have left no finding
        checks = [(each.device, each.short) for each in record.plan if each.status == "FAIL"]
    clauses = [f"the set-up isn't right ({_some(of_set_up)})"] if of_set_up else []
    if of_gpus:
        several = list(dict.fromkeys(each.device for each in of_gpus))
        are = "isn't" if len(several) == 1 else "aren't"
        clauses.append(f"{_and(several)} {are} right ({_some(each.check for each in of_gpus)})")
    if checks:
        who = _and(list(dict.fromkeys(device for device, _ in checks if device))) or "this machine"
        what = f"{len(checks)} check{'s' * (len(checks) != 1)} ({_some(check for _, check in checks)})"
        clauses.append(f"{who} failed {what}")
    ignored = f"; {what}" if (what := _ignored(record)) else ""
    return f"{_and(clauses) or 'a check failed'}; the fix is listed{ignored}"


def _inconclusive(record: RunRecord) -> str:
    plan, ignored = record.plan, _ignored(record)
    left = sum(each.state != "answered" for each in plan)
    doubts = [ignored] if ignored else []
    doubts += [f"{left} of {len(plan)} planned checks weren't answered"] if left else []
    doubts = doubts or ["not every check was conclusive" if plan else "nothing was planned"]
    return f"{'no check' if ignored else 'nothing'} failed, but {' and '.join(doubts)}"


def _ignored(record: RunRecord) -> str:
    """Return what `--ignore-doctor` passed over; empty: nothing."""
    ignored = [each.check for each in record.findings.get(DOCTOR, ()) if each.data.get(IGNORED)]
    return f"what the doctor failed ({_some(ignored)}) was ignored" if ignored else ""


def _some(names: Iterable[str]) -> str:
    """Return the first few names, each once, and how many more there are."""
    several = list(dict.fromkeys(names))
    more = len(several) - MAX_NAMED
    return ", ".join([*several[:MAX_NAMED], *([f"{more} more"] if more > 0 else [])])


def _and(names: Sequence[str]) -> str:
    """Return names as in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def summary(record: RunRecord, width: int = TERMINAL_WIDTH) -> list[str]:
    """Return the lines for the terminal: the verdict, the groups, each thing to do once, and what wasn't answered.

    They are at most `width` characters wide, but for a longer word.
    """
    lines = [*wrapped(verdict_line(record), width), ""]
    for group, status in verdicts(record.findings, record.plan).items():
        lines += wrapped(f"{group:<12}{status:<14}{group_counts(record, group)}", width, 26)
    for task in tasks(record):
        lines += ["", *_task_lines(task, width)]
    if missing := unanswered(record):
        lines += ["", "not answered:", *(line for each in missing for line in wrapped(f"  {each}", width, 4))]
    return lines


def group_counts(record: RunRecord, group: str) -> str:
    """Return how many of a group's findings passed, and how much of its plan wasn't answered."""
    statuses = [each.status for each in record.findings.get(group, ())]
    passed = [f"{statuses.count('PASS')} of {len(statuses)} passed"] if statuses else []
    others = (("FAIL", "failed"), ("INCONCLUSIVE", "inconclusive"))
    parts = [f"{statuses.count(status)} {word}" for status, word in others if status in statuses]
    states = [each.state for each in record.plan if each.group == group]
    left = len(states) - states.count("answered")
    return ", ".join([*passed, *parts, *([f"{left} of {len(states)} not answered"] if left else [])]) or "not run"


def why_ended(record: RunRecord) -> str:
    """Return why a run ended early."""
    return str(record.run.get("ended") or "it was killed, or still runs")


def unanswered(record: RunRecord) -> list[str]:
    """Return what of the plan wasn't answered: a line per device and reason, which names each."""
    left: defaultdict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for each in record.plan:
        if each.state != "answered":
            left[each.device, each.state, each.why][each.short] += 1
    return [
        f"{device or 'machine'}: {state}{f' ({why})' if why else ''}: "
        + ", ".join(name if count == 1 else f"{name} ×{count}" for name, count in names.items())
        for (device, state, why), names in left.items()
    ]


def run_line(record: RunRecord) -> str:
    """Return who ran what, where, when and for how long, as one line."""
    run = record.run
    seconds = run.get("seconds")
    duration = f"{seconds:.0f} s" if isinstance(seconds, int | float) else ""
    versions = f"alexnet-repro {run['version']}" if run.get("version") else ""
    revision = f"revision {run['revision']}" if run.get("revision") else ""
    several = run.get("hosts")
    hosts = ", ".join(map(str, several if isinstance(several, list) else [run.get("host", "")]))
    who = (hosts, run.get("started"), duration, versions, revision, run.get("command"))
    return " · ".join(str(each) for each in who if each)


def machines(record: RunRecord) -> int:
    """Return the number of machines that a run verified."""
    named = record.machine.get("machines")
    return len(named) if isinstance(named, list) else 1


def problems(record: RunRecord) -> list[Finding]:
    """Return every finding that isn't PASS: failures first, then inconclusive ones, each in their order."""
    every = [each for found in record.findings.values() for each in found if each.status != "PASS"]
    return sorted(every, key=lambda finding: finding.status != "FAIL")


class Task(NamedTuple):
    """One thing to do, and the findings that it would settle."""

    fix: str  # empty where nothing is known to help
    findings: Sequence[Finding]

    @property
    def status(self) -> Status:
        """The worst of the findings'."""
        return worst(self.findings)


def tasks(record: RunRecord) -> list[Task]:
    """Return each distinct thing to do once, failures first; findings without a fix go by check and message."""
    return grouped(problems(record))


def grouped(findings: Sequence[Finding]) -> list[Task]:
    """Return findings by what is to do: the same fix, or the same commands for findings of one check.

    Commands that differ in the test to run again are the same, and become one that names these tests.
    """
    by_fix: defaultdict[tuple[str, ...], list[Finding]] = defaultdict(list)
    fixes: dict[tuple[str, ...], str] = {}
    tests: defaultdict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for each in findings:
        again = RERUN_TEST.match(each.fix)
        fix = each.fix[again.end() :] if again else each.fix
        commands = [step.text for step in steps(fix) if step.command]
        key: tuple[str, ...] = ("commands", each.check, *commands)
        if again or not commands:
            key = ("test" if again else "fix", fix) if fix else ("", each.check, each.message)
        by_fix[key].append(each)
        fixes.setdefault(key, fix)
        if again:
            tests[key][again[1]] = None
    for key, names in tests.items():
        few = f" {' '.join(names)}" if len(names) <= MAX_TESTS else ""
        fixes[key] = f"{VERIFY}{few}; {fixes[key]}"
    return [Task(fixes[key], found) for key, found in by_fix.items()]


def suggestions(record: RunRecord) -> list[Task]:
    """Return what would make better what works already, each thing once: of findings that passed and have a fix."""
    return grouped([each for found in record.findings.values() for each in found if each.status == "PASS" and each.fix])


def name(finding: Finding) -> str:
    """Return a check's name, as `gpu:0 layers float32`."""
    return " ".join(filter(None, (finding.device, finding.check, finding.precision)))


def facts(machine: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, str]]:
    """Return names and values of what a run recorded of its machine."""
    for key, value in machine.items():
        label = f"{under}{key}".replace("_", " ")
        if isinstance(value, Mapping) and value:
            yield from facts(value, f"{label}, ")
        elif isinstance(value, list | tuple | Mapping):
            yield label, ", ".join(map(str, value)) or "none"
        else:
            yield label, "none" if value is None else str(value)


def parameters(case: str) -> tuple[str, dict[str, str]]:
    """Return a case's name and its parameters: `forward[batch=1-device=cpu:0]` is `forward`, and those two."""
    title, _, rest = case.partition("[")
    return title, dict(re.findall(r"(\w+)=(.*?)(?=-\w+=|\]?$)", rest))


def label(case: str, omit: Sequence[str] = ()) -> str:
    """Return a case's name for people, as `forward, batch 1, float32`."""
    title, chosen = parameters(case)
    named = {"batch": "batch ", "side": "side ", "xla": "XLA "}
    return ", ".join([title, *(f"{named.get(key, '')}{value}" for key, value in chosen.items() if key not in omit)])


def kind(case: str) -> str:
    """Return what cases of all devices, batches and precisions have in common, as `train_step, XLA on`."""
    return label(case, ("device", "batch", "precision"))


def seconds(value: float) -> str:
    """Return a duration with four significant digits, in the largest unit that it reaches."""
    if not math.isfinite(value):
        return str(value)
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.4g} {unit}" if value < 9999 * size else f"{value / size:,.0f} {unit}"
    return f"{value * 1e6:.4g} µs"


def quantity(value: float) -> str:
    """Return a rate, with decimals where there are few digits before them."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def percent(value: float | None, digits: int = 0) -> str:
    """Return a fraction as a percentage; a dash where there is none."""
    return NONE if value is None else f"{value * 100:.{digits}f} %"


def _task_lines(task: Task, width: int) -> list[str]:
    """Return a thing to do with what it is for: all of one finding, or the first of several and the others' names."""
    first, *others = task.findings
    if not others:
        texts = [described(first), *([f"evidence: {first.evidence}"] if first.evidence else [])]
    elif not task.fix:
        texts = [first.message, f"in {len(task.findings)} cases: {_names(task.findings)}"]
    else:
        texts = [f"{len(task.findings)} cases", *map(described, task.findings[:LISTED])]
        if rest := task.findings[LISTED:]:
            texts.append(f"and {len(rest)} more: {_names(rest)}")
    lines = [line for text in texts for each in text.splitlines() for line in wrapped(f"{'':<14}{each}", width, 16)]
    for number, step in enumerate(steps(task.fix)):
        text = f"{'' if number else 'fix:':>18} {step.text}"
        lines += [text] if step.command else wrapped(text, width, 19)  # a command is whole, to be pasted
    return [f"{task.status:<14}{lines[0][14:]}", *lines[1:]]


def _names(findings: Sequence[Finding]) -> str:
    counted = Counter(name(each) for each in findings)
    return ", ".join(each if count == 1 else f"{each} ×{count}" for each, count in counted.items())


def described(finding: Finding) -> str:
    """Return a check's name and its message."""
    return f"{name(finding)}: {finding.message}"


def wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """Return a text's lines of at most `width` characters; words stay whole, and all lines but the first are indented.

    The spaces that it begins with stay, and so do those between columns on its first line.
    """
    wrapper = textwrap.TextWrapper(
        max(width, indent + 20), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    joined = text.replace(" ×", "\N{NO-BREAK SPACE}×")  # `layers ×2` stays on one line
    return [line.replace("\N{NO-BREAK SPACE}×", " ×") for line in wrapper.wrap(joined)] or [""]
