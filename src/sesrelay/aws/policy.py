"""The IAM policy that lets a relay do what its configuration says, and nothing else.

Source: Service Authorization Reference, "Actions, resources, and condition keys for Amazon SES" (v1 and v2 share the prefix
`ses:`); SES developer guide, "Controlling access to Amazon SES".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sesrelay.aws.region import partition
from sesrelay.mail.address import parents

RAW, RAW_V2 = "ses:SendRawEmail", "ses:SendEmail"
"""v1 and SMTP need the former alone; a raw message by v2 needs both."""
LIST = ("ses:ListEmailIdentities", "ses:ListIdentities", "ses:GetIdentityVerificationAttributes")
"""Who is verified: by v2, and by v1 where that is missing."""
READ = ("ses:GetAccount", "ses:GetSendQuota", "ses:GetSendStatistics")
LOOK = "ses:GetEmailIdentity"
MANAGE = (
    "ses:CreateEmailIdentity",
    "ses:DeleteEmailIdentity",
    LOOK,
    "ses:PutEmailIdentityConfigurationSetAttributes",
    "ses:PutEmailIdentityDkimAttributes",
    "ses:PutEmailIdentityDkimSigningAttributes",
    "ses:PutEmailIdentityMailFromAttributes",
)
ANY = "*"


@dataclass(frozen=True, slots=True)
class Sending:
    """What one transport sends.

    `patterns`: the senders as the configuration writes them, domains in A-labels; None: any sender.
    `configuration_sets`: their names, `*` for any. `arns`: identities of other accounts, sent for by sending authorisation.
    `lists`: it looks who is verified before it sends.
    """

    region: str
    actions: tuple[str, ...]
    patterns: tuple[str, ...] | None
    configuration_sets: tuple[str, ...] = ()
    arns: tuple[str, ...] = ()
    lists: bool = False


def document(sendings: Iterable[Sending], account_id: str = ANY, *, manage: bool = False) -> dict[str, Any]:
    """Return the policy. `manage`: also create, change and delete the identities that are sent for."""
    grouped: dict[tuple[str, tuple[str, ...], bool], list[Sending]] = {}
    for one in sendings:
        grouped.setdefault((one.region, one.actions, one.patterns is None), []).append(one)
    statements = [_sending(region, actions, group, account_id) for (region, actions, _), group in grouped.items()]
    if manage:
        by_region: dict[str, list[Sending]] = {}
        for (region, _, _), group in grouped.items():
            by_region.setdefault(region, []).extend(group)
        statements += [each for region, group in by_region.items() for each in _managing(region, group, account_id)]
    if manage or any(one.lists for group in grouped.values() for one in group):
        statements.append(_statement("ListIdentities", LIST, [ANY]))
    statements.append(_statement("ReadAccount", READ, [ANY]))
    return {"Version": "2012-10-17", "Statement": _with_own_names(statements)}


def compact(policy: dict[str, Any]) -> str:
    """Return the policy as IAM counts it: without white space."""
    return json.dumps(policy, separators=(",", ":"))


def _sending(region: str, actions: tuple[str, ...], group: Sequence[Sending], account_id: str) -> dict[str, Any]:
    patterns = _patterns(group)
    resources = _identities(region, account_id, patterns, vouching=True) + _sets(region, account_id, group)
    resources += [arn for one in group for arn in one.arns]
    statement = _statement(f"Send{_words(region)}", actions, resources)
    if patterns is not None:
        # The condition is what binds senders; the parents among the resources only say which identity may vouch for them.
        statement["Condition"] = {"StringLike": {"ses:FromAddress": [_from_address(pattern) for pattern in patterns]}}
    return statement


def _managing(region: str, group: Sequence[Sending], account_id: str) -> list[dict[str, Any]]:
    own = _identities(region, account_id, _patterns(group), vouching=False)
    above = [each for each in _identities(region, account_id, _patterns(group), vouching=True) if each not in own]
    statements = [_statement(f"Manage{_words(region)}", MANAGE, own + _sets(region, account_id, group))]
    # Doctor looks there for what vouches for a sub-domain that is not verified itself.
    return statements + ([_statement(f"Look{_words(region)}", [LOOK], above)] if above else [])


def _patterns(group: Sequence[Sending]) -> list[str] | None:
    if any(one.patterns is None for one in group):
        return None
    return list(dict.fromkeys(pattern for one in group for pattern in one.patterns or ()))


def _identities(region: str, account_id: str, patterns: Sequence[str] | None, *, vouching: bool) -> list[str]:
    prefix = f"arn:{partition(region)}:ses:{region}:{account_id}:identity/"
    if patterns is None:
        return [prefix + ANY]
    names: list[str] = []
    for pattern in patterns:
        address, _, domain = pattern.rpartition("@")
        above = domain.removeprefix("*.")
        names += [pattern] if address or pattern.startswith("*.") else []
        names.append(above)
        # SES lets a verified domain vouch for its sub-domains, and then asks for the right to that one.
        names += parents(above) if vouching else []
    return [prefix + name for name in dict.fromkeys(names)]


def _sets(region: str, account_id: str, group: Sequence[Sending]) -> list[str]:
    names = dict.fromkeys(name for one in group for name in one.configuration_sets)
    return [f"arn:{partition(region)}:ses:{region}:{account_id}:configuration-set/{name}" for name in names]


def _from_address(pattern: str) -> str:
    return pattern if "@" in pattern else f"*@{pattern}"


def _statement(name: str, actions: Sequence[str], resources: Sequence[str]) -> dict[str, Any]:
    distinct = list(dict.fromkeys(resources))
    return {"Sid": name, "Effect": "Allow", "Action": list(actions), "Resource": distinct[0] if distinct == [ANY] else distinct}


def _words(region: str) -> str:
    return "Anywhere" if region == ANY else "".join(part.capitalize() for part in region.split("-"))


def _with_own_names(statements: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Number the names that stand twice: a Sid is unique within its policy."""
    seen: dict[str, int] = {}
    for statement in statements:
        name = statement["Sid"]
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            statement["Sid"] = f"{name}{seen[name]}"
    return statements
