"""The search: who is trained when, the same bits for the same seed, and nothing lost when it is stopped."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from runs import files, image_folder, search_config, stopped_before_saving
from torch import nn

from fastnas.data import load_data
from fastnas.errors import InterruptError, UserError
from fastnas.ops import DARTS_CANDIDATES
from fastnas.search.alphas import decode, entropy, skips_dominate
from fastnas.search.bilevel import BilevelSearch, frozen
from fastnas.search.display import Display
from fastnas.search.driver import search, settle
from fastnas.search.loop import Score
from fastnas.search.run import Run
from fastnas.search.strategies.darts import Darts

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    search(search_config(data), out)
    return out


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def task(data: Path, **options: Any) -> BilevelSearch:
    images = load_data(str(data))
    config = settle(search_config(data, **options), images)
    return Darts(config).task(images)


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Presses Ctrl-C in a weight step."""
    step, done = BilevelSearch.weight_step, [0]

    def counted(self: BilevelSearch, *args: Any) -> None:
        done[0] += 1
        if done[0] > steps:
            raise KeyboardInterrupt
        step(self, *args)

    monkeypatch.setattr(BilevelSearch, "weight_step", counted)


def test_two_runs_with_one_seed_write_the_same_bytes(data: Path, finished: Path, tmp_path: Path) -> None:
    search(search_config(data), tmp_path / "again")
    assert files(tmp_path / "again") == files(finished)
    search(search_config(data, seed=1), tmp_path / "other")
    assert files(tmp_path / "other")["history.jsonl"] != files(finished)["history.jsonl"]


def test_the_caller_keeps_its_generator_and_threads(data: Path, tmp_path: Path) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    search(search_config(data, epochs=1, threads=threads + 1), tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5])
def test_a_stopped_and_resumed_run_ends_with_the_same_bytes(
    data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(InterruptError, match=rf"{steps // 2} of 3 epochs saved.*fastnas search .*--resume"):
            search(search_config(data), out)
    search(search_config(data), out, resume=True)
    assert files(out) == files(finished)


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(data: Path, finished: Path) -> None:
    before = files(finished)
    search(search_config(data), finished, resume=True)
    assert files(finished) == before


def test_a_run_killed_between_checkpoint_and_history_has_no_gap(
    data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def killed(self: Run, lines: list[str]) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_write_history", killed)
        with pytest.raises(InterruptError):
            search(search_config(data), out)
    assert (out / "checkpoint.pt").exists()
    assert not (out / "history.jsonl").exists()
    search(search_config(data), out, resume=True)
    assert files(out) == files(finished)


def test_history_has_one_complete_row_an_epoch(finished: Path) -> None:
    history = rows(finished)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert [row["lr"] for row in history] == pytest.approx(
        [0.001 + 0.012 * (1 + math.cos(math.pi * epoch / 3)) for epoch in range(3)]
    )
    for row in history:
        assert {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "alpha_entropy"} < row.keys()
        for cell in ("normal", "reduce"):
            assert torch.tensor(row["alpha"][cell]).shape == (14, 8)


def test_the_history_holds_alpha_exactly(data: Path, tmp_path: Path) -> None:
    genotype = search(search_config(data, epochs=1), tmp_path / "run")
    assert decode(rows(tmp_path / "run")[-1]) == genotype
    trained = task(data, epochs=1)
    row = trained.train_epoch(0, lambda *_: None)
    for cell, alpha in zip(("normal", "reduce"), trained.network.arch_parameters(), strict=True):
        assert torch.equal(torch.tensor(json.loads(json.dumps(row["alpha"]))[cell]), alpha)


def test_config_records_every_option_decided(data: Path, finished: Path) -> None:
    written = json.loads((finished / "config.json").read_text())
    assert written["command"] == "search"
    assert {name: written["config"][name] for name in ("padding", "mirror", "threads", "seed")} == {
        "padding": 0,
        "mirror": True,
        "threads": 1,
        "seed": 0,
    }


def test_the_optimisers_are_those_of_the_paper(data: Path) -> None:
    trained = task(data)
    sgd, adam = trained.descent._sgd.param_groups[0], trained.adam.param_groups[0]
    assert (sgd["lr"], sgd["momentum"], sgd["weight_decay"]) == (0.025, 0.9, 3e-4)
    assert (adam["lr"], adam["betas"], adam["weight_decay"]) == (3e-4, (0.5, 0.999), 1e-3)
    assert {id(p) for p in adam["params"]} == {id(p) for p in trained.network.arch_parameters()}
    assert {id(p) for p in sgd["params"]} == {id(p) for p in trained.network.weight_parameters()}


def gradients(trained: BilevelSearch) -> tuple[int, int]:
    """How many parameters of weights and of α have a gradient."""
    network = trained.network
    weights, alphas = network.weight_parameters(), network.arch_parameters()
    return sum(p.grad is not None for p in weights), sum(p.grad is not None for p in alphas)


def test_each_step_computes_only_its_own_gradients_and_moves_only_its_own_parameters(data: Path) -> None:
    trained = task(data)
    network = trained.network
    batch = torch.randn(4, 3, 6, 8), torch.tensor([0, 1, 0, 1])
    weights, alphas = ([p.detach().clone() for p in ps] for ps in (trained.weights, trained.alphas))
    trained.alpha_step(batch, batch, Score())
    assert gradients(trained) == (0, 2)
    assert all(torch.equal(p, before) for p, before in zip(trained.weights, weights, strict=True))
    assert not any(torch.equal(p, before) for p, before in zip(trained.alphas, alphas, strict=True))
    network.zero_grad()
    alphas = [p.detach().clone() for p in trained.alphas]
    trained.weight_step(batch, Score())
    assert gradients(trained) == (len(weights), 0)
    assert all(torch.equal(p, before) for p, before in zip(trained.alphas, alphas, strict=True))
    assert all(p.requires_grad for p in network.parameters())


def test_the_weights_gradient_is_clipped(data: Path) -> None:
    trained = task(data, grad_clip=1e-3)
    trained.weight_step((torch.randn(4, 3, 6, 8), torch.tensor([0, 1, 0, 1])), Score())
    norm = torch.cat([p.grad.flatten() for p in trained.weights]).norm()
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_freezing_is_undone_after_an_exception() -> None:
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1), requires_grad=False)]
    with suppress(RuntimeError), frozen(parameters):
        assert not any(p.requires_grad for p in parameters)
        raise RuntimeError
    assert [p.requires_grad for p in parameters] == [True, False]


def test_the_halves_are_trained_on_apart(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = task(data)
    first, second = (set(batches.indices.tolist()) for batches in trained._batches)
    assert first | second == set(range(16))
    assert not first & second
    assert trained.steps == 2


def test_divergence_is_a_sentence(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^training diverged: the loss became (nan|inf); try a lower --lr"):
        search(search_config(data, lr=1e30, grad_clip=1e30), tmp_path / "run")


def test_entropy() -> None:
    assert entropy(torch.zeros(14, 8)) == pytest.approx(1)
    assert entropy(torch.eye(8)[:5] * 100) == pytest.approx(0, abs=1e-9)
    half = torch.cat([torch.zeros(4, 4), torch.full((4, 4), -1e9)], 1)
    assert entropy(half) == pytest.approx(math.log(4) / math.log(8))


def alpha_with(name: str, edges: int) -> torch.Tensor:
    alpha = torch.zeros(14, 8)
    alpha[:, DARTS_CANDIDATES.index("none")] = 5
    alpha[:, DARTS_CANDIDATES.index("sep_conv_3x3")] = 1
    alpha[:edges, DARTS_CANDIDATES.index(name)] = 2
    return alpha


@pytest.mark.parametrize(
    ("name", "edges", "expected"),
    [("skip_connect", 8, True), ("skip_connect", 7, True), ("skip_connect", 2, False), ("max_pool_3x3", 14, False)],
)
def test_skips_dominate(name: str, edges: int, expected: bool) -> None:
    alpha = alpha_with(name, edges)
    table = alpha.tolist()
    assert skips_dominate(alpha, decode({"alpha": {"normal": table, "reduce": table}}).normal) is expected


def shown(epochs: int, play: Callable[[Display], None]) -> str:
    console = Console(file=io.StringIO(), width=1000)
    display = Display(console, epochs)
    play(display)
    display.on_end(None)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_skips_are_warned_of_once_each_time_they_take_over() -> None:
    def play(display: Display) -> None:
        display.on_start([], 1)
        for epoch, skips in enumerate([False, True, True, False, False, True]):
            display.on_epoch({"epoch": epoch + 1, "train_loss": 1.0, "skips_dominate": skips})

    lines = [line.split()[0] for line in shown(6, play).splitlines()]
    assert lines == ["epoch", "1/6", "2/6", "Warning:", "3/6", "4/6", "Skip", "5/6", "6/6", "Warning:"]


def test_a_resumed_run_does_not_repeat_the_warning() -> None:
    def play(display: Display) -> None:
        display.on_start([{"epoch": 1, "skips_dominate": True}], 1)
        display.on_epoch({"epoch": 2, "skips_dominate": True})

    assert "Warning" not in shown(2, play)


def test_the_display_counts_images_and_fits_a_terminal(data: Path, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    search(search_config(data, epochs=2), tmp_path / "run", console=console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 3
    assert max(map(len, lines)) < 80
    assert lines[0].split() == [
        "epoch",
        "train",
        "loss",
        "accuracy",
        "val",
        "loss",
        "accuracy",
        "α",
        "entropy",
        "images/s",
    ]
    assert all(int(line.split()[-1]) > 0 for line in lines[1:])


def test_tensorboard_gets_every_figure_once_also_after_a_stop(data: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "run"
    with stopped_before_saving(epoch=2):
        search(search_config(data), out)
    search(search_config(data), out, resume=True)
    events = accumulator.EventAccumulator(str(out / "tensorboard")).Reload()
    history = rows(out)
    for name in ("train_loss", "val_accuracy", "alpha_entropy", "lr"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [1, 2, 3]
        assert [scalar.value for scalar in scalars] == pytest.approx([row[name] for row in history])


def test_without_tensorboard_there_are_no_events_and_no_noise(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fastnas.search.tensorboard.find_spec", lambda name: None)
    search(search_config(data, epochs=1), tmp_path / "run", console=Console(file=io.StringIO()))
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert capfd.readouterr() == ("", "")


def test_the_loss_falls(tmp_path: Path) -> None:
    trained = task(image_folder(tmp_path, train=32), epochs=6, batch_size=8, lr=0.1)
    figures = [trained.train_epoch(epoch, lambda *_: None) for epoch in range(6)]
    assert figures[-1]["train_loss"] < 0.6 * figures[0]["train_loss"]
    assert figures[-1]["val_accuracy"] > 0.9
