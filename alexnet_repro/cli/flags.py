"""Flags of XLA's that the backend doesn't know. They end a process that computes, and nothing of ours is printed."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

VARIABLES = {"tensorflow": ("XLA_FLAGS", "TF_XLA_FLAGS"), "jax": ("XLA_FLAGS",)}


def unknown_flags(backend: str, deadline: float = 180) -> str | None:
    """Return what is wrong with XLA's flags, and the fix; None: nothing, or there are none.

    Only the backend knows its flags, so a child tries them, which takes seconds.
    """
    names = [name for name in VARIABLES.get(backend, ()) if os.environ.get(name)]
    if not names:
        return None
    from alexnet_repro.verify.subprocesses import NoAnswerError, answers

    try:
        list(answers(__name__, [backend], deadline))
    except NoAnswerError as error:
        return flags_in_log(error.log, backend, {name: os.environ[name] for name in names})
    return None


def flags_in_log(log: str, backend: str, flags: Mapping[str, str]) -> str | None:
    """Return what the log of a child that ended says of its flags; None: it ended for another reason."""
    fatal = next((line.partition("] ")[2] for line in log.splitlines() if re.match(r"F\d{4} ", line)), "")
    if found := re.match(r"Unknown flags? in (\w+): (.*)", fatal):
        return f"{found[1]} holds {found[2].strip()}, which this version of {backend} doesn't know; unset {found[1]}"
    if not fatal:
        return None
    were_set = ", ".join(f"{name}={text}" for name, text in flags.items())
    return f"{backend} can't start with {were_set}: {fatal}; unset {' '.join(flags)}"


def main(backend: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Compile a sum with XLA, in the child."""
    if backend == "jax":
        import jax

        jax.jit(lambda: jax.numpy.zeros(1) + 1)().block_until_ready()
    else:
        import tensorflow as tf

        tf.function(lambda: tf.zeros(1) + 1, jit_compile=True)()
    yield "compiled", {}
