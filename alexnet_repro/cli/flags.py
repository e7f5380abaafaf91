"""Flags of XLA's that end a process which computes: one line about them, before anything of ours is written."""

import os

VARIABLES = {"tensorflow": ("XLA_FLAGS", "TF_XLA_FLAGS"), "jax": ("XLA_FLAGS",)}


def unknown_flags(backend: str, deadline: float = 180) -> str | None:
    """Return what is wrong with XLA's flags, and the fix; None: nothing, or there are none.

    Only the backend knows its flags, so a child tries them on the CPU, which takes seconds.
    """
    flags = {name: text for name in VARIABLES.get(backend, ()) if (text := os.environ.get(name))}
    if not flags:
        return None
    from alexnet_repro.verify.doctor.device_probe import probe_start
    from alexnet_repro.verify.doctor.endings import find_ending

    result = probe_start(backend, deadline)
    how = result.error or ""
    if (ending := find_ending(result.device, how, result.log)) and ending.variables:
        return f"{ending.message}; {ending.fix}"
    if ending or "SIGABRT" not in how:
        return None  # not the flags' fault, or not known to be
    were_set = ", ".join(f"{name}={text}" for name, text in flags.items())
    return f"{backend} can't start with {were_set}: {result.log or how}; unset {' '.join(flags)}"
