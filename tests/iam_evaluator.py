"""Decides a request by IAM policies as AWS does, as far as identity policies, wildcards and string conditions go.

Source: IAM user guide, "Policy evaluation logic", "IAM JSON policy elements": an explicit Deny wins, then an Allow, else it is
denied; actions are compared case aside, resources and StringLike with `*` and `?`; a key that the request lacks matches no
plain condition and every ForAllValues; conditions are all to be met, one of the values of each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Context = Mapping[str, str | Sequence[str]]


def allowed(policies: Iterable[Mapping[str, Any]], action: str, resource: str, context: Context | None = None) -> bool:
    """Tell whether the policies together let `action` be done to `resource`. Raises: ValueError for what is no policy."""
    verdict = False
    for policy in policies:
        if policy.get("Version") != "2012-10-17":
            raise ValueError("only policies of version 2012-10-17 are understood")
        seen: set[str] = set()
        for statement in _many(policy["Statement"]):
            _check(statement, seen)
            if _applies(statement, action, resource, context or {}):
                if statement["Effect"] == "Deny":
                    return False
                verdict = True
    return verdict


def _check(statement: Mapping[str, Any], seen: set[str]) -> None:
    unknown = set(statement) - {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}
    if unknown or statement["Effect"] not in ("Allow", "Deny"):
        raise ValueError(f"no statement of IAM: {statement}")
    sid = statement.get("Sid", "")
    if not re.fullmatch("[A-Za-z0-9]*", sid) or (sid and sid in seen):
        raise ValueError(f"no Sid, or one that stands twice: {sid!r}")
    seen.add(sid)
    for arn in _many(statement.get("Resource", statement.get("NotResource", ()))):
        if arn != "*" and not re.fullmatch(r"arn:[\w*-]+:[\w*-]+:[\w*-]*:(?:\d{12}|\*)?:.+", arn):
            raise ValueError(f"no ARN: {arn!r}")


def _applies(statement: Mapping[str, Any], action: str, resource: str, context: Context) -> bool:
    def one_of(key: str, asked: str, fold: bool) -> bool:
        return any(_like(asked, pattern, fold) for pattern in _many(statement[key]))

    acts = not one_of("NotAction", action, fold=True) if "NotAction" in statement else one_of("Action", action, fold=True)
    concerns = (
        not one_of("NotResource", resource, fold=False) if "NotResource" in statement else one_of("Resource", resource, fold=False)
    )
    conditions = statement.get("Condition", {})
    return acts and concerns and all(_met(operator, keys, context) for operator, keys in conditions.items())


def _met(operator: str, keys: Mapping[str, Any], context: Context) -> bool:
    quantifier, _, name = operator.rpartition(":")
    for key, wanted in keys.items():
        given = next((value for had, value in context.items() if had.lower() == key.lower()), None)
        values = _many(given) if given is not None else []
        if name == "Null":
            if (given is None) != (str(_many(wanted)[0]).lower() == "true"):
                return False
            continue
        if name.endswith("IfExists") and given is None:
            continue
        results = [_compare(name.removesuffix("IfExists"), value, _many(wanted)) for value in values]
        if quantifier == "ForAnyValue":
            if not any(results):
                return False
        elif quantifier == "ForAllValues":
            if not all(results):
                return False
        elif quantifier:
            raise ValueError(f"no quantifier: {quantifier}")
        elif len(values) > 1:
            raise ValueError(f"{key} has several values, which a plain {name} does not judge")
        elif not results or not results[0]:
            return False
    return True


def _compare(name: str, value: str, wanted: Sequence[str]) -> bool:
    tests = {
        "StringEquals": lambda w: value == w,
        "StringEqualsIgnoreCase": lambda w: value.lower() == w.lower(),
        "StringLike": lambda w: _like(value, w, fold=False),
        "ArnLike": lambda w: _like(value, w, fold=False),
    }
    negated = {"StringNotEquals": "StringEquals", "StringNotLike": "StringLike", "ArnNotLike": "ArnLike"}
    if name in negated:
        return not any(tests[negated[name]](one) for one in wanted)
    if name not in tests:
        raise ValueError(f"no operator that is understood: {name}")
    return any(tests[name](one) for one in wanted)


def _like(value: str, pattern: str, fold: bool) -> bool:
    text = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch(text, value, re.IGNORECASE | re.DOTALL if fold else re.DOTALL) is not None


def _many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
