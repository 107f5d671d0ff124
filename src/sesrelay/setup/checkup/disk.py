"""The folder of the queue: whether the relay may write there, and the room that is left.

Source: statvfs(3); proc(5): /proc/PID/status.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from pathlib import Path

from sesrelay.config.loading import Loaded
from sesrelay.setup.checkup.check import Check, fail, ok, warn
from sesrelay.spool.owner import anybodys

NOTHING = "no mail is accepted"
FULL = 2**20  # octets; with less the store cannot grow, whatever limits.min_free_disk says
WRITTEN = ("lock", "queue.db", "queue.db-wal", "queue.db-shm", "bodies")


def disk(loaded: Loaded, pid: int | None) -> Check:
    """Look at `state_dir`. `pid`: the running relay's; None: none runs."""
    state_dir = loaded.config.state_dir
    folder = next(each for each in (state_dir, *state_dir.parents) if _is_there(each))
    if not folder.is_dir():
        return fail("disk", str(folder), f"not a folder: {NOTHING}", "move it away, or correct state_dir")
    found = os.statvfs(folder)
    if found.f_flag & os.ST_RDONLY:
        remedy = "find the cause (journalctl -k), then: mount -o remount,rw"
        return fail("disk", str(folder), f"on a file system that is mounted read-only: {NOTHING}", f"{remedy} {_mount(folder)}")
    shut = _shut(folder, pid) if folder == state_dir else _unmade(state_dir, folder)
    room = shut or _room(folder, found, loaded.config.limits.min_free_disk)
    if room.status == "ok" and folder == state_dir and anybodys(folder):
        told = "every user of this machine can write there, and so delete or replace mail"
        return warn("disk", str(folder), told, f"chmod o-w {folder}")
    return room


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # something may be there, and is not for us to see
        return False


def _room(folder: Path, found: os.statvfs_result, wanted: int) -> Check:
    free = found.f_bavail * found.f_frsize
    told = f"{free // 2**20} MiB are free"
    if found.f_files and not found.f_favail:
        return fail("disk", str(folder), f"no inode is free: {NOTHING}", "remove unneeded files (df -i)")
    if free < wanted:
        return fail(
            "disk",
            str(folder),
            f"{told}, less than limits.min_free_disk: all mail is deferred",
            "free disk space, or lower limits.min_free_disk",
        )
    if free < FULL:
        return fail("disk", str(folder), f"full: {NOTHING}", "free disk space")
    if free < 2 * wanted:
        return warn("disk", str(folder), f"{told}; below {wanted // 2**20} MiB mail is deferred", "free disk space")
    return ok("disk", str(folder), told)


def _shut(folder: Path, pid: int | None) -> Check | None:
    """Return what keeps the relay's user from writing there, as far as modes and owners tell."""
    uid = relay_user(folder, pid)
    if uid is None:
        return None
    name = name_of(uid)
    with contextlib.suppress(OSError):  # not for us to look into: who opens the queue says so
        found = folder.stat()
        if not _may_write(found, uid):
            remedy = f"chmod u+rwx {folder}" if found.st_uid == uid else f"chown -R {name}: {folder}"
            return fail(
                "disk", str(folder), f"{name} cannot write there (mode 0{stat.S_IMODE(found.st_mode):o}): {NOTHING}", remedy
            )
        for path in (folder / each for each in WRITTEN):
            if path.exists() and not _may_write(one := path.stat(), uid):
                told = f"{path} belongs to {name_of(one.st_uid)}, and {name} cannot write to it: {NOTHING}"
                return fail("disk", str(folder), told, f"chown -R {name}: {folder}")
    return None


def _unmade(state_dir: Path, parent: Path) -> Check | None:
    if os.access(parent, os.W_OK | os.X_OK):
        return None
    remedy = "start the relay, which creates it: systemctl start sesrelay; or create it for the relay's user"
    return warn("disk", str(parent), f"{state_dir} does not exist, and this user cannot create it", remedy)


def relay_user(folder: Path, pid: int | None) -> int | None:
    """Return the running relay's user, else the owner of the queue's folder, or our own where that is root.

    None: nobody knows.
    """
    if pid is not None:
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("Uid:")).split()[2])  # the effective one
    try:
        return folder.stat().st_uid or os.geteuid()
    except OSError:
        return None


def _may_write(found: os.stat_result, uid: int) -> bool:
    return may(found, uid, stat.S_IWOTH | (stat.S_IXOTH if stat.S_ISDIR(found.st_mode) else 0))


def may(found: os.stat_result, uid: int, wanted: int) -> bool:
    """Tell whether a user has the rights `wanted`, given as those of others (S_IROTH and the like), by owner, group and mode."""
    if uid == 0:
        return True
    shift = 6 if found.st_uid == uid else 3 if found.st_gid in _groups(uid) else 0
    return (found.st_mode >> shift) & wanted == wanted


def _groups(uid: int) -> list[int]:
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return []
    return os.getgrouplist(user.pw_name, user.pw_gid)


def name_of(uid: int) -> str:
    """Return the name of a user, or the number of one who has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_of(uid: int) -> str:
    """Return the name of a user's own group, or the number."""
    try:
        return grp.getgrgid(pwd.getpwuid(uid).pw_gid).gr_name
    except KeyError:
        return str(uid)


def _mount(folder: Path) -> Path:
    """Return the mount point that a folder is under."""
    folder = folder.resolve()
    return next(each for each in (folder, *folder.parents) if each.is_mount())
