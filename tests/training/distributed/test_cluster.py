"""The cluster: the workers, and which of them this one is."""

import json

import pytest

from alexnet_repro.training.distributed.cluster import Cluster, ClusterError, cluster_here

TWO = ["host0:2222", "[fe80::1]:2223"]


def tf_config(workers=TWO, index=0, kind="worker", **changes):
    """Return an environment with TF_CONFIG."""
    config = {"cluster": {"worker": workers}, "task": {"type": kind, "index": index}, **changes}
    return {"TF_CONFIG": json.dumps(config)}


def test_tf_config():
    """TF_CONFIG gives all workers' addresses and this one's index; worker 0 is the chief."""
    cluster = cluster_here({**tf_config(index=1), "SLURM_JOB_ID": "7"})
    assert cluster == Cluster(("host0:2222", "[fe80::1]:2223"), 1)
    assert (cluster.chief, Cluster(cluster.addresses, 0).chief) == (False, True)
    assert [cluster.endpoint(task) for task in (0, 1)] == [("host0", 2222), ("fe80::1", 2223)]
    assert cluster.name(1) == "worker 1 ([fe80::1]:2223)"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        pytest.param({}, "TF_CONFIG isn't set, and this isn't Slurm. Type on each machine", id="environ=empty"),
        pytest.param({"TF_CONFIG": ""}, "no workers are given", id="environ=blank"),
        pytest.param({"SLURM_JOB_ID": "7"}, "in no step of it: put srun before the command", id="environ=no_step"),
        pytest.param({"TF_CONFIG": "{'a'}"}, "TF_CONFIG isn't JSON", id="config=no_json"),
        pytest.param({"TF_CONFIG": "[]"}, "must have one job, worker (worker 0 is the chief)", id="config=list"),
        pytest.param({"TF_CONFIG": "[" * 99999}, "TF_CONFIG isn't JSON", id="config=deep"),
        pytest.param({"TF_CONFIG": json.dumps('{"cluster": {}}')}, 'quoted twice; it should be {"cluster": {}}',
                     id="config=quoted twice"),
        pytest.param({"TF_CONFIG": "'{\"cluster\": {}}'"}, 'quoted twice; it should be {"cluster": {}}',
                     id="config=quoted"),
        pytest.param({"TF_CONFIG": '"worker"'}, "must have one job, worker", id="config=text"),
        pytest.param(tf_config(cluster={"chief": ["a:1"], "master": ["b:1"]}), "and has chief, master: make each",
                     id="jobs=chief and master"),
        pytest.param(tf_config(cluster={"ps": ["a:1"], "worker": TWO}), "and has ps, worker: make each", id="jobs=ps"),
        pytest.param(tf_config(cluster={"worker": TWO}, task=None), '"task": {"type": "worker", "index": 0}',
                     id="task=none"),
        pytest.param(tf_config(cluster={"chief": ["a:1"], "worker": TWO}, kind="ps"), "chief or worker, got 'ps'",
                     id="task=chief or worker"),
        pytest.param(tf_config(workers=[]), "must have one job, worker (worker 0 is the chief), and has none",
                     id="workers=none"),
        pytest.param(tf_config(workers="host0:2222"), "a list of host:port, got 'host0:2222'; ", id="workers=text"),
        pytest.param(tf_config(workers=["host0"]), "must be host:port, got 'host0'", id="address=no_port"),
        pytest.param(tf_config(workers=["host0:0"]), "must be host:port, got 'host0:0'", id="address=port_0"),
        pytest.param(tf_config(workers=["host0:70000"]), "host:port, got 'host0:70000'", id="address=port_70000"),
        pytest.param(tf_config(workers=[7]), "must be host:port, got '7'", id="address=number"),
        pytest.param(tf_config(workers=["a:1", "b:1", "a:1"]), "a:1 is there twice", id="address=twice"),
        pytest.param(tf_config(kind="evaluator"), "start workers alone; training evaluates by", id="task=evaluator"),
        pytest.param(tf_config(kind=["worker"]), "must be of type worker, got ['worker']", id="task=list"),
        pytest.param(tf_config(kind="chief"), "must be of type worker, got 'chief'; it should look", id="task=chief"),
        pytest.param(tf_config(cluster={"worker": TWO}, task={"type": "worker"}), "from 0 to 1, got", id="task=dict"),
        pytest.param(tf_config(index=2), "must be from 0 to 1, got 2", id="index=2"),
        pytest.param(tf_config(index=-1), "must be from 0 to 1, got -1", id="index=-1"),
        pytest.param(tf_config(index="0"), "from 0 to 1, got '0'; write it without quotes", id="index=text"),
        pytest.param(tf_config(index=True), "must be from 0 to 1, got True", id="index=true"),
    ],
)  # fmt: skip
def test_wrong_environments(environ, message):
    """Anything missing or wrong is one error that names it, and gives an example."""
    with pytest.raises(ClusterError) as caught:
        cluster_here(environ)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "index", "task"), [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)], ids=lambda value: f"is={value}"
)
@pytest.mark.parametrize("name", ["chief", "master"])
def test_chief_of_a_platform(name, kind, index, task):
    """A chief, or master, of its own is worker 0; an evaluator beside them, or a job without tasks, changes nothing."""
    jobs = {name: ["host0:2222"], "worker": ["host1:2222", "host2:2222"], "evaluator": ["e:1"], "ps": []}
    given = {"type": kind.replace("chief", name), "index": index}
    cluster = cluster_here({"TF_CONFIG": json.dumps({"cluster": jobs, "task": given, "environment": "cloud"})})
    assert cluster == Cluster(("host0:2222", "host1:2222", "host2:2222"), task)


@pytest.fixture
def step():
    """A function that returns the variables that srun gives a task, with changes; None is one that isn't there."""

    def step(**changes):
        variables = {
            "SLURM_JOB_ID": "601",  # one beyond the jobs after which ports repeat: 20000 + 1 * 16
            "SLURM_STEP_NODELIST": "n[9-10]",
            "SLURM_STEP_TASKS_PER_NODE": "2,1",
            "SLURM_STEP_NUM_TASKS": "3",
            "SLURM_PROCID": "0",
            "SLURM_LOCALID": "0",
            "SLURMD_NODENAME": "n9",
            **changes,
        }
        return {name: value for name, value in variables.items() if value is not None}

    return step


@pytest.mark.parametrize(
    ("node", "local", "address"), [("n9", "0", "n9:20016"), ("n9", "1", "n9:20017"), ("n10", "0", "n10:20016")]
)
def test_slurm(step, node, local, address):
    """Each task finds itself by its node, and workers are in the order of the nodes: the first has the chief."""
    cluster = cluster_here(step(SLURMD_NODENAME=node, SLURM_LOCALID=local))
    assert cluster.addresses == ("n9:20016", "n9:20017", "n10:20016")
    assert cluster.addresses[cluster.task] == address


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("n", "n"),
        ("alpha,beta,gamma", "alpha beta gamma"),
        ("jean-ia[008-011]", "jean-ia008 jean-ia009 jean-ia010 jean-ia011"),
        ("n[1-2,5]", "n1 n2 n5"),
        ("n[9-10]", "n9 n10"),
        ("n[098-101]", "n098 n099 n100 n101"),
        ("a[1-2],b[01-02]", "a1 a2 b01 b02"),
        ("node[1-2]-ib", "node1-ib node2-ib"),
        ("r[1-2]n[01-02]", "r1n01 r1n02 r2n01 r2n02"),
        ("node[01-02].cluster", "node01.cluster node02.cluster"),
        ("rack[1,3]-[7],login", "rack1-7 rack3-7 login"),
        ("gpu_a[0-1]x,gpu_b", "gpu_a0x gpu_a1x gpu_b"),
    ],
    ids=lambda value: f"text={value}",
)
def test_node_lists(step, text, nodes):
    """A list of nodes is read as Slurm writes it, with numbers in brackets anywhere, and leading zeros."""
    expected = tuple(f"{node}:20016" for node in nodes.split())
    count = len(expected)
    changes = {"SLURM_STEP_TASKS_PER_NODE": f"1(x{count})", "SLURM_STEP_NUM_TASKS": str(count)}
    last = expected[-1].partition(":")[0]
    cluster = cluster_here(step(SLURM_STEP_NODELIST=text, SLURMD_NODENAME=last, **changes))
    assert cluster == Cluster(expected, count - 1)


@pytest.mark.parametrize(
    ("job", "port"),
    [
        ("0", 20000),
        ("601", 20016),
        ("99999999999", 26384),
        ("12+0", 21920),
        ("1234_5", 25520),
        ("0x12", 20192),
        (None, 20000),
        ("", 20000),
        ("none", 20000),
        ("9" * 5000, 26384),
    ],
    ids=lambda value: f"is={str(value)[:20]}",
)
def test_job_numbers(step, job, port):
    """Whatever a job is called, its first port follows from the digits, and is the same on each node."""
    assert cluster_here(step(SLURM_JOB_ID=job)).addresses[0] == f"n9:{port}"


UNREAD = "Slurm's variables can't be understood: "


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SLURM_STEP_NUM_TASKS": "5"}, "Slurm's variables don't agree: 2 nodes, tasks for 2, 3 of 5 tasks; set TF_C"),
        ({"SLURM_STEP_TASKS_PER_NODE": "3"}, "Slurm's variables don't agree: 2 nodes, tasks for 1, 3 of 3 tasks; set"),
        (
            {"SLURMD_NODENAME": "login"},
            "don't agree: login:20016 isn't among the workers n9:20016, n9:20017, n10:20016",
        ),
        (
            {"SLURMD_NODENAME": None},
            "Slurm's variables aren't all here, without SLURMD_NODENAME: is it started by srun?",
        ),
        ({"SLURM_STEP_NUM_TASKS": None}, "aren't all here, without SLURM_STEP_NUM_TASKS: is it started by srun?"),
        ({"SLURM_STEP_NODELIST": "n[9"}, f"{UNREAD}SLURM_STEP_NODELIST is 'n[9'; set TF_CONFIG instead, or see what "),
        ({"SLURM_STEP_NODELIST": ""}, f"{UNREAD}SLURM_STEP_NODELIST is ''; set TF_CONFIG instead"),
        ({"SLURM_STEP_NODELIST": "n[a-b]"}, f"{UNREAD}SLURM_STEP_NODELIST is 'n[a-b]'; "),
        ({"SLURM_STEP_NODELIST": "n[0-999999999999]"}, f"{UNREAD}n[0-999999999999] is over 65,536 nodes"),
        ({"SLURM_STEP_NODELIST": "n[2-1]"}, "Slurm's variables don't agree: 0 nodes, tasks for 2"),
        ({"SLURM_STEP_TASKS_PER_NODE": "two"}, f"{UNREAD}SLURM_STEP_TASKS_PER_NODE is 'two'; "),
        ({"SLURM_LOCALID": "a"}, f"{UNREAD}SLURM_LOCALID is 'a'; "),
        ({"SLURM_LOCALID": "7"}, "don't agree: n9:20023 isn't among the workers"),
        ({"SLURM_STEP_NUM_TASKS": "٣"}, f"{UNREAD}SLURM_STEP_NUM_TASKS is '٣'; "),
    ],
    ids=lambda value: f"is={value}"[:40],
)
def test_wrong_slurm(step, changes, message):
    """Slurm's variables that are missing, malformed or don't agree are one line that names which, and its value."""
    with pytest.raises(ClusterError) as caught:
        cluster_here(step(**changes))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
