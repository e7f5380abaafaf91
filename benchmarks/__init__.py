"""`pytest benchmarks`: the verification of this machine, with its evidence and tools."""

from alexnet_repro.startup import prepare

prepare()  # its scripts' streams
