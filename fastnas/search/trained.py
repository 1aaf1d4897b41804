"""A network that a training left in its folder, with what is needed to use it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, Field, ValidationError
from torch import nn

from fastnas import __version__
from fastnas.errors import UserError, first_line
from fastnas.genotype import AutoDeepLabGenotype, Genotype, GenotypeError, load
from fastnas.nn import AutoDeepLabNetwork, DartsNetwork
from fastnas.search.config import CONFIG, GENOTYPE, RetrainConfig, make_config, read_written
from fastnas.search.run import RESULT
from fastnas.search.segmentation_config import TrellisRetrainConfig


class Images(BaseModel):
    """What result.json says of the images that the network was trained on.

    Attributes:
        classes: their names, in the order of the logits.
        mean, std: of each channel, for pixels from 0 to 1; the network takes (pixels - mean) / std.
        size: H and W; of labelled pixels, those of the largest validation image.
    """

    classes: tuple[str, ...] = Field(min_length=1)
    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[float, ...] = Field(min_length=1)
    size: tuple[int, int]


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        folder: of its training.
        weights: "best" or "last".
        network: on the CPU, in evaluation mode, without an auxiliary head.
        genotype: what it was made of.
        config: how it was trained.
        images: on what.
    """

    folder: Path
    weights: str
    network: DartsNetwork | AutoDeepLabNetwork
    genotype: Genotype | AutoDeepLabGenotype
    config: RetrainConfig | TrellisRetrainConfig
    images: Images

    @property
    def origin(self) -> str:
        """What an exported file tells of where it comes from."""
        return f"fastnas {__version__}, {self.weights} weights of {self.folder.resolve().name}"


def read_trained(folder: Path, weights: str = "best") -> Trained:
    """The network that `fastnas retrain` trained in `folder`.

    Args:
        folder: of a training that is done, of either method.
        weights: "best" or "last".

    Raises:
        UserError: `folder` holds no such training, it is not done, or a file is damaged.
    """
    command, values = read_written(folder / CONFIG, ["retrain", "retrain auto-deeplab"])
    images = _read_images(folder, command)
    try:
        if command == "retrain":
            config = make_config(RetrainConfig, values)
            genotype = load(folder / GENOTYPE, Genotype)
            shape = (config.channels, config.layers, len(images.classes))
            network = DartsNetwork(genotype, *shape, stem=config.stem, in_channels=len(images.mean))
            load_weights(network, folder / f"{weights}.pt")
            return Trained(folder, weights, network.eval(), genotype, config, images)
        trellis = make_config(TrellisRetrainConfig, values)
        found = load(folder / GENOTYPE, AutoDeepLabGenotype)
        segmenter = AutoDeepLabNetwork(found, trellis.filters, len(images.classes), atrous=trellis.atrous)
        load_weights(segmenter, folder / f"{weights}.pt")
        return Trained(folder, weights, segmenter.eval(), found, trellis, images)
    except GenotypeError as error:
        raise UserError(str(error)) from error


def load_weights(network: nn.Module, path: Path) -> None:
    """Gives `network` the weights that `retrain` wrote; those of an auxiliary head only if it has one.

    Raises:
        UserError: there is no such file, it is damaged, or of another network.
    """
    try:
        state = torch.load(path, "cpu", weights_only=True)
        if getattr(network, "auxiliary_head", None) is None:
            state = {name: value for name, value in state.items() if not name.startswith("auxiliary_head.")}
        network.load_state_dict(state)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; finish the training by --resume") from error
    except Exception as error:  # torch.load raises whatever its parsers do
        raise UserError(f"{path} cannot be loaded: {first_line(error)}") from error


def _read_images(folder: Path, command: str) -> Images:
    path, again = folder / RESULT, shlex.join(["fastnas", *command.split(), "--out", str(folder), "--resume"])
    try:
        return Images.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; finish the training by: {again}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise UserError(f"{path} is damaged, or an earlier fastnas wrote it; write it anew by: {again}") from error
