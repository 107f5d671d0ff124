"""The names of SES's SMTP endpoints.

Source: AWS General Reference, "Amazon SES endpoints and quotas" (SMTP endpoints, FIPS and VPC ones too).
"""

from __future__ import annotations

import re

_HOST = re.compile(
    r"(?:vpce-[a-z0-9-]+\.)?email-smtp(?:-fips)?[.-](?P<region>[a-z]{2,4}(?:-[a-z]+)+-\d+)\.(?:vpce\.)?(?:amazonaws\.com(?:\.cn)?|api\.aws)\.?\Z",
    re.I,
)


def is_ses(host: str) -> bool:
    """Tell whether the name is that of an SES SMTP endpoint."""
    return bool(_HOST.match(host))


def region_of(host: str) -> str | None:
    """Return the region of an SES SMTP endpoint."""
    found = _HOST.match(host)
    return found["region"].lower() if found else None
