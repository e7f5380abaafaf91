"""The recipes of docs/recipes.md: parsed, validated and linted, and run with stand-ins for what isn't here.

`tox -e docs` has the linters and schemas; elsewhere what needs them is skipped. Nothing here imports the package.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL))
SCRIPTS = [name for name, text in BLOCKS.items() if text.startswith("#!")]
PROLOG, ACCEPTANCE, NODE = "prolog.d/90-alexnet-repro.sh", "acceptance.sbatch", "verify-node.sh"
FLEET, FLEET_NODE, FLEET_COMPARE = "fleet.sh", "fleet-node.sbatch", "fleet-compare.sbatch"
FLEET_KUBERNETES = "fleet-kubernetes.sh"
# hadolint's DL3013 wants pinned versions: what is installed is the wheel of the checkout, with its extras.
SCHEMAS = {
    ".github/workflows/verify.yml": ["check-jsonschema", "--builtin-schema=vendor.github-workflows"],
    ".gitlab-ci.yml": ["check-jsonschema", "--builtin-schema=vendor.gitlab-ci", "--data-transform=gitlab-ci"],
    "verify-node.yaml": ["kubernetes-validate", "--strict"],
    "fleet.yaml": ["kubernetes-validate", "--strict"],
    "Dockerfile": ["hadolint", "--ignore=DL3013"],
} | {name: ["shellcheck"] for name in SCRIPTS}


def test_every_recipe_is_known():
    """The page has these blocks and no others, so that none is left out below."""
    assert set(BLOCKS) == {*SCHEMAS, ".dockerignore"}
    fleets = {FLEET, FLEET_NODE, FLEET_COMPARE, FLEET_KUBERNETES}
    assert set(SCRIPTS) == {PROLOG, ACCEPTANCE, NODE, "together.sbatch", "with-a-gpu.sh", "without-a-gpu.sh", *fleets}


def written(folder, name, text=None):
    """Return the path of a block, written as a file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or BLOCKS[name], encoding="utf-8")
    return path


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_linters_find_nothing(name, tmp_path):
    """GitHub's, GitLab's and Kubernetes's schemas, shellcheck and hadolint find nothing wrong."""
    command, *options = SCHEMAS[name]
    program = shutil.which(command, path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip(f"{command} isn't installed here: tox -e docs")
    path = written(tmp_path, Path(name).name, BLOCKS[name].replace("NODE\n", "node17\n"))
    done = subprocess.run([program, *options, path], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_parses(name, tmp_path):
    """Bash itself reads each script to its end."""
    done = subprocess.run(["bash", "-n", written(tmp_path, name)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def program(folder, name, script):
    """Make a stand-in for a program, which notes how it was called in the file `calls`."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/bash\necho "{path.name} $*" >>"{folder}/calls"\n{script}\n', encoding="utf-8")
    path.chmod(0o755)


def calls(folder):
    """Return how the stand-ins were called, a line each."""
    path = folder / "calls"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def run(path, folder, *words, **variables):
    """Run a script with stand-ins first on the path, and return how it ended."""
    kept = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}
    command = ["bash", path, *words]
    return subprocess.run(command, check=False, env=kept | variables, cwd=folder, capture_output=True, text=True)


def suite(folder, script):
    """Make a stand-in for the suite."""
    program(folder, "bin/alexnet-repro", script)


def prolog(folder, status, **variables):
    """Run the prolog, with a suite that ends so."""
    suite(folder, f'echo "gpus $CUDA_VISIBLE_DEVICES"; exit {status}')
    program(folder, "logger", "")
    # It sets its own path, for Slurm has none: the stand-in for logger goes first.
    text = BLOCKS[PROLOG].replace("PATH=/usr/local/sbin", f"PATH={folder}:/usr/local/sbin")
    assert text != BLOCKS[PROLOG]
    here = {"ALEXNET_REPRO_SUITE": str(folder), "ALEXNET_REPRO_STATE": str(folder / "state"), "SLURM_JOB_ID": "7"}
    return run(written(folder, "prolog.sh", text), folder, **(here | {"SLURM_JOB_GPUS": "0,3"} | variables))


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (1, 1), (2, 0), (3, 0), (124, 0), (143, 0)])
def test_prolog_fails_on_fail_alone(status, expected, tmp_path):
    """A FAIL ends in 1, which drains the node; a run without a verdict doesn't, but is logged."""
    done = prolog(tmp_path, status)
    assert done.returncode == expected
    assert any(line.startswith("logger ") for line in calls(tmp_path)) == (status != 0)


def test_prolog_verifies_the_jobs_gpus_once_a_day(tmp_path):
    """The suite sees the job's GPUs alone; what passed isn't verified again, other GPUs are, and what failed is."""
    for gpus, status in (("0,3", 0), ("0,3", 0), ("1", 1), ("1", 1), ("", 1)):
        prolog(tmp_path, status, SLURM_JOB_GPUS=gpus)
    logs = sorted((tmp_path / "state").glob("*.log"))
    assert len([line for line in calls(tmp_path) if line.startswith("alexnet-repro verify ")]) == 3
    assert {log.read_text() for log in logs} <= {"gpus 0,3\n", "gpus 1\n"}
    assert [path.name for path in (tmp_path / "state").glob("passed-*")] == ["passed-0-3"]


def test_prolog_says_that_there_is_no_suite(tmp_path):
    """A node without the suite takes jobs, and its log says that nothing was verified."""
    done = prolog(tmp_path, 0, ALEXNET_REPRO_SUITE=str(tmp_path / "gone"))
    assert done.returncode == 0
    assert calls(tmp_path) == [f"logger -t alexnet-repro not verified: no {tmp_path}/gone"]


@pytest.mark.parametrize("status", [0, 1])
@pytest.mark.parametrize("drain", ["yes", "no"])
def test_acceptance_drains_what_does_not_pass(status, drain, tmp_path):
    """Its exit status is the suite's; the node is drained if that isn't 0 and it is wanted."""
    suite(tmp_path, f"exit {status}")
    program(tmp_path, "scontrol", "")
    variables = {"ALEXNET_REPRO_SUITE": str(tmp_path), "SLURMD_NODENAME": "node17", "SLURM_JOB_ID": "7", "DRAIN": drain}
    done = run(written(tmp_path, ACCEPTANCE), tmp_path, **variables)
    assert done.returncode == status
    reason = f"reason=alexnet-repro: status 1, {tmp_path}/reports/node17-7"
    drained = [f"scontrol update nodename=node17 state=drain {reason}"] if (status, drain) == (1, "yes") else []
    assert [line for line in calls(tmp_path) if line.startswith("scontrol")] == drained


def test_acceptance_waits_for_the_report_at_its_time_limit(tmp_path):
    """Slurm's SIGTERM goes on to the suite, and the job ends when that has written its report, with its status."""
    suite(
        tmp_path, "trap 'touch report; exit 143' TERM\nsleep 1\nkill -TERM $PPID\nfor _ in {1..100}; do sleep 0.1; done"
    )
    done = run(written(tmp_path, ACCEPTANCE), tmp_path, ALEXNET_REPRO_SUITE=str(tmp_path))
    assert done.returncode == 143
    assert (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("ended", "status", "last"),
    [
        pytest.param(
            "SuccessCriteriaMet Complete",
            0,
            ["label node node17 --overwrite alexnet-repro=passed", "uncordon node17"],
            id="job=passed",
        ),
        pytest.param(
            "FailureTarget Failed", 1, ["label node node17 --overwrite alexnet-repro=failed"], id="job=failed"
        ),
    ],
)
def test_node_is_labelled_and_uncordoned_on_pass_alone(ended, status, last, tmp_path):
    """A node is cordoned first, its Job is of that node, and its label follows from how the Job ended."""
    script = f'case "$1 $2" in "get job") echo "{ended}";; "apply -f") cat >applied.yaml;; esac'
    program(tmp_path, "kubectl", script)
    written(tmp_path, "verify-node.yaml")
    done = run(written(tmp_path, NODE), tmp_path, "node17", POLL="0")
    called = [line.removeprefix("kubectl ") for line in calls(tmp_path)]
    assert (done.returncode, called[0]) == (status, "cordon node17")
    assert [line for line in called if line.startswith(("label", "uncordon"))] == last
    applied = (tmp_path / "applied.yaml").read_text(encoding="utf-8")
    assert "name: verify-node17\n" in applied
    assert "kubernetes.io/hostname: node17\n" in applied
    assert "--report=/reports/$(ALEXNET_REPRO_NODE)/$(POD)" in applied


SBATCH = """
for word in "$@"; do
    case $word in --nodelist=*) export SLURMD_NODENAME=${word#--nodelist=} ;; *.sbatch) script=$word ;; esac
done
[ "${SLURMD_NODENAME:-}" = node2 ] || SLURM_JOB_ID=7 bash "$script"
"""


def test_a_partition_is_verified_then_compared(tmp_path):
    """Each node has one job of its own, and what compares them comes last and waits for all; a node may be down."""
    suite(tmp_path, "")
    program(tmp_path, "sbatch", SBATCH)
    program(tmp_path, "sinfo", "printf 'node2\\nnode1\\nnode10\\nnode1\\n'")
    for name in (FLEET_NODE, FLEET_COMPARE):
        written(tmp_path, name)
    done = run(written(tmp_path, FLEET), tmp_path, "gpus", ALEXNET_REPRO_SUITE=str(tmp_path), SHARED=str(tmp_path))
    assert done.returncode == 0, done.stderr
    verify = f"alexnet-repro verify --level=standard --require-gpu --report={tmp_path}/fleet"
    assert [line for line in calls(tmp_path) if line.startswith("alexnet-repro ")] == [
        f"{verify}/node1-7",
        f"{verify}/node10-7",
        f"alexnet-repro fleet {tmp_path}/fleet --expect={tmp_path}/fleet/nodes.txt",
    ]
    assert (tmp_path / "fleet/nodes.txt").read_text() == "node1\nnode10\nnode2\n"
    names = [re.findall("--job-name=(.*)", BLOCKS[each]) for each in (FLEET_NODE, FLEET_COMPARE)]
    assert names == [["fleet"], ["fleet"]]
    assert "#SBATCH --dependency=singleton\n" in BLOCKS[FLEET_COMPARE]


KUBECTL = """
case "$*" in
"get nodes "*) printf 'node/node1\\nnode/node2.example\\n' ;;
"create configmap "*) echo "kind: ConfigMap" ;;
"apply -f -") cat >>applied.yaml; touch verifying ;;
"apply -f fleet.yaml") touch comparing ;;
"get jobs "*)
    [ ! -e polled ] || { [ ! -e verifying ] || printf 'SuccessCriteriaMet Complete\\nFailureTarget Failed\\n'; }
    if [ -e comparing ]; then echo "ENDED"; fi
    touch polled ;;
"get job fleet "*) echo "ENDED" ;;
esac
"""


@pytest.mark.parametrize(("ended", "status"), [("SuccessCriteriaMet Complete", 0), ("FailureTarget Failed", 1)])
def test_a_cluster_is_verified_then_compared(ended, status, tmp_path):
    """Each node has a Job, also where one fails; they are compared when all have ended, and that decides."""
    program(tmp_path, "kubectl", KUBECTL.replace("ENDED", ended))
    for name in ("verify-node.yaml", "fleet.yaml"):
        written(tmp_path, name)
    done = run(written(tmp_path, FLEET_KUBERNETES), tmp_path, POLL="0")
    assert done.returncode == status, done.stderr
    applied = (tmp_path / "applied.yaml").read_text()
    assert re.findall(r"^    kubernetes.io/hostname|hostname: (.*)$", applied, re.MULTILINE) == [
        "node1",
        "node2.example",
    ]
    assert (tmp_path / "nodes.txt").read_text() == "node1\nnode2.example\n"
    called = [line.removeprefix("kubectl ") for line in calls(tmp_path)]
    polls = [number for number, line in enumerate(called) if line.startswith("get jobs ")]
    assert polls[1] < called.index("apply -f fleet.yaml") < polls[2]


def test_no_node_is_no_fleet(tmp_path):
    """Where no node has the label, nothing is compared, and the status says so."""
    program(tmp_path, "kubectl", "")
    written(tmp_path, "verify-node.yaml")
    done = run(written(tmp_path, FLEET_KUBERNETES), tmp_path, POLL="0")
    assert (done.returncode, done.stderr) == (2, "no nodes have this label\n")
    assert len(calls(tmp_path)) == 1


def test_results_name_the_node_and_not_the_pod():
    """A pod's host name is the pod's: the suite gets the node's, by the variable that it reads."""
    (variable,) = re.findall(
        r"- name: (\w+).*\n +valueFrom:\n +fieldRef:\n +fieldPath: spec.nodeName", BLOCKS["verify-node.yaml"]
    )
    assert variable == "ALEXNET_REPRO_NODE"
