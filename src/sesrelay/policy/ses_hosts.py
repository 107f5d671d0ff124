"""The names of SES's SMTP endpoints.

Source: AWS General Reference, "Amazon SES endpoints and quotas" (SMTP endpoints, FIPS and VPC ones too);
botocore's partitions.
"""

from __future__ import annotations

import re

_DOMAINS = (
    "amazonaws.com", "api.aws",  # commercial regions and GovCloud
    "amazonaws.com.cn", "api.amazonwebservices.com.cn",  # China
    "amazonaws.eu", "api.amazonwebservices.eu",  # the European Sovereign Cloud
    "c2s.ic.gov", "api.aws.ic.gov", "sc2s.sgov.gov", "api.aws.scloud",  # ISO, ISO-B
    "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk", "csp.hci.ic.gov", "api.aws.hci.ic.gov",  # ISO-E, ISO-F
)  # fmt: skip
REGION = r"[a-z]{2,4}(?:-[a-z]+)+-[0-9]+"
"""How the names of regions look; which there are, botocore says."""
_HOST = re.compile(
    rf"(?:vpce-[a-z0-9-]+\.)?email-smtp(?:-fips)?[.-](?P<region>{REGION})\.(?:vpce\.)?"
    rf"(?:{'|'.join(map(re.escape, _DOMAINS))})\.?\Z",
    re.I,
)


def is_ses(host: str) -> bool:
    """Tell whether the name is that of an SES SMTP endpoint."""
    return bool(_HOST.match(host))


def region_of(host: str) -> str | None:
    """Return the region of an SES SMTP endpoint."""
    found = _HOST.match(host)
    return found["region"].lower() if found else None
