"""Where an access key is kept: its id, its secret and its SMTP password, and the lines of the configuration that name the id.

Invariant: secrets go into files of mode 0640 and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sesrelay.aws.iam_user import NewKey
from sesrelay.aws.smtp_password import derive
from sesrelay.setup.files import NewFile, write_files


@dataclass(frozen=True, slots=True)
class KeyFiles:
    key_id: Path
    secret: Path
    smtp_password: Path

    @classmethod
    def named(cls, folder: Path, name: str) -> KeyFiles:
        return cls(folder / f"{name}.access-key-id", folder / f"{name}.secret", folder / f"{name}.smtp-password")

    @property
    def all(self) -> tuple[Path, ...]:
        return (self.key_id, self.secret, self.smtp_password)

    def current(self) -> str | None:
        """Return the id of the key that is kept here. Raises: OSError"""
        return self.key_id.read_text(encoding="utf-8").strip() if self.key_id.exists() else None

    def read(self) -> NewKey:
        """Return the key that is kept here. Raises: OSError"""
        return NewKey(self.key_id.read_text(encoding="utf-8").strip(), self.secret.read_text(encoding="utf-8").strip())


def store(files: KeyFiles, key: NewKey, region: str, config: Path, renamed: Iterable[NewFile] = ()) -> None:
    """Write the key, owned as `config` is, and the configuration files that name it, all or none. Raises: OSError"""
    password = derive(key.secret, region)
    texts = ((files.key_id, key.id), (files.secret, key.secret), (files.smtp_password, password))
    write_files([*(NewFile(path, f"{text}\n", config) for path, text in texts), *renamed])


def naming(old: str, new: str, configuration: Iterable[Path]) -> list[NewFile]:
    """Return the configuration files that name the key `old`, as they name `new`. Raises: OSError"""
    texts = [(path, path.read_text(encoding="utf-8")) for path in configuration]
    # A key id has twenty characters that stand nowhere else: no YAML has to be understood to exchange it.
    return [NewFile(path, text.replace(old, new), path) for path, text in texts if old in text]
