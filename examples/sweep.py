"""Searches with several seeds and learning rates of α, a few at a time, as jobs of submitit.

    python examples/sweep.py digits runs/sweep --seeds 0 1 --alpha-lrs 0.003 0.03 --workers 2
    python examples/sweep.py cifar10:data runs/sweep --seeds 0 1 2 --workers 3 --slurm gpu

Jobs are processes of this machine, or with --slurm jobs of that partition. The same command again goes on with what was
broken off and does not repeat what is done. Needs `pip install submitit`.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import submitit

MINUTES = 24 * 60  # after which a job is stopped, and submitted again


class Search(submitit.helpers.Checkpointable):  # type: ignore[misc]
    """A job: one search. Slurm may stop it; it is submitted again then, and goes on."""

    def __call__(self, data: str, out: Path, options: dict[str, Any]) -> dict[str, float]:
        import fastnas

        resume = (out / "config.json").exists()
        return fastnas.search(data, out=out, resume=resume, progress=False, **options).metrics


def main() -> None:
    options = parse()
    executor = submitit.AutoExecutor(options.out / "jobs", cluster="slurm" if options.slurm else "local")
    executor.update_parameters(timeout_min=MINUTES)
    if options.slurm:
        executor.update_parameters(slurm_partition=options.slurm, gpus_per_node=1)

    def search(point: tuple[int, float]) -> tuple[Path, dict[str, float]]:
        seed, alpha_lr = point
        out = options.out / f"seed{seed}-alpha-lr{alpha_lr}"
        sizes = {name: getattr(options, name) for name in ("epochs", "channels", "layers", "batch_size", "threads")}
        job = executor.submit(Search(), options.data, out, {"seed": seed, "alpha_lr": alpha_lr, **sizes})
        return out, job.result()

    points = product(options.seeds, options.alpha_lrs)
    with ThreadPoolExecutor(options.workers) as workers:  # each waits for a job before it submits the next
        for out, metrics in workers.map(search, points):
            print(f"{out}: accuracy {metrics['val_accuracy']:.1%}, entropy of α {metrics['alpha_entropy']:.4f}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--alpha-lrs", type=float, nargs="+", default=[3e-3])
    parser.add_argument("--workers", type=int, default=2, help="jobs at a time")
    parser.add_argument("--slurm", metavar="PARTITION")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="of each job")
    return parser.parse_args()


if __name__ == "__main__":
    main()
