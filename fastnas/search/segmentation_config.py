"""Options of Auto-DeepLab's search and of the training that follows it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fastnas.search.config import RunConfig


class SegmentationConfig(RunConfig):
    """What runs on labelled pixels have in common."""

    data: str = Field(
        description="Images with labelled pixels: 'camvid:PATH', 'cityscapes:PATH', or a folder with "
        "{train,val}/images/* and {train,val}/labels/*."
    )
    scale: float = Field(1.0, gt=0, le=1, description="Factor to which images are reduced when they are read.")
    crop: int = Field(321, ge=1, description="Side in pixels of the squares that are cut out for training.")
    mirror: bool = Field(True, description="Mirror half of the images left to right.")
    scale_min: float = Field(1.0, gt=0, description="Smallest factor by which a training image is resized at random.")
    scale_max: float = Field(1.0, gt=0, description="Largest factor by which a training image is resized at random.")
    class_weights: bool = Field(
        False, description="Weigh the classes in the loss: median frequency over frequency, so that rare ones count."
    )
    accumulate: int = Field(1, ge=1, description="Batches whose gradients are added up for one step.")
    schedule: Literal["cosine", "poly"] = Field(
        "cosine", description="How the weights' learning rate falls, step by step; poly is (1 - progress)^0.9."
    )
    grad_clip: float | None = Field(
        None, gt=0, description="Norm to which the weights' gradient is clipped; without it none."
    )

    @model_validator(mode="after")
    def _ordered(self) -> SegmentationConfig:
        if self.scale_min > self.scale_max:
            raise ValueError(f"--scale-min is {self.scale_min}, more than --scale-max, {self.scale_max}")
        return self


class TrellisSearchConfig(SegmentationConfig):
    """A search of Auto-DeepLab; the defaults are those of Liu et al., CVPR 2019, §5.1."""

    epochs: int = Field(40, ge=1, description="Passes over half of the training images.")
    batch_size: int = Field(2, ge=1, description="Crops in a batch, of each half of the training set.")
    filters: int = Field(8, ge=2, multiple_of=2, description="Width of a node at scale 4; a coarser one doubles it.")
    steps: int = Field(5, ge=1, description="Nodes of a cell.")
    layers: int = Field(12, ge=1, description="Layers of the trellis.")
    atrous: Literal["separable", "dense"] = Field(
        "separable", description="Atrous candidates: DARTS' depthwise ones with a 1x1, all fused, or the paper's."
    )
    lr_min: float = Field(0.001, ge=0, description="Learning rate of the weights at its end.")
    arch_lr: float = Field(0.003, gt=0, description="Learning rate of the Adam of alpha and beta.")
    arch_weight_decay: float = Field(1e-3, ge=0, description="Weight decay of alpha and beta.")
    arch_start: int | None = Field(
        None, ge=0, description="Epochs before alpha and beta are trained, too; without it the first half."
    )
    memory: Literal["fast", "lean"] = Field("fast", description="What the fused cells favour.")
    backend: Literal["auto", "cuda", "triton", "cpu", "reference"] = Field(
        "auto", description="What computes them, see 'fastnas info'."
    )

    @model_validator(mode="after")
    def _started(self) -> TrellisSearchConfig:
        if self.arch_start is not None and self.arch_start >= self.epochs:
            raise ValueError(
                f"--arch-start is {self.arch_start}, with --epochs {self.epochs}; alpha and beta would never be trained"
            )
        return self


class TrellisRetrainConfig(SegmentationConfig):
    """Training of a network that a search of Auto-DeepLab found; the defaults follow Liu et al., §5.2."""

    epochs: int = Field(200, ge=1, description="Passes over the training images.")
    batch_size: int = Field(12, ge=2, description="Crops in a batch.")
    filters: int = Field(20, ge=1, description="Width of a node at scale 4; the paper has 20, 32 and 48.")
    atrous: Literal["dense", "separable"] = Field(
        "dense", description="Atrous convolutions: the paper's, or depthwise ones with a 1x1."
    )
    crop: int = Field(769, ge=1, description="Side in pixels of the squares that are cut out for training.")
    scale_min: float = Field(0.5, gt=0, description="Smallest factor by which a training image is resized at random.")
    scale_max: float = Field(2.0, gt=0, description="Largest factor by which a training image is resized at random.")
    schedule: Literal["cosine", "poly"] = Field(
        "poly", description="How the weights' learning rate falls, step by step; poly is (1 - progress)^0.9."
    )
    lr: float = Field(0.05, gt=0, description="Learning rate of the weights at the start of its schedule.")
    weight_decay: float = Field(4e-5, ge=0, description="Weight decay of the weights.")
    drop_path: float = Field(0.2, ge=0, lt=1, description="Probability of dropping a path, reached at the end.")
