"""One whole Cityscapes-sized image through Auto-DeepLab's search network, forward and backward: peak memory and time.

python benchmarks/whole_image.py                            # 1024x2048, 19 classes, lean
python benchmarks/whole_image.py --height 512 --width 1024 --memory fast
"""

from __future__ import annotations

import argparse
import os
import time

import torch
import torch.nn.functional as F
from isolated import isolated
from machine import machine

from fastnas.measure import peak
from fastnas.nn import AutoDeepLabSupernet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--memory", choices=("fast", "lean"), default="lean")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    for key, value in machine(options.threads).items():
        print(f"{key}: {value}")
    found = isolated(step, options.height, options.width, options.memory, options.threads)
    print(f"Auto-DeepLab, F=8, B=5, L=12, 19 classes, {options.height}x{options.width}, batch 1, {options.memory}")
    if isinstance(found, str):
        print(found)
        return
    print(f"peak above the model {found['peak'] / 2**30:.2f} GiB, whole process {found['process'] / 2**30:.2f} GiB")
    print(f"forward + backward {found['seconds']:.1f} s, loss {found['loss']:.4f}, every gradient finite")


def step(height: int, width: int, memory: str, threads: int) -> dict[str, float]:
    """Bytes, seconds and loss of a step; run it in a fresh process.

    Raises:
        ArithmeticError: a gradient is missing or not finite.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = AutoDeepLabSupernet(memory=memory)
    image, labels = torch.randn(1, 3, height, width), torch.randint(19, (1, height, width))
    small = network(image[:, :, :65, :65])  # for what libraries allocate on first use
    F.cross_entropy(small, labels[:, :65, :65]).backward()
    del small
    network.zero_grad(set_to_none=True)
    losses: list[float] = []

    def run() -> None:
        loss = F.cross_entropy(network(image), labels)
        losses.append(loss.item())
        loss.backward()

    start = time.perf_counter()
    highest = peak(run)
    seconds = time.perf_counter() - start
    if not all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters()):
        raise ArithmeticError("a gradient is missing or not finite")
    with open("/proc/self/status", encoding="utf-8") as status:
        process = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    return {"peak": highest, "process": process, "seconds": seconds, "loss": losses[0]}


if __name__ == "__main__":
    main()
