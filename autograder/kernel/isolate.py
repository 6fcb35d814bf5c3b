"""Confines a freshly forked process before any student code runs in it.

There are two levels, depending on what the machine allows:

``namespaces``  own mount, pid, network, ipc and host-name namespaces on top of the level below, and
                a user of its own (for root) or a user namespace (for anyone else); the process sees
                a file tree that holds only Python, the system's libraries and its scratch folder
``landlock``    Landlock (files, TCP, abstract sockets, signals), seccomp and no_new_privs; for
                containers that forbid namespaces

All of this must be applied while the process has a single thread, since Landlock and namespaces
bind the calling thread and what it starts.  Every step except `limit_capabilities` raises an error
when Linux refuses it, so that no process continues without a protection that was requested.

The published Landlock binding supports neither network rules nor scopes, so this module makes the
three system calls itself; seccomp goes through libseccomp.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import itertools
import os
import platform
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMESPACES, LANDLOCK = "namespaces", "landlock"

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


# -- readable files ----------------------------------------------------------------------------

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = ("ld.so.cache", "fonts", "localtime", "nsswitch.conf", "matplotlibrc")
DEVICES = ("null", "zero", "full", "random", "urandom")
# Entries about the machine as a whole, not about a process.
PROC = """
    cpuinfo meminfo stat filesystems loadavg uptime version vmstat
    sys/kernel/osrelease sys/kernel/ostype sys/kernel/pid_max sys/vm/overcommit_memory
""".split()
DEVICE_TREE = ("/sys/devices/system/cpu", "/sys/devices/system/node")


def hidden() -> list[Path]:
    """Folders of this project, which hold the hidden checks; a kernel can never read them.

    A checkout is hidden as a whole, except for a virtual environment in it.
    """
    package = Path(__file__).resolve().parents[1]
    in_checkout = not (package / "data").resolve().is_relative_to(package)
    return [package.parent if in_checkout else package]


@dataclass
class View:
    """The files that a kernel may see.

    Attributes:
        whole: paths that are shown with everything below them.
        parts: folders that are shown with the names in them only.

    """

    whole: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    def has(self, path: str) -> bool:
        """Whether `path` is already shown, as far as it may be."""
        inside = any(f"{path}/".startswith(f"{shown}/") for shown in self.whole)
        return inside or path in self.parts

    def add(self, path: str, excluded: list[Path]) -> None:
        """Show `path` or, if it contains an excluded folder, everything else in it."""
        real = Path(path)
        if os.path.islink(path) or not any(other.is_relative_to(real) for other in excluded):
            self.whole.append(path)
        elif real not in excluded:
            self.parts.append(path)
            for name in sorted(os.listdir(path)):
                self.add(os.path.join(path, name), excluded)


@functools.cache
def readable() -> View:
    """The files that a kernel may read: system libraries and Python, but nothing of this project.

    If a folder such as `site-packages` contains something of this project, a kernel can list it, as
    Python does to find installed packages, and read everything else in it.
    """
    excluded = hidden()
    python = [sys.prefix, sys.base_prefix, *sys.path, *_editable()]
    wanted = [*SYSTEM, *(f"/etc/{name}" for name in ETC), *DEVICE_TREE]
    view = View()
    for path in [*wanted, *map(os.path.realpath, filter(os.path.isabs, python))]:
        if os.path.islink(path) and not path.startswith("/etc"):
            continue  # `enter_file_tree` creates the links of the system's folders itself
        ours = any(_lies_in(path, folder) for folder in excluded)
        if os.path.exists(path) and not ours and not view.has(path):
            view.add(path, excluded)
    return view


def _lies_in(path: str, folder: Path) -> bool:
    """Whether `path` lies in our `folder`, but not in a virtual environment in that folder."""
    environment = Path(os.path.realpath(sys.prefix))
    in_environment = environment.is_relative_to(folder) and Path(path).is_relative_to(environment)
    return Path(path).is_relative_to(folder) and not in_environment


def _editable() -> Iterator[str]:
    """Paths of packages that setuptools installed as editable: listed in a table, on no path."""
    for name, module in list(sys.modules.items()):
        if name.startswith("__editable__"):
            for package in getattr(module, "MAPPING", {}).values():
                # A module is named without its suffix.
                yield package if os.path.isdir(package) else f"{package}.py"


# -- namespaces --------------------------------------------------------------------------------

_CLONE = {
    "NEWNS": 0x00020000,
    "NEWUTS": 0x04000000,
    "NEWIPC": 0x08000000,
    "NEWUSER": 0x10000000,
    "NEWPID": 0x20000000,
    "NEWNET": 0x40000000,
}
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_NOSUID, _MS_NODEV = 0x1000, 0x4000, 0x40000, 0x2, 0x4
_MNT_DETACH = 2
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_MOUNT_SETATTR = 442
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOATIME, _ATTR_ATIMES = 0x1, 0x2, 0x4, 0x10, 0x70
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 1, 4, 38, 24

FIRST_UID = 0x60000000  # above every range that distributions assign to people and containers


def enter_namespaces() -> None:
    """Leave the machine's namespaces; the next fork becomes process 1 of the new ones.

    Root needs no user namespace for this and takes a user of its own later (`become_nobody`);
    anyone else gets the necessary rights from one.
    """
    uid, gid = os.geteuid(), os.getegid()
    wanted = [flag for name, flag in _CLONE.items() if uid != 0 or name != "NEWUSER"]
    _checked(_libc.unshare(sum(wanted)), "unshare")
    if uid != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def enter_file_tree(readable: list[str], writable: list[str]) -> None:
    """Build a file tree of these paths and make it the root; called as process 1.

    Everyone can enter and list the folders above these paths, whatever the umask.
    """
    os.umask(0o022)
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    devices = [f"/dev/{name}" for name in DEVICES]
    links = {p: os.readlink(p) for p in (*SYSTEM, *readable) if _is_link_to_make(p)}
    # Open these before anything is mounted over the folders they lie in.
    sources = [
        (path, os.open(path, os.O_PATH | os.O_CLOEXEC))
        for path in (*readable, *devices, *writable)
        if path not in links
    ]
    root = tempfile.gettempdir()  # in this namespace only
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=1m")
    for path, descriptor in sources:
        target = root + path
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            open(target, "w").close()
        _mount(f"/proc/self/fd/{descriptor}", target, None, _MS_BIND | _MS_REC)
        attributes = _ATTR_NOSUID | (0 if path in writable else _ATTR_RDONLY)
        if os.geteuid() == 0:  # only root may change a mount's access-time mode
            attributes |= _ATTR_NOATIME
        _set_attributes(target, attributes | (0 if path in devices else _ATTR_NODEV))
        os.close(descriptor)
    for path, leads_to in links.items():
        os.symlink(leads_to, root + path)
    os.symlink("/proc/self/fd", f"{root}/dev/fd")
    os.makedirs(f"{root}/proc")
    _mount("proc", f"{root}/proc", "proc", _MS_NOSUID | _MS_NODEV)
    os.chdir(root)
    _checked(_libc.syscall(_SYS_PIVOT_ROOT[platform.machine()], b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")
    _set_attributes("/", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, recursive=False)


def _is_link_to_make(path: str) -> bool:
    """Whether to create a link instead of showing its target (as for files in /etc)."""
    return os.path.islink(path) and not path.startswith("/etc")


def become_nobody(own: list[str], number: int) -> None:
    """As root, become a user that owns only the folders `own`; otherwise do nothing.

    The process number `number` gives each running kernel a different user.
    """
    if os.geteuid() != 0:
        return
    uid = FIRST_UID + number
    for folder in own:
        for path, _, names in os.walk(folder):
            os.chown(path, uid, uid)
            for name in names:
                os.chown(os.path.join(path, name), uid, uid, follow_symlinks=False)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    # After a change of user, Linux denies access to /proc/self unless the process is dumpable.
    _checked(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, options: str = ""
) -> None:
    encoded = [text.encode() if text is not None else None for text in (source, target, kind)]
    result = _libc.mount(*encoded, ctypes.c_ulong(flags), options.encode())
    _checked(result, f"mount {target}")


def _set_attributes(target: str, attributes: int, recursive: bool = True) -> None:
    removed = _ATTR_ATIMES if attributes & _ATTR_NOATIME else 0
    wanted = (ctypes.c_uint64 * 4)(attributes, removed, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    result = _libc.syscall(
        _SYS_MOUNT_SETATTR, _AT_FDCWD, target.encode(), flags, ctypes.byref(wanted), 32
    )
    _checked(result, f"mount_setattr {target}")


def limit_capabilities() -> None:
    """Keep programs started later from gaining capabilities; called before the user changes.

    Without CAP_SETPCAP this does nothing.  That is safe, since `no_new_privileges` always applies.
    """
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # beyond Linux's last capability, or not allowed


def drop_capabilities() -> None:
    """Drop every capability."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(ctypes.byref(header), ctypes.byref(nothing)), "capset")


def end_with_parent() -> None:
    """Let Linux kill this process when the warm interpreter ends."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


# -- Landlock ----------------------------------------------------------------------------------

_SYS_LANDLOCK_CREATE, _SYS_LANDLOCK_ADD, _SYS_LANDLOCK_RESTRICT = 444, 445, 446
_READ_FILE, _READ_DIR, _EXECUTE = 1 << 2, 1 << 3, 1 << 0
_ALL_FS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_DEVICE_NODES = (1 << 6) | (1 << 11)  # creating character and block devices
_FILE_RIGHTS = _EXECUTE | (1 << 1) | _READ_FILE | (1 << 14) | (1 << 15)
_TCP = 0b11  # bind and connect
_SCOPES = 0b11  # abstract Unix sockets, signals


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def landlock_abi() -> int:
    """The version of Linux's Landlock interface; 0 if there is none."""
    return max(0, int(_libc.syscall(_SYS_LANDLOCK_CREATE, None, 0, 1)))


def restrict_files(read: list[str], names: list[str], write: list[str]) -> None:
    """Allow reading below `read` and everything but device nodes below `write`; deny the rest.

    Folders below `names` can be listed, but files in them cannot be read.  This also forbids TCP
    (interface 4 and later), and abstract sockets and signals to processes outside (6 and later).
    Raises OSError when Linux has no Landlock.
    """
    abi = landlock_abi()
    if abi < 1:
        raise OSError(errno.ENOSYS, "this kernel has no Landlock")
    fs = _ALL_FS_BY_ABI[max(known for known in _ALL_FS_BY_ABI if known <= abi)]
    rules = _Ruleset(fs, _TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _checked(
        _libc.syscall(_SYS_LANDLOCK_CREATE, ctypes.byref(rules), size, 0), "landlock"
    )
    reading = _EXECUTE | _READ_FILE | _READ_DIR
    for paths, rights in ((read, reading), (names, _READ_DIR), (write, fs & ~_DEVICE_NODES)):
        for path in paths:
            if _is_link_to_make(path):
                continue  # rights apply to a link's target
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
            is_folder = stat.S_ISDIR(os.fstat(parent).st_mode)
            rule = _PathBeneath(rights & fs & (~0 if is_folder else _FILE_RIGHTS), parent)
            added = _libc.syscall(_SYS_LANDLOCK_ADD, ruleset, 1, ctypes.byref(rule), 0)
            _checked(added, f"landlock {path}")
            os.close(parent)
    no_new_privileges()
    _checked(_libc.syscall(_SYS_LANDLOCK_RESTRICT, ruleset, 0), "landlock")
    os.close(ruleset)


def no_new_privileges() -> None:
    """Keep programs started from here from gaining rights through a set-user-ID bit."""
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


# -- seccomp -----------------------------------------------------------------------------------

_FORBIDDEN = tuple(
    """
    ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd process_madvise process_mrelease
    mount umount2 pivot_root chroot unshare setns open_tree move_mount fsopen fsconfig fsmount
    fspick mount_setattr open_by_handle_at name_to_handle_at swapon swapoff quotactl acct
    bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register
    add_key request_key keyctl kexec_load kexec_file_load init_module finit_module delete_module
    reboot settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname
    personality syslog fanotify_init lookup_dcookie vhangup nfsservctl
    connect bind listen setsid setpgid ioprio_set migrate_pages move_pages
    shmget shmat shmctl msgget msgsnd msgrcv msgctl semget semop semtimedop semctl
    mq_open mq_unlink inotify_init inotify_init1 inotify_add_watch
    memfd_create memfd_secret sendmsg sendmmsg
    flock mincore
""".split()
)
# Landlock does not cover these; without a mount namespace they reach the grader's own files.
_ATTRIBUTES = """
    chmod fchmod fchmodat fchmodat2 chown fchown fchownat lchown utime utimes utimensat futimesat
    setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
""".split()
_SIGNALS = "kill tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal pidfd_open".split()
# These take a process number, 0 for the caller, so they reach every process of the same user.
_OF_A_PROCESS = {
    "prlimit64": 0,
    "sched_setaffinity": 0,
    "sched_setattr": 0,
    "sched_setparam": 0,
    "setpriority": 1,
}
# From 424 on, Linux numbers its system calls alike on every architecture.  Beyond 439, these are
# harmless: epoll_pwait2, Landlock's three, futex_waitv, map_shadow_stack, futex_wait, mseal.
_NEW_CALLS = range(440, 512)
_HARMLESS_NEW = {441, 444, 445, 446, 449, 453, 455, 462}
_INT = 0xFFFFFFFF  # the bits of an int argument that Linux reads
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15
# All kernels read the same library files: a lock, lease or watch on one is a covert channel.
_LOCKS = range(5, 8), range(36, 39), (1024, 1025, 1026)  # POSIX, open-file; leases, notices
_FUTEX_WAIT, _FUTEX_WAKING, _FUTEX_PRIVATE, _FUTEX_COMMAND = 0, (1, 2, 3, 4, 5, 10), 0x80, 0x7F
_FIOSETOWN, _SIOCSPGRP = 0x8901, 0x8902
_AF_UNIX, _SOCK_STREAM, _SOCK_SEQPACKET, _SOCK_TYPE = 1, 1, 5, 0xF


def restrict_calls(level: str) -> None:
    """Forbid system calls that no notebook needs (see `forbidden_calls`).

    Raises OSError or RuntimeError.
    """
    rules = forbidden_calls(level)
    if level == LANDLOCK and landlock_abi() < 6:
        # abort() sends tgkill to its own process; in one forked later it ends by another signal.
        import pyseccomp as seccomp

        refuse = seccomp.ERRNO(errno.EPERM)
        rules.add_rule(refuse, "tgkill", seccomp.Arg(0, seccomp.NE, os.getpid()))
    rules.load()


@functools.cache
def forbidden_calls(level: str) -> Any:
    """The seccomp filter of a level, which is cached because it takes some time to build.

    It forbids:

    - sockets, except connected pairs and those that the kernel was given to accept its client on;
      none can be connected or made to listen, and no descriptor can be passed on;
    - new sessions and process groups, so that a signal to the group reaches every process of a
      submission;
    - memory that belongs to no process, signals sent through a descriptor, limits and priorities of
      other processes, and system calls newer than this list;
    - locks, leases, notifications and residency of files, and waking others that wait on a page of
      a file, since kernels that run at the same time read the same files.
    """
    import pyseccomp as seccomp

    refuse = seccomp.ERRNO(errno.EPERM)
    unknown = seccomp.ERRNO(errno.ENOSYS)
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    names = list(_FORBIDDEN)
    if level == LANDLOCK:
        names += _ATTRIBUTES
        if landlock_abi() < 6:
            names += _SIGNALS
    refused = set()
    for name in names:
        number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
        if number >= 0:  # this machine has it
            refused.add(number)
            rules.add_rule(refuse, name)
    for number in _NEW_CALLS:
        if number not in _HARMLESS_NEW | refused:
            rules.add_rule(unknown, number)
    for name, position in _OF_A_PROCESS.items():
        rules.add_rule(refuse, name, seccomp.Arg(position, seccomp.NE, 0))
    rules.add_rule(refuse, "setpriority", seccomp.Arg(0, seccomp.NE, os.PRIO_PROCESS))
    # kill(-1) signals every process it can reach.  Process 1 of a namespace is spared, but any
    # other kernel would end as well, and its score would depend on the level.
    rules.add_rule(refuse, "kill", seccomp.Arg(0, seccomp.MASKED_EQ, _INT, _INT))
    # ZeroMQ passes its own threads by number, but asks for the policy they already have.
    others = seccomp.Arg(0, seccomp.NE, 0), seccomp.Arg(1, seccomp.NE, os.SCHED_OTHER)
    rules.add_rule(refuse, "sched_setscheduler", *others)
    for call, commands in (
        ("fcntl", (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX, *itertools.chain(*_LOCKS))),
        ("ioctl", (_FIOSETOWN, _SIOCSPGRP)),
    ):
        for command in commands:
            rules.add_rule(refuse, call, seccomp.Arg(1, seccomp.MASKED_EQ, _INT, command))
    shared = _FUTEX_PRIVATE | _FUTEX_COMMAND
    for command in _FUTEX_WAKING:  # joining a thread needs none of these calls
        rules.add_rule(refuse, "futex", seccomp.Arg(1, seccomp.MASKED_EQ, shared, command))
    # A thread that cannot be woken must not sleep.  C++ waits like this for a static variable that
    # another thread initialises; with EAGAIN ("the value has changed") it polls instead.
    again = seccomp.ERRNO(errno.EAGAIN)
    rules.add_rule(again, "futex", seccomp.Arg(1, seccomp.MASKED_EQ, shared, _FUTEX_WAIT))
    rules.add_rule(refuse, "preadv2", seccomp.Arg(5, seccomp.NE, 0))  # NOWAIT shows what is cached
    # The only error that ZeroMQ accepts when it asks for network devices.
    no_family = seccomp.ERRNO(errno.EOPNOTSUPP)
    rules.add_rule(no_family, "socket")
    family, kind = 0, 1
    rules.add_rule(no_family, "socketpair", seccomp.Arg(family, seccomp.NE, _AF_UNIX))
    for number in range(_SOCK_TYPE + 1):
        if number not in (_SOCK_STREAM, _SOCK_SEQPACKET):
            wanted = (
                seccomp.Arg(family, seccomp.EQ, _AF_UNIX),
                seccomp.Arg(kind, seccomp.MASKED_EQ, _SOCK_TYPE, number),
            )
            rules.add_rule(refuse, "socketpair", *wanted)
    for flag in _CLONE.values():
        rules.add_rule(refuse, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag))
    # clone3 keeps its flags in memory, out of reach; with ENOSYS the C library falls back to clone.
    rules.add_rule(unknown, "clone3")
    rules.add_rule(refuse, "prctl", seccomp.Arg(0, seccomp.MASKED_EQ, _INT, _PR_SET_PDEATHSIG))
    for call, mode in (("mknod", 1), ("mknodat", 2)):
        for device in (stat.S_IFCHR, stat.S_IFBLK):
            wanted = seccomp.Arg(mode, seccomp.MASKED_EQ, 0o170000, device)
            rules.add_rule(refuse, call, wanted)
    return rules
