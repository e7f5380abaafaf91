"""How fast is the network between workers? Plain TCP from each to the next, all at once, as in a ring all-reduce."""

import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from alexnet_repro.training.distributed.cluster import Cluster
from alexnet_repro.training.distributed.handshake import listening

ROUNDS = 3
PART = 1 << 20  # bytes that are sent at once
PATIENCE = 10.0  # seconds until a worker that can't be reached is given up
TOKEN = 16  # bytes by which the worker before is known from whoever else connects
INTRODUCTION = 1.0  # seconds that it may take to send them

Gather = Callable[[Any], Sequence[Any]]


def link_rates(cluster: Cluster, gather: Gather, seconds: float = 1.0) -> list[list[float] | str]:
    """Return for each worker the bytes/s that arrive from it at the next one, by round; or why none do.

    Args:
        cluster: the workers, who all call this at the same time.
        gather: gives what each of them says, as `alexnet_repro.training.distributed.all_gather.AllGather` does.
        seconds: of a round.
    """
    following = (cluster.task + 1) % len(cluster.addresses)
    with listening() as listener:
        token = secrets.token_bytes(TOKEN)
        places = gather([listener.getsockname()[1], token.hex()])
        port, wanted = places[following]
        rounds, fault = [], ""
        for _ in range(ROUNDS):
            arrived: list[float] = []
            receiving = threading.Thread(target=_receive, args=(listener, token, arrived), daemon=True)
            receiving.start()
            fault = fault or _send((cluster.endpoint(following)[0], port), bytes.fromhex(wanted), seconds)
            receiving.join()
            said = gather([fault, *arrived])
            rounds.append([said[(task + 1) % len(said)][1:] for task in range(len(said))])
    faults = [each[0] for each in said]
    return [
        faults[task] or ([rate for each in rounds for rate in each[task]] or "nothing arrived")
        for task in range(len(said))
    ]


def port_speed(host: str) -> int:
    """Return the Mb/s that the network interface towards a host has agreed on; 0 where it doesn't tell."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)  # which sends nothing: it is UDP
            own = probe.getsockname()[0].partition("%")[0]
    except OSError:
        return 0
    interfaces = psutil.net_if_stats()
    for name, addresses in psutil.net_if_addrs().items():
        if name in interfaces and any(each.address.partition("%")[0] == own for each in addresses):
            return int(interfaces[name].speed)
    return 0


def _send(address: tuple[str, int], token: bytes, seconds: float) -> str:
    """Send for so many seconds; returns what is wrong, if anything is."""
    content = bytes(PART)
    try:
        with socket.create_connection(address, PATIENCE) as connection:
            connection.sendall(token)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                connection.sendall(content)
    except OSError as error:
        return f"{address[0]}, port {address[1]}: {error.strerror or error}"
    return ""


def _receive(listener: socket.socket, token: bytes, arrived: list[float]) -> None:
    """Take in all that the connection brings which begins with the token, and tell its bytes/s."""
    buffer, size = bytearray(PART), 0
    try:
        with _accepted(listener, token) as connection:
            connection.settimeout(PATIENCE)
            start = time.monotonic()
            while count := connection.recv_into(buffer):
                size += count
            arrived.append(size / (time.monotonic() - start))
    except OSError:
        return  # the sender says why


def _accepted(listener: socket.socket, token: bytes) -> socket.socket:
    """Return the connection that begins with the token; others are let go."""
    deadline = time.monotonic() + PATIENCE
    while (left := deadline - time.monotonic()) > 0:
        listener.settimeout(left)
        connection, _ = listener.accept()
        connection.settimeout(INTRODUCTION)
        try:
            said = connection.recv(TOKEN, socket.MSG_WAITALL)
        except OSError:
            said = b""
        if secrets.compare_digest(said, token):
            return connection
        connection.close()
    raise TimeoutError
