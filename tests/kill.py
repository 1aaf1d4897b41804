"""Kills a search, a training and Auto-DeepLab's search at random instants, and resumes them until they are done.

    python tests/kill.py [KILLS]

Every run that was killed must leave what one leaves that was not: checkpoints with weights, α, optimisers, schedules
and generators, genotypes, histories and TensorBoard's figures. Not part of the normal tests: 50 kills take minutes.
Exits with 1 and a sentence if anything differs.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from killing import RUNS, Run, ended, make_images, start
from runs import files
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

KILLS = 50


def scalars(out: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run."""
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in sorted(events.Tags()["scalars"])}


def content(out: Path) -> dict[str, Any]:
    """All that a run leaves."""
    return files(out) | {"tensorboard": scalars(out)}


def where(out: Path) -> str:
    """What the process was at when it was killed, by what it left."""
    unfinished = [path.name for path in out.glob("*.tmp")]
    if unfinished:
        return f"writing {unfinished[0].removesuffix('.tmp')}"
    if not (out / "checkpoint.pt").exists():
        return "before the first checkpoint"
    return f"after {len((out / 'history.jsonl').read_text().splitlines())} epochs"


def kill_until_done(run: Run, root: Path, out: Path, longest: float, choose: random.Random) -> Counter[str]:
    """Kills the run after random times until one of its processes comes to its end. Where each was when it died."""
    places: Counter[str] = Counter()
    while True:
        process = start(run, root, out)
        process.join(choose.uniform(0, longest))
        process.kill()
        if ended(process):
            return places
        places[where(out)] += 1


def compare(name: str, killed: dict[str, Any], whole: dict[str, Any]) -> None:
    """Refuses any difference."""
    if killed.keys() != whole.keys():
        raise SystemExit(f"{name}: expected the files {sorted(whole)}, got {sorted(killed)}")
    for file, expected in whole.items():
        if killed[file] != expected:
            raise SystemExit(f"{name}: {file} is not that of a run that was never killed")


def main(kills: int) -> None:
    """Run it."""
    choose, places = random.Random(0), {run.__name__: Counter[str]() for run in RUNS}
    root = Path(tempfile.mkdtemp(prefix="fastnas-kill-"))
    make_images(root)
    whole, longest = {}, {}
    assert ended(start(RUNS[0], root, root / "first"))  # the server that forks these imports PyTorch before
    for run in RUNS:
        out = root / f"{run.__name__}-whole"
        begin = time.perf_counter()
        assert ended(start(run, root, out))
        longest[run.__name__], whole[run.__name__] = time.perf_counter() - begin, content(out)
    for run in RUNS:
        name = run.__name__
        while places[name].total() < kills / len(RUNS):
            killed = kill_until_done(run, root, root / name, longest[name], choose)
            compare(name, content(root / name), whole[name])
            print(f"{name}: killed {killed.total()} times, the same bits", flush=True)
            places[name] += killed
            shutil.rmtree(root / name)
    for name, counter in places.items():
        print(
            f"{name}, {longest[name]:.1f} s: killed " + ", ".join(f"{n} {place}" for place, n in counter.most_common())
        )
    total = sum(counter.total() for counter in places.values())
    print(f"{total} kills; every run ended with the bits of one that was never killed")
    shutil.rmtree(root)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else KILLS)
