"""The command `fleet`: many machines' results files, compared with each other."""

import argparse
import json
import warnings
from datetime import timedelta
from pathlib import Path


def run_fleet(arguments: argparse.Namespace) -> int:
    """Judge a fleet, write what was found, and print it; without importing Keras or TensorFlow."""
    from alexnet_repro.files import atomic_write, check_folder
    from alexnet_repro.fleet.fleet_file import fleet_data
    from alexnet_repro.fleet.inventory import NoColumnError, read_nodes, settings_for
    from alexnet_repro.fleet.judge import judge_fleet
    from alexnet_repro.fleet.junit import write_fleet_junit
    from alexnet_repro.fleet.metrics import write_metrics
    from alexnet_repro.fleet.page import write_page
    from alexnet_repro.fleet.reading import read_fleet
    from alexnet_repro.fleet.text import terminal_lines
    from alexnet_repro.verify.finding import exit_status

    first = arguments.results[0]
    try:
        for path in (*arguments.results, *([arguments.expect] if arguments.expect else [])):
            if not path.exists() and not path.is_symlink():
                raise FileNotFoundError(f"no such file or folder: {path}")
        listed = {} if arguments.expect is None else read_nodes(arguments.expect)
        out: Path = arguments.out or (first if first.is_dir() else Path())
        check_folder(out, "name another folder: --out=DIR")
        fleet = read_fleet(arguments.results)
        usual = {
            "tolerance": arguments.tolerance,
            "max_age": arguments.max_age and timedelta(seconds=arguments.max_age),
        }
        settings = settings_for(fleet, listed, arguments.by, **usual)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, of numbers that no run measures
            answer = judge_fleet(fleet, settings, out)
            data = json.dumps(fleet_data(answer), indent=1, allow_nan=False)
        try:
            atomic_write(out / "fleet.json", f"{data}\n", "name another folder")
            write_page(answer, out)
            write_fleet_junit(answer, out / "fleet.junit.xml")
            write_metrics(answer, out / "fleet.prom")
        except OSError as error:
            raise OSError(f"{error}: --out=DIR") from error
    except NoColumnError as error:
        arguments.refuse(f"argument --by: {error}")
    except OSError as error:  # status 1 is a FAIL
        arguments.refuse(str(error))
    print("\n".join(terminal_lines(answer)))
    return exit_status(answer.verdict)
