"""Routing: whole names only, the most specific wins, and `explain` tells why."""

import pytest

from sesrelay.mail.delivery import Priority
from sesrelay.policy.routing import RouteRule, RoutingTable, choose

DEFAULT = RouteRule("default_route", "c:9", "default", ("direct",))


def table(*patterns: str, **options: object) -> RoutingTable:
    rules = [RouteRule(pattern, f"c:{n}", pattern, (pattern,)) for n, pattern in enumerate(patterns, 1)]
    return RoutingTable(rules, DEFAULT, **options)  # type: ignore[arg-type]


PATTERNS = ("example.com", "*.example.com", "ceo@example.com", "*.deep.example.com", "bücher.example", "*.org")
TABLE = table(*PATTERNS)


@pytest.mark.parametrize(
    ("sender", "pattern"),
    [
        ("a@example.com", "example.com"),
        ("A@EXAMPLE.COM", "example.com"),
        ("a@example.com.", "example.com"),
        ("ceo@example.com", "ceo@example.com"),
        ("CEO@Example.com", "ceo@example.com"),
        ("a@www.example.com", "*.example.com"),
        ("a@x.deep.example.com", "*.deep.example.com"),
        ("a@deep.example.com", "*.example.com"),
        ("a@example.com.evil.org", "*.org"),
        ("a@example.com.evil.net", "default_route"),
        ("a@notexample.com", "default_route"),
        ("a@com", "default_route"),
        ("a@xn--bcher-kva.example", "bücher.example"),
        ("a@BÜCHER.example", "bücher.example"),
        ("not an address@@", "default_route"),
        ('"a@example.com"@evil.net', "default_route"),
        ("a@example.com@evil.net", "default_route"),
    ],
)
def test_match(sender: str, pattern: str) -> None:
    for order in (PATTERNS, PATTERNS[::-1], sorted(PATTERNS)):
        assert table(*order).route(sender).pattern == pattern, "whatever order they are written in"


def test_null_sender_goes_by_header_from() -> None:
    assert TABLE.route("", ("a@example.com",)).pattern == "example.com"
    assert TABLE.route("", ("a@unlisted.net",)).pattern == "default_route"
    nothing = TABLE.route("", ())
    assert (nothing.pattern, nothing.name, nothing.transports) == ("null_sender_route", "null", ("direct",))
    assert nothing.source == DEFAULT.source, "where its transports stand"
    assert RoutingTable([], DEFAULT, null_source="c:9").route("").source == "c:9"


def test_null_sender_with_a_route_of_its_own() -> None:
    null = RouteRule("null_sender_route", "c:8", "null", ("park",))
    routes = RoutingTable([RouteRule("example.com", "c:1", "e", ("ses",))], DEFAULT, null)
    assert routes.route("", ("a@example.com",)) is null
    assert routes.route("a@example.com").name == "e"


@pytest.mark.parametrize(
    ("route_by", "sender", "header_from", "decides"),
    [
        ("envelope", "a@host.local", "b@example.com", "a@host.local"),
        ("header_from", "a@elsewhere.net", "b@example.com", "b@example.com"),
        ("header_from", "a@elsewhere.net", None, "a@elsewhere.net"),
        ("auto", "a@HOST.local", "b@example.com", "b@example.com"),
        ("auto", "a@elsewhere.net", "b@example.com", "a@elsewhere.net"),
        ("auto", "a@host.local", None, "a@host.local"),
        ("envelope", "", "b@example.com", "b@example.com"),
    ],
)
def test_route_by(route_by: str, sender: str, header_from: str | None, decides: str) -> None:
    routes = table("example.com", route_by=route_by, local_domains=["host.local"])
    assert routes.routing_address(sender, (header_from,) if header_from else ()) == decides


def test_explain_gives_a_reason_for_each_loser() -> None:
    winner, considered = TABLE.explain("a@notexample.com")
    assert winner.pattern == "default_route"
    assert {each.rule for each in considered} == {rule.pattern for rule in TABLE.rules}
    assert {each.rule: each.why for each in considered}["example.com"] == "notexample.com is not example.com"
    _, considered = TABLE.explain("a@example.com")
    why = {each.rule: each.why for each in considered}
    assert why["*.example.com"] == "*.example.com covers sub-domains only, not example.com itself"
    assert why["default_route"] == "example.com is more specific"
    assert "sub-domain" in {each.rule: each.why for each in TABLE.explain("a@x.bücher.example")[1]}["bücher.example"]


@pytest.mark.parametrize(
    ("one", "two"), [("example.com", "EXAMPLE.com."), ("bücher.example", "xn--bcher-kva.example"), ("A@x.example", "a@X.example")]
)
def test_a_pattern_that_stands_twice(one: str, two: str) -> None:
    with pytest.raises(ValueError, match=r"is defined twice: c:1 and c:2"):
        table(one, two)


@pytest.mark.parametrize("pattern", ["", "*", "*.*.com", "exa mple.com", "a@", "*.example.*", "@example.com@"])
def test_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match="is not an address, domain"):
        table(pattern)


def test_choose_skips_only_what_has_outlasted_its_patience() -> None:
    patience = {"a": 600.0, "b": 60.0}
    assert choose(("a", "b"), {}, patience) == "a"
    assert choose(("a", "b"), {"a": 599.0}, patience) == "a"
    assert choose(("a", "b"), {"a": 600.0}, patience) == "b"
    assert choose(("a", "b"), {"a": 600.0, "b": 60.0}, patience) == "a"


def test_priority_rides_on_the_rule() -> None:
    rule = RouteRule("example.com", "c:1", "e", ("ses",), Priority.LOW)
    assert RoutingTable([rule], DEFAULT).route("a@example.com").priority is Priority.LOW
