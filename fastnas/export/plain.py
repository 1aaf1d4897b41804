"""A network as a module of plain PyTorch: a template, and those of our modules that need nothing but PyTorch."""

from __future__ import annotations

import inspect
import json
from types import ModuleType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fastnas.genotype import CellGenotype
from fastnas.nn import DartsNetwork, auto_deeplab, deeplab_head, derived, operations
from fastnas.nn.operations import ATROUS
from fastnas.ops import CANDIDATES, candidates
from fastnas.search.trained import Trained

_OPERATIONS = ("_depthwise_stage", "DepthwiseChain", "ReLUConvBN", "FactorizedReduce")
_HEAD = ("WIDTH", "LOW_WIDTH", "DROPOUT", "FINEST_RATES", "resize", "conv_bn_relu", "ASPP", "Decoder")


def plain_source(trained: Trained, name: str) -> str:
    """The text of a module that defines exactly this network, without its auxiliary head and its dropping of paths.

    Its parameters have the names of ours; its `load` reads their state_dict from the file NAME.weights.pt beside it.

    Args:
        trained: the network.
        name: by which the module will be imported.
    """
    darts = isinstance(trained.network, DartsNetwork)
    template = "darts.py.jinja" if darts else "auto_deeplab.py.jinja"
    parts = _darts_parts(trained) if darts else _auto_deeplab_parts(trained)
    environment = Environment(
        loader=PackageLoader("fastnas.export", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # it is Python
    )
    environment.filters["python"] = repr
    values = {"name": name, "trained": trained, "images": trained.images, "parts": "\n\n\n".join(parts)}
    return environment.get_template(template).render(values | _operations(trained))


def _operations(trained: Trained) -> dict[str, Any]:
    """The cells, and what their operations are made of."""
    cells = {key: value for key, value in vars(trained.genotype).items() if isinstance(value, CellGenotype)}
    used = {operation for cell in cells.values() for node in cell.nodes for operation, _ in node}
    dense = ATROUS if getattr(trained.config, "atrous", "") == "dense" else {}
    kinds = {key: kind for key, kind in CANDIDATES.items() if key in used and key not in dense}
    return {
        "cells": {key.upper(): _cell(cell) for key, cell in cells.items()},
        "atrous": {key: kernel for key, kernel in dense.items() if key in used},
        "convolutions": {key: kind.stages for key, kind in kinds.items() if kind.stages},
        "pools": {key: kind.pool for key, kind in kinds.items() if kind.pool},
    }


def _darts_parts(trained: Trained) -> list[str]:
    assert isinstance(trained.network, DartsNetwork)
    stems = ["_imagenet_stems"] if trained.network.imagenet else ["STEM_MULTIPLIER", "_cifar_stem"]
    return [
        *_sources(candidates, "Depthwise"),
        *_sources(operations, *_OPERATIONS),
        *_sources(derived, *stems),
    ]


def _auto_deeplab_parts(trained: Trained) -> list[str]:
    return [
        *_sources(candidates, "Depthwise"),
        *_sources(operations, *_OPERATIONS),
        *_sources(deeplab_head, *_HEAD),
        *_sources(auto_deeplab, "STEM_WIDTHS", "LOW_LEVEL_CELL", "half", "_stems", "DenseAtrousConv"),
    ]


def _sources(module: ModuleType, *names: str) -> list[str]:
    """The text of classes, functions and constants."""
    values = ((name, getattr(module, name)) for name in names)
    return [inspect.getsource(value).strip() if callable(value) else f"{name} = {value!r}" for name, value in values]


def _cell(cell: CellGenotype) -> dict[str, str]:
    nodes = "".join(f"    {json.dumps(node)},\n" for node in cell.nodes)
    return {"nodes": f"[\n{nodes}]", "concat": str(list(cell.concat))}
