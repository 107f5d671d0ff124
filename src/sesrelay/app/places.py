"""Where things lie in `state_dir`."""

from __future__ import annotations

import os
from pathlib import Path

from sesrelay.config.model import Config


def store_path(config: Config) -> Path:
    return config.state_dir / "queue.db"


def undeliverable_path(config: Config) -> Path:
    return config.state_dir / "undeliverable"


def rejected_path(config: Config) -> Path:
    return config.state_dir / "rejected"


def queue_of(config: Config) -> str:
    """Return by what a daemon and a verb tell that they mean one queue: the real path of its folder."""
    return os.path.realpath(config.state_dir)
