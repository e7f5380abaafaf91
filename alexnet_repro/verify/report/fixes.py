"""A finding's fix as steps: what can be pasted into a shell, and what is prose.

A fix is one line, `step; step`. A command begins with one of `PROGRAMS`, may come after `prose: `, and ends before a
comma, a parenthesis or a `# comment`, which are prose.
"""

import re
from typing import NamedTuple

from alexnet_repro.layout import VERIFY

LONGEST = 2000  # characters
MAX_TESTS = 8  # to run again that are named in one command
RERUN_TEST = re.compile(rf"(?:pytest|{re.escape(VERIFY)}) (\S+::\S+); ")
PROGRAMS = (
    *("apptainer", "cat", "df", "docker", "echo", "export", "git", "grep", "iperf3", "lscpu", "lspci", "nvidia-smi"),
    *("nvidia-cuda-mps-control", "pip", "podman", "py-spy", "pytest", "python", "sbatch", "srun", "sudo", "systemctl"),
    *("ulimit", "unset", "wsl"),
    *(r"free(?=\ -|\Z)", r"top(?=\ -|\Z)"),  # which are words, too
)
_COMMAND = re.compile(
    rf"""(?P<prose>|[^;]*?:\ )
    (?P<command>(?:{"|".join(PROGRAMS)})(?=[\ ,]|\Z)(?!\ (?:and|as|does|has|in|is|or)\ )
        (?:'[^']*'|(?!,\ |\ \#\ |\ \().)*)
    (?:,\ |\ \#\ |\ (?=\()|\Z)(?P<rest>.*)""",
    re.VERBOSE | re.DOTALL,
)


class Step(NamedTuple):
    """One step of a fix: a shell command, or prose."""

    text: str
    command: bool = False


def steps(fix: str) -> list[Step]:
    """Return the steps of a fix, in their order; none of an empty one. A text longer than any fix is prose."""
    if len(fix) > LONGEST:
        return [Step(fix)]
    found: list[Step] = []
    for part in fix.split("; "):
        rest = part.strip()
        while rest and (matched := _COMMAND.fullmatch(rest)):
            _add_prose(found, matched["prose"])
            found.append(Step(matched["command"].strip(), command=True))
            rest = matched["rest"].strip()
        _add_prose(found, rest)
    return found


def _add_prose(found: list[Step], text: str) -> None:
    if found and text and not found[-1].command:
        found[-1] = Step(f"{found[-1].text}; {text.strip()}")
    elif text:
        found.append(Step(text.strip()))
