"""A folder of exported messages: NAME.eml, which every mail program reads, and NAME.json beside it.

Invariant: a .json file is there only once its .eml is whole, so what is cut short is not taken for a message.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from sesrelay.seams import Document, Unfit

MODE = 0o600  # mail is its owner's business


def prepare(folder: Path) -> None:
    """Make the folder where it is missing. Raises: OSError"""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def write(folder: Path, document: Document, content: bytes) -> None:
    """Write one message; what an earlier export left under its name is replaced. Raises: OSError"""
    name = str(document["id"])
    _put(folder / f"{name}.eml", content)
    _put(folder / f"{name}.json", json.dumps(document, ensure_ascii=False, indent=2).encode("utf-8", "surrogatepass") + b"\n")


def sync() -> None:
    """Make all that was written durable: one sync for many files."""
    os.sync()


def messages(paths: Iterable[Path]) -> list[Path]:
    """Return the .json files that `paths` mean: files of either kind, and whole folders, each once. Raises: Unfit"""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found.update(dict.fromkeys(sorted(path.glob("*.json"))))
        elif path.suffix in {".eml", ".json"} and path.is_file():
            found[path.with_suffix(".json")] = None
        else:
            raise Unfit(f"{path} is neither a folder nor an .eml or .json file")
    return list(found)


def read(envelope: Path) -> tuple[Document, bytes]:
    """Return one message. Raises: Unfit"""
    try:
        document = json.loads(_octets(envelope))
    except FileNotFoundError:
        raise Unfit("its envelope is missing: a .json file of the same name") from None
    except (OSError, ValueError) as error:
        raise Unfit(f"its envelope cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise Unfit("its envelope is not a JSON object")
    try:
        return document, _octets(envelope.with_suffix(".eml"))
    except OSError as error:
        raise Unfit(f"its content cannot be read: {error}") from error


def _octets(path: Path) -> bytes:
    """Raises: OSError, also for what is no file: nobody may ever write into a FIFO that lies there"""
    if path.exists() and not path.is_file():
        raise OSError("it is not a file")
    return path.read_bytes()


def _put(path: Path, octets: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        # Made anew: in a folder that others write to, what stands there already is theirs, or leads elsewhere.
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE), "wb") as file:
            file.write(octets)
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
