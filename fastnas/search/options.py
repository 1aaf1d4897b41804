"""The options that a user sets, from the places where they stand to the configuration of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastnas.errors import UserError
from fastnas.genotype import GenotypeError, load
from fastnas.genotype.file import AnyGenotype
from fastnas.search.config import CONFIG, GENOTYPE, StrategyConfig, make_config, read_config, spelled
from fastnas.search.config_file import read_config_file, read_preset
from fastnas.search.segmentation_config import TrellisSearchConfig
from fastnas.search.strategies import STRATEGIES, find_strategy

Method = Literal["darts", "auto-deeplab"]
STRATEGY = str(StrategyConfig.model_fields["strategy"].default)
# of a training, from its search, where they are left out
_INHERITED = {"retrain": ("data", "image_size"), "retrain auto-deeplab": ("data", "scale")}


@dataclass(frozen=True)
class Options:
    """What the user set: by hand, else in a file of options, else by a preset.

    Attributes:
        values: by the names of the fields.
        origins: where those are from that were not given on the command line, for messages.
    """

    values: dict[str, Any]
    origins: dict[str, str]

    def after(self, values: dict[str, Any], origin: Path) -> Options:
        """These, and `values` where they leave something out."""
        added = values.keys() - self.values.keys()
        return Options(values | self.values, dict.fromkeys(added, str(origin)) | self.origins)

    def after_files(self, command: str, config: Path | None, preset: str | None) -> Options:
        """These, then what the file `config` says, then `preset`.

        Raises:
            UserError: the file cannot be read, or there is no such preset for `command`.
        """
        options = self
        if config is not None:
            options = options.after(read_config_file(config, command), config)
        if preset is not None:
            options = options.after(read_preset(preset, command), Path(preset))
        return options

    def resumed(self, command: str, out: Path) -> Options:
        """These, then those that the run of `command` in `out` was started with.

        Raises:
            UserError: there is none.
        """
        return self.after(read_config(out / CONFIG, command), out / CONFIG)

    def inherited(self, command: str, source: Path) -> Options:
        """These, then what a training takes from its search, whose folder or genotype file is `source`.

        Raises:
            UserError: there is nothing, or the run of another command.
        """
        config = genotype_file(source).parent / CONFIG
        if "data" in self.values or not config.exists():
            return self
        searched = read_config(config, command.replace("retrain", "search"))
        return self.after(inheritance(command, searched), config)


def inheritance(command: str, searched: Mapping[str, Any]) -> dict[str, Any]:
    """What the training `command` takes of the options of its search."""
    return {name: searched.get(name) for name in _INHERITED[command]}


def search_config(options: Options, out: Path, resume: bool) -> StrategyConfig:
    """The options of the strategy that was chosen, or that the run to resume was started with.

    Raises:
        UserError: an option is missing, out of its range or not one of the strategy's, or there is no run to resume.
    """
    if resume:
        options = begun(options, read_config(out / CONFIG, "search"), out)
    name = str(options.values.get("strategy", STRATEGY))
    kind = find_strategy(name).options
    known = {field for strategy in STRATEGIES.values() for field in strategy.options.model_fields}
    for field in options.values:
        if field in known and field not in kind.model_fields:
            raise UserError(f"{spelled(field, options.origins)} is no option of --strategy {name}")
    return make_config(kind, options.values, options.origins)


def begun(options: Options, stored: dict[str, Any], out: Path) -> Options:
    """These, then those that the search in `out` was started with.

    Raises:
        UserError: that was another strategy, whose options these are not.
    """
    before = str(stored.get("strategy", STRATEGY))
    if options.values.get("strategy", before) != before:
        raise UserError(f"--strategy is {options.values['strategy']}, but {out} was started with {before}")
    return options.after(stored, out / CONFIG)


def trellis_search_config(options: Options, out: Path, resume: bool) -> TrellisSearchConfig:
    """The options of a search of Auto-DeepLab, or those that the run to resume was started with.

    Raises:
        UserError: an option is missing, unknown or out of its range, or there is no run to resume.
    """
    if resume:
        options = options.resumed("search auto-deeplab", out)
    return make_config(TrellisSearchConfig, options.values, options.origins)


def retrain_options(
    options: Options, command: str, source: Path | None, out: Path, resume: bool
) -> tuple[Options, Path]:
    """The options of a training, with those of its search where they are left out, and the genotype's file.

    Args:
        command: "retrain" or "retrain auto-deeplab".
        source: the folder of a search, or a genotype file; None for the one in `out` of a run to resume.

    Raises:
        UserError: there is no such folder or file, or no run to resume.
    """
    if resume:
        return options.resumed(command, out), genotype_file(source or out)
    if source is None:
        raise UserError("SOURCE is missing; expected the folder of a search, or a genotype file")
    return options.inherited(command, source), genotype_file(source)


def load_genotype(path: Path, kind: type[AnyGenotype]) -> AnyGenotype:
    """The genotype in a file.

    Raises:
        UserError: it holds none of this kind.
    """
    try:
        return load(path, kind)
    except GenotypeError as error:
        raise UserError(str(error)) from error


def genotype_file(source: Path) -> Path:
    """The genotype file `source`, or the one in that folder.

    Raises:
        UserError: there is none.
    """
    if not source.exists():
        raise UserError(f"there is no {source}; expected the folder of a search, or a genotype file")
    if not source.is_dir():
        return source
    if not (source / GENOTYPE).exists():
        raise UserError(f"{source} holds no {GENOTYPE}; finish the search by --resume, or run: fastnas decode {source}")
    return source / GENOTYPE
