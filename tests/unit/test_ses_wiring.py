"""Ways out to one AWS account share its pace, whichever protocol they speak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from fakes import FakeClock
from ses_world import Figures, Remembers
from sesrelay.app.ways_out import Shared, paced, ses
from sesrelay.app.wiring import tariffs
from sesrelay.config import transports as configured
from sesrelay.transport.hold import HoldTransport
from sesrelay.transport.ses.transport import SesTransport
from sesrelay.transport.smtp.paced import PacedSmtp

KEY = "ASIAQNZGKIQY56JQ7WML"  # of account 029608264753, as is the next
OTHER_KEY = "AKIAQNZGKIQYXXXXXXXX"
ELSEWHERE = "AKIA2ZZZZZZZZZZZZZZZ"


def config(**keys: Any) -> Any:
    return TypeAdapter(configured.Transport).validate_python(keys)


def smtp(username: str | None, host: str = "email-smtp.us-east-1.amazonaws.com", **keys: Any) -> Any:
    secret = {"password": "p"} if username else {}
    return config(type="smtp", host=host, username=username, **secret, **keys)


@pytest.mark.parametrize(
    ("username", "host", "same"),
    [
        (KEY, "email-smtp.us-east-1.amazonaws.com", True),
        (OTHER_KEY, "email-smtp.us-east-1.amazonaws.com", True),
        (KEY, "email-smtp.eu-west-1.amazonaws.com", False),
        (ELSEWHERE, "email-smtp.us-east-1.amazonaws.com", False),
    ],
)
async def test_smtp_credentials_of_an_account_share_the_pace_of_its_api(username: str, host: str, same: bool) -> None:
    clock = FakeClock()
    observer: Any = Remembers()
    shared = Shared(clock, observer)
    by_api = ses("api", config(type="ses", region="us-east-1", access_key_id=KEY, secret_access_key="s"), shared, frozenset(), None)
    by_smtp = paced(HoldTransport("smtp"), smtp(username, host), shared, None, None)
    assert isinstance(by_api, SesTransport)
    assert isinstance(by_smtp, PacedSmtp)
    assert by_smtp.region
    await by_api._accounts.merge(by_api._account, by_api._session)
    assert (by_api._account.ledger is by_smtp.ledger) is same
    assert by_api._account.number == "029608264753"
    await by_api.close()
    await shared.close()


def test_an_unknown_region_is_said_of_a_transport(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`check` cannot know it, as AWS's own configuration has a word in it."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    observer: Any = Remembers()
    with pytest.raises(ValueError, match=r"^transports\.ses-main: the AWS region is unknown: set region in the transport"):
        ses("ses-main", config(type="ses"), Shared(FakeClock(), observer), frozenset(), None)


async def test_a_relay_has_a_pace_only_where_it_is_sess_or_has_a_rate() -> None:
    observer: Any = Remembers()
    shared, inner = Shared(FakeClock(), observer), HoldTransport("smtp")
    assert paced(inner, smtp(None, "smtp.example.com"), shared, None, None) is inner
    way = paced(inner, smtp(None, "smtp.example.com", rate=5), shared, None, None)
    assert isinstance(way, PacedSmtp)
    assert (way.rate, way.region) == (5.0, None)
    assert (way.name, way.batch_limit, way.nexthop("b@example.org")) == ("smtp", inner.batch_limit, "hold")
    await shared.close()


async def test_a_rate_that_a_reload_takes_out_of_the_configuration_vouches_for_nothing_more() -> None:
    clock = FakeClock()
    observer: Any = Remembers()
    shared = Shared(clock, observer)
    key = {"type": "ses", "region": "us-east-1", "access_key_id": KEY, "secret_access_key": "s"}
    before, after = config(**key, rate=50), [config(**key), config(**key, share="50%")]
    fast, *both = [ses(name, one, shared, frozenset(), None) for name, one in zip("fab", (before, *after), strict=True)]
    assert isinstance(fast, SesTransport)
    fast._account.ledger.told(Figures(14.0, -1.0), 0.0)
    await fast.close()
    shared.retain(after)
    taken = 0
    for way in both:
        assert isinstance(way, SesTransport)
        way._started = True
    for _ in range(10_000):
        clock.advance(0.01)
        for way in both:
            while way.pace(1, clock.monotonic()) == 0.0:
                taken += 1
    assert taken == pytest.approx(14 * 100, rel=0.02)
    for way in both:
        await way.close()
    await shared.close()


async def test_rates_of_two_transports_to_a_relay_that_is_not_sess_are_their_own() -> None:
    clock = FakeClock()
    observer: Any = Remembers()
    shared = Shared(clock, observer)
    fast, slow = (
        paced(HoldTransport(name), smtp(None, "smtp.example.com", rate=rate), shared, None, None)
        for name, rate in (("f", 50), ("s", 40))
    )
    taken = {"f": 0, "s": 0}
    for _ in range(1_000):
        clock.advance(0.01)
        for way in (fast, slow):
            while way.pace(1, clock.monotonic()) == 0.0:
                taken[way.name] += 1
    assert taken["f"] == pytest.approx(500, rel=0.02)
    assert taken["s"] == pytest.approx(400, rel=0.02)
    await shared.close()


def test_only_named_tariffs_count() -> None:
    named = config(type="ses", tariff={"per_1000": 0.1, "per_gb": 0.12})
    assert tariffs({"a": named, "b": config(type="ses"), "c": config(type="hold")}) == {"a": (0.1, 0.12)}
