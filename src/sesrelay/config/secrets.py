"""The secrets of a configuration, inline or in files of their own, and the paths of all files that it names.

Invariant: the content of a secret's file goes into a `SecretStr` and nowhere else.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import SecretStr

from sesrelay.config.dkim import key_paths
from sesrelay.config.document import Document
from sesrelay.config.private import exposed, locate, read_private
from sesrelay.config.problem import KeyPath, shown
from sesrelay.config.values import UNIX

_INLINE = {"transports": ("password", "token", "secret_access_key"), "users": ("password_hash",), "http": ("token",)}
_PATHS = {"transports": ("ca_file", "tlsrpt_socket"), "listeners": ("certificate", "key")}


def anchor_paths(document: Document, environ: Mapping[str, str]) -> None:
    """Make relative paths absolute: they start at the folder of the file that names them.

    Certificates and keys may also name a systemd credential.
    """
    for path in [("state_dir",), ("control",), ("maildrop",), *_members(document, "transports", _PATHS)]:
        value = document.get(path)
        if isinstance(value, str) and value:
            _parent(document, path)[path[-1]] = str(_folder(document, path) / value)
    for path in _members(document, "listeners", {"listeners": ("listen",)}):
        value = document.get(path)
        if isinstance(value, str) and value.startswith(UNIX) and value != UNIX:
            _parent(document, path)[path[-1]] = f"{UNIX}{_folder(document, path) / value.removeprefix(UNIX)}"
    for path in (*_members(document, "listeners", _PATHS), *key_paths(document)):
        value = document.get(path)
        if isinstance(value, str) and value:
            _parent(document, path)[path[-1]] = str(locate(value, _folder(document, path), environ))


def read_secrets(document: Document, environ: Mapping[str, str], proposed: Mapping[Path, bytes | None]) -> dict[KeyPath, SecretStr]:
    """Read every `*_file` that holds a secret; the keys of the result are those of the inline form.

    `proposed`: files as if they had that content already. Problems with the files, and inline secrets that others can read, are
    added to the document's.
    """
    secrets: dict[KeyPath, SecretStr] = {}
    to_be = {file.absolute(): content for file, content in proposed.items() if content is not None}
    for inline in _secret_paths(document):
        if isinstance(document.get(inline), str):
            _check_inline(document, inline, environ)
        named = (*inline[:-1], f"{inline[-1]}_file")
        value = document.get(named)
        if isinstance(value, str) and value:
            file = locate(value, _folder(document, named), environ)
            result = _secret(to_be[file] if file in to_be else read_private(file, environ), file)
            if isinstance(result, SecretStr):
                secrets[inline] = result
            else:
                document.report(named, result)
            _parent(document, named)[named[-1]] = str(file)
    return secrets


def _secret(data: bytes | str, file: Path) -> SecretStr | str:
    """Return the secret that `file` holds, or what is wrong; so does `data` where it is text."""
    if isinstance(data, str):
        return data
    try:
        text = data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        return f"{file} is not UTF-8"
    if not text:
        return f"{file} is empty"
    if "\n" in text or "\r" in text or "\0" in text:
        return f"{file} has more than one line (use a file with nothing but the secret)"
    return SecretStr(text)


def _check_inline(document: Document, path: KeyPath, environ: Mapping[str, str]) -> None:
    spot = document.spots.get(path)
    if spot is None or spot.variable or not document.get(path):
        return
    file = spot.value.file
    try:
        mode = Path(file).stat().st_mode
    except OSError:
        return
    if exposed(file, mode, environ):
        text = f"a secret in a file that other users can access, mode {stat.S_IMODE(mode):04o}"
        document.report(path, f"{text} (chmod o-rwx {file}, or use {path[-1]}_file)")


def _secret_paths(document: Document) -> Iterator[KeyPath]:
    yield from _members(document, "transports", _INLINE)
    users = document.get(("access", "users"))
    for index in range(len(users) if isinstance(users, list) else 0):
        yield from (("access", "users", index, key) for key in _INLINE["users"])
    yield from (("http", key) for key in _INLINE["http"])


def _members(document: Document, section: str, keys: Mapping[str, tuple[str, ...]]) -> Iterator[KeyPath]:
    value = document.root.get(section)
    names: Iterator[str | int] = (
        iter(value) if isinstance(value, dict) else iter(range(len(value) if isinstance(value, list) else 0))
    )
    for name in list(names):
        if isinstance(document.get((section, name)), dict):
            yield from ((section, name, key) for key in keys[section])


def _folder(document: Document, path: KeyPath) -> Path:
    return Path(document.value_place(path).file).absolute().parent


def _parent(document: Document, path: KeyPath) -> dict[str | int, object]:
    parent = document.get(path[:-1])
    if not isinstance(parent, dict):
        raise TypeError(f"{shown(path)} is not in a mapping")
    return parent
