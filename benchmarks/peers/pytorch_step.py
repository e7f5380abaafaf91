"""The same architecture in plain PyTorch: forward and train step of 128 images on a CPU, in each layout and precision.

    python benchmarks/peers/pytorch_step.py [ROUNDS] [BATCH]

Prints the seconds of each round as JSON, a line a case. It needs PyTorch alone.
"""

import json
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

ROUNDS, BATCH = (int(text) for text in (*sys.argv[1:], *("5", "128")[len(sys.argv) - 1 :]))


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


def timed(work: Callable[[], object]) -> list[float]:
    """Return the seconds of each round but the first two."""
    seconds = []
    for _ in range(2 + ROUNDS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


def measure(layout: torch.memory_format, precision: torch.dtype) -> None:
    """Print forward and train step in one layout and precision."""
    torch.manual_seed(0)
    model = build().to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    images = torch.rand(BATCH, 1, 224, 224).to(memory_format=layout)
    labels = torch.randint(0, 10, (BATCH,))
    autocast = torch.autocast("cpu", precision, enabled=precision != torch.float32)

    def forward() -> torch.Tensor:
        with torch.inference_mode(), autocast:
            return model(images)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = nn.functional.cross_entropy(model(images).float(), labels)
        loss.backward()
        optimizer.step()

    case = {"torch": torch.__version__, "layout": str(layout), "precision": str(precision), "batch": BATCH}
    model.eval()
    print(json.dumps({"what": "forward", **case, "seconds": timed(forward)}), flush=True)
    model.train()
    print(json.dumps({"what": "train step", **case, "seconds": timed(step)}), flush=True)


for layout in (torch.contiguous_format, torch.channels_last):
    for precision in (torch.float32, torch.bfloat16):
        measure(layout, precision)
