"""An SES account and the domains it sends for, as AWS itself tells of them.

Source: Amazon SES API v2 GetAccount and GetEmailIdentity; STS GetCallerIdentity.
"""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import parsedate_to_datetime

from sesrelay.aws import identities
from sesrelay.aws.clients import AwsError, Clients, told
from sesrelay.aws.identities import Identity
from sesrelay.aws.region import offering_ses
from sesrelay.aws.standing import Standing, standing
from sesrelay.mail.address import parents
from sesrelay.setup.checkup.check import Check, fail, ok, warn

SKEW_TOLERATED = 60.0  # seconds; AWS refuses requests that are more than five minutes off
SKEW_REFUSED = 300.0
NEARLY = 0.9  # of the quota
CORRECT = "correct the transport's credentials, or sesrelay credentials rotate"
SET_CLOCK = "timedatectl set-ntp true"
REACH = "check DNS, firewall, proxy (HTTPS_PROXY) and the CA certificates (AWS_CA_BUNDLE)"


def account(clients: Clients, transport: str, now: float) -> Iterator[Check]:
    """Look at the account behind a transport. Blocks. Units: `now` Unix seconds."""
    yield region(clients.region, transport)
    yield from _credentials(clients, transport, now)
    try:
        found = standing(clients, now)
    except AwsError as error:
        yield fail("account", transport, str(error), _remedy(error, "allow the actions that `sesrelay iam-policy` prints"))
        return
    yield from _standing(found, transport)


def region(name: str, transport: str) -> Check:
    """Tell whether SES is offered there."""
    known = offering_ses()
    if name in known:
        return ok("region", transport, f"SES is offered in {name}")
    return fail("region", transport, f"SES is not offered in {name}", f"one of: {', '.join(known)}")


def simulator(transport: str, sender: str, *, by_v2: bool) -> Check:
    """Offer what doctor itself does not do, as it sends nothing."""
    # In 2022 v2 was once seen to go by the header instead of the recipients that the call names.
    shows = "; with v2 this also shows that SES sends to the recipients named in the call" if by_v2 else ""
    text = (
        f"nothing was sent: `sesrelay send --from {sender} --simulator success` tests the whole path "
        f"and does not affect your reputation{shows}"
    )
    return ok("simulator", transport, text)


def identity(clients: Clients, domain: str) -> tuple[Check, Identity | None]:
    """Look at one sender domain. Blocks."""
    try:
        # A verified domain covers those below it.
        found = next((one for name in (domain, *parents(domain)) if (one := identities.read(clients, name)) is not None), None)
    except AwsError as error:
        return warn(
            "identity", domain, str(error), _remedy(error, "ses:GetEmailIdentity must be allowed: sesrelay iam-policy --manage")
        ), None
    if found is None:
        return fail(
            "identity", domain, f"no verified domain of the account in {clients.region}", f"sesrelay domain add {domain}"
        ), None
    if not found.verified:
        return fail("identity", domain, f"not verified (DKIM {found.dkim_status})", f"sesrelay domain dns {found.domain}"), found
    covered = "" if found.domain == domain else f", by {found.domain}"
    return ok("identity", domain, f"verified in {clients.region}{covered}"), found


def _credentials(clients: Clients, transport: str, now: float) -> Iterator[Check]:
    try:
        with told("ask whose credentials these are"):
            answer = clients["sts"].get_caller_identity()
    except AwsError as error:
        if error.temporary or not error.code:
            yield warn("credentials", transport, str(error), "no answer from STS: rely on what SES answers, or try again")
        else:
            yield fail("credentials", transport, str(error), _remedy(error, CORRECT))
        date = error.date
    else:
        yield ok("credentials", transport, f"valid, for {answer.get('Arn', 'somebody')}")
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if date:
        yield _skew(parsedate_to_datetime(date).timestamp() - now)


def _remedy(error: AwsError, denied: str) -> str:
    """Return what to do about what AWS says, or did not say; `denied`: where its policy forbids it."""
    if error.clock:
        return SET_CLOCK
    if error.temporary:
        return REACH if error.unreached else "try again"
    return denied if error.denied else CORRECT


def _skew(seconds: float) -> Check:
    off = f"{abs(seconds):.0f} seconds {'behind' if seconds > 0 else 'ahead of'} AWS"
    remedy = SET_CLOCK
    if abs(seconds) >= SKEW_REFUSED:
        return fail("clock", "this machine", f"{off}: AWS refuses every request", remedy)
    if abs(seconds) >= SKEW_TOLERATED:
        return warn("clock", "this machine", f"{off}; from 300 seconds AWS refuses every request", remedy)
    return ok("clock", "this machine", "agrees with AWS")


def _standing(found: Standing, transport: str) -> Iterator[Check]:
    if found.sandbox:
        yield warn("sandbox", transport, "mail goes to verified recipients only, 200 a day", "sesrelay account request-production")
    elif found.sandbox is not None:
        yield ok("sandbox", transport, "the account has production access")
    if found.sending_enabled is False:
        yield fail("sending", transport, "AWS has paused sending for the account", "answer AWS's case in the console")
    elif found.enforcement not in (None, "healthy"):
        yield fail("sending", transport, f"AWS's enforcement status is {found.enforcement}", "answer AWS's case in the console")
    elif found.sending_enabled:
        yield ok("sending", transport, "the account may send")
    yield _quota(found, transport)
    sent = found.last_14d
    if sent is not None and sent.attempts:
        for name, rate in zip(("bounces", "complaints"), sent.rates, strict=True):
            said = f"{rate.value:.2%} of {sent.attempts:,} in 14 days; AWS reviews an account at {rate.limit:.1%}"
            yield fail(name, transport, said, rate.remedy) if rate.bad else ok(name, transport, said)
    if found.suppression is not None and not found.suppression:
        yield warn(
            "suppression", transport, "the account's suppression list is off for bounces and complaints",
            "aws sesv2 put-account-suppression-attributes --suppressed-reasons BOUNCE COMPLAINT",
        )  # fmt: skip


def _quota(found: Standing, transport: str) -> Check:
    if found.max_24h_send is None:
        return ok("quota", transport, f"no daily limit, {found.max_send_rate:g} a second")
    said = f"{found.sent_last_24h:,.0f} of {found.max_24h_send:,.0f} in 24 hours, {found.max_send_rate:g} a second"
    remedy = "ask AWS for more: Service Quotas, Amazon SES, Sending quota"
    if found.sent_last_24h >= found.max_24h_send:
        return fail("quota", transport, f"used up: {said}", remedy)
    if found.sent_last_24h >= NEARLY * found.max_24h_send:
        return warn("quota", transport, said, remedy)
    return ok("quota", transport, said)
