"""What is done to a process, from inside, before a program of a model's may run in it.

Each protection of `limits.Protection` is put up or found missing, with the kernel's reason. Two mechanisms guard the network and other
processes, namespaces and the filter of system calls; either is enough, so that one is missing only where both are. Namespaces are asked
for together with a user namespace, which needs no privilege; where the caller is root, the program becomes the user "nobody" besides.

Order matters: mounts need the capabilities of the new namespace, so they come first; then the capabilities go; limits after the libraries
are loaded; the filter last, since it forbids most of what came before.
"""

from __future__ import annotations

import os
import resource
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentloop.environment.sandbox.limits import Limits, Protection

SCRATCH = "/scratch"
"""The folder, and the only one, that a program may write."""

NOBODY = 65534
SHARED_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
"""Where extension modules find the libraries that they are linked with."""

Missing = dict[Protection, str]
"""Protections that could not be had, with the reason of each."""


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def enter_namespaces() -> Missing:
    """Leave the network, the processes and the users of this machine; the children of this process, not itself, see other processes no
    more. Returns what could not be had: all or nothing."""
    if sys.platform != "linux":
        reason = f"{sys.platform} has no namespaces"
        return {"files": reason, "network": reason, "processes": reason}
    from agentloop.environment.sandbox import linux

    flags = linux.CLONE_NEWUSER | linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWPID | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
    try:
        with _maps_written():
            linux.unshare(flags | linux.CLONE_NEWCGROUP)
    except OSError as error:
        reason = f"the kernel refuses namespaces ({_reason(error)})"
        return {"files": reason, "network": reason, "processes": reason}
    return {}


@contextmanager
def _maps_written() -> Iterator[None]:
    """Give the user namespace that the body enters its users: ourselves, and "nobody" where we are root.

    More than oneself can be mapped only from outside, so that a process from before writes the maps (user_namespaces(7)).
    """
    user, group, target = os.geteuid(), os.getegid(), f"/proc/{os.getpid()}"
    entered, enter = os.pipe()
    writer = os.fork()
    if writer == 0:
        try:
            os.close(enter)
            if os.read(entered, 1):
                _write_maps(target, user, group)
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
    try:
        yield
        os.write(enter, b"x")
    finally:
        os.close(enter)
        os.close(entered)
        status = os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1])
    if status:
        raise OSError(status, f"writing the maps of users: {os.strerror(status)}")


def _write_maps(target: str, user: int, group: int) -> None:
    """Map "nobody" besides ourselves, if we may: as root, and not as the root of a container that has no "nobody"."""
    if user == 0:
        try:
            Path(f"{target}/uid_map").write_text(f"0 0 1\n{NOBODY} {NOBODY} 1\n")
            Path(f"{target}/gid_map").write_text(f"{group} {group} 1\n{NOBODY} {NOBODY} 1\n")
            return
        except OSError:
            pass
    Path(f"{target}/setgroups").write_text("deny")
    Path(f"{target}/uid_map").write_text(f"{user} {user} 1\n")
    Path(f"{target}/gid_map").write_text(f"{group} {group} 1\n")


def becomes_nobody() -> bool:
    """Whether programs run as "nobody" here: we are root, and this user namespace has a "nobody"."""
    if os.geteuid() != 0:
        return False
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= NOBODY < first + count:
            return True
    return False


def change_root(scratch: int, nobody: bool) -> None:
    """Leave the file system for one with the libraries, read-only, and a scratch folder of `scratch` bytes, that of "nobody" or ours.

    Raises `OSError`.
    """
    from agentloop.environment.sandbox import linux

    root = "/tmp"  # any folder that is there: the mount that hides it is seen in this namespace only
    folders = readable()
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)  # nothing of this is passed on
    sources = [os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for folder in folders]  # some may lie below what is hidden
    linux.mount("tmpfs", root, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=64k,nr_inodes=512,mode=755")
    for folder, source in zip(folders, sources, strict=True):
        os.makedirs(root + folder, exist_ok=True)
        linux.mount(f"/proc/self/fd/{source}", root + folder, "", linux.MS_BIND | linux.MS_REC)
        os.close(source)
    for link in ("/lib", "/lib64"):
        if os.path.islink(link):
            os.symlink(os.readlink(link), root + link)
    os.mkdir(root + SCRATCH)
    linux.make_read_only(root)
    user, group = (NOBODY, NOBODY) if nobody else (os.geteuid(), os.getegid())
    options = f"size={scratch},nr_inodes=1024,mode=700,uid={user},gid={group}"
    linux.mount("tmpfs", root + SCRATCH, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC, options)
    linux.change_root(root)
    os.chdir(SCRATCH)


def readable() -> list[str]:
    """Folders that importing needs, none of them within another: the standard library, installed packages, shared libraries."""
    prefixes = {Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)}
    wanted = [Path(entry) for entry in sys.path if entry and any(Path(entry).resolve().is_relative_to(prefix) for prefix in prefixes)]
    wanted += [Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib"), *map(Path, SHARED_LIBRARIES)]
    found: list[str] = []
    for folder in sorted({str(path) for path in wanted if path.is_dir() and not path.is_symlink()}):
        if not any(folder.startswith(other + "/") for other in found):
            found.append(folder)
    return found


def give_up_privileges(nobody: bool) -> None:
    """No user but "nobody" if asked for, no capability, and none to be had by starting a program. Raises `OSError`."""
    from agentloop.environment.sandbox import linux

    if nobody:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    linux.drop_capabilities()
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.prctl(linux.PR_SET_DUMPABLE, 0)


def bound_resources(limits: Limits) -> Missing:
    """Limits of memory, files, threads and processor time; what the platform lacks."""
    bounds = {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": limits.scratch,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_NPROC": limits.threads,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_CPU": limits.session_cpu_seconds,
    }
    for name, bound in bounds.items():
        number = getattr(resource, name, None)
        if number is not None:
            _bound(number, bound)
    try:
        if sys.platform != "linux":
            raise OSError(f"{sys.platform} does not bound the address space")
        _bound(resource.RLIMIT_AS, limits.memory)
    except (OSError, ValueError) as error:
        return {"memory": _reason(error)}
    return {}


def _bound(number: int, bound: int) -> None:
    hard = resource.getrlimit(number)[1]
    bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
    resource.setrlimit(number, (bound, bound))


def filter_system_calls() -> Missing:
    """Put up the filter; what is missing, if it cannot be."""
    if sys.platform != "linux":
        return {"system_calls": f"{sys.platform} has no seccomp"}
    try:
        from agentloop.environment.sandbox import filter as system_calls

        system_calls.load()
    except ImportError as error:
        return {"system_calls": f"{_reason(error)}; install it with: pip install 'agentloop[sandbox]'"}
    except (OSError, RuntimeError) as error:
        return {"system_calls": f"{_reason(error)}; it needs libseccomp (Debian: apt-get install libseccomp2)"}
    return {}
