"""The YAML files and nothing else: read, checked, explained line by line, and turned into frozen values.

`load` is the way in, `ConfigError` the way out where something is wrong, `Config` the value.

Invariant: a secret never stands in a problem, a `repr` or an exception.
Invariant: nothing here starts, connects or writes anything; what cannot be used is a `ConfigError`.
"""

from sesrelay.config.loading import Loaded, load
from sesrelay.config.model import Config
from sesrelay.config.problem import ConfigError, Problem

__all__ = ["Config", "ConfigError", "Loaded", "Problem", "load"]
