"""Which way mail goes, as the file says it: routes, the default, the null sender, expectations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from sesrelay.config.limits import AnyHeader, Cap, RouteRate, WarmUp
from sesrelay.config.part import Part
from sesrelay.config.values import Address, Crossed, Name, Names, Patterns, Sender
from sesrelay.policy.limits import RouteLimits

_BOTH = [("reject", "transport is set too (use only one of the two)")]


class Target(Part):
    """Where mail goes: one transport, several in order, or a rejection."""

    transport: Names | None = Field(
        None, description="A transport, or a list. A list is tried in order when the earlier ones are down."
    )
    reject: bool = Field(False, description="Reject with 550 5.7.1 at MAIL instead.")

    @property
    def transports(self) -> tuple[str, ...]:
        return self.transport or ()

    @model_validator(mode="after")
    def _one_way(self) -> Target:
        if self.reject and self.transport:
            raise Crossed(_BOTH)
        if not self.reject and not self.transport:
            raise Crossed([("transport", "missing (set a transport's name, or reject: true)")])
        return self


class Route(Target):
    """One rule: which senders, and where their mail goes."""

    sender: Patterns = Field(description="An address, a domain or `*.domain` (sub-domains only), or a list of them.")
    name: Name | None = Field(None, description="The name in metrics and logs. Default: the domain of the first pattern.")
    priority: Literal["high", "normal", "low"] = Field(
        "normal", description="`high`, `normal` or `low`: which mail goes first when a transport is slower than its mail arrives."
    )
    priority_header: AnyHeader | None = Field(
        None, description="A header of the application that sets the priority: high, normal, low, or 1 to 5 as in `X-Priority`."
    )
    concurrency: Cap | None = Field(None, description="Simultaneous attempts, over all transports of the route.")
    rate: RouteRate | None = Field(None, description="Recipients per time, as in `10/s`, `600/m`, `5000/h`, `20000/d`.")
    daily_cap: Cap | None = Field(None, description="Recipients in any 24 hours. Further ones wait; this costs no attempt.")
    hourly_cap: Cap | None = Field(None, description="Recipients in any hour. Further ones wait; this costs no attempt.")
    warm_up: WarmUp | None = Field(None, description="A daily cap that grows by a plan.")
    storm_limit: Cap | None = Field(
        None, description="Identical messages per hour. Further ones are combined into one digest. Default: no limit."
    )

    @property
    def limits(self) -> RouteLimits:
        warm_up = self.warm_up.limit() if self.warm_up else None
        return RouteLimits(self.rate, self.concurrency, self.hourly_cap, self.daily_cap, warm_up, self.storm_limit)


class NullSenderTarget(Part):
    """Where mail with the null sender goes, instead of by its header From."""

    transport: Names = Field(description="A transport, or a list. A list is tried in order when the earlier ones are down.")

    @property
    def transports(self) -> tuple[str, ...]:
        return self.transport


def _null_kind(value: Any) -> str:
    return "<route>" if isinstance(value, dict | NullSenderTarget) else "<auto>"


NullSenderRoute = Annotated[
    Annotated[Literal["auto"], Tag("<auto>")] | Annotated[NullSenderTarget, Tag("<route>")], Discriminator(_null_kind)
]


class Expectation(Part):
    """A result that the routes must have; tested by `check` and by each reload."""

    sender: Sender = Field(description="An envelope sender; `<>` is the null sender.")
    to: Address | None = Field(None, description="A recipient, as a note for the reader: routes depend on the sender only.")
    transport: Names | None = Field(
        None, description="The name of the transport that must come first, or a list with the complete order."
    )
    reject: bool = Field(False, description="The message must be rejected.")

    @model_validator(mode="after")
    def _one_way(self) -> Expectation:
        if self.reject and self.transport:
            raise Crossed(_BOTH)
        if not self.reject and not self.transport:
            raise Crossed([("transport", "missing (set the expected transport, or reject: true)")])
        return self
