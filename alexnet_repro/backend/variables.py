"""How libraries read environment variables: whole numbers, and XLA's flags; imports neither Keras nor a backend."""

import re
from pathlib import Path

SPACE = r"[ \t-\r]*"  # Abseil's, before and behind a number
# As xla/parse_flags_from_env.cc reads a flag; only what follows `=` may be quoted.
FLAG = re.compile(
    r"""[ \t\r\n]*(-[-\w]*)(?:=(?:"((?:\\.|[^"\\])*)"?|'([^']*)'?)|([^ \t\r\n]*))""", re.ASCII | re.DOTALL
)


def read_int32(text: str) -> int | None:
    """Return a number as Abseil's SimpleAtoi reads an int32: in base 10, with a sign or without; None: it doesn't."""
    found = re.fullmatch(f"{SPACE}([+-]?[0-9]{{1,20}}){SPACE}", text)
    return int(found[1]) if found and -(2**31) <= int(found[1]) < 2**31 else None


def xla_flags(text: str) -> list[str] | None:
    """Return the flags that XLA reads from a variable, as `--name=value` without quotes.

    It reads up to the first word that is no flag. A text that begins with no dash names a file of flags; None: it can't
    be read, which ends the process.
    """
    if text and not text.lstrip(" \t\r\n").startswith("-"):
        try:
            text = Path(text).read_text(encoding="latin-1")
        except (OSError, ValueError):
            return None
    flags, place = [], 0
    while found := FLAG.match(text, place):
        name, double, single, rest = found.groups()
        if rest is None:
            rest = "=" + (single if double is None else re.sub(r"(?s)\\(.)", r"\1", double))
        flags.append(name + rest)
        place = found.end()
    return flags


def with_xla_flag(text: str, flag: str) -> str:
    """Return a variable's text with one more flag, which counts whatever is there; as it is where XLA can't read it."""
    flags = xla_flags(text)
    if flags is None:
        return text
    return " ".join(_quoted(each) for each in (*(old for old in flags if old != flag), flag))


def _quoted(flag: str) -> str:
    name, valued, value = flag.partition("=")
    if not re.search("[ \t\r\n]|^[\"']", value):
        return flag
    escaped = re.sub(r'(["\\])', r"\\\1", value)
    return f'{name}{valued}"{escaped}"'
