"""Where the verification's files lie (beside the package in a checkout, within it in the wheel), and its command."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
WITHIN = PACKAGE / "suite"  # where the wheel has what a checkout has at its top
VERIFY = "python -m alexnet_repro verify"
"""Starts the verification in any folder, from a checkout and from the wheel alike."""


def suite_folder() -> Path:
    """Return the folder of `benchmarks`, `conftest.py` and pytest's configuration.

    Raises:
        FileNotFoundError: this installation hasn't them.
    """
    for folder in (WITHIN, PACKAGE.parent):
        if all((folder / name).is_file() for name in ("benchmarks/session.py", "conftest.py", "pyproject.toml")):
            return folder
    raise FileNotFoundError(f"no benchmarks are beside or within {PACKAGE}; {reinstallation()}")


def update_command(options: str = "") -> str:
    """Return what writes new references; those of an installed package would be lost when it is replaced."""
    where = " --references=DIR" if WITHIN.is_dir() else ""
    return f"{VERIFY}{f' {options}' * bool(options)} --update-reference{where}"


def restoration(path: Path) -> str:
    """Return the fix of a file that came with the package, or that a site keeps, and that can't be read."""
    if path.is_relative_to(WITHIN):
        return reinstallation()
    if path.is_relative_to(PACKAGE.parent) and not WITHIN.is_dir():
        return f"git checkout {path}"
    return f"restore {path}, or remove it"


def reinstallation() -> str:
    """Return the command that installs this package's files again."""
    return "pip install --force-reinstall --no-deps alexnet-repro"
