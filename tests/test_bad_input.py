"""Bad input gets one sentence that names the thing, exit code 2, and changes nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from runs import TINY_OPTIONS, files, image_folder

from fastnas.cli import main
from fastnas.genotype import DARTS_V2, save
from fastnas.search.checkpoint import read_checkpoint, write_checkpoint


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def refused(result: Result, *parts: str) -> None:
    """Exit code 2, and one line on stderr that holds `parts`."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("fastnas: ")
    assert result.stderr.count("\n") == 1
    for part in parts:
        assert part in result.stderr


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "data")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("searched")
    data = image_folder(root / "data")
    result = call("search", "--data", data, "--out", root / "run", *TINY_OPTIONS, "--epochs=1")
    assert result.exit_code == 0, result.output
    return root


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Path:
    """A finished search that a test may damage."""
    return Path(shutil.copytree(searched / "run", tmp_path / "run"))


def no_train(data: Path) -> str:
    shutil.rmtree(data / "train")
    return f"{data} has no folder 'train'"


def no_val(data: Path) -> str:
    shutil.rmtree(data / "val")
    return f"{data} has no folder 'val'"


def no_classes(data: Path) -> str:
    for folder in list((data / "train").iterdir()):
        shutil.rmtree(folder)
    return f"{data}/train has no folder for any class"


def one_class(data: Path) -> str:
    shutil.rmtree(data / "train" / "cat")
    shutil.rmtree(data / "val" / "cat")
    return "has one class only ('bird'); a classifier needs at least two"


def empty_class(data: Path) -> str:
    for file in (data / "train" / "cat").iterdir():
        file.unlink()
    return f"class 'cat' is empty: {data}/train/cat"


def class_of_other_files(data: Path) -> str:
    for file in list((data / "val" / "cat").iterdir()):
        file.rename(file.with_suffix(".txt"))
    return f"class 'cat' is empty: {data}/val/cat"


def class_missing_in_val(data: Path) -> str:
    shutil.rmtree(data / "val" / "cat")
    return f"{data}/val has no class 'cat', which {data}/train has"


def class_missing_in_train(data: Path) -> str:
    shutil.rmtree(data / "train" / "cat")
    return f"{data}/train has no class 'cat', which {data}/val has"


def no_image(data: Path) -> str:
    (data / "val" / "cat" / "1.png").write_text("hello")
    return f"{data}/val/cat/1.png cannot be read as an image: unknown format"


def empty_image(data: Path) -> str:
    (data / "train" / "bird" / "2.png").write_bytes(b"")
    return f"{data}/train/bird/2.png cannot be read as an image"


def truncated_image(data: Path) -> str:
    file = data / "train" / "bird" / "2.png"
    file.write_bytes(file.read_bytes()[:-40])
    return f"{file} cannot be read as an image"


def float_image(data: Path) -> str:
    Image.new("F", (8, 6)).save(data / "train" / "bird" / "deep.tif")
    return "deep.tif has 32-bit pixels (Pillow's mode 'F'); expected 8 or 16 bits"


def other_size(data: Path) -> str:
    Image.new("RGB", (5, 7)).save(data / "val" / "cat" / "1.png")
    return f"is 8x6 pixels and {data}/val/cat/1.png is 5x7; resize them all with --image-size"


DAMAGE = [
    no_train,
    no_val,
    no_classes,
    one_class,
    empty_class,
    class_of_other_files,
    class_missing_in_val,
    class_missing_in_train,
    no_image,
    empty_image,
    truncated_image,
    float_image,
    other_size,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_images(data: Path, tmp_path: Path, damage: Callable[[Path], str]) -> None:
    sentence = damage(data)
    refused(call("search", "--data", data, "--out", tmp_path / "out", *TINY_OPTIONS), sentence)
    assert not (tmp_path / "out").exists()


def test_no_folder_of_images(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    refused(call("search", "--data", missing, "--out", tmp_path / "out"), f"there is no folder {missing}", "digits")


def test_image_size_for_images_that_have_one(tmp_path: Path) -> None:
    refused(call("search", "--data", "digits", "--image-size", "9", "--out", tmp_path / "out"), "--image-size 9")


@pytest.mark.parametrize(
    ("option", "parts"),
    [
        ("--epochs=0", ["'--epochs'", "0 is not in the range x>=1"]),
        ("--layers=2", ["'--layers'", "2 is not in the range x>=3"]),
        ("--batch-size=1", ["'--batch-size'", "1 is not in the range x>=2"]),
        ("--momentum=1", ["'--momentum'", "0<=x<1"]),
        ("--lr=0", ["'--lr'", "x>0"]),
        ("--lr=nan", ["--lr is nan", "finite number"]),
        ("--lr-min=0.5", ["--lr-min is 0.5, more than --lr, 0.025"]),
        ("--channels=many", ["'--channels'", "'many' is not a valid integer"]),
        ("--memory=none", ["'--memory'", "'none' is not one of 'fast', 'lean'"]),
        ("--backend=tpu", ["'--backend'", "'tpu' is not one of"]),
        ("--chanels=4", ["'--chanels'", "--channels"]),
        ("--batch-size=9", ["--batch-size is 9, more than the 8 images in half of the training set"]),
    ],
)
def test_options(data: Path, tmp_path: Path, option: str, parts: list[str]) -> None:
    refused(call("search", "--data", data, "--out", tmp_path / "out", option), *parts)
    assert not (tmp_path / "out").exists()


def test_no_data(tmp_path: Path) -> None:
    refused(call("search", "--out", tmp_path / "out"), "--data is missing")


def test_no_out(data: Path) -> None:
    refused(call("search", "--data", data), "Missing option '--out'")


def test_unknown_command() -> None:
    refused(call("serach"), "No such command 'serach'")


def test_a_backend_that_cannot_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastnas.ops import Backend

    missing = [Backend("cpu", False, "the compiled part is missing")]
    monkeypatch.setattr("fastnas.search.driver.backends", lambda: missing)
    words = ["search", "--data", data, "--out", tmp_path / "out", "--backend=cpu"]
    refused(call(*words), "backend cpu cannot run: the compiled part is missing")


def test_a_folder_with_another_run(run: Path, data: Path) -> None:
    before = files(run)
    refused(call("search", "--data", data, "--out", run, *TINY_OPTIONS), f"{run} holds a run already", "--resume")
    refused(call("retrain", run, "--data", data, "--out", run, *TINY_OPTIONS), f"{run} holds a run already")
    assert files(run) == before


def test_a_file_in_place_of_the_folder(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    refused(call("search", "--data", data, "--out", tmp_path / "out"), f"{tmp_path}/out is a file")


@pytest.mark.parametrize("command", ["search", "retrain"])
def test_nothing_to_resume(tmp_path: Path, command: str) -> None:
    (tmp_path / "out").mkdir()
    refused(call(command, "--out", tmp_path / "out", "--resume"), f"{tmp_path}/out holds no run of 'fastnas {command}'")


def test_a_run_of_another_command(run: Path) -> None:
    refused(call("retrain", "--out", run, "--resume"), "holds a run of 'fastnas search', expected one of")


def test_another_configuration(run: Path) -> None:
    before = files(run)
    refused(call("search", "--out", run, "--resume", "--channels=4"), f"--channels is 4, but {run} was started with 2")
    assert files(run) == before


def test_threads_may_change(run: Path) -> None:
    assert call("search", "--out", run, "--resume", "--threads=2").exit_code == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"command": "search"}', '{"command": "search", "config": 3}', "\xff"])
def test_a_damaged_configuration(run: Path, text: str) -> None:
    (run / "config.json").write_text(text, encoding="latin-1")
    refused(call("search", "--out", run, "--resume"), f"{run}/config.json is damaged")


@pytest.mark.parametrize(("name", "value", "part"), [("epochs", -1, "--epochs is -1"), ("colour", 1, "--colour is 1")])
def test_a_configuration_edited_badly(run: Path, name: str, value: int, part: str) -> None:
    content = json.loads((run / "config.json").read_text())
    content["config"][name] = value
    (run / "config.json").write_text(json.dumps(content))
    refused(call("search", "--out", run, "--resume"), part)


def damage_checkpoint(run: Path, change: Callable[[bytes], bytes]) -> None:
    path = run / "checkpoint.pt"
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    "words", [["search", "--resume", "--out"], ["decode"], ["plot"]], ids=["resume", "decode", "plot"]
)
def test_damaged_checkpoints(run: Path, words: list[str]) -> None:
    whole = (run / "checkpoint.pt").read_bytes()
    damage_checkpoint(run, lambda content: content[: len(content) // 2])
    refused(call(*words, run), f"{run}/checkpoint.pt is truncated: expected ", "bytes")
    (run / "checkpoint.pt").write_bytes(whole)
    damage_checkpoint(run, lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    refused(call(*words, run), f"{run}/checkpoint.pt is damaged")
    damage_checkpoint(run, lambda content: b"")
    refused(call(*words, run), f"{run}/checkpoint.pt is not a fastnas checkpoint")


def test_a_checkpoint_of_another_run(run: Path, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert call("search", "--data", data, "--out", other, *TINY_OPTIONS, "--channels=3", "--epochs=1").exit_code == 0
    shutil.copy(other / "checkpoint.pt", run / "checkpoint.pt")
    refused(call("search", "--out", run, "--resume"), "but", f"{run}/checkpoint.pt was started with")


def test_a_checkpoint_of_another_network(run: Path) -> None:
    state = read_checkpoint(run / "checkpoint.pt")
    network = state["task"]["network"]
    name = next(iter(network))
    network[name] = network[name][:1]
    write_checkpoint(run / "checkpoint.pt", state)
    refused(call("search", "--out", run, "--resume"), f"{run}/checkpoint.pt is of another network: ", name)


def test_other_images_than_before(searched: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(searched, tmp_path / "copy"))
    config = copied / "run" / "config.json"
    config.write_text(config.read_text().replace(str(searched), str(copied)))
    state = read_checkpoint(copied / "run" / "checkpoint.pt")
    state["config"]["data"] = str(copied / "data")
    write_checkpoint(copied / "run" / "checkpoint.pt", state)
    assert call("search", "--out", copied / "run", "--resume").exit_code == 0
    (copied / "data" / "train" / "cat" / "0.png").unlink()
    refused(call("search", "--out", copied / "run", "--resume"), "other train images: 16, now 15")


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"[1]", b'{"format": "fastnas-genotype", "version": 1}'])
def test_garbage_as_genotype(data: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "genotype.json").write_bytes(content)
    words = ["retrain", tmp_path / "genotype.json", "--data", data, "--out", tmp_path / "out", *TINY_OPTIONS]
    refused(call(*words), f"{tmp_path}/genotype.json: ")
    assert not (tmp_path / "out").exists()


def test_no_genotype(data: Path, run: Path, tmp_path: Path) -> None:
    refused(call("retrain", tmp_path / "missing", "--out", tmp_path / "out"), f"there is no {tmp_path}/missing")
    refused(call("retrain", data, "--out", tmp_path / "out"), f"{data} holds no genotype.json")
    refused(call("retrain", "--out", tmp_path / "out"), "SOURCE is missing")


def test_a_genotype_file_without_images(tmp_path: Path) -> None:
    save(DARTS_V2, tmp_path / "v2.json")
    refused(call("retrain", tmp_path / "v2.json", "--out", tmp_path / "out"), "--data is missing")


@pytest.mark.parametrize("command", ["decode", "plot"])
def test_no_run(tmp_path: Path, command: str) -> None:
    refused(call(command, tmp_path / "missing"), f"there is no folder {tmp_path}/missing")
    refused(call(command, tmp_path), f"{tmp_path} holds no run with a finished epoch")


def test_decode_of_an_epoch_that_was_not(run: Path) -> None:
    refused(call("decode", run, "--epoch", "2"), f"--epoch is 2, but {run} has 1 epochs")


def test_a_full_disk_in_the_middle_of_a_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, sync, syncs = tmp_path / "out", os.fsync, [0]

    def full(descriptor: int) -> None:
        syncs[0] += 1
        if syncs[0] > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    words = ["search", "--data", data, "--out", out, *TINY_OPTIONS]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        result = call(*words)
    assert result.exit_code == 2
    assert result.stderr == (
        f"fastnas: {out}/checkpoint.pt cannot be written (No space left on device); "
        "what was there before is unchanged\n"
    )
    assert len((out / "history.jsonl").read_text().splitlines()) == 1
    assert not list(out.glob("*.tmp"))
    assert call("search", "--out", out, "--resume").exit_code == 0
    assert call("search", *words[1:4], tmp_path / "whole", *TINY_OPTIONS).exit_code == 0
    assert files(out) == files(tmp_path / "whole")


def test_a_folder_that_cannot_be_written(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    words = ["search", "--data", data, "--out", tmp_path / "out", *TINY_OPTIONS]
    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", read_only)
        refused(call(*words), f"folder {tmp_path}/out cannot be made: Read-only file system")
    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("fastnas.search.files.open", read_only, raising=False)
        patch.setattr("fastnas.search.bilevel.BilevelSearch.train_epoch", lambda *_: pytest.fail("too late"))
        refused(call(*words), f"{tmp_path}/out/config.json cannot be written (Read-only file system)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(data: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    words = ["search", "--data", data, "--out", tmp_path / "locked" / "out", *TINY_OPTIONS]
    refused(call(*words), f"folder {tmp_path}/locked/out cannot be made: Permission denied")
