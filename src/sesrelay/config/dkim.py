"""`dkim` of a transport: by sender domain the keys that sign its mail; and whether their files can serve.

Invariant: what is accepted here can sign; the same files are read again when the transport is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from sesrelay.config.document import Document
from sesrelay.config.part import Part
from sesrelay.config.problem import KeyPath
from sesrelay.config.values import Domain, FilePath

_SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\Z")


def parse_selector(value: str) -> str:
    if not _SELECTOR.match(value):
        raise ValueError("must be a selector: letters, digits and dashes, as in s1 (the record is SELECTOR._domainkey.DOMAIN)")
    return value.lower()


class DkimEntry(Part):
    """One key of a domain."""

    selector: Annotated[str, AfterValidator(parse_selector)] = Field(
        description="The selector. The record with the public key is `SELECTOR._domainkey.DOMAIN`."
    )
    key_file: FilePath = Field(description="The private key (PEM; RSA or Ed25519), as `sesrelay dkim generate` writes it.")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def _distinct(value: tuple[DkimEntry, ...]) -> tuple[DkimEntry, ...]:
    selectors = [entry.selector for entry in value]
    if len(set(selectors)) < len(selectors):
        raise ValueError("a selector is used twice (each key needs its own)")
    return value


class _OneOrMore:
    """In the schema, one entry may stand for a list of one."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        listed = handler(core)
        return {"anyOf": [listed["items"], listed]}


DkimEntries = Annotated[
    tuple[DkimEntry, ...], Field(min_length=1), AfterValidator(_distinct), BeforeValidator(_listed), _OneOrMore()
]
Dkim = dict[Domain, DkimEntries]


def key_paths(document: Document) -> Iterator[KeyPath]:
    """Return where a `key_file` stands, in either form of an entry."""
    transports = document.get(("transports",))
    for name in list(transports) if isinstance(transports, dict) else []:
        domains = document.get(("transports", name, "dkim"))
        for domain in list(domains) if isinstance(domains, dict) else []:
            path: KeyPath = ("transports", name, "dkim", domain)
            entries = document.get(path)
            members = [(*path, number) for number in range(len(entries))] if isinstance(entries, list) else [path]
            yield from ((*member, "key_file") for member in members if isinstance(document.get((*member, "key_file")), str))


def check_keys(document: Document, failed: set[str], environ: Mapping[str, str]) -> None:
    """Report keys that cannot sign."""
    if "transports" in failed:
        return
    paths = list(key_paths(document))
    if not paths:
        return
    from sesrelay.config.dkim_keys import read_key  # noqa: PLC0415  # not loaded where nothing is signed

    for path in paths:
        try:
            read_key(Path(document.get(path)), environ)
        except ValueError as error:
            document.report(path, str(error))
