"""Fixtures for pytest: `pytest_plugins = ["sesrelay.testing.fixtures"]` in your conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sesrelay.testing.ses_server import SesServer


@pytest.fixture
def ses() -> Iterator[SesServer]:
    """An SES of your own: every identity is verified, out of the sandbox, 1,000 recipients a second."""
    with SesServer() as server:
        yield server


@pytest.fixture
def ses_as_aws(ses: SesServer, monkeypatch: pytest.MonkeyPatch) -> SesServer:
    """The same, with the environment set so that boto3's own clients come there."""
    for name, value in ses.environment().items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return ses
