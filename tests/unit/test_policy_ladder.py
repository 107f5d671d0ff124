"""The ladder of a bounce as tables: which rung is first, and which is next."""

from __future__ import annotations

import pytest

from sesrelay.mail.envelope import Descent, Rung
from sesrelay.policy.ladder import FOLDER, Ladder, below, rule, start
from sesrelay.policy.routing import RouteRule, RoutingTable

RULES = (
    RouteRule("example.com", "c:1", "example.com", ("ses-a",)),
    RouteRule("two.example", "c:2", "two.example", ("relay", "ses-b")),
    RouteRule("site.example", "c:3", "site.example", ("relay",)),
    RouteRule("nowhere.example", "c:4", "nowhere.example", (), reject=True),
    RouteRule("example.net", "c:5", "example.net", ("ses-a",)),
)
DIRECT = RouteRule("default_route", "c:9", "default", ("direct",))
REJECT = RouteRule("default_route", "c:9", "default", (), reject=True)
LADDER = Ladder(frozenset({"ses-a", "ses-b"}), "direct", ("relay.example.net",))
NO_SUCH = "550 5.1.1 No such user"
REFUSED = "554 5.7.1 Go away"


def descend(sender: str, *, default: RouteRule = DIRECT, domains: tuple[str, ...] = (), reply: str = REFUSED) -> list[str]:
    """Return every way that a report from mailer-daemon@`sender` takes where none serves."""
    table = RoutingTable(RULES, default)
    descent, address = start(Descent(domains=domains), f"mailer-daemon@{sender}", table, LADDER)
    ways = []
    while True:
        transport = rule(descent, address, table, LADDER).transports[0]
        ways.append(f"{descent.rung.name.lower()} {transport} {address.partition('@')[2]}")
        if descent.rung is Rung.FOLDER:
            return ways
        descent, address = below(descent, address, transport, reply, table, LADDER)


@pytest.mark.parametrize(
    ("sender", "ways"),
    [
        ("example.com", ["route ses-a example.com", "ses ses-a example.net", "direct direct example.net"]),
        (
            "two.example",
            ["route relay two.example", "route ses-b two.example", "ses ses-a example.net", "direct direct example.net"],
        ),
        ("site.example", ["route relay site.example", "ses ses-a example.net", "direct direct example.net"]),
        ("elsewhere.example", ["route direct elsewhere.example", "ses ses-a example.net"]),
        ("nowhere.example", ["ses ses-a example.net", "direct direct example.net"]),
    ],
)
def test_every_rung_in_its_turn(sender: str, ways: list[str]) -> None:
    last = ways[-1].rpartition(" ")[2]
    assert descend(sender) == [*ways, f"folder {FOLDER} {last}"]


def test_the_domain_that_the_message_shows_comes_before_those_of_this_machine() -> None:
    ways = descend("relay.example.net", domains=("example.com", "unknown.example"))
    assert ways[:3] == ["route direct relay.example.net", "ses ses-a example.com", "ses ses-a example.net"]


def test_a_default_route_to_ses_serves_for_the_names_of_this_machine_but_not_for_its_top_level_domain() -> None:
    default = RouteRule("default_route", "c:9", "default", ("ses-a",))
    assert descend("stranger.example", default=default)[:4] == [
        "route ses-a stranger.example",
        "ses ses-a relay.example.net",
        "ses ses-a example.net",
        "direct direct example.net",
    ]


def test_where_every_way_is_closed_the_folder_is_first() -> None:
    table = RoutingTable((), REJECT)
    assert start(Descent(), "mailer-daemon@example.com", table, Ladder()) == (Descent(Rung.FOLDER), "mailer-daemon@example.com")


def test_nobody_is_looked_for_twice() -> None:
    assert descend("example.com", reply=NO_SUCH) == ["route ses-a example.com", f"folder {FOLDER} example.com"]


def test_a_rung_whose_way_is_gone_has_no_transport() -> None:
    table = RoutingTable(RULES, DIRECT)
    assert rule(Descent(Rung.SES), "mailer-daemon@site.example", table, LADDER).transports == ()
    assert rule(Descent(Rung.DIRECT), "mailer-daemon@site.example", table, Ladder()).transports == ()


def test_what_its_own_domain_may_not_send_is_no_obstacle_below() -> None:
    table = RoutingTable((), REJECT)
    for rung, transport in ((Rung.DIRECT, "direct"), (Rung.FOLDER, FOLDER)):
        found = rule(Descent(rung), "mailer-daemon@example.com", table, LADDER)
        assert (found.transports, found.reject) == ((transport,), False)
