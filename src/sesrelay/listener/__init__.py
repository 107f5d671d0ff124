"""Mail in: SMTP sessions over the listening sockets, each message handed to the intake.

Source: RFC 5321.
"""

from sesrelay.listener.listening import ListenerServer
from sesrelay.listener.options import ListenerOptions
from sesrelay.listener.sockets import AddressTaken, ListenError, activated, bind

__all__ = ["AddressTaken", "ListenError", "ListenerOptions", "ListenerServer", "activated", "bind"]
