"""What pydantic found wrong, in the words of the file: the key's path, its place, what is wrong and what was meant."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sesrelay.config.document import Document, Trapped, is_secret
from sesrelay.config.model import Config
from sesrelay.config.problem import KeyPath, meant, nearest, one_of, shown
from sesrelay.config.transports import BY_TYPE
from sesrelay.config.values import Crossed, NotSupported

_MEANT = {
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "string_too_short": "empty (leave the key out for the default)",
    "missing": "missing",
}

_STAND_INS: dict[KeyPath, dict[str, str]] = {
    ("listeners",): {"listen": "127.0.0.1:0"},
    ("access", "users"): {"name": "somebody", "password_hash": "-"},
}
"""Lists whose members are looked at one by one, with something valid for the place of one that is not."""

_BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


def explain(error: ValidationError, document: Document) -> None:
    """Add pydantic's errors to the document's problems; a value that is already blamed is not blamed again."""
    blamed = {(problem.place, problem.key) for problem in document.problems}
    fresh = Document(document.file, document.root, document.spots)
    for detail in error.errors(include_url=False):
        # Pydantic also calls a list too short whose every member is wrong.
        if detail["type"] != "too_short" or not document.get(_path(detail["loc"], document)):
            _explain_one(detail, fresh)
    document.problems.extend(problem for problem in fresh.problems if (problem.place, problem.key) not in blamed)


def part(path: KeyPath, index: int) -> str:
    """Return what `without_failed` calls a member of a list."""
    return f"{'.'.join(map(str, path))}[{index}]"


def without_failed(root: Mapping[str, Any], error: ValidationError) -> tuple[dict[str, Any], set[str]]:
    """Return what has no error, and the names of what has: top-level keys, and parts.

    A member of a list whose others are to be looked at all the same has something valid in its place, and is called a part.
    """
    valid, failed = deepcopy(dict(root)), set[str]()
    for detail in error.errors(include_url=False):
        where = detail["loc"]
        for path, stand_in in _STAND_INS.items():
            index = where[len(path)] if where[: len(path)] == path and len(where) > len(path) else None
            if isinstance(index, int):
                failed.add(part(path, index))
                members: Any = valid
                for key in path:
                    members = members[key]
                members[index] = stand_in
                break
        else:
            failed.update(map(str, where[:1]))
    return {key: value for key, value in valid.items() if key not in failed}, failed


def _explain_one(detail: ErrorDetails, document: Document) -> None:
    path = _path(detail["loc"], document)
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Crossed):
        for key, message in cause.problems:
            blamed = (*path, key) if key else path
            document.report(blamed, message, at_key=document.get(blamed) is None)
        return
    document.report(path, _message(detail, path, document), at_key=detail["type"] in ("extra_forbidden", "missing"))


def _path(loc: tuple[int | str, ...], document: Document) -> KeyPath:
    """Drop from pydantic's location what is not in the file: the tags of unions."""
    steps = [step for index, step in enumerate(loc) if not (index == 2 and loc[0] == "transports" and step in BY_TYPE)]
    path: KeyPath = ()
    for index, step in enumerate(steps):
        if isinstance(step, str) and step.startswith("<"):
            continue
        here = document.get(path)
        # A single name may stand for a list of one: then the file has no index.
        if isinstance(step, int) and not isinstance(here, list):
            continue
        # pydantic says [key] after the name of a mapping's key that is wrong itself.
        if step == "[key]" and index == len(steps) - 1:
            continue
        path = (*path, step)
    return path


def _message(detail: ErrorDetails, path: KeyPath, document: Document) -> str:
    kind, value = detail["type"], document.get(path)
    context: Mapping[str, Any] = detail.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, NotSupported):
        return str(cause)
    if kind == "extra_forbidden":
        return _unknown(path, document)
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        return _transport_type(value)
    if isinstance(value, Trapped):
        if is_secret(path):
            return "YAML reads this as a number (put it in quotes)"
        return f"YAML reads an unquoted {value.text} as {value.reading} (put it in quotes, or write a plain decimal number)"
    wanted = _wanted(detail, value, path)
    spot = document.spots.get(path)
    if isinstance(value, bool) and kind not in ("bool_type", "bool_parsing") and spot is not None and spot.text is not None:
        text = "this" if is_secret(path) else f"an unquoted {spot.text}"
        return f"YAML reads {text} as {str(value).lower()} ({wanted}; put text in quotes)"
    if isinstance(value, int | float) and not isinstance(value, bool) and kind == "string_type":
        return "YAML reads this as a number (for text, put it in quotes)"
    return wanted


def _wanted(detail: ErrorDetails, value: object, path: KeyPath) -> str:
    kind = detail["type"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, ValueError):
        return str(cause)
    if kind in ("literal_error", "enum"):
        names = [name.strip("'") for name in str(context["expected"]).replace(" or ", ", ").split(", ")]
        near = nearest(value, names) if isinstance(value, str) else None
        hint = f" (did you mean {near}?)" if near else ""
        said = f", not {shown(value)}" if isinstance(value, str) and not is_secret(path) else ""
        return f"must be {one_of(names)}{said}{hint}"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        name, words = next((name, words) for name, words in _BOUNDS.items() if name in context)
        return f"must be {words} {context[name]}"
    if kind == "too_short":
        return "an empty list (leave the key out for the default)"
    if kind == "string_pattern_mismatch":
        return "must be an ARN, as in arn:aws:iam::123456789012:role/relay"
    return _MEANT.get(kind, detail["msg"])


def _unknown(path: KeyPath, document: Document) -> str:
    known = list(keys_at(path[:-1], document))
    return f"unknown key {meant(str(path[-1]), known)}"


def _transport_type(value: object) -> str:
    types_ = one_of(list(BY_TYPE))
    given = value.get("type") if isinstance(value, dict) else None
    if not isinstance(given, str):
        return f"its type is missing (type: {types_})"
    near = nearest(given, BY_TYPE)
    return f"its type must be {types_}, not {shown(given)}" + (f" (did you mean {near}?)" if near else "")


def keys_at(path: KeyPath, document: Document) -> Iterator[str]:
    """Return the keys that the schema has at `path`, or none where names are free."""
    models: list[type[BaseModel]] = [Config]
    free = False
    value = document.get(path)
    for step in path:
        if isinstance(step, int) or free:
            free = False
        else:
            annotations = [model.model_fields[step].annotation for model in models if step in model.model_fields]
            models = list(dict.fromkeys(model for annotation in annotations for model in models_in(annotation)))
            free = any(get_origin(annotation) is dict for annotation in annotations)
    if len(models) > 1 and isinstance(value, dict):
        models = [BY_TYPE[value["type"]]] if value.get("type") in BY_TYPE else []
    if not free and len(models) == 1:
        yield from models[0].model_fields


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Return the models that a field's type is made of."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)
