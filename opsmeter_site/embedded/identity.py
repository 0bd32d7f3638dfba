"""Who PostgreSQL runs as: it refuses to be root, or a user without a name."""

import os
import pwd
import subprocess
from functools import cache
from pathlib import Path

from opsmeter_site.embedded import launch
from opsmeter_site.embedded.errors import LocalError
from opsmeter_site.embedded.processes import SAME, launched

SERVER_FOLDER_MODE = 0o700


def server_identity(folder: Path, initdb: Path) -> str:
    """How to launch PostgreSQL's programs on `folder`, which is made if need be and then belongs to that user."""
    for identity, uid, gid in candidates(folder):
        if works(identity, initdb):
            folder.mkdir(mode=SERVER_FOLDER_MODE, exist_ok=True)
            own(folder, uid, gid)
            return identity
    raise LocalError(
        f"PostgreSQL cannot be run as user {os.getuid()} here (not as root, not as a user without a name, "
        "and user namespaces are not allowed); use another user, or set DATABASE_URL"
    )


def candidates(folder: Path) -> list[tuple[str, int, int]]:
    """Ways to launch, with the owner of the data, in the order of preference.

    Root prefers to run it as the folder's owner, or as `nobody` where that is root or there is no folder yet.
    """
    uid, gid = os.getuid(), os.getgid()
    if uid != 0:
        return [(SAME, uid, gid), ("namespace", uid, gid)]
    owner = folder.stat() if folder.exists() else None
    other_uid, other_gid = (owner.st_uid, owner.st_gid) if owner and owner.st_uid else nobody()
    return [(f"capability:{other_uid}:{other_gid}", other_uid, other_gid), ("namespace", uid, gid)]


def nobody() -> tuple[int, int]:
    """User and group number of `nobody`, also on a machine without a list of users."""
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return launch.UNPRIVILEGED, launch.UNPRIVILEGED
    return entry.pw_uid, entry.pw_gid


@cache
def works(identity: str, initdb: Path) -> bool:
    """Whether initdb, run that way, finds all it needs: it shows its settings and changes nothing."""
    command = launched([str(initdb), "--show", "-D", "/"], identity)
    return subprocess.run(command, cwd="/", capture_output=True, check=False).returncode == 0  # noqa: S603 - our own


def own(folder: Path, uid: int, gid: int) -> None:
    """Give the folder and all in it to the user, unless it is theirs."""
    if folder.stat().st_uid == uid:
        return
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(parent) / name, uid, gid, follow_symlinks=False)
    os.chown(folder, uid, gid)  # last: it says that all is done
