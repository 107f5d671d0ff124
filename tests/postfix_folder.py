"""A Postfix run from a folder of its own, wherever it was unpacked: only as root, as its master wants that.

Invariant: nothing of it is outside the folder, and it ends with its master.
"""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from peers import Program


@dataclass(frozen=True)
class Places:
    """Where it finds its parts."""

    root: Path
    config: Path
    queue: Path
    data: Path


MAIN_CF = """\
compatibility_level = 3.6
config_directory = {config}
queue_directory = {queue}
data_directory = {data}
daemon_directory = {root}/usr/lib/postfix/sbin
command_directory = {root}/usr/sbin
shlib_directory = {root}/usr/lib/postfix
meta_directory = {config}
mail_owner = {owner}
setgid_group = {group}
# master cleans the environment of its children; unpacked ones find their libraries by this alone
import_environment = MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C LD_LIBRARY_PATH
myhostname = bench.example.com
mydestination =
local_transport = error:no local mail
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_tls_security_level = none
biff = no
"""

# Debian's, less chroot, as the folder is its own
MASTER_CF = """\
pickup    unix  n - n 60    1 pickup
cleanup   unix  n - n -     0 cleanup
qmgr      unix  n - n 300   1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -     - trivial-rewrite
bounce    unix  - - n -     0 bounce
defer     unix  - - n -     0 bounce
trace     unix  - - n -     0 bounce
verify    unix  - - n -     1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -     - proxymap
proxywrite unix - - n -     1 proxymap
showq     unix  n - n -     - showq
error     unix  - - n -     - error
retry     unix  - - n -     - error
discard   unix  - - n -     - discard
anvil     unix  - - n -     1 anvil
scache    unix  - - n -     1 scache
"""


def prepare(postfix: Program, folder: Path, services: str, settings: str) -> tuple[list[str], dict[str, str]]:
    """Fill `folder`, with `services` added to master.cf and `settings` to main.cf; return command and environment to run it."""
    root = postfix.path.parent.parent.parent
    config, queue, data = folder / "etc", folder / "spool", folder / "data"
    for made in (config, queue, data):
        made.mkdir(mode=0o755)
    owner, group = identities()
    places = Places(root, config, queue, data)
    (config / "main.cf").write_text(MAIN_CF.format(**vars(places), owner=owner, group=group) + settings)
    (config / "master.cf").write_text(MASTER_CF + services)
    for name in ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace"):
        (queue / name).mkdir(mode=0o700)
        os.chown(queue / name, pwd.getpwnam(owner).pw_uid, -1)
    for name, mode in (("maildrop", 0o1730), ("public", 0o2710)):
        (queue / name).mkdir()
        os.chown(queue / name, pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid)
        (queue / name).chmod(mode)
    (queue / "pid").mkdir(mode=0o755)
    os.chown(data, pwd.getpwnam(owner).pw_uid, -1)
    return [str(root / "usr/lib/postfix/sbin/master"), "-c", str(config), "-d"], {**postfix.env, "MAIL_CONFIG": str(config)}


def identities() -> tuple[str, str]:
    """Return an account and a group for Postfix, which wants both to be used by nothing else: its own, else idle ones."""
    try:
        pwd.getpwnam("postfix")
        grp.getgrnam("postdrop")
    except KeyError:
        return "daemon", "uucp"
    return "postfix", "postdrop"
