"""Clients for what people do to an account, and what they are told where AWS says no.

Invariant: no error of ours carries a credential.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sesrelay.aws.session import Source, boto_session, client_config
from sesrelay.policy.ses_meaning import blames_the_clock

if TYPE_CHECKING:
    import boto3

SAID_MAX = 300  # characters; what is no AWS may answer with a whole page
_NOT_VALID = {
    "InvalidClientTokenId", "SignatureDoesNotMatch", "InvalidSignatureException", "UnrecognizedClientException", "AuthFailure"
}  # fmt: skip
_EXPIRED = {"ExpiredToken", "ExpiredTokenException"}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
_THROTTLED = {"Throttling", "ThrottlingException", "TooManyRequestsException", "LimitExceededException", "PriorRequestNotComplete"}
_CLOCK = " (this machine's clock is wrong; correct it: timedatectl set-ntp true)"


class AwsError(Exception):
    """AWS refused, or could not be asked. The text is for a person and has the remedy where there is one.

    `code`: AWS's, empty where it said nothing; `date`: of its answer, as HTTP has it; `clock`: it blames this machine's.
    """

    def __init__(self, text: str, code: str = "", *, temporary: bool = False, date: str | None = None, clock: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.temporary = temporary
        self.date = date
        self.clock = clock

    @property
    def denied(self) -> bool:
        """Whether the credentials are good, and may not do it."""
        return self.code in _DENIED

    @property
    def unreached(self) -> bool:
        """Whether nobody answered."""
        return self.temporary and not self.code


class Clients:
    """Makes the clients of one source of credentials when they are first wanted. Blocks. Raises: AwsError"""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._session: boto3.Session | None = None
        self._made: dict[str, Any] = {}

    @property
    def region(self) -> str:
        return self.source.region

    def __getitem__(self, service: str) -> Any:
        """Return the client of a service. `endpoint_url` of the source is SES's own; others go by boto3's configuration."""
        if service not in self._made:
            with told(f"use the credentials ({self.source.credential_id})"):
                self._session = self._session or boto_session(self.source)
                url = self.source.endpoint_url if service in ("ses", "sesv2") else None
                make: Any = self._session.client
                self._made[service] = make(service, endpoint_url=url, config=client_config(self.source))
        return self._made[service]


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Turn botocore's errors into AwsError: "cannot `doing`: …"."""
    from botocore.exceptions import (  # noqa: PLC0415 - importing it costs 100 ms
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
        NoCredentialsError,
        PartialCredentialsError,
    )
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    try:
        yield
    except ClientError as error:
        code, text = error.response.get("Error", {}).get("Code", ""), error.response.get("Error", {}).get("Message", "")
        # Not every service says `Message`; SES v2 says `message`, which botocore leaves aside for an unknown code.
        said = " ".join(str(text or error.response.get("message") or "no reason given").split())[:SAID_MAX]
        clock = blames_the_clock(f"{code}: {said}")
        date = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        text = f"cannot {doing}: {code}: {said}{_CLOCK if clock else _remedy(code)}"
        raise AwsError(text, code, temporary=code in _THROTTLED, date=date, clock=clock) from None
    except (NoCredentialsError, PartialCredentialsError):
        raise AwsError(
            f"cannot {doing}: no AWS credentials found; use --profile NAME, set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or add credentials to the transport"
        ) from None
    except ResponseParserError:
        raise AwsError(f"cannot {doing}: the answer is not from AWS (check for a proxy or a wrong endpoint_url)") from None
    except BotoCoreError as error:
        raise AwsError(f"cannot {doing}: {error}", temporary=isinstance(error, HTTPClientError | ConnectionError)) from None


def _remedy(code: str) -> str:
    if code in _DENIED:
        return (
            " (use an administrator's credentials with --profile NAME; `sesrelay iam-policy --manage` prints the permissions that "
            "`sesrelay domain` needs)"
        )
    if code in _NOT_VALID:
        return " (the keys are not valid; an SMTP password is not a secret access key)"
    if code in _EXPIRED:
        return " (the credentials have expired, or this machine's clock is wrong)"
    return ""
