"""Environment variables as the libraries read them: the right values are from Abseil's and XLA's sources."""

import pytest

from alexnet_repro.backend.variables import read_int32, with_xla_flag, xla_flags


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3", 3),
        (" \t3\n", 3),
        ("+3", 3),
        ("-3", -3),
        ("003", 3),
        ("2147483647", 2147483647),
        ("-2147483648", -2147483648),
        ("2147483648", None),
        ("9" * 5000, None),
        ("0x3", None),
        ("3.0", None),
        ("3,2", None),
        ("+ 3", None),
        ("1_0", None),
        ("٣", None),
        ("", None),
    ],
)
def test_numbers_are_those_of_abseil(text, number):
    """Of a text that its SimpleAtoi reads as an int32 the number; of another, none."""
    assert read_int32(text) == number


FLAGS = {
    "words": ("--a=1  --b", ["--a=1", "--b"]),
    "lines": ("\n--a=1\r\n\t--b=x\n", ["--a=1", "--b=x"]),
    "end": ("--a=1 x --b=1", ["--a=1"]),
    "value-apart": ("--a 1 --b=1", ["--a"]),
    "double-quotes": ('--a="x y" --b=1', ["--a=x y", "--b=1"]),
    "single-quotes": ("--a='x \"\\y' --b", ['--a=x "\\y', "--b"]),
    "escaped": ('--a="x \\"y\\\\" --b', ['--a=x "y\\', "--b"]),
    "unclosed": ('--a="x --b', ["--a=x --b"]),
    "quoted-inside": ('--a=x"y z" --b', ['--a=x"y']),
    "empty-value": ("--a= --b", ["--a=", "--b"]),
    "single-dash": ("-a --b", ["-a", "--b"]),
    "nothing": ("", []),
}


@pytest.mark.parametrize("text", FLAGS)
def test_flags_are_those_of_xla(tmp_path, text):
    """What XLA takes for flags of a variable's text, or of the file that it names."""
    text, flags = FLAGS[text]
    assert xla_flags(text) == flags
    (tmp_path / "flags").write_text(text)
    assert xla_flags(str(tmp_path / "flags")) == flags


@pytest.mark.parametrize("text", ["x", " ", "/nowhere/flags", "."])
def test_flags_that_cannot_be_read(text):
    """A text without a dash is a file's name, which XLA ends the process for if it can't be opened."""
    assert xla_flags(text) is None
    assert with_xla_flag(text, "--b=1") == text


MORE = {
    "nothing": ("", "--b=1"),
    "another": ("--a=1", "--a=1 --b=1"),
    "same": ("--b=1 --a=1", "--a=1 --b=1"),
    "overruled": ("--b=0", "--b=0 --b=1"),
    "overruled-again": ("--b=1 --b=0", "--b=0 --b=1"),
    "last-counts": ("--a=1 --a=2 --a=1", "--a=1 --a=2 --a=1 --b=1"),
    "end": ("--a=1 x --a=2", "--a=1 --b=1"),
    "quoted": ("--a='x \"\\ y' ", '--a="x \\"\\\\ y" --b=1'),
}


@pytest.mark.parametrize("text", MORE)
def test_one_flag_more(tmp_path, text):
    """It is read whatever stood there, as words or in a file, and leaves the others what they were."""
    text, expected = MORE[text]
    assert with_xla_flag(text, "--b=1") == expected
    (tmp_path / "flags").write_text(text)
    assert with_xla_flag(str(tmp_path / "flags"), "--b=1") == expected
