"""What is taken from a client's budget (ListenerOptions.junk), which each accepted message fills up again.

A client that only errs is cut after 20 refusals, one that only idles or tries recipients after 100.
"""

ERROR = 5
IDLING = 1
FREE = 0
