"""The figures by which runs are compared, as texts."""

from __future__ import annotations

from fastnas.report.entry import Entry

_SCORES = {"miou": "mIOU", "accuracy": "accuracy"}
_SIZES = {"parameters": "parameters", "multiply_adds": "multiply-adds an image"}


def key_figures(entry: Entry) -> dict[str, str]:
    """What the page says first of a run, by title."""
    last, result = entry.history[-1], entry.result
    part = "on α’s half" if entry.searched else "validation"
    found: dict[str, str] = {}
    for key, title in _SCORES.items():
        if f"best_val_{key}" in result:
            found[f"best {part} {title}"] = percent(result[f"best_val_{key}"])
        if f"val_{key}" in last:
            found[f"{part} {title}, last epoch"] = percent(last[f"val_{key}"])
    for key, title in _SIZES.items():
        if key in result:
            found[title] = f"{result[key]:,}"
    if "alpha_entropy" in last:
        found["α entropy"] = f"{last['alpha_entropy']:.4f}"
    done, planned = len(entry.history), entry.config.get("epochs", len(entry.history))
    found["epochs"] = str(done) if done == planned else f"{done} of {planned}"
    return found | recorded(entry) | {"seed": str(entry.config["seed"])}


def recorded(entry: Entry) -> dict[str, str]:
    """Time and memory, as the run itself measured them; nothing where it did not."""
    found = {}
    if entry.seconds is not None:
        found["time"] = duration(entry.seconds)
    if entry.speed is not None:
        found["images a second"] = f"{entry.speed:.3g}" if entry.speed < 1000 else f"{entry.speed:,.0f}"
    if entry.peak is not None:
        found["peak of the process"] = size(entry.peak)
    if entry.rise is not None:
        found["of which training"] = size(entry.rise)
    return found


def against(value: float, other: float) -> str:
    """How much less, or more, a value is than another."""
    return f"{other / value:.1f} times less" if value <= other else f"{value / other:.1f} times more"


def percent(share: float) -> str:
    """0.5 is 50.0 %."""
    return f"{100 * share:.1f} %"


def size(count: float) -> str:
    """Bytes, in MB or GB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """Seconds, in the unit that suits."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
