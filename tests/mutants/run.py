"""Changes to the code that tests must notice: `python -m tests.mutants.run`; see docs/method/mutants.md.

Each is made by itself in a temporary copy of the checkout, where the tests of its subject then run.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("mutants.toml")
FAILED = 1  # pytest's exit status where tests ran and some failed

Outcome = Literal["killed", "survived", "stale", "timeout", "error"]


class StaleError(Exception):
    """The text that a mutant changes isn't in its file exactly once; the message says what to do."""


@dataclass(frozen=True)
class Mutant:
    """A change of a file's text, and the tests that should fail by it."""

    name: str
    file: str
    text: str
    replacement: str
    tests: list[str]
    """Arguments of pytest."""
    may_live: str = ""
    """Why none needs to fail; empty: one must."""

    def applied(self, content: str) -> str:
        """Return the file's content with the change; StaleError where its text is there more or less than once."""
        if (count := content.count(self.text)) != 1:
            raise StaleError(f"{self.name}: its text is {count} times in {self.file}: adapt {LIST.name} to the code")
        return content.replace(self.text, self.replacement)


def read_mutants() -> list[Mutant]:
    """Return the list."""
    return [Mutant(name, **fields) for name, fields in tomllib.loads(LIST.read_text(encoding="utf-8")).items()]


def copy_checkout(to: Path) -> None:
    """Copy the files that git knows or doesn't ignore, as they are now."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, subprocess.check_output(listed, text=True).split("\0")):
        if (ROOT / name).is_file():  # not removed since
            path = to / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((ROOT / name).read_bytes())


def run_tests(folder: Path, tests: Sequence[str], limit: float) -> tuple[int | None, list[str]]:
    """Run pytest there; return its exit status, None where the time was up, and the ids of the tests that failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-rf", "--tb=no", "-p", "no:cacheprovider"]
    # A mutant may differ in neither size nor second of writing, by which Python tells compiled files' age.
    environ = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            [*command, *tests], cwd=folder, env=environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            return None, []
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with the children of tests
                process.wait()
        out.seek(0)
        lines = out.read().splitlines()
    failed = [line.removeprefix("FAILED ").partition(" - ")[0] for line in lines if line.startswith("FAILED ")]
    return status, failed or lines[-1:]


def outcome(folder: Path, mutant: Mutant, limit: float) -> tuple[Outcome, list[str]]:
    """Try one mutant in a copy of the checkout, which is as before afterwards."""
    path = folder / mutant.file
    before = path.read_bytes()
    try:
        path.write_text(mutant.applied(before.decode()), encoding="utf-8")
        status, found = run_tests(folder, mutant.tests, limit)
    except StaleError as error:
        return "stale", [str(error)]
    finally:
        path.write_bytes(before)
    known: dict[int | None, Outcome] = {0: "survived", FAILED: "killed", None: "timeout"}
    return known.get(status, "error"), found


def bad_outcomes(mutants: Sequence[Mutant], folder: Path, limit: float) -> Iterator[str]:
    """Try every mutant and print how it went; yield the names of those that went as they must not."""
    for mutant in mutants:
        found, tests = outcome(folder, mutant, limit)
        said = f"{len(tests)} failed: {tests[0]}" if found == "killed" else mutant.may_live or " ".join(tests)
        print(f"{found:8}  {mutant.name}  {said}", flush=True)
        if found != "killed" and not (found == "survived" and mutant.may_live):
            yield mutant.name


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the mutants, and return the exit status: 1 if one lives that mustn't, or can't be judged."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of mutants (default: all)")
    parser.add_argument("--limit", type=float, default=300, metavar="SECONDS", help="of one run (default: 300)")
    given: Any = parser.parse_args(arguments)
    mutants = [each for each in read_mutants() if not given.names or each.name in given.names]
    if unknown := set(given.names) - {each.name for each in mutants}:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_checkout(folder)
        # A test that fails anyhow would kill every mutant.
        every = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
        status, failed = run_tests(folder, every, 10 * given.limit)
        if status != 0:
            print(f"without a mutant the tests don't pass: {', '.join(failed) or 'the time was up'}")
            return 1
        bad = list(bad_outcomes(mutants, folder, given.limit))
    print(f"{len(mutants) - len(bad)} of {len(mutants)} as they must be", *bad, sep="\n")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
