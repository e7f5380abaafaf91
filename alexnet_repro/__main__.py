"""python -m alexnet_repro, and the script alexnet-repro: see `alexnet_repro.cli`."""

import sys

from alexnet_repro.startup import reported


def start() -> int:
    """Run the command line, and return its exit status."""
    with reported("python -m alexnet_repro"):
        from alexnet_repro.cli.parser import main
    return main()


if __name__ == "__main__":
    sys.exit(start())
