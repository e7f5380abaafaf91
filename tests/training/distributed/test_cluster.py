"""The cluster: the workers, and which of them this one is."""

import json

import pytest

from alexnet_repro.training.distributed.cluster import Cluster, ClusterError, cluster_here

TWO = ["host0:2222", "[fe80::1]:2223"]


def tf_config(workers=TWO, task=0, kind="worker", **changes):
    """Return an environment with TF_CONFIG."""
    config = {"cluster": {"worker": workers}, "task": {"type": kind, "index": task}, **changes}
    return {"TF_CONFIG": json.dumps(config)}


def test_tf_config():
    """TF_CONFIG gives all workers' addresses and this one's index; worker 0 is the chief."""
    cluster = cluster_here({**tf_config(task=1), "SLURM_JOB_ID": "7"})
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
        pytest.param(tf_config(cluster={"chief": ["a:1"], "worker": TWO}), "and has chief, worker", id="jobs=chief"),
        pytest.param(tf_config(cluster={"ps": ["a:1"]}), "and has ps;", id="jobs=ps"),
        pytest.param(tf_config(workers=[]), "a list of host:port, got '[]'", id="workers=none"),
        pytest.param(tf_config(workers="host0:2222"), "a list of host:port, got 'host0:2222'", id="workers=text"),
        pytest.param(tf_config(workers=["host0"]), "must be host:port, got 'host0'", id="address=no_port"),
        pytest.param(tf_config(workers=["host0:0"]), "must be host:port, got 'host0:0'", id="address=port_0"),
        pytest.param(tf_config(workers=["host0:70000"]), "host:port, got 'host0:70000'", id="address=port_70000"),
        pytest.param(tf_config(workers=[7]), "must be host:port, got '7'", id="address=number"),
        pytest.param(tf_config(workers=["a:1", "b:1", "a:1"]), "a:1 is there twice", id="address=twice"),
        pytest.param(tf_config(kind="evaluator"), "must be of type worker, got 'evaluator'", id="task=evaluator"),
        pytest.param(tf_config(cluster={"worker": TWO}, task={"type": "worker"}), "from 0 to 1, got", id="task=dict"),
        pytest.param(tf_config(task=2), "must be from 0 to 1, got 2", id="index=2"),
        pytest.param(tf_config(task=-1), "must be from 0 to 1, got -1", id="index=-1"),
        pytest.param(tf_config(task="0"), "must be from 0 to 1, got '0'", id="index=text"),
        pytest.param(tf_config(task=True), "must be from 0 to 1, got True", id="index=true"),
    ],
)  # fmt: skip
def test_wrong_environments(environ, message):
    """Anything missing or wrong is one error that names it, and gives an example."""
    with pytest.raises(ClusterError) as caught:
        cluster_here(environ)
    assert message in str(caught.value)


@pytest.fixture
def step(monkeypatch):
    """Set the variables that srun gives a task; returns those, with the changes."""
    pytest.importorskip("tensorflow", reason="TensorFlow reads Slurm's variables")

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
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return variables

    return step


@pytest.mark.parametrize(
    ("node", "local", "address"), [("n9", "0", "n9:20016"), ("n9", "1", "n9:20017"), ("n10", "0", "n10:20016")]
)
def test_slurm(step, node, local, address):
    """Each task finds itself by its node, in whichever order Slurm numbered tasks and TensorFlow sorts nodes."""
    cluster = cluster_here(step(SLURMD_NODENAME=node, SLURM_LOCALID=local))
    assert cluster.addresses == ("n10:20016", "n9:20016", "n9:20017")
    assert cluster.addresses[cluster.task] == address


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"SLURM_STEP_NUM_TASKS": "5"}, "Requested 5 tasks but only 3 were assigned", id="tasks=5"),
        pytest.param({"SLURM_STEP_NODELIST": "n[9"}, "hostlist", id="nodes=broken"),
        pytest.param({"SLURM_STEP_TASKS_PER_NODE": "two"}, "tasks-per-node", id="per_node=two"),
        pytest.param({"SLURMD_NODENAME": "login"}, "login:20016 isn't among the workers n10:20016", id="node=login"),
    ],
)
def test_wrong_slurm(step, changes, message):
    """Slurm's variables that don't agree are one error with TensorFlow's reason."""
    with pytest.raises(ClusterError, match="Slurm's variables") as caught:
        cluster_here(step(**changes))
    assert message in str(caught.value)
