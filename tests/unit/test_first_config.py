"""The first configuration of a machine can be loaded, and says where the mail for root goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sesrelay.config.loading import load
from sesrelay.mail.envelope import Recipient
from sesrelay.policy.admission import complete_recipient
from sesrelay.setup.sites.first_config import Answers, compose


@pytest.mark.parametrize("root", ["ops@example.net", "Ops@example.com", "root@example.com"])
def test_mail_for_root_goes_where_it_was_said_to(root: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(compose(Answers("example.com", root=root)), encoding="utf-8")
    loaded = load(file)
    assert complete_recipient(Recipient("root"), loaded.local) == Recipient(root, orcpt="rfc822;root@example.com")
