"""Scripts that make or explain references."""

import os

from alexnet_repro.startup import prepare

prepare()  # the scripts' streams

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported; by the processes as well
