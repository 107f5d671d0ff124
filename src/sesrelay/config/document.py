"""One YAML file as plain values, with the line and column of every key and value.

Invariant: nothing is constructed but text, numbers, booleans, null, lists and mappings; tags are refused.
Invariant: memory and time are bounded by the file's size: what aliases expand to is counted.
Invariant: what YAML 1.1 reads otherwise than it is written (`0755`, `1:30`, `0x1F`) becomes `Trapped`, which no key
accepts, so that it is reported and never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from sesrelay.config.compose import DEPTH_MAX, TAG, UnreadableError, compose, place_of
from sesrelay.config.problem import KeyPath, Place, Problem, dotted

ALIASED_MAX = 10_000  # nodes that may be reached through aliases, in all

_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,30})\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?\Z")
_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SECRET_KEY = re.compile(r"pass|secret|token|credential|hash|key\Z|url\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Trapped:
    """A plain scalar that YAML 1.1 takes for another number than its text; `text` may be a secret."""

    text: str = field(repr=False)
    reading: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a key and its value stand. `text`: an unquoted scalar as written; `variable`: all of it is one `${NAME}`."""

    key: Place
    value: Place
    text: str | None = field(default=None, repr=False)
    variable: bool = False


@dataclass(slots=True)
class Document:
    """The values of one or more files under one root, and what was wrong with them so far."""

    file: str
    root: dict[str, Any] = field(default_factory=dict)
    spots: dict[KeyPath, Spot] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: bool = False  # not even the structure could be read

    def key_place(self, path: KeyPath) -> Place:
        """Return where the key stands, or the nearest one around it."""
        while path and path not in self.spots:
            path = path[:-1]
        return self.spots[path].key if path else Place(self.file, 1, 1)

    def value_place(self, path: KeyPath) -> Place:
        """Return where the value stands: for a list or mapping its key, which is what people look for."""
        spot = self.spots.get(path)
        if spot is None or isinstance(self.get(path), dict | list):
            return self.key_place(path)
        return spot.value

    def get(self, path: KeyPath) -> Any:
        """Return the value at `path`, or None."""
        value: Any = self.root
        for step in path:
            inside = step in value if isinstance(value, dict) else isinstance(value, list) and step in range(len(value))
            if not inside:
                return None
            value = value[step]
        return value

    def texts(self, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
        """Return the text at `path`, or each one of the list there, with where it stands."""
        value = self.get(path)
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, list):
            yield from (((*path, index), item) for index, item in enumerate(value) if isinstance(item, str))

    def report(self, path: KeyPath, message: str, *, at_key: bool = False) -> None:
        """Record a problem with the value at `path`, or with its key."""
        place = self.key_place(path) if at_key else self.value_place(path)
        self.problems.append(Problem(place, dotted(path) or "yaml", message))


def is_secret(path: KeyPath) -> bool:
    """Tell whether the value at `path` may be a secret that no message repeats; errs on the safe side."""
    return any(isinstance(step, str) and _SECRET_KEY.search(step) for step in path)


def parse(data: bytes, file: str, environ: Mapping[str, str]) -> Document:
    """Read one file's content. What is wrong with it is in `problems`; the root holds what could be read."""
    document = Document(file)
    try:
        root = compose(data, file)
        if root is not None:
            document.root = _Conversion(document, environ).mapping(root, (), 0)
    except UnreadableError as error:
        return Document(file, problems=[error.problem], broken=True)
    return document


class _Conversion:
    """From nodes to values. A node reached again through an alias is converted again, and counted."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self.document = document
        self.environ = environ
        self.seen: set[int] = set()
        self.aliased = 0

    def mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == TAG + "merge":
                merged.append(value_node)
                continue
            key = self._key(key_node, path)
            if key is None:
                continue
            here = (*path, key)
            place = place_of(self.document.file, key_node.start_mark)
            if key in result:
                first = self.document.spots[here].key
                self.document.problems.append(Problem(place, dotted(here), f"is defined twice (first at {first})"))
                continue
            result[key] = self._value(value_node, here, place, depth)
        for value_node in merged:
            self._merge(value_node, result, path, depth)
        return result

    def _merge(self, node: yaml.Node, into: dict[str, Any], path: KeyPath, depth: int) -> None:
        """Take over what `<<` names; keys that stand in the mapping itself win."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                self._problem(part, (*path, "<<"), "must be a mapping (as in `<<: *name`)")
                continue
            self._count(part, depth)
            inherited = [value_node for key_node, value_node in part.value if key_node.tag == TAG + "merge"]
            for key_node, value_node in part.value:
                key = None if key_node.tag == TAG + "merge" else self._key(key_node, path)
                if key is not None and key not in into:
                    place = place_of(self.document.file, key_node.start_mark)
                    into[key] = self._value(value_node, (*path, key), place, depth)
            for value_node in inherited:
                self._merge(value_node, into, path, depth + 1)

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        # Names are taken as written, so that a transport or alias may be called `on`.
        if isinstance(node, yaml.ScalarNode) and node.value and not _SURROGATE.search(node.value):
            return str(node.value)
        self._problem(node, path, "a key must be text")
        return None

    def _value(self, node: yaml.Node, path: KeyPath, key: Place, depth: int) -> Any:
        place = place_of(self.document.file, node.start_mark)
        self._count(node, depth)
        plain = isinstance(node, yaml.ScalarNode) and not node.style  # libyaml says '' for None
        self.document.spots[path] = Spot(key, place, node.value if plain else None)
        standard = {"map", "seq", "str", "int", "float", "bool", "null", "timestamp", "value"}
        if not node.tag.startswith(TAG) or node.tag.removeprefix(TAG) not in standard:
            self._problem(node, path, "tags are not supported here (put text that starts with ! in quotes)")
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path, depth + 1)
        if isinstance(node, yaml.SequenceNode):
            return [
                self._value(item, (*path, index), place_of(self.document.file, item.start_mark), depth + 1)
                for index, item in enumerate(node.value)
            ]
        return self._scalar(node, path, key, place)

    def _scalar(self, node: yaml.Node, path: KeyPath, key: Place, place: Place) -> Any:
        text = str(node.value)
        if "${" in text:
            self.document.spots[path] = Spot(key, place, None, bool(_VARIABLE.fullmatch(text)))
            text = self._substituted(text, path)
        if _SURROGATE.search(text):
            self._problem(node, path, "not valid text (half of a character, or a variable that is not UTF-8)")
            return ""
        if self.document.spots[path].text is None:
            return text
        kind = node.tag.removeprefix(TAG)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in ("yes", "true", "on")
        if kind == "int":
            return int(text) if _DECIMAL.match(text) else Trapped(text, _reading(text))
        if kind == "float":
            return float(text) if _FLOAT.match(text) else Trapped(text, _reading(text))
        return text

    def _substituted(self, text: str, path: KeyPath) -> str:
        """Put environment variables in; `$${` stands for `${` itself."""
        problems: list[str] = []

        def replace(match: re.Match[str]) -> str:
            if match.group(1) is None:
                return "${"
            if not (match.group(2) and _NAME.match(match.group(1))):
                problems.append("`${` begins a variable's name, which must end with `}` (write $${ for the text itself)")
            elif match.group(1) in self.environ:
                return self.environ[match.group(1)]
            else:
                # Part of a password may look like a variable.
                name = "a variable" if is_secret(path) and match.group() != text else f"${{{match.group(1)}}}"
                problems.append(f"{name} is not set in the environment")
            return ""

        result = _VARIABLE.sub(replace, text)
        for problem in dict.fromkeys(problems):
            self.document.problems.append(Problem(self.document.spots[path].value, dotted(path), problem))
        return result

    def _count(self, node: yaml.Node, depth: int) -> None:
        if id(node) in self.seen:
            self.aliased += 1 + (len(node.value) // 64 if isinstance(node, yaml.ScalarNode) else len(node.value))
        self.seen.add(id(node))
        if self.aliased > ALIASED_MAX or depth > DEPTH_MAX:
            what = "aliases expand to far too much data, or to themselves"
            raise UnreadableError(Problem(place_of(self.document.file, node.start_mark), "yaml", what))

    def _problem(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        self.document.problems.append(Problem(place_of(self.document.file, node.start_mark), dotted(path) or "yaml", message))


def _reading(text: str) -> str:
    """Say what YAML 1.1 makes of a number that is not written in plain decimals."""
    try:
        return _number(text.lstrip("+-").replace("_", ""))
    except ValueError:  # `!!int abc`, or more digits than Python prints
        return "a number"


def _number(digits: str) -> str:
    if ":" in digits:
        value = 0.0
        for part in digits.split(":"):
            value = value * 60 + float(part)
        return f"the number {value:.10g} (base 60)"
    if digits.lower().startswith("0x"):
        return f"the number {int(digits, 16)} (hexadecimal)"
    if digits.lower().startswith("0b"):
        return f"the number {int(digits, 2)} (binary)"
    if digits.startswith("0") and digits.isdigit():
        return f"the number {int(digits, 8)} (octal)"
    return "a number"
