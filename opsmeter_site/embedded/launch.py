"""Becomes another program, after tying its life to its parent and giving up root where asked.

    python launch.py PARENT_PID DEATH_SIGNAL NICENESS IDENTITY PROGRAM ARGUMENT…

IDENTITY is `same`; for root `capability:UID:GID` (another user who may still pass through folders that are closed to
others); or `namespace` (the same user, who appears as `nobody` to the program). PostgreSQL refuses to run as root or as
a user without a name, and the project may lie in a folder that no other user can enter.

A program of its own, standard library only, because between fork and exec of a process with threads nothing of this is
safe to do in Python.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522
UNPRIVILEGED = 65534


def become_user(uid: int, gid: int) -> None:
    """Switch to an ordinary user, keeping the one capability that opens folders closed to others.

    Ambient, so that it survives the exec. Where the kernel refuses it the switch still holds: then the program works
    if the folders are open to that user.
    """
    os.setgroups([])
    os.setgid(gid)
    if sys.platform != "linux":
        os.setuid(uid)
        return
    libc = ctypes.CDLL(None)
    # Without this bit access(2), by which PostgreSQL looks for its own programs, ignores the capability.
    libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setuid(uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    bit = 1 << CAP_DAC_OVERRIDE
    wanted = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)  # effective, permitted, inheritable; low and high words
    if libc.capset(ctypes.byref(header), ctypes.byref(wanted)) == 0:
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)


def enter_namespace() -> None:
    """Stay the same user for the file system, but be `nobody` in the eyes of this process and its children."""
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    clone_new_user = 0x10000000
    if libc.unshare(clone_new_user) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{UNPRIVILEGED} {uid} 1"),
        ("gid_map", f"{UNPRIVILEGED} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def main(arguments: list[str]) -> None:
    """Become the program that the arguments name; see above."""
    parent, death_signal, niceness, identity, *command = arguments
    os.nice(int(niceness))
    if identity.startswith("capability:"):
        _, uid, gid = identity.split(":")
        become_user(int(uid), int(gid))
    elif identity == "namespace":
        enter_namespace()
    if sys.platform == "linux":
        # After the change of user, which clears it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != int(parent):  # it ended before it could be watched
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - a shell is what nobody wants here


if __name__ == "__main__":
    main(sys.argv[1:])
