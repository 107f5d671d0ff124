"""From the octets of a YAML file to PyYAML's nodes, or to the one line that says why there are none.

Invariant: no message repeats text of the file, where a secret might stand.
Invariant: nesting is limited, so that no file exhausts the stack.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.reader import Reader
from yaml.resolver import Resolver

from sesrelay.config.problem import Place, Problem

SIZE_MAX = 8 * 1024 * 1024  # octets of one file
DEPTH_MAX = 32  # the schema needs seven
TAG = "tag:yaml.org,2002:"
_UNQUOTED_IPV6 = re.compile(r":\s+(\[[0-9A-Fa-f.]{0,4}:[0-9A-Fa-f:.]{0,45}\]:\d)")


class UnreadableError(Exception):
    """A file of which not even the structure can be used."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def compose(data: bytes, file: str) -> yaml.MappingNode | None:
    """Return the mapping that the file consists of, or None where it is empty.

    Raises: UnreadableError
    """
    text = _decode(data, file)
    try:
        root = _loader(text).get_single_node()
    except _TooDeepError as error:
        raise _unreadable(place_of(file, error.mark), f"nested more than {DEPTH_MAX} levels deep") from None
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, text, file) from None
    except yaml.YAMLError:
        raise _unreadable(Place(file, 1, 1), "not YAML") from None
    if root is None or (isinstance(root, yaml.ScalarNode) and root.tag == TAG + "null"):
        return None
    if not isinstance(root, yaml.MappingNode):
        what = "must be a mapping (`key: value` lines; {} for all defaults)"
        raise _unreadable(place_of(file, root.start_mark), what)
    return root


def place_of(file: str, mark: yaml.Mark | None) -> Place:
    return Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 1, 1)


def _unreadable(place: Place, what: str, key: str = "yaml") -> UnreadableError:
    return UnreadableError(Problem(place, key, what))


class _TooDeepError(Exception):
    def __init__(self, mark: yaml.Mark) -> None:
        super().__init__()
        self.mark = mark


class _Composer(Composer):
    """PyYAML's composer with a limit on nesting, so that no file can exhaust the stack."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise _TooDeepError(self.peek_event().start_mark)  # type: ignore[attr-defined]  # from the parser mixed in
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _loader(text: str) -> Any:
    """Return a composer over libyaml where PyYAML was built with it, over its own parser elsewhere."""
    if yaml.__with_libyaml__:
        from yaml.cyaml import CParser  # type: ignore[attr-defined]  # noqa: PLC0415  # absent in builds without libyaml

        class Fast(_Composer, CParser, Resolver):
            def __init__(self) -> None:
                CParser.__init__(self, text)
                Composer.__init__(self)
                Resolver.__init__(self)

        return Fast()

    class Plain(_Composer, yaml.SafeLoader):
        def __init__(self) -> None:
            yaml.SafeLoader.__init__(self, text)

    return Plain()


def _decode(data: bytes, file: str) -> str:
    if len(data) > SIZE_MAX:
        raise _unreadable(Place(file, 1, 1), f"larger than {SIZE_MAX // 1024**2} MiB", "file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        raise _unreadable(_after(file, before), "not UTF-8 (save the file as UTF-8)") from None
    bad = Reader.NON_PRINTABLE.search(text)
    if bad:
        what = f"the control character U+{ord(bad.group()):04X} cannot stand in YAML"
        raise _unreadable(_after(file, text[: bad.start()]), what)
    return text


def _after(file: str, before: str) -> Place:
    return Place(file, before.count("\n") + 1, len(before) - before.rfind("\n"))


def _syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> UnreadableError:
    """Turn a syntax error into one line. PyYAML's own text may hold part of a value, as in an alias's name: not repeated."""
    place = place_of(file, error.problem_mark or error.context_mark)
    lines = text.splitlines()
    around = "\n".join(lines[: place.line])
    bracket = next(
        (match for match in _UNQUOTED_IPV6.finditer(around) if around.count("\n", 0, match.end()) >= place.line - 2), None
    )
    what = error.problem or "not YAML"
    if "alias" in what:
        what = "`*` starts an alias, but no anchor has this name (put text that starts with * in quotes)"
    elif "anchor" in what:
        what = "`&` starts an anchor, but this one is defined twice (put text that starts with & in quotes)"
    elif "tag" in what:
        what = "`!` starts a tag, but tags are not supported here (put text that starts with ! in quotes)"
    elif "document" in what and "another" in what:
        what = "a second document begins here (at most one `---` is allowed)"
    elif bracket:
        place = _after(file, around[: bracket.start(1)])
        what = '`[` starts a list (put an IPv6 address in quotes, as "[::1]:25")'
    elif "\t" in (lines[place.line - 1] if place.line <= len(lines) else "")[: place.column]:
        what = "YAML does not allow tabs for indentation (use spaces)"
    elif "mapping values are not allowed" in what:
        what = "`: ` is not allowed here (correct the indentation, or put text that contains `: ` in quotes)"
    elif "cannot start any token" in what:
        what = "no value starts with this character (put the text in quotes)"
    else:
        what = f"not YAML: {what} (look for a missing quote, bracket or wrong indent at or above this line)"
    return _unreadable(place, what)
