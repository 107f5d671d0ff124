"""One attempt at one batch: the call, and what an answer lets us do within it (split, repair, reload) before it ends.

Invariant: an address is in a second call only after a first one that was certainly refused.
Invariant: each of split, repair and reload ends: a split is `policy.splitting`'s, and the other two happen once.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from sesrelay.mail import headers
from sesrelay.mail.address import comparable, domain_of
from sesrelay.mail.filed import Filed, opening
from sesrelay.mail.outcome import Deferred, Delivered, Failed, Held, Outcome, PauseReason, Scope, Trail
from sesrelay.mail.reply import Reply
from sesrelay.mail.value import value
from sesrelay.policy import ses_meaning as meaning
from sesrelay.policy.ses_addressing import plain_domain
from sesrelay.policy.ses_meaning import Action, Meaning, Refused
from sesrelay.policy.ses_shape import Shaped
from sesrelay.policy.ses_words import addresses_named, denies_an_identity, not_verified, own_words, repeated_fields
from sesrelay.policy.splitting import Blamed, Splitting
from sesrelay.seams import Clock
from sesrelay.transport.ses import call
from sesrelay.transport.ses.account import Account
from sesrelay.transport.ses.answers import Accepted, Unreadable, read
from sesrelay.transport.ses.body import measured
from sesrelay.transport.ses.call import Api, Fixed
from sesrelay.transport.ses.connection import Lost, NotSent
from sesrelay.transport.ses.seam import AwsSession, Endpoint
from sesrelay.transport.ses.sign import SigV4, SigV4a

Group = tuple[str, ...]
Reshaped = Callable[[frozenset[str], frozenset[str]], Awaitable[Shaped | Failed]]
Said = tuple[Meaning, str]


@value(frozen=True, slots=True)
class Draft:
    """What is to be sent. `senders`: addresses of the envelope and the header From that are the sender's.

    `api`: the one to call first; `may_grow`: where v1 finds the message too large, v2 may have it. `reshaped` makes the
    message anew by what a refusal told: a header that may stand only once, addresses that are not verified. `orders`: what
    a refusal says where it is about something that the message itself names, as a configuration set; that is the message's fault.
    """

    source: str
    raw: bytes | Filed
    changes: tuple[str, ...]
    tags: Mapping[str, str]
    senders: tuple[str, ...] = ()
    orders: tuple[re.Pattern[str], ...] = ()
    api: Api = "v1"
    may_grow: bool = False
    reshaped: Reshaped | None = None


@dataclass(slots=True)
class Line:
    """What every attempt of a transport shares."""

    session: AwsSession
    account: Account
    clock: Clock
    fixed: Fixed
    _endpoint: Endpoint | None = None
    _ways: dict[Api, tuple[str, SigV4]] = field(default_factory=dict)

    def way(self, endpoint: Endpoint, api: Api) -> tuple[str, SigV4]:
        """Return the URL of `api` at `endpoint` and the signer for it, which keeps the day's signing key. Raises: ValueError"""
        if self._endpoint is not endpoint:
            self._endpoint, self._ways = endpoint, {}
        way = self._ways.get(api)
        if way is None:
            way = self._ways[api] = _way(endpoint, api)
        return way


def _way(endpoint: Endpoint, api: Api) -> tuple[str, SigV4]:
    content_type = call.CONTENT_TYPES[api]
    if api == "v1":
        return endpoint.url, SigV4(endpoint.url, endpoint.region, endpoint.service, content_type)
    url = endpoint.v2_url.rstrip("/") + call.V2_PATH
    if endpoint.region_set is not None:
        return url, SigV4a(url, endpoint.region_set, endpoint.service, content_type)
    return url, SigV4(url, endpoint.region, endpoint.service, content_type)


class Attempt:
    """Made for one `deliver`. `known` grows as answers come; `on_wire`: for whom else the message may have reached SES;
    `rejected`: SES said that it is what it does not take.
    """

    def __init__(self, line: Line, draft: Draft, facts: Callable[[], dict[str, str]]) -> None:
        self.known: dict[str, Outcome] = {}
        self.on_wire: Group = ()
        self.rejected = False
        self._line = line
        self._draft = draft
        self._facts = facts  # called for where a remedy is due
        self._sender_domain = ""
        self._api = draft.api
        self._tls: str | None = None
        self._split: Splitting[str, Said]  # of `send`
        self._repaired = self._reloaded = False

    async def send(self, addresses: Group) -> dict[str, Outcome]:
        """Return an outcome for each address."""
        self._split = Splitting(addresses, plain_domain)
        while (group := self._split.next()) is not None:
            answer = await self._call(group)
            if isinstance(answer, Accepted):
                self._line.account.ledger.spent(len(group))
                reply = Reply(250, "2.0.0", f"Ok {answer.message_id}")
                self._settle(group, Delivered(reply, answer.message_id, trail=self._trail()))
                self.on_wire = ()
                self._blame(self._split.taken())
            elif isinstance(answer, Refused):
                await self._refused(group, answer)
            elif isinstance(answer, NotSent):
                self._end(group, self._deferred(meaning.CUT_OFF if answer.cut else meaning.UNREACHABLE, answer.why))
            elif isinstance(answer, Deferred):
                self._end(group, answer)
            else:
                self._doubt(group, answer)
        return self.known

    # --- the call ---

    async def _call(self, group: Group) -> Accepted | Refused | Unreadable | NotSent | Lost | Deferred:
        line, draft = self._line, self._draft
        try:
            endpoint = await line.session.endpoint()
            credentials = await line.session.credentials()
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            return self._deferred(meaning.without_credentials(said), said)
        if credentials is None:
            return self._deferred(meaning.NO_CREDENTIALS, "no credentials were found")
        try:
            url, signer = line.way(endpoint, self._api)
        except ValueError as error:
            return NotSent(str(error))
        body = await measured(call.body(self._api, line.fixed, draft.source, group, draft.tags, draft.raw))
        signed = signer.headers(body.digest, credentials, line.clock.wall())
        answer = await line.account.pool.post(url, signed, body, endpoint.ca_bundle, partial(self._leaves, group))
        if isinstance(answer, NotSent | Lost):
            return answer
        self._tls = answer.tls
        found = read(answer.status, answer.headers, answer.body, self._api)
        if answer.whole or isinstance(found, Refused):
            return found
        if isinstance(found, Accepted):
            return Lost("an acceptance arrived before the whole request was sent")
        return NotSent(f"{found.why}, before the whole request was sent", cut=True)

    def _leaves(self, group: Group) -> None:
        self.on_wire = group

    # --- what a refusal lets us do ---

    async def _refused(self, group: Group, refused: Refused) -> None:
        self.on_wire = ()
        means = meaning.meaning(refused, self._api)
        if means.reason is PauseReason.THROTTLED:
            self._line.account.ledger.throttled()
        if means.action is Action.SPLIT:
            self._bad_address(group, means, refused)
        elif means.action is Action.UNVERIFIED:
            await self._unverified(group, means, refused)
        elif means.action is Action.REPAIR and await self._repair(refused):
            self._again(group)
        elif means is meaning.TOO_LARGE and self._api == "v1" and self._draft.may_grow:
            self._api = "v2"
            self._again(group)
        elif means.action is Action.RELOAD and not self._reloaded:
            self._reloaded = True
            await self._line.session.reload()
            self._again(group)
        elif means is meaning.DENIED_V2 and self._draft.api == "v2" and not self._draft.may_grow:
            alone = meaning.DENIED_IDENTITY_V2 if denies_an_identity(refused.text) else meaning.DENIED_V2_ALONE
            self._end(group, self._outcome(alone, str(refused)))
        else:
            self.rejected = self.rejected or means is meaning.REJECTED
            self._end(group, self._outcome(means, str(refused)))

    def _again(self, group: Group) -> None:
        self._blame(self._split.again(group))

    def _bad_address(self, group: Group, means: Meaning, refused: Refused) -> None:
        said = addresses_named(refused.text)
        named = tuple(address for address in group if comparable(address) in said)
        if comparable(self._draft.source) in said:
            self._end(group, self._outcome(replace(means, action=Action.FAIL, scope=Scope.MESSAGE), str(refused)))
        elif named:
            self._settle(named, self._outcome(replace(means, action=Action.FAIL), str(refused)))
            self._again(tuple(address for address in group if address not in named))
        else:
            of_form = means is meaning.BAD_ADDRESS
            self._blame(self._split.refused(group, (means, str(refused)), of_form=of_form))

    def _blame(self, decided: Iterable[Blamed[str, Said]]) -> None:
        for blamed in decided:
            means, text = blamed.why
            ends = meaning.BAD_ADDRESS_WITHIN if blamed.message else replace(means, action=Action.FAIL)
            self._settle(blamed.members, self._outcome(ends, text))

    async def _unverified(self, group: Group, means: Meaning, refused: Refused) -> None:
        named = not_verified(refused.text)
        by_header = headers.value_of(headers.split(opening(self._draft.raw))[0], "Sender") or ""
        senders = {comparable(address) for address in (*self._draft.senders, *headers.addresses([by_header]))}
        if not named & senders:
            refused_here = tuple(address for address in group if comparable(address) in named)
            if refused_here:
                self._settle(refused_here, self._outcome(meaning.SANDBOX, str(refused)))
                self._again(tuple(address for address in group if address not in refused_here))
                return
        if named & senders and await self._reshape(frozenset(), named & senders):
            self._again(group)
            return
        domains = sorted(domain_of(address) for address in named & senders)
        self._sender_domain = domains[0] if domains else ""
        # A header From or Sender of somebody else's domain is this message's fault, not its envelope sender's.
        foreign = bool(domains) and domain_of(self._draft.source) not in domains
        scope = Scope.MESSAGE if foreign else means.scope
        self._end(group, self._outcome(replace(means, action=Action.DEFER, scope=scope), str(refused)))

    async def _repair(self, refused: Refused) -> bool:
        once = repeated_fields(refused.text, headers.split(opening(self._draft.raw))[0])
        return bool(once) and await self._reshape(once, frozenset())

    async def _reshape(self, once: frozenset[str], unverified: frozenset[str]) -> bool:
        """Make the message anew by what was learnt; return whether that made a difference. Done once."""
        if self._repaired or self._draft.reshaped is None:
            return False
        shaped = await self._draft.reshaped(once, unverified)
        if isinstance(shaped, Failed) or (shaped.content, shaped.source) == (self._draft.raw, self._draft.source):
            return False
        self._repaired = True
        self._draft = replace(self._draft, raw=shaped.content, changes=shaped.changes, source=shaped.source)
        return True

    # --- ends ---

    def _outcome(self, means: Meaning, text: str) -> Outcome:
        remedy = self._remedy(means)
        if means.action in (Action.FAIL, Action.REPAIR):
            return Failed(Reply(554, f"5.{means.enhanced}", text), means.scope, remedy, self._trail())
        if means.action is Action.HOLD:
            return Held(Reply(454, f"4.{means.enhanced}", text), "permission", remedy, self._trail())
        return self._deferred(means, text)

    def _deferred(self, means: Meaning, text: str) -> Deferred:
        reply = Reply(454, f"4.{means.enhanced}", text)
        remedy = self._remedy(means)
        if means.scope is Scope.TRANSPORT and any(order.search(own_words(text)) for order in self._draft.orders):
            return Deferred(reply, Scope.MESSAGE, None, remedy, trail=self._trail())
        return Deferred(reply, means.scope, means.reason, remedy, means.retry_after, trail=self._trail(), tolerance=means.tolerance)

    def _remedy(self, means: Meaning) -> str:
        facts = self._facts()
        return meaning.remedy(means, facts | {"sender_domain": self._sender_domain or facts["sender_domain"]})

    def _doubt(self, group: Group, answer: Unreadable | Lost) -> None:
        means = meaning.AMBIGUOUS
        text = f"The answer of SES was lost ({answer.why})"
        self._settle(group, replace(self._deferred(means, text), ambiguous=True))
        self._end((), self._deferred(replace(means, remedy=""), "Not attempted, because SES did not answer for other messages"))

    def _end(self, group: Group, outcome: Outcome) -> None:
        """Settle `group` and all for whom it is not decided: what stopped it stops them."""
        self._settle((*group, *self._split.stop()), outcome)

    def _settle(self, group: Group, outcome: Outcome) -> None:
        self.known.update(dict.fromkeys(group, outcome))

    def _trail(self) -> Trail:
        return Trail(self._tls, self._draft.changes)
