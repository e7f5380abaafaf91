"""What to type where GPUs or a driver are missing: it depends on the container, the kernel, and variables."""

from alexnet_repro.verify.doctor.environment import Environment

WITH_CUDA = "pip install 'tensorflow[and-cuda]'"
INSTALL_DRIVER = "sudo ubuntu-drivers install --gpgpu && sudo reboot (elsewhere: the driver from nvidia.com/drivers)"
GIVE_GPUS = {  # to a container; to one of another kind as to Docker's
    "docker": "docker run --gpus all …",
    "kubernetes": "ask for it in the pod's spec: resources: {limits: {nvidia.com/gpu: 1}}",
    "apptainer": "apptainer exec --nv …",
    "podman": "podman run --device nvidia.com/gpu=all …",
}
# NVIDIA's container toolkit: docs.nvidia.com/datacenter/cloud-native/container-toolkit, docker-specialized.html
VISIBLE, CAPABILITIES = "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"
NO_DEVICES = ("", "none", "void")


def give_gpus(here: Environment) -> str:
    """Return how a container like this one is started with its GPUs, and with the variables that were in the way."""
    if here.unlisted.jetson:
        return "docker run --runtime nvidia …"
    command = GIVE_GPUS.get(here.container or "", GIVE_GPUS["docker"])
    kubernetes = here.container == "kubernetes"  # whose plugin sets the first one itself
    variables = {VISIBLE: "all"} if withheld_by(here) and not kubernetes else {}
    if lacks(here, "compute") or lacks(here, "utility"):
        variables[CAPABILITIES] = "compute,utility"
    option = {"kubernetes": "; and in its env:", "apptainer": "--env"}.get(here.container or "", "-e")
    given = " ".join(f"{option} {name}={value}" for name, value in variables.items())
    return f"{command}{given}" if kubernetes else command.replace("…", f"{given} …") if given else command


def withheld_by(here: Environment) -> str:
    """Return the variable by which this container was started without GPUs, with its value; empty: by none."""
    value = here.settings.get(VISIBLE)
    return f"{VISIBLE}={value}" if value is not None and value.strip().casefold() in NO_DEVICES else ""


def asked_by(here: Environment) -> str:
    """Return the variable that asks for GPUs by name, or for all, with its value; empty: none does."""
    value = here.settings.get(VISIBLE, "")
    if value and not withheld_by(here):
        return f"{VISIBLE}={value}"
    named = here.named_gpus or ()  # a number is often set by habit
    return f"CUDA_VISIBLE_DEVICES={','.join(named)}" if any(not name.isdecimal() for name in named) else ""


def lacks(here: Environment, capability: str) -> bool:
    """Return whether NVIDIA's runtime is set to leave this part of the driver out; by default it gives both."""
    given = [each.strip() for each in here.settings.get(CAPABILITIES, "").split(",")]
    return given != [""] and capability not in given and "all" not in given


def install_driver(here: Environment) -> str:
    """Return how this machine gets a driver, or a newer one."""
    if here.unlisted.wsl:
        return "in Windows: install NVIDIA's newest driver, then: wsl --update && wsl --shutdown"
    if here.unlisted.jetson:
        return "install the newest JetPack: docs.nvidia.com/jetson"
    return INSTALL_DRIVER


def with_cuda(here: Environment) -> str:
    """Return how the backend is installed with CUDA's libraries, of a CUDA that the driver supports."""
    if here.backend == "jax":
        return f"pip install --upgrade 'jax[cuda{13 if here.nvidia.cuda and here.nvidia.cuda >= (13, 0) else 12}]'"
    if here.backend == "torch":
        return "pip uninstall -y torch; then install it with CUDA, by the command of pytorch.org/get-started"
    return WITH_CUDA


def on_the_path(folder: str) -> str:
    """Return how the linker is made to find the libraries in a folder."""
    return (
        f"export LD_LIBRARY_PATH={folder}:$LD_LIBRARY_PATH; for good: "
        f"echo {folder} | sudo tee /etc/ld.so.conf.d/ld.wsl.conf && sudo ldconfig"
    )
