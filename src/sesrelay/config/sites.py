"""Site files: `sites.d/*.yaml` beside the main file, appended to it.

Invariant: what a site adds can hide nothing: a transport, user or pattern that stands twice is an error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sesrelay.config.document import Document, Spot
from sesrelay.config.model import SITE_KEYS, Config
from sesrelay.config.problem import KeyPath, Problem, dotted, meant
from sesrelay.config.values import LOOPBACK

FOLDER = "sites.d"


def site_files(main: Path, proposed: Mapping[Path, bytes | None] | None = None) -> list[Path]:
    """Return the site files beside `main` in byte order; none where the folder is missing.

    `proposed`: files of that folder that are taken for there (or, with None, for not there).

    Raises: OSError, where there is a folder that cannot be read
    """
    folder = main.parent / FOLDER
    try:
        names = os.listdir(folder)  # noqa: PTH208  # byte order wants the names themselves
    except (FileNotFoundError, NotADirectoryError):
        names = []
    changed = {file.name: content for file, content in (proposed or {}).items() if file.parent == folder}
    names = [name for name in {*names, *changed} if changed.get(name, b"") is not None]
    chosen = [name for name in names if name.endswith(".yaml") and not name.startswith(".")]
    return [folder / name for name in sorted(chosen, key=os.fsencode)]


def merge(main: Document, site: Document) -> None:
    """Append what a site file holds to the main document, with its line numbers and problems."""
    main.problems.extend(site.problems)
    for key, value in site.root.items():
        place = site.spots[(key,)].key
        if key not in SITE_KEYS:
            what = f"allowed in the main file only (a site file may hold {', '.join(SITE_KEYS)})"
            known = key in Config.model_fields
            main.problems.append(Problem(place, key, what if known else f"unknown key {meant(key, SITE_KEYS)}"))
        elif value is not None:
            _merge_value(main, site, (key,), value)


def _merge_value(main: Document, site: Document, path: KeyPath, value: Any) -> None:
    """Append a list, or add the keys of a mapping; `access` is added key by key."""
    senders = path[:2] == ("access", "local_users") and len(path) == 3
    wanted: type[Any] = list if senders or path[-1] in ("routes", "expect", "feedback", "networks", "users") else dict
    if not isinstance(value, wanted):
        what = f"must be a {'list' if wanted is list else 'mapping'}"
        main.problems.append(Problem(site.spots[path].key, dotted(path), what))
        return
    target = _target(main, site, path, wanted)
    if target is None:
        return
    if isinstance(target, list):
        _adopt(main, site, path, {index: index + len(target) for index in range(len(value))})
        target.extend(value)
        return
    fresh: dict[str | int, str | int] = {}
    for key, item in value.items():
        here = (*path, key)
        if path == ("access",) and key in ("networks", "users", "local_users"):
            if item is not None:
                _merge_value(main, site, here, item)
        elif path == ("access", "local_users") and key in target:
            # One local user may have several sites.
            _listed(main, here)
            _listed(site, here)
            _merge_value(main, site, here, site.get(here))
        elif key in target:
            place = site.spots[here].key
            main.problems.append(Problem(place, dotted(here), f"is defined twice (first at {main.key_place(here)})"))
        else:
            fresh[key] = key
            target[key] = item
    _adopt(main, site, path, fresh)


def _listed(document: Document, path: KeyPath) -> None:
    """Make a list of one out of a single name."""
    value, parent = document.get(path), document.get(path[:-1])
    if isinstance(value, str):
        parent[path[-1]] = [value]
        document.spots[(*path, 0)] = document.spots[path]


def _target(main: Document, site: Document, path: KeyPath, wanted: type) -> Any:
    """Return the list or mapping to add to, made where the main file has none; None where it has something else."""
    parent = main.get(path[:-1])
    if not isinstance(parent, dict):
        return None
    if parent.get(path[-1]) is None:
        # A site's networks are added to the default, they do not take loopback away.
        parent[path[-1]] = [str(network) for network in LOOPBACK] if path[-1] == "networks" else wanted()
        main.spots[path] = Spot(site.spots[path].key, site.spots[path].value)
    found = parent[path[-1]]
    return found if isinstance(found, wanted) else None


def _adopt(main: Document, site: Document, path: KeyPath, steps: Mapping[str | int, str | int]) -> None:
    """Take over where the members of `path` stand; `steps` maps their index or key to the one in the main document."""
    depth = len(path)
    for spot_path, spot in site.spots.items():
        if len(spot_path) > depth and spot_path[:depth] == path and spot_path[depth] in steps:
            main.spots[(*path, steps[spot_path[depth]], *spot_path[depth + 1 :])] = spot
