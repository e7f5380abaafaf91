"""Refuse the phrases in phrases.txt, in every file that people read: names the line, and what to write instead."""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
# The changelog and records keep the words of their day.
READ = ("*.py", "*.pyi", "*.md", "*.html", "*.toml", "*.ini", ":!CHANGELOG.md", ":!.ci", ":!benchmarks/records/*/*")


def refused(text: str) -> list[tuple[int, str, str]]:
    """Return each refused phrase of a text: its line, itself, and what to write instead."""
    return [
        (text.count("\n", 0, found.start()) + 1, found.group(), instead)
        for pattern, instead in PHRASES.items()
        for found in re.finditer(pattern.replace(" ", r"\s+(?:#\s+)?"), text, re.IGNORECASE)
    ]


def _phrases() -> dict[str, str]:
    lines = (HERE / "phrases.txt").read_text(encoding="utf-8").splitlines()
    return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines if line and not line.startswith("#"))


PHRASES = _phrases()

if __name__ == "__main__":
    files = subprocess.run(["git", "ls-files", *READ], cwd=HERE.parent, check=True, capture_output=True, text=True)
    hits = [
        f"{name}:{line}: {phrase!r}: {instead}"
        for name in files.stdout.split()
        for line, phrase, instead in refused((HERE.parent / name).read_text(encoding="utf-8"))
    ]
    print("\n".join(hits) or "no refused phrase")
    sys.exit(bool(hits))
