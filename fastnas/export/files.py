"""From a training's folder to the files that hold its network."""

from __future__ import annotations

from keyword import iskeyword
from pathlib import Path

from fastnas.errors import UserError
from fastnas.export.onnx import to_onnx
from fastnas.export.plain import plain_source
from fastnas.search.checkpoint import to_bytes
from fastnas.search.files import write_atomically
from fastnas.search.trained import read_trained

WEIGHTS = ".weights.pt"


def export(folder: Path, out: Path, weights: str = "best", size: tuple[int, int] | None = None) -> list[Path]:
    """Writes the network that `fastnas retrain` trained in `folder`; what was at `out` is replaced.

    Args:
        folder: of a training that is done.
        out: ends with .onnx, or with .py for a module of plain PyTorch, whose weights are written beside it, in a file
            that ends with .weights.pt.
        weights: "best" or "last".
        size: H and W of the images that the ONNX file takes; None for those that were trained on, or for labelled
            pixels the largest validation image's.

    Returns:
        The files.

    Raises:
        UserError: `out` cannot be written or has no such name, `folder` holds no such training or it is damaged, or
            the libraries that ONNX needs are missing.
    """
    _check(out, size)
    trained = read_trained(folder, weights)
    if out.suffix == ".onnx":
        images = trained.images
        notes = {"classes": images.classes, "mean": images.mean, "std": images.std, "origin": trained.origin}
        write_atomically(out, to_onnx(trained.network, len(images.mean), size or images.size, notes))
        return [out]
    beside = out.with_suffix(WEIGHTS)
    write_atomically(beside, to_bytes(trained.network.state_dict()))
    write_atomically(out, plain_source(trained, out.stem).encode())
    return [out, beside]


def _check(out: Path, size: tuple[int, int] | None) -> None:
    if out.suffix not in (".onnx", ".py"):
        raise UserError(f"--out is {out}; expected a name that ends with .onnx or .py")
    if out.suffix == ".py" and (not out.stem.isidentifier() or iskeyword(out.stem)):
        raise UserError(f"--out is {out}; expected a name that Python can import, such as network.py")
    if out.suffix == ".py" and size is not None:
        raise UserError("--size is for .onnx files; a module of PyTorch takes images of any size")
    if out.is_dir():
        raise UserError(f"--out is {out}, a folder; expected the name of a file")
    if not out.absolute().parent.is_dir():
        raise UserError(f"there is no folder {out.parent}")
