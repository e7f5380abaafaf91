"""The same architecture in plain PyTorch: forward and train step, on a GPU if there is one, else on the CPU.

    python -m benchmarks.peers.pytorch_step [--batch 128 512] [--precision mixed_bfloat16] [--mode eager default]

Prints a line of JSON per case. It needs PyTorch alone, which gets its best: cuDNN chooses by timing, SGD is one fused
kernel, the batch is on the device, as large as the network sees it, and compiled code is compiled for that batch. In
float32 TF32 is off; mixed_bfloat16 is by autocast. The modes are `torch.compile`'s; eager: none.
"""

import gc
import platform
import resource
import sys
from collections.abc import Callable
from typing import Any

try:
    import torch
    from torch import nn
except ImportError as error:
    raise SystemExit(f"{error}; it needs PyTorch: pip install torch") from None

from benchmarks.peers.timed import Rows, cases, reason, say, step_seconds

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GPU = DEVICE.type == "cuda"
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
MODES = ("eager", "default", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune")
WORK = ("forward", "train step")


def build() -> nn.Sequential:
    """Return the documented layers; losses are taken on the logits."""
    return nn.Sequential(
        *(nn.Conv2d(1, 96, 11, stride=4), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(96, 256, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Flatten(), nn.Linear(6400, 4096), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4096, 10)),
    )


class Step(nn.Module):
    """The network on one batch, which is on the device: its logits, or in training their mean loss."""

    def __init__(self, batch: int, precision: str, layout: str) -> None:
        """Draw weights and the batch."""
        super().__init__()
        torch.manual_seed(0)
        self.network = build()
        # As the other side's: random 28x28 pixels, resized. Buffers, so that CUDA graphs needn't copy them.
        images = nn.functional.interpolate(torch.randint(0, 256, (batch, 1, 28, 28)) / 255, (224, 224), mode="bilinear")
        self.register_buffer("images", images.bfloat16() if precision == "mixed_bfloat16" else images)
        self.register_buffer("labels", torch.randint(0, 10, (batch,)))
        self.to(DEVICE, memory_format=LAYOUTS[layout])

    def forward(self) -> torch.Tensor:
        """Return logits, or the mean loss."""
        logits = self.network(self.images)
        return nn.functional.cross_entropy(logits.float(), self.labels) if self.training else logits


def work(what: str, batch: int, precision: str, layout: str, mode: str) -> Callable[[], torch.Tensor]:
    """Return the function to be timed: it returns the logits of a batch, or the loss before an update."""
    model = Step(batch, precision, layout).train(what == "train step")
    run = model if mode == "eager" else torch.compile(model, mode=mode, dynamic=False)
    half = torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == "mixed_bfloat16")

    def forward() -> torch.Tensor:
        with torch.inference_mode(), half:
            return run()

    optimizer = torch.optim.SGD(model.parameters(), 0.01, fused=True)

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with half:
            loss = run()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return forward if what == "forward" else step


def measure(batch: int, what: str, precision: str, layout: str, mode: str, rows: Rows) -> None:
    """Print a case, or why there is none."""
    case: dict[str, Any] = {
        "precision": precision,
        "configuration": f"{layout}, {mode}",
        "device": torch.cuda.get_device_name() if GPU else "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
    }
    tf32 = precision != "float32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    try:
        if GPU:
            torch.cuda.reset_peak_memory_stats()
        made = work(what, batch, precision, layout, mode)
        seconds = step_seconds(made, lambda _: GPU and torch.cuda.synchronize(), rows)
        if not torch.isfinite(made()).all():
            case["failed"], seconds = "the result isn't finite", []
        process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        case["tf32"], case["peak memory, bytes"] = tf32, torch.cuda.max_memory_allocated() if GPU else process
    except torch.OutOfMemoryError:
        seconds, case["failed"] = [], "doesn't fit into the device's memory"
    except Exception as error:  # noqa: BLE001 - the other cases are still worth knowing
        seconds, case["failed"] = [], reason(error)
    say(what, batch, seconds, **case)
    made = None
    torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()


def main() -> None:
    """Measure every combination of the options."""
    precisions = (("float32", "tf32", "mixed_bfloat16"), ("float32", "mixed_bfloat16"))
    layouts = (LAYOUTS, ("channels_last",) if GPU else tuple(LAYOUTS))
    modes, kind = (MODES, MODES[:3] if GPU else MODES[:1]), "gpu" if GPU else "cpu"
    for case in cases(__doc__, kind, what=(WORK, WORK), precision=precisions, layout=layouts, mode=modes):
        measure(*case)


if __name__ == "__main__":
    main()
