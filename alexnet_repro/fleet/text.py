"""A fleet's verdict for the terminal, at most a screen of it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from alexnet_repro.fleet.node_names import names_in_words
from alexnet_repro.fleet.page_tables import questions
from alexnet_repro.fleet.records import FleetAnswer, FleetFinding
from alexnet_repro.fleet.summary import Todo, fleet_headline, todo
from alexnet_repro.fleet.texts import printable
from alexnet_repro.verify.report.fixes import steps
from alexnet_repro.verify.report.text import wrapped

WIDTH = 80
MAX_TODO = 5  # things that are written out
MAX_NOTES = 3
MESSAGE_LINES = 4  # of a message
OUTPUTS = ("fleet.html", "fleet.json", "fleet.junit.xml", "fleet.prom")


def terminal_lines(answer: FleetAnswer) -> list[str]:
    """Return the verdict, the questions, the failures and doubts with the worst first, the files, and the verdict."""
    verdict = wrapped(f"{answer.verdict}: {printable(fleet_headline(answer), 2000)}", WIDTH, 2)
    lines = [*verdict, ""]
    for question, status, text in questions(answer):
        lines += _cut(wrapped(f"{question:<27}{status:<14}{printable(text, 500)}", WIDTH, 41), 3)
    tasks = todo(answer)
    for each in tasks[:MAX_TODO]:
        lines += ["", *_task_lines(each)]
    if more := tasks[MAX_TODO:]:
        things = f"{len(more):,} more thing{'s' * (len(more) > 1)}"
        lines += ["", f"and {things}, for {names_in_words(_nodes(more), 4) or 'no node'}: see fleet.html"]
    if notes := list(_notes(answer)):
        lines += ["", "worth knowing:", *notes]
    if answer.out:
        lines += ["", f"{answer.out}: {', '.join(OUTPUTS)}"]
    return [*lines, *(["", *verdict] if tasks else [])]  # after much else, it isn't on the screen any more


def _task_lines(task: Todo) -> list[str]:
    """Return a thing to do: what it is about, its first findings, and the fix."""
    first, *others = _distinct(task.findings)
    lines = wrapped(f"{task.status:<14}{printable(task.title)}", WIDTH, 16)
    if task.nodes:
        lines += _cut(wrapped(f"{'':<14}{printable(task.nodes, 1000)}", WIDTH, 16), 2)
    for text in (first.message, first.evidence):
        lines += _cut(wrapped(f"{'':<14}{printable(text, 500)}", WIDTH, 16), MESSAGE_LINES) if text else []
    if others:
        lines.append(f"{'':<14}and {len(others):,} other message{'s' * (len(others) > 1)}")
    for number, step in enumerate(steps(printable(first.fix, 500))):
        text = f"{'' if number else 'fix:':>18} {printable(step.text, 500)}"
        lines += [text] if step.command else wrapped(text, WIDTH, 19)
    return lines


def _distinct(findings: Sequence[FleetFinding]) -> list[FleetFinding]:
    """Return the first finding of each message."""
    return list({each.message: each for each in reversed(findings)}.values())[::-1]


def _nodes(tasks: Sequence[Todo]) -> set[str]:
    return {each.node for task in tasks for each in task.findings if each.node}


def _notes(answer: FleetAnswer) -> Iterator[str]:
    """Yield what is other on some nodes and no fault, each once, with the nodes."""
    nodes: defaultdict[str, set[str]] = defaultdict(set)
    for each in answer.findings:
        if each.status == "PASS":
            nodes[each.message].add(each.node)
    ordered = sorted(nodes.items(), key=lambda item: -len(item[1]))
    for message, whose in ordered[:MAX_NOTES]:
        names = names_in_words({each for each in whose if each}, 3)
        text = f"  {names}: {message}" if names else f"  {message}"
        yield from _cut(wrapped(printable_indented(text), WIDTH, 4), 2)
    if len(ordered) > MAX_NOTES:
        yield f"  and {len(ordered) - MAX_NOTES:,} more: see fleet.html"


def printable_indented(text: str) -> str:
    """Return a text as one line that a terminal prints, with the spaces that it begins with."""
    return f"{' ' * (len(text) - len(text.lstrip(' ')))}{printable(text, 500)}"


def _cut(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1][: WIDTH - 2]} …"]
