"""The same figures for TensorBoard, where it is installed."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fastnas.search.files import append
from fastnas.search.loop import Callback
from fastnas.search.run import Row, numbers

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event


class TensorBoard(Callback):
    """A callback that writes event files into `folder`; does nothing where TensorBoard is not installed.

    TensorBoard's own writer leaves writing to a thread, which may lose the last epochs when the process is killed.
    """

    def __init__(self, folder: Path) -> None:
        # TensorBoard reads files in the order of their names.
        self._file = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        self._installed = find_spec("tensorboard") is not None

    def on_start(self, history: Sequence[Row], steps: int) -> None:
        """Begins an event file; what an interrupted run wrote beyond `history` is not shown any more.

        Raises:
            WriteError: it cannot be written.
        """
        if self._installed:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog

            step = len(history) + 1
            begin = SessionLog(status=SessionLog.START)
            self._write(Event(step=step, file_version="brain.Event:2"), Event(step=step, session_log=begin))

    def on_epoch(self, row: Row) -> None:
        """Writes every number of the row, before the epoch is saved.

        Raises:
            WriteError: it cannot be written.
        """
        if self._installed:
            from tensorboard.compat.proto.event_pb2 import Event
            from torch.utils.tensorboard.summary import scalar

            now, step = time.time(), row["epoch"]
            summaries = [scalar(*item) for item in numbers(row).items()]  # type: ignore[no-untyped-call]
            self._write(*(Event(wall_time=now, step=step, summary=summary) for summary in summaries))

    def _write(self, *events: Event) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        records = io.BytesIO()
        writer = RecordWriter(records)
        for event in events:
            writer.write(event.SerializeToString())
        append(self._file, records.getvalue())
