"""Time every benchmark in several fresh processes, and keep the timings as this device's reference.

The file is benchmarks/references/speed-KIND-FRAMEWORK-VERSION.json. Cases that aren't timed this time stay,
unless packages, settings, driver or processor have changed since: then the file is made anew. Commit it, once the
machine is known to be right and was quiet: python -m alexnet_repro doctor; pytest benchmarks.
"""

import argparse
import shlex
import sys
from pathlib import Path

from alexnet_repro.verify.benchmark.gate import MIN_PROCESSES, MIN_PROCESSES_TO_FAIL
from alexnet_repro.verify.benchmark.reference import keep_references, run_processes

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Return the exit status: 1 if nothing was kept."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="All other options are pytest's: -k 'test_resize or test_draw_train', --device=gpu:0, "
        "--benchmark-max-time=5. Example: python -m benchmarks.tools.make_reference --processes=10 --device=gpu:0",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    help_ = f"number of processes: at least {MIN_PROCESSES}, and {MIN_PROCESSES_TO_FAIL} for anything to fail by it; "
    help_ += "the more, the smaller the slowdown that is detectable (default: %(default)s)"
    parser.add_argument("--processes", type=int, default=MIN_PROCESSES_TO_FAIL, metavar="N", help=help_)
    help_ = "another file (recorded_noise.json, for gate_power.py)"
    parser.add_argument("--into", type=Path, metavar="FILE", help=help_)
    parser.add_argument("--note", default="", help="kept beside the timings: what else was going on, for one")
    arguments, options = parser.parse_known_args()
    if arguments.processes < MIN_PROCESSES:
        parser.error(f"--processes: expected {MIN_PROCESSES} or more, got {arguments.processes}")
    if arguments.into and not any(each.startswith("--device=") for each in options):
        parser.error("--into: a file is of one device, so it needs one: --device=cpu:0")
    command = f"python -m benchmarks.tools.make_reference {shlex.join(sys.argv[1:])}".strip()
    try:
        runs = run_processes(ROOT, arguments.processes, options, lambda line: print(line, flush=True))
        paths = keep_references(ROOT, runs, command, arguments.note, arguments.into)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(f"kept in {path}; commit it" for path in paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
