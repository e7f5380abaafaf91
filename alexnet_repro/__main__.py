"""python -m alexnet_repro: see `alexnet_repro.cli`."""

import sys

from alexnet_repro.startup import reported

with reported("python -m alexnet_repro"):
    from alexnet_repro.cli.parser import main

sys.exit(main())
