"""Every option of a run: type, default, range and help text. The command line is made from these fields."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fastnas.errors import UserError
from fastnas.genotype.genotype import shorten

CONFIG, GENOTYPE = "config.json", "genotype.json"
LOGGERS = {"tensorboard", "wandb", "mlflow"}
_DATASETS = "datasets:"  # as in fastnas.data.datasets, which needs PyTorch


class RunConfig(BaseModel):
    """What all searches and trainings have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    data: str
    seed: int = Field(
        0, ge=0, le=2**32 - 1, description="Two runs with one seed and as many threads give the same files."
    )
    device: str = Field(
        "auto", description="What it computes on: cpu, cuda or cuda:1; auto takes a GPU if there is one."
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; without it as many as PyTorch takes.")
    log: str | None = Field(
        None,
        description="Where figures go beside the run's own files: tensorboard, wandb, mlflow, several with commas, or "
        "none; without it to TensorBoard if it is installed.",
    )
    workers: int = Field(0, ge=0, description="Processes that read images ahead, where they do not fit into memory.")
    lr: float = Field(0.025, gt=0, description="Learning rate of the weights at the start of its schedule.")
    lr_min: float = Field(0.0, ge=0, description="Learning rate of the weights at its end.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of the weights' SGD.")
    weight_decay: float = Field(3e-4, ge=0, description="Weight decay of the weights.")

    @field_validator("data")
    @classmethod
    def _absolute(cls, data: str) -> str:
        """A run is gone on with, and its network trained, from any folder."""
        if data == "digits" or data.startswith(_DATASETS):
            return data
        source, colon, path = data.rpartition(":")
        return source + colon + os.path.abspath(path)

    @field_validator("log")
    @classmethod
    def _known(cls, log: str | None) -> str | None:
        if log not in (None, "none") and not LOGGERS.issuperset(log.split(",")):
            raise ValueError("tensorboard, wandb, mlflow, several with commas, or none")
        return log

    @property
    def loggers(self) -> list[str]:
        """The names in `log`."""
        return [] if self.log in (None, "none") else self.log.split(",")

    @model_validator(mode="after")
    def _falling(self) -> RunConfig:
        if self.lr_min > self.lr:
            raise ValueError(f"--lr-min is {self.lr_min}, more than --lr, {self.lr}; expected a rate that falls")
        return self


class ClassificationConfig(RunConfig):
    """What runs on classified images have in common. The rate follows a cosine."""

    data: str = Field(
        description="The images: a folder with train/<class>/* and val/<class>/*, 'digits' (8x8 scans that "
        "come with scikit-learn), or 'cifar10:PATH'."
    )
    image_size: int | None = Field(
        None,
        ge=1,
        description="Side in pixels to which a folder's images are brought; without it they stay as is.",
    )
    padding: int | None = Field(
        None,
        ge=0,
        description="Pixels added around an image before a random crop, 0 for none; without it an eighth of its side.",
    )
    mirror: bool | None = Field(
        None, description="Mirror half of the images left to right; without it yes, but not for digits."
    )
    grad_clip: float = Field(5.0, gt=0, description="Norm to which the weights' gradient is clipped.")


class StrategyConfig(ClassificationConfig):
    """What all strategies have in common. The options of one have a class of their own, with its name as default."""

    strategy: str = Field("darts", description="How it is searched.")


class SearchConfig(StrategyConfig):
    """A search with a supernet; the defaults are those of DARTS, Liu et al., ICLR 2019, appendix A.1."""

    epochs: int = Field(50, ge=1, description="Passes over the training images.")
    batch_size: int = Field(64, ge=2, description="Images in a batch, of each half of the training set.")
    channels: int = Field(16, ge=1, description="Width of the first cells.")
    layers: int = Field(8, ge=3, description="Number of cells; two of them halve the resolution.")
    lr_min: float = Field(0.001, ge=0, description="Learning rate of the weights at its end.")
    alpha_lr: float = Field(3e-4, gt=0, description="Learning rate of the architecture's Adam.")
    alpha_weight_decay: float = Field(1e-3, ge=0, description="Weight decay of the architecture.")
    cutout: int = Field(0, ge=0, description="Side in pixels of the square cut out of each training image; 0 for none.")
    skip_patience: int | None = Field(
        None,
        ge=1,
        description="Stop when skip connections have dominated the normal cell for so many epochs in a row, and keep "
        "what was found before; without it never.",
    )
    memory: Literal["fast", "lean"] = Field("fast", description="What the fused cells favour.")
    backend: Literal["auto", "cuda", "triton", "cpu", "reference"] = Field(
        "auto", description="What computes them, see 'fastnas info'."
    )


class RetrainConfig(ClassificationConfig):
    """Training of a found network; the defaults are those of Liu et al., ICLR 2019, A.2 (CIFAR-10)."""

    epochs: int = Field(600, ge=1, description="Passes over the training images.")
    batch_size: int = Field(96, ge=2, description="Images in a batch.")
    channels: int = Field(36, ge=1, description="Width of the first cells.")
    layers: int = Field(20, ge=1, description="Number of cells; two of them halve the resolution.")
    cutout: int | None = Field(
        None,
        ge=0,
        description="Side in pixels of the square cut out, 0 for none; without it half of the image's side.",
    )
    drop_path: float = Field(0.2, ge=0, lt=1, description="Probability of dropping a path, reached at the end.")
    auxiliary: bool = Field(True, description="Train with an auxiliary head after the second reduction.")
    auxiliary_weight: float = Field(0.4, ge=0, description="Weight of the auxiliary head's loss.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of the target spread over all classes.")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="What the network computes in, by torch.autocast; for float16 the loss is scaled."
    )
    stem: Literal["cifar", "imagenet"] = Field(
        "cifar", description="What stands before the cells: one convolution, or three that divide the size by 8."
    )
    augment: Literal["cifar", "imagenet"] = Field(
        "cifar",
        description="How a folder's training images vary: as --padding says, or for ImageNet a random part of each at "
        "--image-size, its colours changed, and the middle of each validation image; then --padding and --cutout are 0 "
        "where they are left out.",
    )
    lr_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Factor by which each epoch lowers the learning rate; without it the rate follows a cosine.",
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of a mean of the weights that follows each step; the mean is validated and kept. Without "
        "it none.",
    )

    @model_validator(mode="after")
    def _imagenet(self) -> RetrainConfig:
        if self.augment == "imagenet" and (self.image_size is None or self.data.startswith(_DATASETS)):
            raise ValueError("--augment imagenet needs --image-size, and a folder of images")
        if self.stem == "imagenet" and self.channels % 2:
            raise ValueError(f"--channels is {self.channels}; --stem imagenet needs an even number")
        return self


Config = TypeVar("Config", bound=RunConfig)


def make_config(model: type[Config], values: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> Config:
    """The checked configuration.

    Args:
        values: by the names of the fields; types are not converted.
        origins: the files that options come from; the others are from the command line.

    Raises:
        UserError: an option is missing, unknown, of another type or out of its range.
    """
    try:
        return model.model_validate(values, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if not name:
            raise UserError(message) from error
        if first["type"] == "missing":
            raise UserError(f"{option(name)} is missing") from error
        if first["type"] == "extra_forbidden":
            raise UserError(f"{spelled(name, origins)} is no option{_suggestion(name, model)}") from error
        expected = message.removeprefix("Input should be ")
        number = "a number " if expected.startswith(("greater", "less")) else ""
        raise UserError(f"{spelled(name, origins)} is {_shown(first['input'])}; expected {number}{expected}") from error


def _suggestion(name: str, model: type[RunConfig]) -> str:
    close = get_close_matches(name, model.model_fields, 1)
    return f"; did you mean {close[0]}?" if close else ", see --help"


def _shown(value: Any) -> str:
    # A list in YAML may hold itself, or be written out longer than memory.
    return f"a {type(value).__name__}" if isinstance(value, list | dict | set | tuple) else shorten(value)


def option(field: str) -> str:
    """How the command line spells a field."""
    return "--" + field.replace("_", "-")


def spelled(field: str, origins: Mapping[str, str] | None) -> str:
    """How a message names a field: with the file that it comes from, or as the command line spells it."""
    return f"{origins[field]}: {field}" if origins and field in origins else option(field)


def config_text(config: RunConfig, command: str, version: str) -> str:
    """The content of config.json."""
    content = {"fastnas": version, "command": command, "config": config.model_dump(mode="json")}
    return json.dumps(content, indent=2) + "\n"


def read_config(path: Path, command: str) -> dict[str, Any]:
    """The options in a config.json that `command` wrote, unchecked.

    Raises:
        UserError: there is none, it is damaged, or another command wrote it.
    """
    return read_written(path, [command])[1]


def read_written(path: Path, commands: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Which of `commands` wrote a config.json, and the options in it, unchecked.

    Raises:
        UserError: there is none, it is damaged, or another command wrote it.
    """
    expected = " or ".join(f"'fastnas {command}'" for command in commands)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        writer, values = content["command"], dict(content["config"])
    except FileNotFoundError as error:
        raise UserError(f"{path.parent} holds no run of {expected}: {path.name} is missing") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path} is damaged: expected the configuration of a run of {expected}") from error
    if writer not in commands:
        raise UserError(f"{path.parent} holds a run of 'fastnas {writer}', expected one of {expected}")
    return writer, values
