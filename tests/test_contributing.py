"""What CONTRIBUTING.md says of the code is what the code is."""

import ast
import importlib.util
import re
import tomllib

import pytest

from tests.helpers.paths import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
WORD = "dlot"[::-1]  # backwards, for the lint step reads this file as well
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


def modules(text):
    """Return the names in backticks, in their order."""
    return re.findall(r"`(\w+)`", text)


def test_import_order_is_the_contracts():
    """The numbered list of rooms, and the rooms within `verify`, are the layers that import-linter enforces."""
    items = re.findall(
        r"^\d+\. (.*)$", TEXT.partition("<!-- contract -->")[2].partition("<!-- /contract -->")[0], re.MULTILINE
    )
    package, verify, _ = CONTRACTS
    assert [modules(item.partition(":")[0]) for item in items] == [
        re.findall(r"\w+", each) for each in package["layers"]
    ]
    within = next(item.partition(":")[2] for item in items if item.startswith("`verify`"))
    assert modules(within) == re.findall(r"\w+", " ".join(verify["layers"]))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:alexnet_repro|benchmarks|tests|docs)/[\w/.]*)`", TEXT))))
def test_path_exists(path):
    """Every file and folder that it names is there."""
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("path", "name"), re.findall(r"^\| .* \| `(\w[\w/]*\.py)`, `(\w+)`", TEXT, re.MULTILINE))
def test_names_are_where_the_table_says(path, name):
    """Whatever the table of places names is defined in that file."""
    assert re.search(rf"\b(def|class) {name}\b|^{name}\b", (ROOT / "alexnet_repro" / path).read_text(), re.MULTILINE)


def public_names(tree):
    """Return what a module defines at its top level, without what begins with an underscore."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        for target in node.targets if isinstance(node, ast.Assign) else ():
            yield from (
                each.id for each in ast.walk(target) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
            )


def test_public_names_are_unique():
    """No two modules of the package define one name, but for `logger` and the child processes' `main`."""
    places = {}
    for path in (ROOT / "alexnet_repro").rglob("*.py"):
        for name in public_names(ast.parse(path.read_text(encoding="utf-8"))):
            if not name.startswith("_"):
                places.setdefault(name, []).append(path.name)
    assert {name for name, paths in places.items() if len(paths) > 1} == {"logger", "main"}


def phrases():
    """Return the script of the lint step."""
    spec = importlib.util.spec_from_file_location("phrases", ROOT / ".ci/phrases.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(f"# It {WORD}\n# so.", [(1, WORD)], id="phrase=one word"),
        pytest.param("a\nit is held\n    # against b", [(2, "held\n    # against")], id="phrase=over two lines"),
        pytest.param("images per second, at most", [], id="phrase=none"),
    ],
)
def test_lint_refuses_phrases(text, found):
    """A listed phrase is found with its line, also where it runs on in the next line of a comment."""
    assert [(line, phrase) for line, phrase, _ in phrases().refused(text)] == found


def test_dataclasses_of_arrays_are_not_compared():
    """No dataclass with arrays has `==`: its truth is an error, or depends on Python's version."""
    found = {}
    for path in (ROOT / "alexnet_repro").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            body = node.body if isinstance(node, ast.ClassDef) and node.decorator_list else []
            if any("ndarray" in ast.unparse(each.annotation) for each in body if isinstance(each, ast.AnnAssign)):
                found[node.name] = [ast.unparse(each) for each in node.decorator_list]
    assert set(found) == {"History", "DotProducts", "_ProductLayer"}
    assert all("eq=False" in decorator for (decorator,) in found.values())
