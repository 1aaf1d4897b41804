"""Stopping a search before skip connections take over (Liang et al., "DARTS+", 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from fastnas.search.run import Row


def stopped_by_skips(history: Sequence[Row], patience: int) -> Row:
    """What the last row of `history` records where skip connections have dominated for `patience` epochs in a row.

    Epochs in which α is not trained do not count.

    Returns:
        `stopped`, a sentence, and `kept_epoch`, the last epoch before; or nothing.
    """
    streak = list(takewhile(lambda row: row["skips_dominate"] and "val_loss" in row, reversed(history)))
    if len(streak) < patience:
        return {}
    first = streak[-1]["epoch"]
    reason = f"skip connections dominated the normal cell from epoch {first} to {streak[0]['epoch']}"
    before = [row["epoch"] for row in history if "val_loss" in row and row["epoch"] < first]
    if before:
        return {"stopped": f"{reason}; the genotype is that of epoch {before[-1]}", "kept_epoch": before[-1]}
    return {"stopped": f"{reason}; there is none before, the genotype is that of epoch {first}", "kept_epoch": first}
