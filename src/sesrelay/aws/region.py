"""Regions: the one where the configuration names none (the environment's, else that of the AWS files), and those with SES."""

from __future__ import annotations

import os
from functools import lru_cache


def default_region(profile: str | None) -> str:
    """Return the region that boto3's own chain finds. Raises: ValueError with the remedy where it finds none."""
    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if named and not profile:
        return named
    import boto3  # noqa: PLC0415 - wanted only where the environment says nothing
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        found = boto3.Session(profile_name=profile).region_name
    except BotoCoreError as error:
        raise ValueError(f"the AWS region is unknown: {error}; set region in the transport") from error
    if not found:
        raise ValueError("the AWS region is unknown: set region in the transport, or AWS_REGION")
    return found


@lru_cache
def partition(region: str) -> str:
    """Return the partition of a region, as ARNs name it."""
    import botocore.session  # noqa: PLC0415 - importing it costs 100 ms
    from botocore.exceptions import UnknownRegionError  # noqa: PLC0415

    try:
        return str(botocore.session.Session().get_partition_for_region(region))
    except UnknownRegionError:
        return "aws"  # any region, or one of a form that this botocore has not seen


def smtp_host(region: str) -> str:
    """Return the name of SES's SMTP endpoint in `region`; each of AWS's partitions has a domain of its own."""
    import botocore.session  # noqa: PLC0415 - importing it costs 100 ms

    partitions = botocore.session.Session().get_data("partitions")["partitions"]
    domains = {one["id"]: one["outputs"]["dnsSuffix"] for one in partitions}
    return f"email-smtp.{region}.{domains[partition(region)]}"


def offering_ses() -> list[str]:
    """Return the regions where SES is, by botocore's own list, in all of AWS's partitions."""
    import botocore.session  # noqa: PLC0415 - importing it costs 100 ms

    session = botocore.session.Session()
    partitions = session.get_available_partitions()
    return sorted(region for partition in partitions for region in session.get_available_regions("sesv2", partition))
