"""python -m alexnet_repro: see `alexnet_repro.cli`."""

import sys

from alexnet_repro.cli.parser import main

sys.exit(main())
