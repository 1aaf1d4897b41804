"""Reads damaged files: genotypes, checkpoints, configurations, thousands of each, made of good and of malicious ones.

    python tests/fuzz_files.py [COUNT]

Every one must be read or refused with a sentence, within seconds, without running code or writing anything. Not part of
the normal tests, which read some hundred of each. A process of its own reads each kind: if it crashes, the file that it
died of is kept.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from fastnas.errors import UserError
from fastnas.genotype import AUTO_DEEPLAB, DARTS_V1, DARTS_V2, AutoDeepLabGenotype, Genotype, GenotypeError, dumps, load
from fastnas.search.checkpoint import CHECKPOINT, to_bytes
from fastnas.search.config import CONFIG, SearchConfig, config_text, make_config, read_config
from fastnas.search.config_file import read_config_file
from fastnas.search.run import read_history

COUNT = 10_000
SECONDS = 10.0  # of the processor for one file
FORBIDDEN = (
    "os.exec",
    "os.fork",
    "os.mkdir",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "os.system",
    "socket.connect",
    "subprocess.Popen",
)


class Attack:
    """Pickled, this is a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch attacked",)


@dataclass(frozen=True)
class Reader:
    """A reader and what it is given.

    Attributes:
        names: of its files.
        seeds: good and malicious contents, one or more for each name.
        read: reads the file; raises UserError or GenotypeError for what it refuses.
        words: what is inserted, beside random bytes.
        finish: makes a file of a damaged content.
    """

    names: tuple[str, ...]
    seeds: dict[str, list[bytes]]
    read: Callable[[Path], Any]
    words: tuple[bytes, ...]
    finish: Callable[[bytes, random.Random], bytes] = lambda content, _: content


WORDS = (
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"NaN",
    b"9" * 5000,
    b"[" * 2000,
    b'{"a":' * 500,
    b'"',
    b"\n",
    b"\x00",
    b"\xff",
)


def genotypes() -> Reader:
    """Files of both kinds, each read as either."""

    def read(path: Path) -> Any:
        return load(path, AutoDeepLabGenotype if path.stem.startswith("a") else Genotype)

    texts = [dumps(genotype).encode() for genotype in (DARTS_V1, DARTS_V2, AUTO_DEEPLAB)]
    names = ("a.json", "d.json")
    return Reader(
        names, dict.fromkeys(names, texts), read, (*WORDS, b"sep_conv_3x3", b'["none", 0]', b"99999999999999")
    )


def checkpoints() -> Reader:
    """Files whose payload is damaged, half of them with the checksum of what is in them."""
    state = {
        "command": "search",
        "config": {"lr": 0.1},
        "task": {"w": torch.arange(60.0).view(3, 20), "h": torch.zeros(2, dtype=torch.int64)},
        "rng": torch.zeros(16, dtype=torch.uint8),
        "history": [json.dumps({"epoch": 1, "loss": 0.5})],
    }
    seeds = [to_bytes(state), pickle.dumps(state | {"rng": Attack()}, 2), _malicious_zip(state)]

    def finish(payload: bytes, choose: random.Random) -> bytes:
        digest = hashlib.sha256(payload).hexdigest()
        header = {"format": "fastnas-checkpoint", "version": 1, "bytes": len(payload), "sha256": digest}
        content = json.dumps(header).encode() + b"\n" + payload
        return content if choose.random() < 0.5 else damaged(content, WORDS, choose)

    words = (
        *WORDS,
        b"cposix\nsystem\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"cbuiltins\neval\n",
        b"R",
        b"\x81",
        b"b",
        b".",
    )
    return Reader((CHECKPOINT,), {CHECKPOINT: seeds}, lambda path: read_history(path.parent), words, finish)


def _malicious_zip(state: dict[str, Any]) -> bytes:
    """What torch.save writes, with the attack in its pickle, stored, so that its bytes can be damaged."""
    import io
    import zipfile

    source, target = io.BytesIO(to_bytes(state)), io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for item in old.infolist():
            attack = pickle.dumps({"attack": Attack()}, 2) if item.filename.endswith("data.pkl") else old.read(item)
            new.writestr(item.filename, attack)
    return target.getvalue()


def configurations() -> Reader:
    """Files of options in every format, and a run's config.json."""
    config = SearchConfig(data="/images")
    options = config.model_dump(mode="json", exclude_none=True)
    toml = "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())
    yaml = "".join(f"{name}: {json.dumps(value)}\n" for name, value in options.items())
    attack = 'data: !!python/object/apply:os.system ["touch attacked"]\nlr: &a [*a, *a]\n'
    own = config_text(config, "search", "0").encode()
    seeds = {
        "o.toml": [toml.encode(), ("command = 'search'\n[config]\n" + toml).encode()],
        "o.yaml": [yaml.encode(), attack.encode(), (yaml + "x: &x {y: *x}\n").encode()],
        "o.json": [json.dumps(options).encode(), own],
        CONFIG: [own],
    }

    def read(path: Path) -> Any:
        values = read_config(path, "search") if path.name == CONFIG else read_config_file(path, "search")
        return make_config(SearchConfig, values, dict.fromkeys(values, str(path)))

    words = (
        *WORDS,
        b"!!python/name:os.system ",
        b"&a ",
        b"*a",
        b"<<: ",
        b"? ",
        b"---\n",
        b"2020-01-01",
        b"0x1F",
        b"[config]\n",
    )
    return Reader(tuple(seeds), seeds, read, words)


READERS: dict[str, Callable[[], Reader]] = {
    "genotypes": genotypes,
    "checkpoints": checkpoints,
    "configurations": configurations,
}


def damaged(content: bytes, words: tuple[bytes, ...], choose: random.Random) -> bytes:
    """`content` with a few mutations, mostly one."""
    data = bytearray(content)
    for _ in range(choose.choice((1, 1, 1, 2, 5))):
        at, end = sorted(choose.randrange(len(data) + 1) for _ in range(2))
        match choose.randrange(9):
            case 0 | 1 | 2 if data:
                data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
            case 3:
                data[at:at] = choose.choice(words)
            case 4:
                data[at : at + choose.randint(1, 8)] = choose.choice(words)
            case 5:
                del data[at : min(end, at + 64)]
            case 6:
                data[at:at] = data[at : min(end, at + 256)]
            case 7:
                data[at:at] = choose.randbytes(choose.randint(1, 8))
            case 8 if choose.random() < 0.3:
                del data[at:]
    return bytes(data)


_watched: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is not None and (event in FORBIDDEN or (event == "open" and str(arguments[1])[:1] in ("w", "a", "x"))):
        _watched.append(f"{event} {arguments}")


sys.addaudithook(_audit)


@contextmanager
def watched() -> Iterator[None]:
    """Fails where the block takes too long, runs a command, or changes a file."""
    global _watched  # noqa: PLW0603  an audit hook can neither be given an argument nor be taken away

    def slow(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s for one file")

    before = signal.signal(signal.SIGVTALRM, slow)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    _watched = []
    try:
        yield
        assert not _watched, f"reading it did {_watched}"
    finally:
        _watched = None
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def fuzz(kind: str, folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """Reads `count` damaged files, each from `folder`, where the last one stays.

    Returns:
        How many were read, and how many were refused.
    """
    reader, choose, outcome = READERS[kind](), random.Random(seed), Counter[str]()
    for name in reader.names:  # parsers are imported, and compiled, when they first read
        (folder / name).write_bytes(reader.finish(reader.seeds[name][0], random.Random(0)))
        with suppress(UserError, GenotypeError):
            reader.read(folder / name)
    for _ in range(count):
        path = folder / choose.choice(reader.names)
        path.write_bytes(reader.finish(damaged(choose.choice(reader.seeds[path.name]), reader.words, choose), choose))
        try:
            with watched():
                reader.read(path)
            outcome["read"] += 1
        except (UserError, GenotypeError) as error:
            if len(str(error).splitlines()) != 1:
                raise AssertionError(f"{path}: {error!r} is no sentence") from error
            outcome["refused"] += 1
        except BaseException as error:
            raise AssertionError(f"{path}: {type(error).__name__}: {error}") from error
    return outcome


def _report(kind: str, folder: Path, count: int) -> None:
    outcome = fuzz(kind, folder, count)
    print(f"{kind}: {count} files, {outcome['read']} read, {outcome['refused']} refused", flush=True)


def main(count: int) -> None:
    """Run it."""
    context, failed = get_context("spawn"), []
    for kind in READERS:
        folder = Path(tempfile.mkdtemp(prefix=f"fastnas-fuzz-{kind}-"))
        process = context.Process(target=_report, args=(kind, folder, count))
        process.start()
        process.join()
        if process.exitcode:
            failed.append(f"{kind} ended with {process.exitcode}, the file is in {folder}")
    if failed:
        raise SystemExit("; ".join(failed))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)
