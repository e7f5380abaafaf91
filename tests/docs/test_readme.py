"""The README: short, and every command in it and in the documents is one that exists."""

import ast
import re
import shlex

import pytest

import alexnet_repro
from alexnet_repro.cli.parser import parser
from docs import tables
from docs.tables import pages
from tests.helpers.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *pages())}
# Placeholders of a command, and what stands for each.
STAND_INS = {"reports/TIME/results.json": "results.json", "P": "float32", "N": "3"}


def test_readme_is_short():
    """It has at most 150 lines and 1,300 words, and no line of prose over 120 columns."""
    lines = README.splitlines()
    assert len(lines) <= 150
    assert len(README.split()) <= 1300
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_readme_says_early_what_has_not_run():
    """Its status comes before its first command, and says that no whole run has ended on a GPU."""
    status = README[README.index("## Status") : README.index("python3 -m venv")]
    assert "No whole run on a GPU has come to its end" in " ".join(status.split())


@pytest.mark.parametrize("ending", ["pip install --quiet tox", "tox -e py"])
def test_ci_finds_its_commands(ending):
    """CI takes each of these two lines from here: there is one, and it is a command in a block."""
    assert [line[:4] for line in README.splitlines() if line.endswith(ending)] == ["    "]


def test_python_example_imports_what_exists():
    """The example in Python is Python, and each name that it imports from the package is there."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    imported = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    assert [node.module for node in imported] == ["alexnet_repro"]
    assert {alias.name for node in imported for alias in node.names} <= set(dir(alexnet_repro))


def commands(text, program):
    """Return the commands of a program in code blocks and code spans, joined where they go on in the next line."""
    blocks = re.findall(r"^```\w* ?[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    (?=\S)(.*(?:\\\n.*)*)$", text, re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", text)
    lines = "\n".join([*blocks, *indented]).replace("\\\n", " ").splitlines() + spans
    return [found[1] for line in lines if (found := re.search(rf"{program}\b(.*)", line.partition(" #")[0]))]


ALEXNET = [
    pytest.param(rest, id=f"page={name}-command={rest.strip()}")
    for name, text in TEXTS.items()
    for rest in dict.fromkeys(commands(text, "python -m alexnet_repro"))
    if rest.strip() and "…" not in rest
]


def without_shell(rest):
    """Return the words of a command up to the shell's own, with a stand-in for each placeholder."""
    words = shlex.split(re.split(r"[|>;&)]", rest)[0])
    return [re.sub(r"(?<==)[PN]$", lambda found: STAND_INS[found[0]], STAND_INS.get(word, word)) for word in words]


@pytest.mark.parametrize("rest", ALEXNET)
def test_commands_parse(rest, monkeypatch, tmp_path):
    """Each command of the command line that a document shows is one that the parser takes."""
    monkeypatch.chdir(tmp_path)
    for name in ("5.6_alexnet.weights.h5", "results.json"):
        (tmp_path / name).touch()
    assert parser().parse_args(without_shell(rest)).run


PROGRAMS = ("pytest benchmarks", r"tox run -e verify(?:-gpu)? --")


def known_options(config):
    """Return the options of this pytest and its plugins."""
    groups = (*config._parser._groups, config._parser._anonymous)
    return {name for group in groups for option in group.options for name in option.names()}


@pytest.mark.parametrize("path", sorted(TEXTS))
def test_options_exist(path, pytestconfig):
    """Each option that a document gives the verification is one of pytest's, here."""
    shown = " ".join(rest for program in PROGRAMS for rest in commands(TEXTS[path], program))
    assert set(re.findall(r"(?<!\S)--[a-z][\w-]+", shown)) - known_options(pytestconfig) == set()


# Options of other programs that the documents name by themselves.
OTHERS = {
    *("--cap-drop", "--gpus", "--init", "--shm-size"),  # docker
    *(
        "--devices",
        "--strict",
        "--no-pooling",
        "--limit",
        "--ports",
        "--read",
        "--results",
    ),  # mkdocs, and scripts of this repository
}
NAMED = {option for text in TEXTS.values() for option in re.findall(r"`(--[a-z][a-z-]+)(?![\w])[^`\n]*`", text)}


def test_options_named_alone_exist(pytestconfig):
    """Each option in backticks is ours, of pytest's, or of another program listed here."""
    ours = set(re.findall(r"--[a-z][\w-]+", tables.pytest_options() + tables.commands()))
    assert NAMED - ours - OTHERS - known_options(pytestconfig) == set()


@pytest.mark.parametrize("path", sorted(TEXTS))
def test_links_lead_to_files(path):
    """Each relative link leads to a file of the repository, for those who read it there; anchors: `tox -e docs`."""
    text = re.sub(r"^```.*?^```$", "", TEXTS[path], flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    assert [each for each in targets if "://" not in each and not (ROOT / path).parent.joinpath(each).exists()] == []


@pytest.mark.parametrize("environment", ["py", "verify", "verify-gpu", "bench", "bench-gpu", "slow", "lint", "docs"])
def test_environments_exist(environment):
    """Each environment of tox that the documents name is one."""
    assert f"[testenv:{environment}]" in (ROOT / "tox.ini").read_text(encoding="utf-8") or environment == "py"
