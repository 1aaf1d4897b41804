"""A network as an ONNX file, by PyTorch's exporter."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fastnas.errors import UserError
from fastnas.search.device import device_of

_EXAMPLES = 2  # of one, the exporter would conclude that a batch always is one image


def to_onnx(network: nn.Module, channels: int, size: tuple[int, int], notes: Mapping[str, Any]) -> bytes:
    """The content of an ONNX file: input "images" (batch, channels, *size), output "logits", both in float32.

    Args:
        network: maps images to logits, in evaluation mode. The batch is of any size, the images are of this one.
        channels, size: of its input.
        notes: written into the file's metadata, as JSON.

    Raises:
        UserError: onnxscript, which PyTorch's exporter needs, is missing.
    """
    try:
        import onnxscript  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: F401
    except ImportError as error:
        raise UserError(f"an ONNX file needs {error.name}, which is missing: pip install 'fastnas[onnx]'") from error
    example = torch.zeros(_EXAMPLES, channels, *size, device=device_of(network))
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update({name: json.dumps(value) for name, value in notes.items()})
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out what the exporter says of libraries that it could use, and of its own future."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
