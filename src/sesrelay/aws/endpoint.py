"""Where SES is: by region, FIPS and dual stack as botocore's own rules have it, or where the configuration says.

Source: botocore's endpoint rule sets; Amazon SES developer guide, "Global endpoints" (multi-region).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where calls go and what they are signed for; `region_set`: of a multi-region endpoint, which v2 alone has."""

    url: str
    region: str
    service: str
    ca_bundle: str | None
    v2_url: str
    region_set: str | None = None


def resolve(inner: Any, v1: Any, v2: Any, endpoint_id: str | None, *, own: bool) -> Endpoint:
    """Return the endpoint of two clients of the botocore session `inner`; `own`: the configuration names it.

    Raises: botocore's errors.
    """
    # botocore's clients take the latter where nothing else is said, and their way and ours is the same.
    ca_bundle = inner.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    url, v2_url, region_set = v1.meta.endpoint_url, v2.meta.endpoint_url, None
    if endpoint_id:
        v2_url, region_set = _multi_region(inner, v2, endpoint_id, v2_url if own else None)
    return Endpoint(url, v1.meta.region_name, v1.meta.service_model.signing_name, ca_bundle, v2_url, region_set)


def _multi_region(inner: Any, v2: Any, endpoint_id: str, own: str | None) -> tuple[str, str]:
    from botocore.endpoint_provider import EndpointProvider  # noqa: PLC0415 - wanted by few

    loader = inner.get_component("data_loader")
    rules = EndpointProvider(loader.load_service_model("sesv2", "endpoint-rule-set-1"), loader.load_data("partitions"))
    config = v2.meta.config
    asked: dict[str, Any] = {
        "Region": v2.meta.region_name, "EndpointId": endpoint_id, "UseFIPS": bool(config.use_fips_endpoint),
        "UseDualStack": bool(config.use_dualstack_endpoint),
    }  # fmt: skip
    if own:
        asked["Endpoint"] = own
    found = rules.resolve_endpoint(**asked)
    schemes = found.properties.get("authSchemes") or [{}]
    return found.url, ",".join(schemes[0].get("signingRegionSet") or ["*"])
