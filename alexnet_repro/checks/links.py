"""How fast is the network between workers? Plain TCP from each to the next, all at once, as in a ring all-reduce."""

import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from alexnet_repro.cluster import Cluster
from alexnet_repro.handshake import listening

ROUNDS = 3
PART = 1 << 20  # bytes that are sent at once
PATIENCE = 10.0  # seconds until a worker that can't be reached is given up

Gather = Callable[[Any], Sequence[Any]]


def link_rates(cluster: Cluster, gather: Gather, seconds: float = 1.0) -> list[list[float] | str]:
    """Return for each worker the bytes/s that arrive from it at the next one, by round; or why none do.

    Args:
        cluster: the workers, who all call this at the same time.
        gather: gives what each of them says, as `alexnet_repro.all_gather.AllGather` does.
        seconds: of a round.
    """
    following = (cluster.task + 1) % len(cluster.addresses)
    with listening() as listener:
        listener.settimeout(PATIENCE)
        ports = gather(listener.getsockname()[1])
        rounds, fault = [], ""
        for _ in range(ROUNDS):
            arrived: list[float] = []
            receiving = threading.Thread(target=_receive, args=(listener, arrived), daemon=True)
            receiving.start()
            fault = fault or _send((cluster.endpoint(following)[0], ports[following]), seconds)
            receiving.join()
            said = gather([fault, *arrived])
            rounds.append([said[(task + 1) % len(said)][1:] for task in range(len(said))])
    faults = [each[0] for each in said]
    return [
        faults[task] or ([rate for each in rounds for rate in each[task]] or "nothing arrived")
        for task in range(len(said))
    ]


def _send(address: tuple[str, int], seconds: float) -> str:
    """Send for so many seconds; returns what is wrong, if anything is."""
    content = bytes(PART)
    try:
        with socket.create_connection(address, PATIENCE) as connection:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                connection.sendall(content)
    except OSError as error:
        return f"{address[0]}, port {address[1]}: {error.strerror or error}"
    return ""


def _receive(listener: socket.socket, arrived: list[float]) -> None:
    """Take in all that one connection brings, and tell its bytes/s."""
    buffer, size = bytearray(PART), 0
    try:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            start = time.monotonic()
            while count := connection.recv_into(buffer):
                size += count
            arrived.append(size / (time.monotonic() - start))
    except OSError:
        return  # the sender says why
