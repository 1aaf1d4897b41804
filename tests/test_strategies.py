"""Search strategies: their formulas, their options, and that each of them resumes with the same bits."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from rich.console import Console
from runs import TINY_OPTIONS, files, image_folder
from torch import Tensor

from fastnas.cli import main
from fastnas.data import load_data
from fastnas.errors import InterruptError, UserError
from fastnas.genotype import DARTS_V2, dumps, load, save
from fastnas.genotype.sample import random_darts
from fastnas.ops import DARTS_CANDIDATES
from fastnas.search.alphas import decode, decode_row, kept_row
from fastnas.search.bilevel import BilevelSearch
from fastnas.search.config import SearchConfig
from fastnas.search.driver import search, settle
from fastnas.search.loop import Score
from fastnas.search.run import Run
from fastnas.search.stopping import stopped_by_skips
from fastnas.search.strategies import STRATEGIES, make_strategy

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {"epochs": 2, "channels": 4, "layers": 3, "batch_size": 4, "threads": 1}
SEARCHED = [name for name, kind in STRATEGIES.items() if issubclass(kind.options, SearchConfig)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("small"), train=4, size=(4, 4))


def config_of(name: str, data: Path, **options: Any) -> Any:
    kind = STRATEGIES[name].options
    given = {"data": str(data), **TINY, **options}
    return kind(**{key: value for key, value in given.items() if key in kind.model_fields})


def task(name: str, data: Path, **options: Any) -> BilevelSearch:
    images = load_data(str(data))
    made = make_strategy(settle(config_of(name, data, **options), images)).task(images)
    assert isinstance(made, BilevelSearch)
    return made


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def extra(name: str) -> dict[str, Any]:
    """Options without which the strategy does not run, or runs no training."""
    return {"fixed": {"genotype": "DARTS_V1"}, "random": {"samples": 2}}.get(name, {})


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_stops_and_resumes_with_the_same_bytes(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config, save_run = config_of(name, small, **extra(name)), Run.save

    def stopped(self: Run, trained: Any, history: list[dict[str, Any]]) -> None:
        save_run(self, trained, history)
        if len(history) == 1:
            raise KeyboardInterrupt

    whole = search(config, tmp_path / "whole", console=quiet())
    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", stopped)
        with pytest.raises(InterruptError):
            search(config, tmp_path / "parts", console=quiet())
    assert search(config, tmp_path / "parts", resume=True, console=quiet()) == whole
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert load(tmp_path / "whole" / "genotype.json") == whole == decode_row(kept_row(rows(tmp_path / "whole")))


@pytest.mark.parametrize("name", SEARCHED)
def test_the_history_decodes_as_the_supernet(small: Path, name: str) -> None:
    trained = task(name, small, epochs=1)
    with torch.no_grad():
        for parameter in trained.alphas:
            parameter.normal_()
    row = json.loads(json.dumps(trained.train_epoch(0, lambda *_: None)))
    assert decode(row) == trained.network.genotype()
    assert ("strength" in row) is (name in ("pc-darts", "fair-darts"))


def test_names_are_those_of_the_options_and_in_the_help(small: Path) -> None:
    text = "".join(call("search", "darts", "--help").output.split())  # lines break at hyphens, too
    for name, kind in STRATEGIES.items():
        assert kind.name == name == kind.options.model_fields["strategy"].default
        assert "".join(f"{name}: {kind.summary}".split()) in text
    assert "Temperatureofthedrawinthefirstepoch.Onlywithgdas." in text


def second_order(search: BilevelSearch, val: tuple[Tensor, Tensor], train: tuple[Tensor, Tensor]) -> list[Tensor]:
    """∇α L_val(w - ξ·(μ·m + ∇w L_train(w, α) + λ·w), α), all of it by autograd."""
    network, group = search.network, search.descent._sgd.param_groups[0]
    names = [name for name, _ in network.named_parameters() if not name.startswith("alphas")]
    gradients = torch.autograd.grad(search.loss(train), search.weights, create_graph=True)
    moved = {}
    for name, w, gradient in zip(names, search.weights, gradients, strict=True):
        last = search.descent._sgd.state[w]["momentum_buffer"]
        moved[name] = w - group["lr"] * (group["momentum"] * last + gradient + group["weight_decay"] * w)
    logits = torch.func.functional_call(network, moved, (val[0],))
    loss = torch.nn.functional.cross_entropy(logits, val[1])
    return list(torch.autograd.grad(loss, search.alphas))


def test_second_order_is_that_of_autograd(small: Path) -> None:
    options = {"backend": "reference", "epsilon": 1e-5, "lr": 0.1, "weight_decay": 0.01, "channels": 2}
    trained = task("darts-2nd", small, **options)
    trained.network.double()
    for w in trained.weights:  # as if a step had been made
        trained.descent._sgd.state[w]["momentum_buffer"] = torch.randn_like(w)
    val, train = ((torch.randn(4, 3, 4, 4).double(), torch.tensor([0, 1, 1, 0])) for _ in range(2))
    expected = second_order(trained, val, train)
    first_order = torch.autograd.grad(trained.alpha_loss(val, Score()), trained.alphas)
    before = [p.detach().clone() for p in trained.network.parameters()]
    trained.strategy.alpha_gradient(trained, val, train, Score())
    assert all(torch.equal(p, q) for p, q in zip(trained.network.parameters(), before, strict=True))
    for alpha, wanted, first in zip(trained.alphas, expected, first_order, strict=True):
        scale = wanted.abs().max()
        assert (alpha.grad - wanted).abs().max() < 1e-5 * scale
        assert (first - wanted).abs().max() > 0.01 * scale


def test_the_first_momentum_changes_no_bits() -> None:
    """Momentum that starts with zeros gives the step that PyTorch's SGD makes first."""
    w, gradient = torch.randn(100), torch.randn(100)
    steps = []
    for prepare in (False, True):
        p = torch.nn.Parameter(w.clone())
        sgd = torch.optim.SGD([p], 0.1, 0.9, weight_decay=3e-4, fused=True)
        if prepare:
            sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
        for _ in range(2):
            p.grad = gradient.clone()
            sgd.step()
        steps.append(p.detach())
    assert torch.equal(*steps)


def test_pc_darts_warms_up(small: Path, tmp_path: Path) -> None:
    strategy = make_strategy(config_of("pc-darts", small, epochs=50))
    assert [strategy.searches(epoch) for epoch in (0, 14, 15, 49)] == [False, False, True, True]  # type: ignore[attr-defined]
    trained = task("pc-darts", small, epochs=2, warmup=0.5)
    before = [p.detach().clone() for p in trained.alphas]
    row = trained.train_epoch(0, lambda *_: None)
    assert "val_loss" not in row
    assert all(torch.equal(p, q) for p, q in zip(trained.alphas, before, strict=True))
    assert "val_loss" in trained.train_epoch(1, lambda *_: None)
    assert not any(torch.equal(p, q) for p, q in zip(trained.alphas, before, strict=True))


def test_gdas_cools(small: Path) -> None:
    trained = task("gdas", small, epochs=100)
    for epoch, temperature in ((0, 10.0), (50, 5.0), (99, 0.1)):
        trained.strategy.begin_epoch(trained, epoch)
        assert trained.network.temperature == pytest.approx(temperature, abs=0.1)


def tables() -> list[Tensor]:
    return [torch.randn(14, 8, dtype=torch.float64, requires_grad=True) for _ in range(2)]


def test_the_zero_one_loss(small: Path) -> None:
    alphas = tables()
    penalty = make_strategy(config_of("fair-darts", small)).penalty(alphas, 1)  # type: ignore[attr-defined]
    weights = [1 / (1 + (-a).exp()) for table in alphas for row in table.tolist() for a in torch.tensor(row[1:])]
    assert penalty.item() == pytest.approx(-10 * sum((w.item() - 0.5) ** 2 for w in weights) / (2 * 14 * 7))
    gradient = torch.autograd.grad(penalty, alphas)[0]
    assert not gradient[:, DARTS_CANDIDATES.index("none")].any()
    assert ((gradient < 0) == (alphas[0] > 0))[:, 1:].all()  # away from one half


def test_beta_decay_takes_by_weight(small: Path) -> None:
    alphas = tables()
    strategy = make_strategy(config_of("beta-darts", small, epochs=10))
    assert float(strategy.penalty(alphas, 0)) == 0  # type: ignore[attr-defined]
    gradients = torch.autograd.grad(strategy.penalty(alphas, 5), alphas)  # type: ignore[attr-defined]
    for gradient, table in zip(gradients, alphas, strict=True):
        torch.testing.assert_close(gradient, 25 * table.softmax(-1) / 14)


def test_the_penalty_moves_alpha_alone(small: Path) -> None:
    trained, plain = (task("beta-darts", small, beta_decay=weight) for weight in (1e4, 0.0))
    plain.network.load_state_dict(trained.network.state_dict())
    batch = torch.randn(4, 3, 4, 4), torch.tensor([0, 1, 1, 0])
    for each in (trained, plain):
        each.epoch = 1
        each.alpha_step(batch, batch, Score())
    assert all(torch.equal(p, q) for p, q in zip(trained.weights, plain.weights, strict=True))
    assert not torch.equal(trained.alphas[0], plain.alphas[0])


def skips(*dominate: bool, warmup: int = 0) -> list[dict[str, Any]]:
    trained = {"val_loss": 1.0}
    return [
        {"epoch": i + 1, "skips_dominate": value, **({} if i < warmup else trained)} for i, value in enumerate(dominate)
    ]


def test_skips_stop_a_search_after_as_many_epochs_as_asked() -> None:
    assert stopped_by_skips(skips(False, False, True), 2) == {}
    assert stopped_by_skips(skips(True, False, True), 2) == {}
    assert stopped_by_skips(skips(False, False, True, True), 2) == {
        "stopped": "skip connections dominated the normal cell from epoch 3 to 4; the genotype is that of epoch 2",
        "kept_epoch": 2,
    }
    assert stopped_by_skips(skips(True, True), 2)["kept_epoch"] == 1
    assert "there is none before" in stopped_by_skips(skips(True, True), 2)["stopped"]


def test_epochs_in_which_alpha_rests_do_not_count() -> None:
    assert stopped_by_skips(skips(True, True, True, warmup=2), 2) == {}
    assert stopped_by_skips(skips(False, True, True, warmup=1), 2)["kept_epoch"] == 2


def test_a_stopped_search_says_so_and_stays_stopped(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = iter([False, True, True, True])
    monkeypatch.setattr("fastnas.search.alphas.skips_dominate", lambda *_: next(seen))
    config, out, console = config_of("darts", small, epochs=4, alpha_lr=0.5, skip_patience=2), tmp_path / "run", quiet()
    genotype = search(config, out, console=console)
    history = rows(out)
    assert len(history) == 3
    assert history[-1]["kept_epoch"] == 1
    assert f"Stopped: {history[-1]['stopped']}." in console.file.getvalue()  # type: ignore[attr-defined]
    assert genotype == decode(history[0]) != decode(history[-1])
    before = files(out)
    assert search(config, out, resume=True, console=quiet()) == genotype
    assert files(out) == before
    assert call("decode", out).exit_code == 0
    assert files(out) == before


def test_random_takes_the_sample_that_trains_best(small: Path, tmp_path: Path) -> None:
    config = config_of("random", small, samples=3, epochs=2)
    genotype = search(config, tmp_path / "run", console=quiet())
    history, drawn = rows(tmp_path / "run"), random_darts(0, DARTS_CANDIDATES, 3)
    assert [row["sample"] for row in history] == [1, 1, 2, 2, 3, 3]
    assert [decode(row) for row in history[::2]] == drawn
    best = max(range(3), key=lambda i: history[2 * i + 1]["val_accuracy"])
    assert genotype == drawn[best]
    assert history[-1]["kept_epoch"] == 2 * best + 2


def test_random_draws_without_training(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert call("search", "--strategy", "random", "--data", "digits", "--seed", "7", "--out", out).exit_code == 0
    assert load(out / "genotype.json") == random_darts(7, DARTS_CANDIDATES)[0]
    assert random_darts(7, DARTS_CANDIDATES, 5)[0] == random_darts(7, DARTS_CANDIDATES)[0]
    assert random_darts(8, DARTS_CANDIDATES)[0] != random_darts(7, DARTS_CANDIDATES)[0]


def test_fixed_takes_a_name_or_a_file(small: Path, tmp_path: Path) -> None:
    save(random_darts(1, DARTS_CANDIDATES)[0], tmp_path / "mine.json")
    words = ["search", "--strategy=fixed", f"--data={small}"]
    for source, expected in (("DARTS_V2", DARTS_V2), (tmp_path / "mine.json", load(tmp_path / "mine.json"))):
        out = tmp_path / f"run-{Path(source).stem}"
        assert call(*words, "--genotype", source, "--out", out).exit_code == 0
        assert (out / "genotype.json").read_text() == dumps(expected)
        assert call("decode", out).exit_code == 0
        assert call("plot", out).exit_code == 0
        assert (out / "cells-normal.svg").exists()
    net = tmp_path / "net"
    assert call("retrain", out, "--out", net, *TINY_OPTIONS, "--epochs=1", "--batch-size=2").exit_code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--strategy=darts", "--warmup=0.1"], "--warmup is no option of --strategy darts"),
        (["--strategy=random", "--alpha-lr=0.1"], "--alpha-lr is no option of --strategy random"),
        (["--strategy=fixed"], "--genotype is missing"),
        (["--strategy=fixed", "--genotype=DARTS_V1", "--lr=1"], "--lr is given, but --strategy fixed trains nothing"),
        (["--strategy=fixed", "--genotype=/no/such"], "--genotype: /no/such: expected a genotype file"),
        (["--strategy=pc-darts", "--channels=6"], "--channels is 6; expected a multiple of 4"),
        (
            ["--strategy=gdas", "--temperature=0.01"],
            "--temperature-min is 0.1, more than --temperature, 0.01",
        ),
        (["--strategy=dart"], "Invalid value for '--strategy': 'dart' is not one of"),
    ],
)
def test_options_that_do_not_fit(small: Path, tmp_path: Path, words: list[str], sentence: str) -> None:
    result = call("search", "--data", small, "--out", tmp_path / "run", *words)
    assert (result.exit_code, result.stderr.startswith(f"fastnas: {sentence}")) == (2, True), result.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_is_resumed_with_its_strategy(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["search", "--strategy=beta-darts", "--beta-decay=2", "--data", small, "--out", out, *TINY_OPTIONS]
    assert call(*words, "--epochs=1", "--batch-size=2").exit_code == 0
    before = files(out)
    assert call("search", "--out", out, "--resume").exit_code == 0
    assert files(out) == before
    result = call("search", "--out", out, "--resume", "--strategy=gdas")
    assert result.stderr == f"fastnas: --strategy is gdas, but {out} was started with beta-darts\n"


def test_the_pages_example_is_a_strategy(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "strategies.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    module = ModuleType("entropy")
    monkeypatch.setitem(sys.modules, "entropy", module)  # where pydantic looks annotations up
    exec(example, module.__dict__)
    monkeypatch.setitem(STRATEGIES, "entropy", module.Entropy)
    trained = task("entropy", small, entropy=2.0)
    assert trained.strategy.penalty(tables(), 0) > 0
    assert trained.train_epoch(0, lambda *_: None)["val_loss"] > 0


def test_options_of_another_strategy_are_refused() -> None:
    with pytest.raises(UserError, match="strategy gdas takes GdasConfig, got SearchConfig"):
        make_strategy(SearchConfig(data="digits", strategy="gdas"))
    with pytest.raises(UserError, match=r"--strategy is 'dart'; expected one of .*beta-darts"):
        make_strategy(SearchConfig(data="digits", strategy="dart"))
