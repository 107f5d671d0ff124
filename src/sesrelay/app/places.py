"""Where things lie in `state_dir`."""

from __future__ import annotations

from pathlib import Path

from sesrelay.config.model import Config


def store_path(config: Config) -> Path:
    return config.state_dir / "queue.db"


def undeliverable_path(config: Config) -> Path:
    return config.state_dir / "undeliverable"


def rejected_path(config: Config) -> Path:
    return config.state_dir / "rejected"
