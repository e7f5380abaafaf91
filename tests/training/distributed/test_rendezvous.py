"""Rendezvous: before they train together, workers find out that all are there and have the same plan."""

import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from alexnet_repro.training.distributed import rendezvous as module
from alexnet_repro.training.distributed.cluster import Cluster, ClusterError
from alexnet_repro.training.distributed.rendezvous import rendezvous
from tests.helpers.workers import free_addresses

SAME = {
    "versions": {"tensorflow": "2.21.0", "keras": "3.15.1"},
    "recipe": {"loss": "softmax", "learning_rate": 0.1, "optimizer_arguments": {"beta_2": 0.98}},
    "seed": 0,
    "data": {"sha256": "ab"},
    "precision": "float32",
    "devices": {"GPUs": 8},
    "options": {"resume": False},
}


@pytest.fixture
def addresses():
    """Three addresses on loopback that nobody listens at."""
    return tuple(free_addresses(3))


@pytest.fixture
def met(addresses):
    """A rendezvous of workers, each with its plan; returns what each got: sockets, or an error's text."""

    def one(cluster, plan, timeout):
        try:
            return {task: each.socket for task, each in rendezvous(cluster, plan, timeout).items()}
        except ClusterError as error:
            return str(error)

    def met(plans, timeout=5.0, others=()):
        with ThreadPoolExecutor() as pool:
            clusters = [Cluster(addresses, task) for task in plans] + list(others)
            waiting = {each.task: pool.submit(one, each, plans.get(each.task, SAME), timeout) for each in clusters}
            return {task: each.result() for task, each in waiting.items()}

    return met


def test_all_agree(met):
    """Workers that agree have open connections: the chief to each, the others to the chief."""
    connections = met(dict.fromkeys(range(3), SAME))
    assert [sorted(connections[task]) for task in range(3)] == [[1, 2], [0], [0]]
    for task in (1, 2):
        connections[task][0].sendall(b"%d" % task)
        assert connections[0][task].recv(9) == b"%d" % task
    for each in (*connections[0].values(), connections[1][0], connections[2][0]):
        each.close()


@pytest.mark.parametrize(
    ("field", "other", "message"),
    [
        pytest.param("versions", {"tensorflow": "2.20.0", "keras": "3.15.1"},
                     "has different software: versions tensorflow is '2.20.0' there, '2.21.0'", id="field=versions"),
        pytest.param("recipe", {**SAME["recipe"], "loss": "normalised_sigmoid"},
                     "trains a different recipe: recipe loss is 'normalised_sigmoid' there, 'softmax'",
                     id="field=recipe"),
        pytest.param("recipe", {**SAME["recipe"], "optimizer_arguments": {}},
                     "trains a different recipe: recipe optimizer_arguments beta_2 is 'None' there, '0.98'",
                     id="field=recipe_arguments"),
        pytest.param("seed", 7, "has a different seed: seed is '7' there, '0'", id="field=seed"),
        pytest.param("data", {"sha256": "cd"},
                     "has different training images: data sha256 is 'cd' there, 'ab'", id="field=data"),
        pytest.param("precision", "mixed_bfloat16",
                     "trains in a different precision: precision is 'mixed_bfloat16' there, 'float32'",
                     id="field=precision"),
        pytest.param("devices", {"GPUs": 4},
                     "has a different number of devices: devices GPUs is '4' there, '8'", id="field=devices"),
        pytest.param("options", {"resume": True},
                     "has different options: options resume is 'True' there, 'False'", id="field=options"),
        pytest.param("nonsense", 1,
                     "has a different plan: nonsense is '1' there, 'None'", id="field=nonsense"),
    ],
)  # fmt: skip
def test_mismatch(met, addresses, field, other, message):
    """A worker with a different plan is named, with what differs; all raise the same."""
    raised = met({0: SAME, 1: SAME, 2: {**SAME, field: other}})
    line = f"worker 2 ({addresses[2]}) {message} on worker 0 ({addresses[0]})"
    assert raised == {0: line, 1: line, 2: line}


def test_other_cluster(met, addresses):
    """A worker whose list of workers differs is named, with the first address that differs."""
    other = Cluster((addresses[0], "127.0.0.1:1", addresses[2]), 2)
    line = (
        f"worker 2 ({addresses[2]}) has a different cluster spec: cluster 1 is '127.0.0.1:1' there, "
        f"'{addresses[1]}' on worker 0 ({addresses[0]})"
    )
    assert met({0: SAME, 1: SAME}, others=[other]) == dict.fromkeys(range(3), line)


def test_never_came_up(met, addresses):
    """Workers that don't come within the time are named, by the chief and by all that came."""
    begin = time.monotonic()
    assert met({0: SAME}, timeout=0.3)[0] == (
        f"worker 1 ({addresses[1]}), worker 2 ({addresses[2]}) never came up: waited for 0.3 s"
    )
    assert met({0: SAME, 2: SAME}, timeout=0.5) == dict.fromkeys(
        (0, 2), f"worker 1 ({addresses[1]}) never came up: waited for 0.5 s"
    )
    assert time.monotonic() - begin < 0.3 + 0.5 + 5


def test_no_chief(met, addresses):
    """Without a chief, each worker raises that it couldn't be reached, after the time."""
    line = f"worker 0 ({addresses[0]}), the chief, couldn't be reached within 0.3 s: Connection refused"
    assert met({1: SAME, 2: SAME}, timeout=0.3) == {1: line, 2: line}


@pytest.mark.parametrize("task", [0, 1])
def test_port_taken(met, addresses, task):
    """A worker whose port is taken names it, and how to see by whom."""
    port = int(addresses[task].rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        assert met({task: SAME}, timeout=0.3)[task] == (
            f"port {port}, which worker {task} ({addresses[task]}) needs, is taken; to see by whom:\n"
            f"  ss -ltnp 'sport = :{port}'"
        )


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (0, "a..b, the chief's name, isn't known on the chief itself: "),
        (1, "worker 0 (a..b:2345), the chief, couldn't be reached within 0.3 s: "),
    ],
    ids=["task=0", "task=1"],
)
def test_name_that_nobody_knows(addresses, task, message):
    """A chief whose name can't be found is refused, also if it is alone; so is a worker that looks for it."""
    cluster = Cluster(("a..b:2345", addresses[1])[: task + 1], task)
    with pytest.raises(ClusterError) as caught:
        rendezvous(cluster, SAME, 0.3)
    assert str(caught.value).startswith(message)


def test_one_index_twice(addresses):
    """Two processes with the same index are an error that names it, sent to both."""
    cluster = Cluster(addresses, 0)
    with ThreadPoolExecutor() as pool:
        chief = pool.submit(rendezvous, cluster, SAME, 5.0)
        first, second = (_sent(addresses[0], {"task": 1, "cluster": list(addresses), **SAME}) for _ in range(2))
        line = f"worker 1 ({addresses[1]}) joined twice: two processes have the same index"
        with pytest.raises(ClusterError) as caught:
            chief.result()
        assert str(caught.value) == line
        for each in (first, second):
            assert json.loads(each.makefile().readline()) == {"error": line}
            each.close()


def _sent(address, message):
    """Connect, again until someone listens, and send a message, whatever it is."""
    host, _, port = address.rpartition(":")
    for _ in range(100):
        with contextlib.suppress(OSError):
            connection = socket.create_connection((host, int(port)))
            connection.sendall(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")
            return connection
        time.sleep(0.02)
    raise TimeoutError


def test_strangers(met, addresses):
    """Whatever else connects, and sends nothing, too much or nonsense, is dropped; the workers meet all the same."""
    strange = [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x80\x04\x95\n", b"[]\n", b"[" * 60_000 + b"\n", b"x" * 200_000,
               b'{"task": 0}\n', b'{"task": 3}\n', b'{"task": "1"}\n', b"{}\n", b'{"task": 1']  # fmt: skip
    with ThreadPoolExecutor() as pool:
        chief = pool.submit(met, {0: SAME})
        open_ones = []
        for message in strange:
            with contextlib.suppress(ConnectionError):  # reset while too much is sent
                open_ones.append(_sent(addresses[0], message))
        others = met({1: SAME, 2: SAME})
        connections = [*chief.result()[0].values(), others[1][0], others[2][0]]
        assert len(connections) == 4
        for each in (*connections, *open_ones):
            each.close()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"{}", id="answer=empty"),
        pytest.param(b'{"status": "ok"}', id="answer=other_key"),
        pytest.param(b'{"welcome": 1}', id="answer=welcome_1"),
        pytest.param(b'{"error": null}', id="answer=no_error"),
        pytest.param(b"0", id="answer=number"),
        pytest.param(b"[]", id="answer=list"),
        pytest.param(b'"no"', id="answer=text"),
        pytest.param(b"HTTP/1.1 400", id="answer=http"),
        pytest.param(b"x" * 70_000, id="answer=too_long"),
    ],
)
def test_another_service_at_the_chief_s_port(met, addresses, answer):
    """The answer of another service there is an error, whatever it is."""
    host, _, port = addresses[0].rpartition(":")
    with socket.create_server((host, int(port))) as server, ThreadPoolExecutor() as pool:
        waiting = pool.submit(met, {1: SAME})
        connection, _ = server.accept()
        with connection:
            connection.sendall(answer + b"\n")
            assert waiting.result() == {
                1: f"worker 0 ({addresses[0]}), the chief, disconnected or didn't answer: see its output"
            }


def test_an_address_that_answers_nothing(met, monkeypatch):
    """A host's address that drops what is sent to it doesn't take the time of the next one, which answers."""
    monkeypatch.setattr(module, "ATTEMPT", 0.1)
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # from then on, connections are neither accepted nor refused
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        known = socket.getaddrinfo

        def both(host, port, *options):
            return [*known(*full.getsockname(), *options), *known(host, port, *options)]

        monkeypatch.setattr(module.socket, "getaddrinfo", both)
        connections = met({0: SAME, 1: SAME, 2: SAME}, timeout=4.0)
        assert [sorted(connections[task]) for task in range(3)] == [[1, 2], [0], [0]]
        for each in (*connections[0].values(), connections[1][0], connections[2][0]):
            each.close()


def test_port_that_reaches_itself(monkeypatch):
    """Where nobody listens, a connection of a port to itself (RFC 9293, section 3.5) is nobody's."""

    class ToItself(socket.socket):
        def connect(self, address):
            self.bind((address[0], 0))
            super().connect(self.getsockname())

    monkeypatch.setattr(module.socket, "socket", ToItself)
    with pytest.raises(ConnectionRefusedError):
        module._attempt(("127.0.0.1", 2222), time.monotonic() + 5)


def test_name_that_is_known_later(monkeypatch):
    """A chief whose name is known only after a while, as a pod's may be, is not refused."""
    answers = [socket.gaierror(-2, "Name or service not known")] * 2 + [[]]

    def getaddrinfo(*_):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("alexnet_repro.training.distributed.rendezvous.socket.getaddrinfo", getaddrinfo)
    module._find_own_name(Cluster(("chief:2345",), 0), 5.0)
    assert not answers
