"""Several processes of one run: they do what one does that accumulates their batches, and nothing is lost with one."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import foreign_networks
import killing
import numpy as np
import pytest
import runs
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from foreign import SIZE
from ranks import COUNT, ChildFailedError, together
from rich.console import Console
from swapped import pair
from torch import Tensor, nn
from torch.distributed.run import main as torchrun

import fastnas
from fastnas.cli import main
from fastnas.data import Batches, ImageData, load_data
from fastnas.data.dataset import Selection
from fastnas.data.segmentation import load_segmentation
from fastnas.errors import LostError, UserError
from fastnas.genotype import AUTO_DEEPLAB, DARTS_V2
from fastnas.nn import DartsNetwork, deeplab_head
from fastnas.search import driver, processes, segmentation_driver
from fastnas.search.auto_deeplab_retrain import AutoDeepLabRetraining
from fastnas.search.bilevel import BilevelSearch
from fastnas.search.checkpoint import read_checkpoint
from fastnas.search.config import CONFIG, RetrainConfig, read_config
from fastnas.search.evaluation import evaluate
from fastnas.search.launch import Launch, launched
from fastnas.search.loop import Score
from fastnas.search.retrain import Retraining
from fastnas.search.run import Row
from fastnas.search.segmentation_config import TrellisRetrainConfig, TrellisSearchConfig
from fastnas.search.strategies import STRATEGIES

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS, BATCH = 2, 16
TINY: dict[str, Any] = {"data": "digits", "batch_size": BATCH, "channels": 2, "layers": 3, "threads": 1, "cutout": 3}
SEARCHES: dict[str, dict[str, float]] = {"darts": {}, "darts-2nd": {}, "gdas": {"temperature": 1.0}}
SHORT = replace(AUTO_DEEPLAB, path=(0, 1))
# Recomputed in another order; a step divides by small numbers, and ReLUs and max-pools branch.
CLOSE = {"rtol": 2e-4, "atol": 2e-6}


def few_digits(halves: int) -> ImageData:
    """As many as `STEPS` steps take; three batches to validate, of which the last is not full."""
    data = load_data("digits")
    counts = halves * STEPS * BATCH, 2 * BATCH + 1
    train, val = (
        Selection(split, torch.arange(count)) for split, count in zip((data.train, data.val), counts, strict=True)
    )
    return replace(data, train=train, val=val)


def state(network: nn.Module) -> dict[str, Any]:
    return {name: t.numpy().copy() for name, t in network.state_dict().items()}


def is_local(name: str) -> bool:
    """Whether it is of a batch norm's statistics, each process's own until it is validated or an epoch begins."""
    return name.rpartition(".")[2].startswith(("running", "num_batches"))


def search(name: str, kind: type[BilevelSearch] = BilevelSearch) -> tuple[dict[str, Any], dict[str, Any]]:
    """An epoch of a search: its row, and the supernet."""
    strategy = STRATEGIES[name]
    config = driver.settle(strategy.options(**(TINY | {"epochs": 2, "lr": 0.05} | SEARCHES[name])), few_digits(2))
    with driver.reproducible(config):
        made: Any = strategy(config)
        task = kind(made, made.supernet(few_digits(2)), few_digits(2), config)
        if kind is BilevelSearch:
            processes.diverge()
        row = task.train_epoch(0, lambda *_: None)
        return row, state(task.network)


def train(kind: type[Retraining] = Retraining) -> tuple[dict[str, Any], dict[str, Any]]:
    """An epoch of a training, with all that is random in one: its row, and the network."""
    data = few_digits(1)
    config = driver.settle(RetrainConfig(**(TINY | {"epochs": 2, "drop_path": 0.9, "ema": 0.5})), data)
    with driver.reproducible(config):
        network = DartsNetwork(DARTS_V2, config.channels, config.layers, 10, auxiliary=True, in_channels=1)
        task = kind(network, data, config)
        if kind is Retraining:
            processes.diverge()
        row = task.train_epoch(1, lambda *_: None)
        return row, state(task.network)


def trellis(scenes: Path, out: Path, batch: int, accumulate: int) -> None:
    options = {"filters": 2, "steps": 1, "layers": 2, "crop": 17, "scale_max": 2.0, "threads": 1}
    config = TrellisSearchConfig(
        data=str(scenes), epochs=2, arch_start=0, batch_size=batch, accumulate=accumulate, **options
    )
    segmentation_driver.search(config, out, console=Console(file=io.StringIO()))


def trellis_training(scenes: Path, out: Path, batch: int, accumulate: int) -> None:
    options = {"filters": 1, "crop": 9, "threads": 1, "drop_path": 0.0}
    config = TrellisRetrainConfig(data=str(scenes), epochs=1, batch_size=batch, accumulate=accumulate, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deeplab_head, "DROPOUT", 0.0)
        segmentation_driver.retrain(SHORT, config, out, console=Console(file=io.StringIO()))


def wrapped() -> list[dict[str, Any]]:
    """A supernet and the same accelerated, after a few steps in DistributedDataParallel."""
    networks = pair(foreign_networks.Darts(layers=2))
    assert fastnas.accelerate(networks[1], strict=True).fused
    with processes.joined(torch.device("cpu")):
        processes.diverge()
        images = [torch.randn(4, 3, SIZE, SIZE).double() for _ in range(2)]
        for network in networks:
            parallel = nn.parallel.DistributedDataParallel(network)
            descent = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
            for batch in images:
                descent.zero_grad()
                parallel(batch).square().mean().backward()
                descent.step()
    return [state(network) for network in networks]


def command(root: Path) -> tuple[int, str, str]:
    """What `fastnas search` prints in this process; drawing an architecture trains nothing."""
    words = ["search", "--data", "digits", "--strategy", "random", "--out", str(root / "random")]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


class Stops(fastnas.Callback):
    """Ends a run after its first epoch."""

    steps = 0

    def on_step(self, images: int, figures: Mapping[str, float]) -> None:
        self.steps += 1

    def on_epoch(self, row: Row) -> str:
        return "enough"


def stopped(root: Path) -> tuple[int, fastnas.SearchResult]:
    """How often this process's callback was told of a step, and what the search found."""
    stops = Stops()
    found = fastnas.search(root / "images", out=root / "stopped", callbacks=[stops], progress=False, **runs.TINY)
    return stops.steps, found


def refused(root: Path) -> list[str]:
    """What this process says to a run with another seed in each, and to one whose checkpoint the first alone sees."""
    rank, out = launched().rank, root / "whole"
    if rank > 0:
        config, out = (out / CONFIG).read_bytes(), root / "blind"
        out.mkdir()
        (out / CONFIG).write_bytes(config)
    sentences = []
    for run in (
        lambda: fastnas.search(root / "images", out=root / "refused", progress=False, **(runs.TINY | {"seed": rank})),
        lambda: killing.retrain(root, out, True),
    ):
        with pytest.raises(UserError) as caught:
            run()
        sentences.append(str(caught.value))
    return sentences


def everything(root: Path) -> dict[str, Any]:
    """What one process of several computes of all that is compared with one process alone."""
    trellis(root / "scenes", root / "trellis", 4, 1)
    trellis_training(root / "scenes", root / "trellis-net", 4, 1)
    killing.retrain(root, root / "whole", False)
    found: dict[str, Any] = {name: search(name) for name in SEARCHES}
    found |= {"measured": evaluate(root / "trellis-net", pictures=0), "wrapped": wrapped(), "training": train()}
    found |= {"stopped": stopped(root), "command": command(root)}
    return found | {"refused": refused(root)}  # last: their exchange is left open


def dying(root: Path, out: Path) -> None:
    """A training whose process 1 is killed in the middle of its third epoch, and what the other says of that."""
    if os.environ["RANK"] == "0":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # by which the agent would end it at once
        try:
            killing.retrain(root, out, False)
        except LostError as error:
            (out / "sentence").write_text(str(error))
            time.sleep(1)  # as the command does: the agent reports the process that ends first
            raise
    train_epoch = Retraining.train_epoch

    def killed(self: Retraining, epoch: int, report: Any) -> Any:
        def deadly(*figures: Any) -> None:
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            report(*figures)

        return train_epoch(self, epoch, deadly)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Retraining, "train_epoch", killed)
        killing.retrain(root, out, False)


class Accumulating:
    """One process in place of several: it has a generator of each, whose batches it takes in turn.

    Running statistics are those that the first sees.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network, self._generators = network, list[Tensor]()
        before = torch.get_rng_state()
        for rank in range(COUNT):
            torch.set_rng_state(before)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(processes, "launched", lambda rank=rank: Launch(rank, COUNT))
                processes.diverge()
            self._generators.append(torch.get_rng_state())

    def __call__(self, images: Tensor) -> list[Any]:
        """What the network makes of each share of the images."""
        results = []
        for rank, share in enumerate(images.unbind()):
            torch.set_rng_state(self._generators[rank])
            kept = [buffer.clone() for buffer in self._network.buffers()]
            results.append(self._network(share))
            if rank > 0:
                for buffer, before in zip(self._network.buffers(), kept, strict=True):
                    buffer.data.copy_(before)  # unseen by autograd, as their updates are
            self._generators[rank] = torch.get_rng_state()
        return results


class Shares:
    """The batches of all processes, one beside the other."""

    def __init__(self, batches: Batches) -> None:
        self._parts = [replace(batches, share=(rank, COUNT)) for rank in range(COUNT)]
        self.indices = batches.indices

    def __len__(self) -> int:
        return len(self._parts[0])

    def epoch(self, epoch: int) -> Any:
        for parts in zip(*(part.epoch(epoch) for part in self._parts), strict=True):
            yield tuple(torch.stack(tensors) for tensors in zip(*parts, strict=True))


class OneSearch(BilevelSearch):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._batches: Any = [Shares(batches) for batches in self._batches]
        self._all = Accumulating(self.network)

    def loss(self, batch: tuple[Tensor, Tensor], score: Score | None = None) -> Tensor:
        logits, labels = self._all(batch[0]), batch[1]
        if score is not None:
            score.add(torch.cat(logits), labels.flatten())
        return torch.stack([F.cross_entropy(*pair) for pair in zip(logits, labels, strict=True)]).mean()


class OneTraining(Retraining):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._train: Any = Shares(self._train)
        self._all = Accumulating(self._trained)

    def _loss(self, images: Tensor, labels: Tensor, score: Score) -> Tensor:
        total = torch.zeros(())
        for (logits, auxiliary), own in zip(self._all(images), labels, strict=True):
            score.add(logits, own)
            total = total + F.cross_entropy(logits, own) + 0.4 * F.cross_entropy(auxiliary, own)
        return total / COUNT


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    killing.make_images(root)
    return root


@pytest.fixture(scope="module")
def several(root: Path) -> list[dict[str, Any]]:
    return together(everything, root)


def assert_same(ours: tuple[dict[str, Any], dict[str, Any]], theirs: tuple[dict[str, Any], dict[str, Any]]) -> None:
    (row, network), (expected_row, expected) = ours, theirs
    for name, values in expected.items():
        torch.testing.assert_close(
            torch.from_numpy(network[name]), torch.from_numpy(values), **CLOSE, msg=lambda m, name=name: f"{name}: {m}"
        )
    assert row.keys() == expected_row.keys()
    for name, value in expected_row.items():
        if name.endswith("accuracy"):
            assert row[name] == value, name
        elif name.endswith("loss"):
            assert row[name] == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_is_that_of_one_process_that_accumulates(several: list[dict[str, Any]], name: str) -> None:
    assert_same(several[0][name], search(name, OneSearch))


def test_a_training_is_that_of_one_process_that_accumulates(several: list[dict[str, Any]]) -> None:
    assert_same(several[0]["training"], train(OneTraining))


def test_the_processes_hold_the_same_bits(several: list[dict[str, Any]]) -> None:
    for name in ("training", *SEARCHES):
        (row, network), (other, theirs) = several[0][name], several[1][name]
        assert row == other
        for key, values in network.items():
            assert (values == theirs[key]).all() or (is_local(key) and name != "training"), f"{name}: {key}"


@pytest.mark.parametrize(("run", "folder"), [(trellis, "trellis"), (trellis_training, "trellis-net")])
def test_auto_deeplab_is_that_of_one_process_that_accumulates(
    root: Path, several: list[dict[str, Any]], tmp_path: Path, run: Callable[..., None], folder: str
) -> None:
    run(root / "scenes", tmp_path, 2, 2)
    ours, theirs = (read_checkpoint(out / "checkpoint.pt")["task"]["network"] for out in (root / folder, tmp_path))
    for name, values in theirs.items():
        if not is_local(name):
            torch.testing.assert_close(ours[name], values, **CLOSE, msg=lambda m, name=name: f"{name}: {m}")


def test_validation_counts_every_image_once(root: Path, several: list[dict[str, Any]]) -> None:
    """Three scenes for two processes, and one process that sees them all."""
    out = root / "trellis-net"
    config = TrellisRetrainConfig(**read_config(out / "config.json", "retrain auto-deeplab"))
    data = load_segmentation(config.data)
    network = segmentation_driver.make_network(SHORT, config, data)
    network.load_state_dict(torch.load(out / "last.pt", weights_only=True))
    (row,) = map(json.loads, (out / "history.jsonl").read_text().splitlines())
    whole = AutoDeepLabRetraining(network, data, config).validate()
    assert whole.pop("val_loss") == pytest.approx(row["val_loss"], rel=1e-6)
    assert whole == {name: row[name] for name in whole}
    assert set(whole) == {"val_accuracy", "val_miou"}
    assert several[0]["measured"] == several[1]["measured"] == evaluate(out, pictures=0)


def test_a_callback_of_the_first_process_stops_all(root: Path, several: list[dict[str, Any]]) -> None:
    (steps, found), (none, other) = several[0]["stopped"], several[1]["stopped"]
    assert (steps, none) == (2, 0)
    assert [row["stopped"] for row in found.history] == ["enough"]
    assert other.history == found.history
    assert other.genotype == found.genotype == fastnas.genotype.load(root / "stopped" / "genotype.json")


def test_processes_that_do_not_agree_are_refused(root: Path, several: list[dict[str, Any]]) -> None:
    advice = "all of them need the same options, data and --out"
    expected = [
        f"--seed: 0 in process 0 of the run, but 1 in process 1; {advice}",
        f"saved epochs: 4 in process 0 of the run, but 0 in process 1; {advice}",
    ]
    assert several[0]["refused"] == several[1]["refused"] == expected
    assert not (root / "refused").exists()


def test_an_accelerated_supernet_in_distributed_data_parallel(several: list[dict[str, Any]]) -> None:
    (theirs, ours), others = several[0]["wrapped"], several[1]["wrapped"][1]
    for name, values in theirs.items():
        assert is_local(name) or (ours[name] == others[name]).all(), name
        np.testing.assert_allclose(ours[name], values, rtol=1e-5, atol=1e-7, err_msg=name)


def test_a_killed_process_ends_the_run_which_goes_on_with_the_same_bits(
    root: Path, several: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(ChildFailedError) as caught:
        together(dying, root, out)
    assert {rank: failure.exitcode for rank, failure in caught.value.failures.items()} == {1: -signal.SIGKILL}
    sentence = (out / "sentence").read_text()
    (out / "sentence").unlink()
    assert sentence.startswith("another process of the run is gone (")
    assert sentence.endswith(
        "; the run stops with 2 of 4 epochs saved; go on with: "
        f"torchrun --nproc-per-node 2 -m fastnas retrain --out {out} --resume"
    )
    with pytest.raises(UserError, match=r"checkpoint.pt is from a run with another number of processes: 2, now 1"):
        killing.retrain(root, out, True)
    together(killing.retrain, root, out, True)
    assert runs.files(out) == runs.files(root / "whole")


@pytest.mark.parametrize(
    ("gpus", "words", "sentence"),
    [
        (0, ["--batch-size=9"], "--batch-size is 9, which 4 processes cannot share; expected a multiple of 4"),
        (0, ["--batch-size=4"], "--batch-size is 4 for 4 processes; expected at least 8"),
        (4, ["--device=cuda:1"], "--device is cuda:1, but torchrun gives each process a GPU of its own; expected auto"),
        (2, [], "torchrun started 4 processes here, and PyTorch finds 2 CUDA GPUs; give a --nproc-per-node of at most"),
    ],
)
def test_wrong_use(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, words: list[str], sentence: str
) -> None:
    place = {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["search", "--data", str(root / "images"), "--out", str(out), *words])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"fastnas, process 1 of 4: {sentence}")
    assert result.stdout == ""
    assert not out.exists()


def test_the_first_process_alone_prints(root: Path, several: list[dict[str, Any]]) -> None:
    (code, printed, complaints), silent = several[0]["command"], several[1]["command"]
    assert (code, printed.count("Genotype:"), complaints) == (0, 1, "")
    assert silent == (0, "", "")
    assert (root / "random" / "genotype.json").exists()


@pytest.mark.thorough
def test_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The same by the command itself, which imports PyTorch twice."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["search", "--data", "digits", "--strategy", "random", "--out", str(tmp_path / "run")]
    torchrun(["--standalone", "--nproc-per-node", str(COUNT), "-m", "fastnas", *words])
    assert capfd.readouterr().out.count("Genotype:") == 1
    assert (tmp_path / "run" / "genotype.json").exists()


def test_the_command_that_goes_on() -> None:
    assert Launch().command("search") == "fastnas search"
    assert Launch(0, 4, 0, 4).command("search") == "torchrun --nproc-per-node 4 -m fastnas search"
    assert Launch(5, 8, 1, 4).command("search") == (
        "torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint HOST:PORT --nproc-per-node 4 -m fastnas search"
    )
