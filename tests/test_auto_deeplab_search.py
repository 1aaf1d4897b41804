"""Auto-DeepLab's search, training and evaluation on scenes of a few pixels."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from rich.console import Console
from runs import files
from scenes import segmentation_folder

from fastnas.cli import main
from fastnas.data.segmentation import load_segmentation
from fastnas.errors import UserError
from fastnas.genotype import AUTO_DEEPLAB, AutoDeepLabGenotype, load, save
from fastnas.nn import AutoDeepLabSupernet
from fastnas.search.auto_deeplab import AutoDeepLabSearch, PixelLoss
from fastnas.search.checkpoint import read_checkpoint
from fastnas.search.config import make_config
from fastnas.search.schedule import StepDescent
from fastnas.search.segmentation_config import TrellisRetrainConfig, TrellisSearchConfig
from fastnas.search.segmentation_driver import search, settle

SEARCH: dict[str, Any] = {
    "epochs": 3,
    "arch_start": 1,
    "filters": 2,
    "steps": 1,
    "layers": 2,
    "crop": 9,
    "threads": 1,
    "batch_size": 2,
}
TRAINING: dict[str, Any] = {"epochs": 2, "filters": 1, "crop": 9, "threads": 1, "batch_size": 2}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segmentation_folder(tmp_path_factory.mktemp("scenes"), train=9)


def words(options: dict[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def lines(result: Result) -> dict[str, str]:
    assert result.exit_code == 0, result.output
    return dict(re.findall(r"^(\S[^:\n]*):\s+(\S.*)$", result.output, re.MULTILINE))


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "search"
    result = call("search", "auto-deeplab", "--data", scenes, "--out", out, *words(SEARCH))
    assert lines(result)["Next"] == f"fastnas decode {out}"
    return out


@pytest.fixture(scope="module")
def training(run: Path) -> Path:
    out = run.parent / "training"
    result = call("retrain", "auto-deeplab", run, "--out", out, *words(TRAINING))
    assert lines(result)["Next"] == f"fastnas evaluate {out}"
    return out


def test_alpha_and_beta_are_frozen_until_their_time(run: Path) -> None:
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [row["arch_trained"] for row in history] == [False, True, True]
    assert ["val_miou" in row for row in history] == [False, True, True]
    torch.manual_seed(0)
    first = AutoDeepLabSupernet(2, 1, 2, 3)
    for name, value in (("alpha", history[0]["alpha"]["cell"]), ("beta", history[0]["beta"])):
        assert torch.equal(torch.tensor(value), getattr(first, f"{name}s").detach())
    for key in ("alpha", "beta"):
        assert history[0][key] != history[1][key] != history[2][key]


def test_what_it_finds_is_what_its_last_alpha_and_beta_say(run: Path) -> None:
    found = load(run / "genotype.json", AutoDeepLabGenotype)
    result = call("decode", run)
    assert lines(result)["Next"] == f"fastnas retrain auto-deeplab {run} --out {run}-net"
    assert load(run / "genotype.json", AutoDeepLabGenotype) == found
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert history[-1]["path"] == list(found.path)
    assert "path, in scales\n  " + " ".join(str(4 << level) for level in found.path) in result.output


def test_an_interrupted_search_ends_with_the_same_bits(scenes: Path, run: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    class Stopping(Console):
        """Stops the run when its second epoch is shown, before it is saved."""

        def print(self, *objects: Any, **options: Any) -> None:
            if objects and str(objects[0]).strip().startswith("2/"):
                raise StopError
            super().print(*objects, **options)

    out = tmp_path / "run"
    config = make_config(TrellisSearchConfig, {"data": str(scenes), **SEARCH})
    with pytest.raises(StopError):
        search(config, out, console=Stopping(file=io.StringIO()))
    assert len((out / "history.jsonl").read_text().splitlines()) == 1
    search(config, out, resume=True)
    resumed, whole = files(out), files(run)
    assert resumed.keys() == whole.keys() - {"tensorboard"}
    assert all(resumed[name] == whole[name] for name in resumed)


def test_dense_candidates_are_searched_decoded_and_trained(scenes: Path, tmp_path: Path) -> None:
    run, net = tmp_path / "run", tmp_path / "net"
    options = words({**SEARCH, "epochs": 2, "memory": "lean"})
    lines(call("search", "auto-deeplab", "--atrous", "dense", "--data", scenes, "--out", run, *options))
    state = read_checkpoint(run / "checkpoint.pt")["task"]["network"]
    assert state["cells.0._ops.1._ops.7.1.weight"].shape == (2, 2, 5, 5)
    before = files(run)
    lines(call("search", "auto-deeplab", "--out", run, "--resume"))
    assert files(run) == before
    lines(call("decode", run))
    lines(call("retrain", "auto-deeplab", run, "--out", net, *words({**TRAINING, "epochs": 1})))


def test_the_checkpoint_holds_both_optimisers(run: Path) -> None:
    state = read_checkpoint(run / "checkpoint.pt")["task"]
    assert len(state["adam"]["state"]) == 2
    assert "momentum_buffer" in next(iter(state["descent"]["sgd"]["state"].values()))


def task(scenes: Path, **options: Any) -> AutoDeepLabSearch:
    torch.manual_seed(0)
    config = settle(make_config(TrellisSearchConfig, {"data": str(scenes), **SEARCH, **options}))
    data = load_segmentation(str(scenes))
    network = AutoDeepLabSupernet(2, 1, 2, len(data.classes), backend="reference").double()
    return AutoDeepLabSearch(network, data, config)


def test_accumulated_gradients_are_the_mean_of_the_batches(scenes: Path) -> None:
    steps = [task(scenes, accumulate=n) for n in (1, 2)]
    batch = (torch.randn(2, 3, 9, 9).double(), torch.randint(3, (2, 9, 9)))
    from fastnas.search.pixel_score import PixelScore

    for search_ in steps:
        search_.network.eval()  # running statistics, which do not depend on the batch
        search_.weight_step(iter([batch, batch]), PixelScore(("a", "b", "c")))
    for a, b in zip(*(s.network.parameters() for s in steps), strict=True):
        torch.testing.assert_close(a, b)


def test_a_phase_trains_its_own_parameters_only(scenes: Path) -> None:
    from fastnas.search.pixel_score import PixelScore

    searching = task(scenes)
    batch = (torch.randn(2, 3, 9, 9).double(), torch.randint(3, (2, 9, 9)))
    network = searching.network
    before = [p.clone() for p in network.arch_parameters()], [p.clone() for p in network.weight_parameters()]
    searching.arch_step(iter([batch]), PixelScore(("a", "b", "c")))
    assert all(torch.equal(p, q) for p, q in zip(network.weight_parameters(), before[1], strict=True))
    assert not torch.equal(network.alphas, before[0][0])
    assert not torch.equal(network.betas, before[0][1])
    before = [p.clone() for p in network.arch_parameters()], before[1]
    searching.weight_step(iter([batch]), PixelScore(("a", "b", "c")))
    assert all(torch.equal(p, q) for p, q in zip(network.arch_parameters(), before[0], strict=True))
    assert not torch.equal(network.weight_parameters()[0], before[1][0])
    assert all(p.requires_grad for p in network.parameters())


def test_void_pixels_do_not_count_in_the_loss(scenes: Path) -> None:
    data = load_segmentation(str(scenes))
    loss = PixelLoss(data, TrellisRetrainConfig(data=str(scenes)))
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    labels = torch.randint(3, (2, 4, 4))
    labels[1] = 255
    expected = torch.nn.functional.cross_entropy(logits[:1], labels[:1])
    torch.testing.assert_close(loss(logits, labels), expected)
    nothing = loss(logits, torch.full_like(labels, 255))
    nothing.backward()
    assert nothing == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_class_weights_on_request(scenes: Path) -> None:
    data = load_segmentation(str(scenes))
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    plain, weighted = (
        PixelLoss(data, TrellisRetrainConfig(data=str(scenes), class_weights=w))(logits, labels) for w in (False, True)
    )
    assert plain != weighted


@pytest.mark.parametrize(
    ("schedule", "rates"), [("cosine", [1.0, 0.775, 0.325, 0.1]), ("poly", [1.0, 0.725, 0.435, 0.1])]
)
def test_the_rate_falls_step_by_step(schedule: str, rates: list[float]) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    descent = StepDescent([weight], TrellisRetrainConfig(data=".", lr=1, lr_min=0.1, schedule=schedule), 3)
    seen = [descent.lr]
    for _ in range(3):
        descent.begin()
        weight.sum().backward()
        descent.step()
        seen.append(descent.lr)
    assert seen == pytest.approx(rates, abs=2e-3)


def test_it_is_trained_and_evaluated(training: Path) -> None:
    result = json.loads((training / "result.json").read_text())
    history = [json.loads(line) for line in (training / "history.jsonl").read_text().splitlines()]
    assert result["best_val_miou"] == max(row["val_miou"] for row in history)
    for weights, expected in (("best", result["best_val_miou"]), ("last", result["last_val_miou"])):
        assert "mean" in call("evaluate", training, "--weights", weights, "--pictures", "2").output
        found = json.loads((training / "evaluation.json").read_text())
        assert found["miou"] == pytest.approx(expected)
        assert set(found["iou"]) == set(result["classes"])
        assert all(found[key] == result[key] for key in ("parameters", "multiply_adds"))
        for path in found["pictures"]:
            with Image.open(path) as image:
                assert image.width > 300
    assert lines(call("evaluate", training, "--scales=1", "--scales=1.5", "--mirror"))["Figures"]


def test_a_published_cell_is_trained_from_its_file(scenes: Path, tmp_path: Path) -> None:
    save(AUTO_DEEPLAB, tmp_path / "published.json")
    out = tmp_path / "net"
    options = {**TRAINING, "epochs": 1, "atrous": "separable", "drop_path": 0.5, "schedule": "cosine"}
    lines(call("retrain", "auto-deeplab", tmp_path / "published.json", "--data", scenes, "--out", out, *words(options)))
    before = files(out)
    lines(call("retrain", "auto-deeplab", "--out", out, "--resume"))
    assert files(out) == before


@pytest.mark.parametrize("kind", ["run", "training"])
def test_plot_draws_it(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    drawn = set(re.findall(r"(\S+\.(?:svg|png))$", call("plot", folder).output, re.MULTILINE))
    stems = ["architecture-cell", "architecture-network", "curves", *(["alpha-cell"] if kind == "run" else [])]
    assert drawn == {f"{folder / stem}{suffix}" for stem in stems for suffix in (".svg", ".png")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_min": 2.0}, "--scale-min is 2.0, more than --scale-max, 1.0"),
        ({"arch_start": 3}, "--arch-start is 3, with --epochs 3; alpha and beta would never be trained"),
        ({"filters": 3}, "--filters is 3"),
        ({"accumulate": 3}, "--batch-size times --accumulate is 6, more than the 4 images in half"),
    ],
)
def test_bad_options(scenes: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        search(make_config(TrellisSearchConfig, {"data": str(scenes), **SEARCH, **options}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["evaluate", "{run}"], "holds a run of 'fastnas search auto-deeplab'"),
        (["evaluate", "{run}/nowhere"], "holds no run of 'fastnas retrain auto-deeplab'"),
        (["retrain", "{run}", "--out={run}-x"], "holds a run of 'fastnas search auto-deeplab'"),
        (["retrain", "auto-deeplab", "--out={run}-x"], "SOURCE is missing"),
        (["decode", "{training}"], "expected one of 'fastnas search'"),
    ],
)
def test_wrong_folders(run: Path, training: Path, command: list[str], message: str) -> None:
    result = CliRunner().invoke(main, [word.format(run=run, training=training) for word in command])
    assert result.exit_code == 2
    assert message in result.output


def test_damaged_weights_are_named(training: Path, tmp_path: Path) -> None:
    for name in ("config.json", "genotype.json"):
        (tmp_path / name).write_bytes((training / name).read_bytes())
    missing = call("evaluate", tmp_path)
    assert missing.exit_code == 2
    assert f"{tmp_path / 'best.pt'} is missing" in missing.output
    (tmp_path / "best.pt").write_bytes(b"no weights")
    damaged = call("evaluate", tmp_path)
    assert damaged.exit_code == 2
    assert f"{tmp_path / 'best.pt'} cannot be loaded" in damaged.output
