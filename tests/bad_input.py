"""Every kind of bad input, as a table: what is wrong, the command that meets it, and what the sentence must say.

`python tests/bad_input.py` prints it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from runs import TINY_OPTIONS

from fastnas.genotype import DARTS_V2, save
from fastnas.search.checkpoint import read_checkpoint, write_checkpoint


@dataclass(frozen=True)
class World:
    """What a case may damage: images, a search of two epochs on them, and a folder that is not there yet."""

    data: Path
    run: Path
    out: Path


State = dict[str, Any]
Damage = Callable[[World], str]
"""Makes the input bad and returns what the sentence must say."""


@dataclass(frozen=True)
class Case:
    """One kind of bad input.

    Attributes:
        kind: what of: files, configuration, checkpoints, genotypes, devices or interrupted states.
        name: what is wrong.
        command: what the user calls, with {data}, {run} and {out} of `World`.
        damage: see `Damage`.
    """

    kind: str
    name: str
    command: str
    damage: Damage


CASES: list[Case] = []
SEARCH = " ".join(["search --data {data} --out {out}", *TINY_OPTIONS])
RESUME = "search --out {run} --resume"


def bad(kind: str, command: str) -> Callable[[Damage], Damage]:
    """Adds a case; the function's name says what is wrong."""

    def add(damage: Damage) -> Damage:
        CASES.append(Case(kind, damage.__name__.replace("_", " "), command, damage))
        return damage

    return add


def says(kind: str, name: str, command: str, sentence: str) -> None:
    """Adds a case whose command alone is bad."""
    CASES.append(Case(kind, name, command, lambda world: sentence.format(**vars(world))))


# ---- files


@bad("files", SEARCH)
def no_training_images(world: World) -> str:
    shutil.rmtree(world.data / "train")
    return f"{world.data} has no folder 'train'"


@bad("files", SEARCH)
def no_validation_images(world: World) -> str:
    shutil.rmtree(world.data / "val")
    return f"{world.data} has no folder 'val'"


@bad("files", SEARCH)
def no_classes(world: World) -> str:
    for folder in list((world.data / "train").iterdir()):
        shutil.rmtree(folder)
    return f"{world.data}/train has no folder for any class"


@bad("files", SEARCH)
def one_class(world: World) -> str:
    shutil.rmtree(world.data / "train" / "cat")
    shutil.rmtree(world.data / "val" / "cat")
    return "has one class only ('bird'); a classifier needs at least two"


@bad("files", SEARCH)
def a_class_without_images(world: World) -> str:
    for file in (world.data / "train" / "cat").iterdir():
        file.unlink()
    return f"class 'cat' is empty: {world.data}/train/cat"


@bad("files", SEARCH)
def a_class_of_other_files(world: World) -> str:
    for file in list((world.data / "val" / "cat").iterdir()):
        file.rename(file.with_suffix(".txt"))
    return f"class 'cat' is empty: {world.data}/val/cat"


@bad("files", SEARCH)
def a_class_that_is_only_trained_on(world: World) -> str:
    shutil.rmtree(world.data / "val" / "cat")
    return f"{world.data}/val has no class 'cat', which {world.data}/train has"


@bad("files", SEARCH)
def a_class_that_is_only_validated(world: World) -> str:
    shutil.rmtree(world.data / "train" / "cat")
    return f"{world.data}/train has no class 'cat', which {world.data}/val has"


@bad("files", SEARCH)
def text_in_place_of_an_image(world: World) -> str:
    (world.data / "val" / "cat" / "1.png").write_text("hello")
    return f"{world.data}/val/cat/1.png cannot be read as an image: unknown format"


@bad("files", SEARCH)
def an_empty_image(world: World) -> str:
    (world.data / "train" / "bird" / "2.png").write_bytes(b"")
    return f"{world.data}/train/bird/2.png cannot be read as an image"


@bad("files", SEARCH)
def a_truncated_image(world: World) -> str:
    file = world.data / "train" / "bird" / "2.png"
    file.write_bytes(file.read_bytes()[:-40])
    return f"{file} cannot be read as an image"


@bad("files", SEARCH)
def an_image_of_floats(world: World) -> str:
    Image.new("F", (8, 6)).save(world.data / "train" / "bird" / "deep.tif")
    return "deep.tif has 32-bit pixels (Pillow's mode 'F'); expected 8 or 16 bits"


@bad("files", SEARCH)
def an_image_of_another_size(world: World) -> str:
    Image.new("RGB", (5, 7)).save(world.data / "val" / "cat" / "1.png")
    return f"is 8x6 pixels and {world.data}/val/cat/1.png is 5x7; resize them all with --image-size"


@bad("files", SEARCH)
def a_file_in_place_of_the_results(world: World) -> str:
    world.out.write_text("")
    return f"{world.out} is a file; --out takes a folder"


says("files", "no folder of images", "search --data {data}/x --out {out}", "there is no folder {data}/x")
says("files", "no folder of scenes", "search auto-deeplab --data {data}/x --out {out}", "there is no folder {data}/x")
says(
    "files",
    "classes where pixels are to be labelled",
    "search auto-deeplab --data {data} --out {out}",
    "there is no folder {data}/train/images; expected images in {data}/train/images and their labels in",
)

# ---- configuration

for option, sentence in (
    ("--epochs=0", "'--epochs': 0 is not in the range x>=1"),
    ("--momentum=1", "'--momentum': 1.0 is not in the range 0<=x<1"),
    ("--lr=nan", "--lr is nan; expected a finite number"),
    ("--lr-min=0.5", "--lr-min is 0.5, more than --lr, 0.025"),
    ("--channels=many", "'--channels': 'many' is not a valid integer"),
    ("--memory=none", "'--memory': 'none' is not one of 'fast', 'lean'"),
    ("--chanels=4", "No such option '--chanels'. (Did you mean one of: '--channels'"),
    ("--batch-size=9", "--batch-size is 9, more than the 8 images in half of the training set"),
    ("--preset=darts-cifar", "there is no preset 'darts-cifar'; expected darts-cifar10"),
    ("--preset=darts-cifar10-retrain", "is for 'fastnas retrain', not 'fastnas search'"),
):
    says("configuration", option, f"search --data {{data}} --out {{out}} {option}", sentence)
says("configuration", "no --data", "search --out {out}", "--data is missing")
says("configuration", "no --out", "search --data {data}", "Missing option '--out'")
says("configuration", "no such command", "serach", "No such command 'serach'")
says("configuration", "a size for digits", "search --data digits --image-size 9 --out {out}", "--image-size 9")
says(
    "configuration",
    "no file",
    "search --out {out} --config {out}.yaml",
    "there is no file {out}.yaml; expected options",
)
says(
    "configuration",
    "a folder as file",
    "search --out {out} --config {data}.d.toml",
    "{data}.d.toml cannot be read: Is a",
)

for suffix, text, sentence in (
    ("ini", "epochs = 3", ": expected a name that ends with .yaml, .yml, .toml, .json"),
    ("yaml", "epochs: [", " cannot be read as YAML: expected the node content, but found '<stream end>' (at line 1"),
    ("toml", "epochs = ", " cannot be read as TOML: Invalid value (at end of document)"),
    ("json", '{"epochs": }', " cannot be read as JSON: Expecting value: line 1 column 12"),
    ("yaml", "- epochs", ": expected a table of options in YAML, got list"),
    ("yaml", "epochs: 3\nepochs: 4", " cannot be read as YAML: found duplicate key"),
    ("toml", "batch-size = 4\nbatch_size = 8", ": 'batch_size' is there twice"),
    ("yaml", "epochs: !!python/name:os.system x", " cannot be read as YAML: could not determine a constructor"),
    ("yaml", "epochs: &e 3\nlr: &e 1", " cannot be read as YAML: found duplicate anchor 'e'"),
    ("yaml", "epochs: &e [*e]", ": epochs is a list; expected a valid integer"),
    ("toml", "chanels = 4", ": chanels is no option; did you mean channels?"),
    ("yaml", "epochs: many", ": epochs is 'many'; expected a valid integer"),
    ("json", '{"epochs": true}', ": epochs is True; expected a valid integer"),
    ("toml", "lr = -1", ": lr is -1; expected a number greater than 0"),
    ("yaml", "backend: tpu", ": backend is 'tpu'; expected 'auto'"),
    ("toml", 'command = "retrain"\n[config]\n', " is for 'fastnas retrain', expected options of 'fastnas search'"),
    ("toml", "epochs = 3\n[config]\n", ": 'epochs' stands beside 'config'"),
    ("yaml", "#" * 20000, " has more than 16384 bytes"),
    ("yaml", "\x00", " cannot be read as YAML"),
):
    short = text.replace("\n", ", ") if len(text) < 60 else text[:20] + "…"

    def written(world: World, suffix: str = suffix, text: str = text, sentence: str = sentence) -> str:
        world.data.with_suffix(f".{suffix}").write_text(text)
        return f"{world.data}.{suffix}{sentence}"

    command = f"search --data {{data}} --out {{out}} --config {{data}}.{suffix}"
    CASES.append(Case("configuration", f"{suffix}: {short!r}", command, written))


@bad("configuration", RESUME)
def a_run_s_configuration_with_another_type(world: World) -> str:
    return edit(world, "epochs", "3", "epochs is '3'; expected a valid integer")


@bad("configuration", RESUME)
def a_run_s_configuration_out_of_range(world: World) -> str:
    return edit(world, "epochs", -1, "epochs is -1; expected a number greater than or equal to 1")


@bad("configuration", RESUME)
def a_run_s_configuration_with_an_unknown_option(world: World) -> str:
    return edit(world, "chanels", 1, "chanels is no option; did you mean channels?")


def edit(world: World, name: str, value: object, sentence: str) -> str:
    file = world.run / "config.json"
    content = json.loads(file.read_text())
    content["config"][name] = value
    file.write_text(json.dumps(content))
    return f"{file}: {sentence}"


for text in ("", "{", "[]", '{"command": "search"}', '{"command": "search", "config": 3}', "[" * 100_000):

    def replaced(world: World, text: str = text) -> str:
        (world.run / "config.json").write_text(text)
        return f"{world.run}/config.json is damaged: expected the configuration of a run of 'fastnas search'"

    CASES.append(Case("configuration", f"a run's, replaced by {text[:40]!r}", RESUME, replaced))

# ---- checkpoints


def damaged(world: World, change: Callable[[bytes], bytes]) -> Path:
    """Damages the last checkpoint, and takes the one before it away."""
    (world.run / "checkpoint-previous.pt").unlink()
    file = world.run / "checkpoint.pt"
    file.write_bytes(change(file.read_bytes()))
    return file


for words in (RESUME, "decode {run}", "plot {run}"):

    @bad("checkpoints", words)
    def truncated(world: World) -> str:
        return f"{damaged(world, lambda content: content[: len(content) // 2])} is truncated: expected "

    @bad("checkpoints", words)
    def a_flipped_bit(world: World) -> str:
        file = damaged(world, lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
        return f"{file} is damaged: its content does not match its checksum"


@bad("checkpoints", RESUME)
def empty(world: World) -> str:
    return f"{damaged(world, lambda content: b'')} is not a fastnas checkpoint, or its first line is damaged"


@bad("checkpoints", RESUME)
def of_another_program(world: World) -> str:
    file = damaged(world, lambda content: content[content.index(b"PK") :])  # what torch.save alone writes
    return f"{file} is not a fastnas checkpoint"


@bad("checkpoints", RESUME)
def a_later_version(world: World) -> str:
    file = damaged(world, lambda content: content.replace(b'"version": 1', b'"version": 2', 1))
    return f"{file} has version 2, expected 1; another fastnas wrote it"


@bad("checkpoints", RESUME)
def both_damaged(world: World) -> str:
    for name in ("checkpoint.pt", "checkpoint-previous.pt"):
        (world.run / name).write_bytes(b"{}")
    return f"or its first line is damaged, and {world.run}/checkpoint-previous.pt is not a fastnas checkpoint"


@bad("checkpoints", RESUME)
def of_another_run(world: World) -> str:
    return changed(world, lambda state: state["config"].update(channels=3), "was started with 3")


@bad("checkpoints", RESUME)
def of_another_command(world: World) -> str:
    return changed(world, lambda state: state.update(command="retrain"), "is not from a run of 'fastnas search'")


@bad("checkpoints", RESUME)
def of_another_network(world: World) -> str:
    def shrink(state: State) -> None:
        network = state["task"]["network"]
        name = next(iter(network))
        network[name] = network[name][:1]

    return changed(world, shrink, "is of another network: size mismatch")


@bad("checkpoints", RESUME)
def without_optimisers(world: World) -> str:
    return changed(world, lambda state: state["task"].pop("adam"), "is of another network: 'adam'")


@bad("checkpoints", RESUME)
def of_other_images(world: World) -> str:
    (world.data / "train" / "cat" / "0.png").unlink()
    return f"{world.run}/checkpoint.pt is from a run with other train images: 16, now 15"


def changed(world: World, change: Callable[[State], object], sentence: str) -> str:
    file = world.run / "checkpoint.pt"
    state = read_checkpoint(file)
    change(state)
    write_checkpoint(file, state)
    return f"{file} {sentence}"


# ---- genotypes

RETRAIN = " ".join(["retrain {data}/genotype.json --data {data} --out {out}", *TINY_OPTIONS])
HEADER = b'{"format": "fastnas-genotype", "version": 1, "kind": "%b"}'
for name, content, sentence in (
    ("empty", b"", "expected JSON"),
    ("no text", b"\x00\xff", "expected"),
    ("a list", b"[1]", "expected"),
    (
        "no cells",
        HEADER % b"darts",
        "normal: expected an object with lists",
    ),
    (
        "Auto-DeepLab's",
        HEADER % b"auto-deeplab",
        "expected kind 'darts'",
    ),
    ("nested too deep", b"[" * 200_000, "expected"),
    ("more than a megabyte", b" " * ((1 << 20) + 1), "expected a genotype file, got one of more than 1048576 bytes"),
):

    def put(world: World, content: bytes = content, sentence: str = sentence) -> str:
        (world.data / "genotype.json").write_bytes(content)
        return f"{world.data}/genotype.json: {sentence}"

    CASES.append(Case("genotypes", name, RETRAIN, put))


@bad("genotypes", RETRAIN)
def an_operation_that_is_not_known(world: World) -> str:
    return respelled(world, "skip_connect", "skip_conect", "has operation 'skip_conect'; expected one of")


@bad("genotypes", RETRAIN)
def a_source_that_comes_later(world: World) -> str:
    return respelled(
        world, '["sep_conv_3x3", 0]', '["sep_conv_3x3", 2]', "normal: node 0 reads state 2; expected a state from 0"
    )


def respelled(world: World, old: str, new: str, sentence: str) -> str:
    file = world.data / "genotype.json"
    save(DARTS_V2, file)
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    return sentence


@bad("genotypes", "retrain {data}/v2.json --out {out}")
def a_file_without_images(world: World) -> str:
    save(DARTS_V2, world.data / "v2.json")
    return "--data is missing"


says(
    "genotypes", "no file", "retrain {out} --out {out}", "there is no {out}; expected the folder of a search, or a gen"
)
says(
    "genotypes", "none in the folder", "retrain {data} --out {out}", "{data} holds no genotype.json; finish the search"
)
says(
    "genotypes", "no source", "retrain --out {out}", "SOURCE is missing; expected the folder of a search, or a genotype"
)

# ---- devices

for option, sentence in (
    ("--backend=tpu", "'--backend': 'tpu' is not one of"),
    ("--device=gpu", "--device is 'gpu', expected auto, cpu, cuda or cuda:NUMBER"),
    ("--device=cuda:x", "--device is 'cuda:x', expected auto, cpu, cuda or cuda:NUMBER"),
    ("--device=cuda:9999", "--device is cuda:9999, but "),
    ("--device=cpu --backend=cuda", "backend 'cuda' cannot run: it computes on CUDA tensors, got one on cpu"),
    ("--threads=0", "'--threads': 0 is not in the range x>=1"),
):
    says("devices", option, f"search --data {{data}} --out {{out}} {option}", sentence)

# ---- interrupted states


@bad("interrupted states", RESUME)
def a_run_without_its_configuration(world: World) -> str:
    (world.run / "config.json").unlink()
    return f"{world.run} holds no run of 'fastnas search': config.json is missing"


@bad("interrupted states", "decode {run}")
def no_finished_epoch(world: World) -> str:
    for name in ("checkpoint.pt", "checkpoint-previous.pt"):
        (world.run / name).unlink()
    return f"{world.run} holds no run with a finished epoch: checkpoint.pt is missing"


@bad("interrupted states", "retrain {run} --out {out}")
def a_search_that_is_not_finished(world: World) -> str:
    (world.run / "genotype.json").unlink()
    return f"{world.run} holds no genotype.json; finish the search by --resume, or run: fastnas decode {world.run}"


says(
    "interrupted states", "nothing to resume", RESUME.replace("run", "data"), "{data} holds no run of 'fastnas search'"
)
says("interrupted states", "another search there", SEARCH.replace("{out}", "{run}"), "{run} holds a run already")
says("interrupted states", "a search in a training's place", "retrain {run} --out {run}", "{run} holds a run already")
says(
    "interrupted states",
    "another command's run",
    "retrain --out {run} --resume",
    "holds a run of 'fastnas search', expec",
)
says("interrupted states", "other options", RESUME + " --channels=4", "--channels is 4, but {run} was started with 2")
says("interrupted states", "an epoch that was not", "decode {run} --epoch 3", "--epoch is 3, but {run} has 2 epochs")
for command in ("decode", "plot"):
    says("interrupted states", f"{command} of nothing", f"{command} {{out}}", "there is no folder {out}")
    says(
        "interrupted states", f"{command} of images", f"{command} {{data}}", "{data} holds no run with a finished epoch"
    )


if __name__ == "__main__":
    for case in CASES:
        print(f"{case.kind:<20}{case.name:<60}fastnas {case.command}")
    print(f"{len(CASES)} cases")
