"""Texts of somebody else's files: as a person may read them, and a terminal needn't obey them."""

import hashlib

MAX_TEXT = 200  # characters of a name
LARGEST_NUMBER = 10**18  # of what is counted: bytes, errors
NO_SERIAL = {"", "0", "n/a", "[n/a]", "unknown", "[unknown error]", "none", "null", "[not supported]", "not specified"}


class RefusedError(Exception):
    """The file has no vote; why, in one line."""


def printable(text: object, longest: int = MAX_TEXT) -> str:
    """Return a text as one line that a terminal prints and nothing else; a longer one is cut, and ends in a hash."""
    whole = text if isinstance(text, str) else str(text)
    if len(whole) > 10 * longest:  # megabytes, perhaps
        whole = f"{whole[: 5 * longest]} {text_hash(whole)}"
    line = " ".join(whole.split())
    if not line.isprintable():  # control characters, and those that turn the direction of text
        line = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)
    return line if len(line) <= longest else f"{line[: longest - 10]}… {text_hash(line)[:8]}"


def fact_text(value: object) -> str:
    """Return a value as text; empty where there is none, and of lists and objects."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) < LARGEST_NUMBER:
            raise RefusedError("a number in it is too large")
        return f"{value:.10g}" if isinstance(value, float) else str(value)
    return printable(value) if isinstance(value, str | bool) else ""


def serial_text(stated: object) -> str:
    """Return a serial; empty where a driver says in words that there is none."""
    text = fact_text(stated)
    return "" if text.lower() in NO_SERIAL or not text.strip("0-:. ") else text


def text_hash(text: str) -> str:
    """Return a text's hash, of 32 hexadecimal digits."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
