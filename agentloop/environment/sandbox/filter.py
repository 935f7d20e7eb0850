"""Which system calls a program that computes may make; all others fail with "operation not permitted".

A list of what is allowed, so that a call that a later kernel brings is refused. No sockets, no processes, no programs, no tracing, no
mounts, no changes of limits, owners or modes; threads, files and memory, within their limits. libseccomp, through `pyseccomp`, translates
the names to the numbers of this machine, and the program is killed that calls by the numbers of another architecture.
"""

from __future__ import annotations

import errno
import os
import signal

_NAMES = """
    access brk chdir clock_getres clock_gettime clock_nanosleep close close_range copy_file_range dup dup2 dup3 epoll_create
    epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd2 exit exit_group faccessat faccessat2 fadvise64 fallocate
    fchdir fdatasync flock fstat fstatfs fsync ftruncate futex futex_waitv get_robust_list getcpu getcwd getdents getdents64 getegid
    geteuid getgid getgroups getitimer getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage
    getsid gettid gettimeofday getuid link linkat lseek lstat madvise membarrier mincore mkdir mkdirat mmap mprotect mremap msync
    munmap nanosleep newfstatat open openat pause pipe pipe2 poll ppoll pread64 preadv pselect6 pwrite64 pwritev read readahead
    readlink readlinkat readv rename renameat renameat2 restart_syscall rmdir rseq rt_sigpending rt_sigprocmask rt_sigreturn
    rt_sigsuspend rt_sigtimedwait sched_getaffinity sched_getparam sched_getscheduler sched_yield select sendfile set_robust_list
    set_tid_address setitimer sigaltstack stat statfs statx symlink symlinkat sysinfo time times truncate umask uname unlink unlinkat
    utimensat write writev
"""
ALLOWED = tuple(_NAMES.split())
"""System calls that are allowed whatever their arguments are."""

_CLONE_THREAD = 0x00010000
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 1030)
"""Duplicate, flags, locks. Not F_SETOWN, which has the kernel send signals, and not the size of pipes, memory outside the limit."""
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""Whether it is a terminal, its size, bytes to read, blocking, and close on exec; not TIOCSTI, which types into a terminal."""


def load() -> None:
    """Bind this thread, and all that it starts, to the list, for good. Raises `OSError`, and of pyseccomp `ImportError`, `RuntimeError`."""
    import pyseccomp as seccomp

    program = seccomp.SyscallFilter(defaction=seccomp.ERRNO(errno.EPERM))
    own = seccomp.Arg(0, seccomp.EQ, os.getpid())

    def allow(name: str, *conditions: object) -> None:
        if seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) >= 0:  # else this architecture has no such call, or libseccomp is older
            program.add_rule(seccomp.ALLOW, name, *conditions)

    for name in ALLOWED:
        allow(name)
    allow("clone", seccomp.Arg(0, seccomp.MASKED_EQ, _CLONE_THREAD, _CLONE_THREAD))
    for command in _FCNTL:
        allow("fcntl", seccomp.Arg(1, seccomp.EQ, command))
    for request in _IOCTL:
        allow("ioctl", seccomp.Arg(1, seccomp.EQ, request))
    for name in ("kill", "tgkill", "rt_sigqueueinfo"):
        allow(name, own)
    allow("prlimit64", seccomp.Arg(2, seccomp.EQ, 0))  # to read limits, not to set them
    allow("rt_sigaction", seccomp.Arg(0, seccomp.NE, int(signal.SIGXCPU)))
    # The C library asks for clone3 first, whose flags lie in memory where a filter cannot look, and takes this for "use clone".
    program.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    program.load()
