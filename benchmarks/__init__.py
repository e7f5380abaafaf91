"""`pytest benchmarks`: the verification of this machine, with its evidence and tools."""
