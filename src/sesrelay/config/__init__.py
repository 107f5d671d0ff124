"""The YAML files and nothing else: read, checked, explained line by line, and turned into frozen values.

`load.load` is the way in, `problem.ConfigError` the way out where something is wrong, `model.Config` the value.

Invariant: a secret never stands in a problem, a `repr` or an exception.
Invariant: nothing here starts, connects or writes anything; what cannot be used is a `ConfigError`.
"""
