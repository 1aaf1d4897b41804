"""Mistakes for the C++ kernels to make: each an expression of csrc/cpu, marked by «», and what takes its place.

All are compiled into one library, and the environment variable FASTNAS_MUTANT says which of them is made.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "mutation"

HEADER = """#pragma once
#include <cstdlib>
inline const int fastnas_mutant = std::getenv("FASTNAS_MUTANT") ? std::atoi(std::getenv("FASTNAS_MUTANT")) : -1;
"""


@dataclass(frozen=True)
class Mutant:
    """A change of one expression; `number` is its place in the list."""

    number: int
    path: str
    context: str
    replacement: str

    def __str__(self) -> str:
        return f"{self.path}: {self.context}  →  {self.replacement}"

    @property
    def tests(self) -> list[str]:
        """Which should notice."""
        return ["tests/test_operator.py"]

    def install(self) -> None:
        """Makes it in this process, before fastnas is imported."""
        install(self.number)


CHANGES: dict[str, list[tuple[str, str]]] = {
    "norm.h": [
        ("delta = seen > 0 ? «moments[l] - to[l]» : 0", "to[l] - moments[l]"),
        ("share = «more / (seen + more)»", "seen / (seen + more)"),
        ("to[lanes + l] + «delta * delta * seen * share»", "delta * delta * share"),
        ("to[lanes + l] + «delta * delta * seen * share»", "0.0"),
        ("1 / std::sqrt(«double(variances[c]) + norm.eps»)", "double(variances[c])"),
        ("1 / std::sqrt(«double(variances[c]) + norm.eps»)", "double(variances[c]) + 2 * norm.eps"),
        ("«alpha * (gamma ? gamma[c] : T(1)) * inverse[c]»", "alpha * inverse[c]"),
        ("«alpha * (gamma ? gamma[c] : T(1)) * inverse[c]»", "double((gamma ? gamma[c] : T(1)) * inverse[c])"),
        ("T(«alpha * beta[c]»)", "double(beta[c])"),
        ("weight = «pixels(i) * slabs / count»", "double(1)"),
        ("squares[l] += «weight * (means[l] - centre[l]) * (means[l] - centre[l])»", "0.0"),
        ("T(«partial.second(c) / count»)", "partial.second(c) / (count - 1)"),
        ("s2 = «state.inverse[i] * g_centred(i)»", "g_centred(i)"),
        ("alpha_grad += «weight * s2 + (beta ? beta[i] * s1 : 0)»", "weight * s2"),
        ("alpha_grad += «weight * s2 + (beta ? beta[i] * s1 : 0)»", "s2 + (beta ? beta[i] * s1 : 0)"),
        ("gamma_grad[i] += T(«alpha * s2»)", "s2"),
        ("gamma_grad[i] += T(«alpha * s2»)", "alpha * s1"),
        ("beta_grad[i] += T(«alpha * s1»)", "s1"),
        ("slope = «alpha * weight * state.inverse[i]»", "alpha * state.inverse[i]"),
        ("slope = «alpha * weight * state.inverse[i]»", "alpha * weight"),
        ("«-slope * state.inverse[i] * s2 / count»", "slope * state.inverse[i] * s2 / count"),
        ("«-slope * state.inverse[i] * s2 / count»", "-slope * s2 / count"),
        ("«-slope * state.inverse[i] * s2 / count»", "-slope * state.inverse[i] * s2 / (count - 1)"),
        ("«-slope * s1 / count»", "0.0"),
        ("«-slope * s1 / count»", "slope * s1 / count"),
    ],
    "kernels/depthwise.h": [
        ("source = «y * S + k * D - reach»;", "y * S + k * D - reach + 1"),
        ("source = «y * S + k * D - reach»;", "y * S + k - reach"),
        ("source = «y * S + k * D - reach»;", "y + k * D - reach"),
        ("if («source >= 0» && source < conv.in.h)", "source > 0"),
        ("if (source >= 0 && «source < conv.in.h»)", "source < conv.in.h - 1"),
        ("list.add(plane + source * row, weight + «k» * K * L);\n        }\n        correlate_row", "(K - 1 - k)"),
        ("scaled = «y - (k - K / 2) * D»;", "y + (k - K / 2) * D"),
        ("if («scaled >= 0» && scaled % S == 0", "scaled > 0"),
        ("«scaled / S < conv.out.h»", "scaled / S < conv.out.h - 1"),
        ("load<T, L>(grad + p * L) + «relu_mask(v, load<T, L>(x + p * L))»", "v"),
        ("store<T, L>(grad + p * L, «load<T, L>(grad + p * L)» + relu_mask(v", "(Vec<T, L>{})"),
        ("centred = «load<T, L>(z + p * L) - m»;", "load<T, L>(z + p * L)"),
        ("masked = «relu_mask(v, centred * s + t)»;", "relu_mask(v, centred * s)"),
        ("masked = «relu_mask(v, centred * s + t)»;", "v"),
        ("product.fast += «masked * centred»;", "v * centred"),
        ("total += «sum[1][i][k]»;", "(Vec<T, L>{})"),
        ("conv.in.h > shift ? «(conv.in.h - 1 - shift) / S + 1» : 0", "(conv.in.h - 1 - shift) / S"),
        ("shift < 0 ? «(-shift + S - 1) / S» : 0", "(-shift + S - 1) / S + 1"),
    ],
    "kernels/pool.h": [
        ("m.position += T(«w.first - left»);", "0"),
        ("if constexpr (Positions) position = «v > value» ? at : position;", "v >= value"),
        ("const auto larger = «(v > value) | (v != v)»;", "v > value"),
        ("+ T(«3 * (first + i)»)", "3 * i"),
        ("store<T, L>(out, sum * (T(1) / T(«rows.size() * columns.size()»)));", "9"),
        ("load<T, L>(g + p) * (T(1) / T(«rows.size() * columns.size()»))", "9"),
        ("int oy = «y + 1 - ky»;", "y - 1 + ky"),
        ("int ox = «x + 1 - kx»;", "x - 1 + kx"),
        ("oy / stride >= «out.h»", "out.h - 1"),
        ("ox / stride >= «out.w»", "out.w - 1"),
        ("sum += «value(window, 3 * ky + kx)»;", "value(window, 3 * kx + ky)"),
    ],
    "kernels/resample.h": [
        ("«load<T, L>(source + column[1].at * L) * column[1].weight»;", "(Vec<T, L>{})"),
        ("«relu(between(above) * row[0].weight + between(below) * row[1].weight)»", "between(above)"),
        (
            "«relu(between(above) * row[0].weight + between(below) * row[1].weight)»",
            "between(above) * row[0].weight + between(below) * row[1].weight",
        ),
        (
            "«relu(between(above) * row[0].weight + between(below) * row[1].weight)»",
            "relu(between(above) * row[1].weight + between(below) * row[0].weight)",
        ),
        ("sum += «load<T, L>(g + tap->at * g_row + at) * tap->weight»;", "load<T, L>(g + tap->at * g_row + at)"),
        ("Vec<T, L> sum = «load<T, L>(to)»;", "(Vec<T, L>{})"),
    ],
    "resampling.h": [
        ("out > 1 ? «T(in - 1) / T(out - 1)» : T(0)", "T(in) / T(out)"),
        ("second = in == out ? first : «std::min(first + 1, in - 1)»;", "first"),
        ("taps_.push_back({first, «1 - share»});", "T(1)"),
        ("share = «std::clamp(at - T(first), T(0), T(1))»;", "at - T(first)"),
    ],
    "kernels/elementwise.h": [
        ("«relu_mask(load<T, L>(g + p), load<T, L>(x + p))»", "load<T, L>(g + p)"),
        ("store<T, L>(g + p, «relu_mask(load<T, L>(g + p), load<T, L>(x))»);", "load<T, L>(g + p)"),
        ("d = «load<T, L>(x + p * L) - centre»;", "load<T, L>(x + p * L)"),
        ("squares[l] -= «off[l] * change»;", "0.0"),
        ("if («change == change»)", "true"),
        ("mean[l] = «centre[l] + change»;", "double(centre[l])"),
        ("load<T, L>(g + p * L) * («load<T, L>(x + p * L) - m»)", "load<T, L>(x + p * L)"),
        ("sum += («load<T, L>(terms[i].x + p) - mean[i]») * scale[i];", "load<T, L>(terms[i].x + p)"),
        ("add ? «load<T, L>(y + p) + sum» : sum", "load<T, L>(y + p) - sum"),
        ("v += «vb * (load<T, L>(x + p) - m) + vc»;", "vb * (load<T, L>(x + p) - m)"),
        ("v += «vb * (load<T, L>(x + p) - m) + vc»;", "vb * load<T, L>(x + p) + vc"),
    ],
    "kernels/pointwise.h": [
        ("acc[p][b] += «w[b] * column[p * L]»;", "w[b] * column[0]"),
        ("collected.g + i) * («acc[p][b] - centre[b]»);", "acc[p][b]"),
        ("sum[k][b] += «v[b] * d[p * L + k]»;", "v[b] * d[p * L]"),
        ("left = «channel < split»;", "channel <= split"),
    ],
    "plain_backward.h": [
        ("cell_.alpha_grad[candidate.alpha] += «own.partial.first(c)»;", "own.partial.second(c)"),
        ("sum.norm_grad.b[c] += «member.own.norm_grad.b[c]»;", "T(0)"),
        ("sum.norm_grad.c[c] += «member.own.norm_grad.c[c]»;", "T(0)"),
    ],
}
MUTANTS = [
    Mutant(number, f"csrc/cpu/{path}", *change)
    for number, (path, change) in enumerate((path, change) for path, changes in CHANGES.items() for change in changes)
]


def build() -> None:
    """Compiles the library with all mutants."""
    shutil.rmtree(BUILD, ignore_errors=True)
    shutil.copytree(ROOT / "csrc", BUILD / "csrc")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, BUILD)
    shutil.copytree(ROOT / "fastnas", BUILD / "fastnas", ignore=shutil.ignore_patterns("*.so", "csrc", "kernels"))
    header = BUILD / "mutant.h"
    header.write_text(HEADER)
    for path in CHANGES:
        source = BUILD / "csrc" / "cpu" / path
        source.write_text(f'#include "{header}"\n{mutated(path)}')
    build = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", "lib"]
    subprocess.run(build, cwd=BUILD, check=True)


def mutated(path: str) -> str:
    """A source with all its mutants, of which the variable `fastnas_mutant` chooses one.

    Raises:
        ValueError: what a mutant changes is not there, or more than once.
    """
    source = (ROOT / "csrc" / "cpu" / path).read_text()
    found: dict[tuple[int, int], str] = {}
    for mutant in MUTANTS:
        if mutant.path != f"csrc/cpu/{path}":
            continue
        before, expression, after = re.split("[«»]", mutant.context)
        whole = before + expression + after
        if source.count(whole) != 1:
            raise ValueError(f"{source.count(whole)} places instead of one for {mutant}")
        start = source.index(whole) + len(before)
        place = start, start + len(expression)
        otherwise = found.get(place, f"({expression})")
        found[place] = f"(fastnas_mutant == {mutant.number} ? ({mutant.replacement}) : {otherwise})"
    for (start, end), text in sorted(found.items(), reverse=True):
        source = source[:start] + text + source[end:]
    return source


def install(number: int) -> None:
    """Makes `fastnas._C` the library with mutant `number`, -1 for none, in this process, before fastnas is imported."""
    os.environ["FASTNAS_MUTANT"] = str(number)
    spec = importlib.util.spec_from_file_location("fastnas._C", next((BUILD / "lib").rglob("_C*.so")))
    assert spec is not None
    assert spec.loader is not None
    sys.modules["fastnas._C"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["fastnas._C"])
