"""Mutation test of the operator's formulas: do the tests notice a mistake in them?

python -m tools.mutation [TEXT]

Every mutant is one mistake, in Python (`formulas`) or C++ (`kernels`); its tests run until the first that fails. Fails
where none does, and `survivors` does not say why. With TEXT, only mutants whose description has it.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tools.mutation import formulas, kernels
from tools.mutation.survivors import EXPLAINED

ROOT = Path(__file__).parents[2]
SECONDS = 900  # a mutant may not come to an end
PASSED, FAILED, NOT_COLLECTED = 0, 1, 2  # pytest's exit codes

Mutant = formulas.Mutant | kernels.Mutant
CONTEXT = get_context("forkserver")  # a server that has imported PyTorch forks each process
CONTEXT.set_forkserver_preload(["torch._dynamo", "pytest", "hypothesis", "matplotlib.pyplot"])


def main(text: str = "") -> int:
    """Tries every mutant; the exit code."""
    mutants: list[Mutant] = [m for m in [*formulas.mutants(), *kernels.MUTANTS] if text in str(m)]
    kernels.build()
    if run(sorted({test for mutant in mutants for test in mutant.tests}), partial(kernels.install, -1)) != PASSED:
        raise RuntimeError("the tests fail without a mutant")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        alive = [mutant for mutant, lives in zip(mutants, pool.map(survives, mutants), strict=True) if lives]
    count, survived = (Counter(mutant.path for mutant in some) for some in (mutants, alive))
    print()
    for path in count:
        print(f"{path:32} {count[path]:4} mutants, {survived[path]:3} survived")
    names = {str(mutant) for mutant in alive}
    unexplained, killed = names - set(EXPLAINED), {name for name in EXPLAINED if text in name} - names
    for name in sorted(unexplained):
        print(f"no test notices  {name}")
    for name in sorted(killed):
        print(f"is said to survive, and does not  {name}")
    return 1 if unexplained or killed else 0


def survives(mutant: Mutant) -> bool:
    """Whether all its tests pass; to crash, or not to end, is as good as to fail.

    Raises:
        RuntimeError: pytest could not run.
    """
    code = run(mutant.tests, mutant.install)
    if code > 0 and code not in (FAILED, NOT_COLLECTED):
        raise RuntimeError(f"pytest ended with {code} for {mutant}")
    print("S" if code == PASSED else ".", end="", flush=True)
    return code == PASSED


def run(tests: Sequence[str], change: Callable[[], None]) -> int:
    """pytest's exit code after `change`, in a process of its own; negative for a signal."""
    process = CONTEXT.Process(target=_pytest, args=(tests, change))
    process.start()
    process.join(SECONDS)
    process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _pytest(tests: Sequence[str], change: Callable[[], None]) -> None:
    import pytest
    import torch

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    change()
    sys.exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--timeout=120", *tests]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
