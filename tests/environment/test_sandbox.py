"""The sandbox: what a program can do, what it cannot, and that each attempt ends within its limit and leaves nothing behind.

An attempt prints ESCAPED where it got what it must not have. What it must meet instead is written beside it, so that an attempt that fails
for another reason (a misspelt name, a module that is missing) does not pass.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from agentloop.environment.sandbox import Limits, Sandbox, birth, programs
from agentloop.errors import Mistake

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the protections are Linux's")

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = Limits(seconds=4.0, cpu_seconds=1, session_cpu_seconds=6, memory=400 * 2**20, scratch=2 * 2**20, output=500)
NOT_PERMITTED = r"PermissionError: .*Operation not permitted"
NOT_THERE = r"FileNotFoundError"
NUMBERS = {"x86_64": {"mount": 165, "ptrace": 101, "process_vm_readv": 310, "add_key": 248, "setuid": 105}}
"""Numbers of system calls that differ between architectures; attempts that need them are made where they are known."""

SYSCALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def syscall(*arguments):
    result = libc.syscall(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    print("ESCAPED", result)
"""

ATTEMPTS: dict[str, tuple[str, str]] = {
    "read /etc/passwd": ("print('ESCAPED', open('/etc/passwd').read())", NOT_THERE),
    "read through ..": ("print('ESCAPED', open('../../../../etc/shadow').read())", NOT_THERE),
    "read this test": ("print('ESCAPED', open({test!r}).read())", NOT_THERE),
    "read the owner's environment in /proc": ("print('ESCAPED', open('/proc/{owner}/environ').read())", NOT_THERE),
    "read the owner's environment in one's own": (
        "import os; print('ESCAPED' if 'SECRET_KEY' in os.environ else 'none')",
        "finished: none",
    ),
    "read one's memory maps": ("print('ESCAPED', open('/proc/self/maps').read())", NOT_THERE),
    "read the disk": ("print('ESCAPED', open('/dev/vda', 'rb').read(9))", NOT_THERE),
    "write outside": ("open({canary!r}, 'w').write('ESCAPED')", NOT_THERE),
    "write beside the scratch folder": ("open('/note', 'w').write('x'); print('ESCAPED')", r"Errno 30|PermissionError"),
    "change the standard library": ("import os; open(os.__file__, 'a'); print('ESCAPED')", r"Errno 30|PermissionError"),
    "write through a symbolic link": ("import os; os.symlink({canary!r}, 'link'); open('link', 'w'); print('ESCAPED')", NOT_THERE),
    "make a device": ("import os, stat; os.mknod('disk', stat.S_IFBLK | 0o600, os.makedev(254, 0)); print('ESCAPED')", NOT_PERMITTED),
    "make a file executable as root": ("import os; open('a', 'w'); os.chmod('a', 0o4777); print('ESCAPED')", NOT_PERMITTED),
    "leave by chroot": ("import os; os.mkdir('d'); os.chroot('d'); print('ESCAPED')", NOT_PERMITTED),
    "mount /proc": (SYSCALL + "syscall({mount}, b'proc', b'/scratch', b'proc', 0, 0)", NOT_PERMITTED),
    "connect by TCP": ("import socket; socket.create_connection(('127.0.0.1', {tcp}), 1); print('ESCAPED')", NOT_PERMITTED),
    "send by UDP": (
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {tcp})); print('ESCAPED')",
        NOT_PERMITTED,
    ),
    "connect to a socket in a file": ("import socket; socket.socket(socket.AF_UNIX).connect({unix!r}); print('ESCAPED')", NOT_PERMITTED),
    "connect to an abstract socket": (
        "import socket; socket.socket(socket.AF_UNIX).connect(chr(0) + {abstract!r}); print('ESCAPED')",
        NOT_PERMITTED,
    ),
    "bind a port": ("import socket; socket.create_server(('', 0)); print('ESCAPED')", NOT_PERMITTED),
    "ask for a page": (
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{tcp}'); print('ESCAPED')",
        "not permitted|URLError",
    ),
    "talk to the kernel by netlink": ("import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW); print('ESCAPED')", NOT_PERMITTED),
    "fork bomb": ("import os\nwhile True:\n    os.fork()", NOT_PERMITTED),
    "thread bomb": (
        "import threading, time\nfor number in range(500):\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "print('ESCAPED')",
        "can't start new thread",
    ),
    "start a shell": ("import subprocess; subprocess.run(['/bin/sh', '-c', 'id']); print('ESCAPED')", "Error"),
    "become a program": ("import os; os.execv({python!r}, ['python', '-c', 'print()']); print('ESCAPED')", "NotFound|not permitted"),
    "run a file made in memory": ("import os; os.memfd_create('a'); print('ESCAPED')", NOT_PERMITTED),
    "fill the memory": ("kept = []\nwhile True:\n    kept.append(bytearray(10**7))", "raised: .*MemoryError"),
    "map more than there is": ("import mmap; mmap.mmap(-1, 10**12); print('ESCAPED')", "Cannot allocate memory"),
    "fill the disk": (
        "file = open('big', 'wb')\nfor _ in range(64):\n    file.write(bytes(10**6))\nprint('ESCAPED')",
        "No space left|too large",
    ),
    "make files without end": ("for number in range(10**5):\n    open(str(number), 'w').close()\nprint('ESCAPED')", "No space left"),
    "open files without end": ("kept = [open('a', 'w') for _ in range(1000)]; print('ESCAPED')", "Too many open files"),
    "flood the output": ("for _ in range(10**5):\n    print('x' * 100)", r"finished: x{{100}}.*\(\d+ more characters were left out\)"),
    "flood the answers": (
        "import os\nfor number in range(3, 64):\n    for _ in range(10**4):\n        try:\n            os.write(number, b'x' * 9999)\n"
        "        except OSError:\n            break",
        "protocol: error",
    ),
    "answer what is not JSON": (
        "import os\nfor number in range(3, 64):\n    try:\n        os.write(number, b'[' * 5000 + b'\\n')\n"
        "    except OSError:\n        pass",
        "protocol: error",
    ),
    "answer for another": (
        'import os\nfor number in range(3, 64):\n    try:\n        os.write(number, b\'{{"id": "0", "text": "ESCAPED"}}\\n\')\n'
        "    except OSError:\n        pass",
        "protocol: error",
    ),
    "close all that is open": ("import os; os.closerange(0, 64)", "died: error|time: error"),
    "wait": ("import time; time.sleep(3600)", "time: error"),
    "loop": ("while True: pass", "(cpu|time): error"),
    "loop, deaf to signals": ("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN); print('ESCAPED')", "OSError|PermissionError"),
    "catch everything": ("while True:\n    try:\n        while True: pass\n    except BaseException: pass", "(cpu|time): error"),
    "compute in C": ("9 ** 9 ** 9", "(cpu|time|raised): "),
    "crash": ("import ctypes; ctypes.string_at(0)", "died: error"),
    "kill the owner": ("import os; os.kill({owner}, 9); print('ESCAPED')", NOT_PERMITTED),
    "kill the first process": ("import os; os.kill(1, 9); print('ESCAPED')", NOT_PERMITTED),
    "kill everybody": ("import os; os.kill(-1, 9); print('ESCAPED')", NOT_PERMITTED),
    "trace the first process": (SYSCALL + "syscall({ptrace}, 16, 1, 0, 0)", NOT_PERMITTED),
    "read another's memory": (SYSCALL + "syscall({process_vm_readv}, {owner}, 0, 0, 0, 0, 0)", NOT_PERMITTED),
    "take another's file": (SYSCALL + "syscall(434, 1, 0)", NOT_PERMITTED),
    "become root": ("import os; os.setuid(0); print('ESCAPED')", NOT_PERMITTED),
    "become root by a system call": (SYSCALL + "syscall({setuid}, 0)", NOT_PERMITTED),
    "become root of a new namespace": (
        SYSCALL + "libc.unshare(0x10000000) == 0 and print('ESCAPED')\nprint(os.strerror(ctypes.get_errno()))",
        "not permitted",
    ),
    "raise the limits": (
        "import resource as r; r.setrlimit(r.RLIMIT_CPU, (-1, -1)); print('ESCAPED')",
        "not permitted|PermissionError|ValueError|OSError",
    ),
    "use io_uring past the filter": (SYSCALL + "syscall(425, 8, 0)", NOT_PERMITTED),
    "load a program into the kernel": (SYSCALL + "syscall(321, 0, 0, 0)", NOT_PERMITTED),
    "keep a key": (SYSCALL + "syscall({add_key}, b'user', b'a', b'b', 1, -3)", NOT_PERMITTED),
    "leave a shared memory": ("import multiprocessing.shared_memory as s; s.SharedMemory(create=True, size=9); print('ESCAPED')", "Error"),
}


@pytest.fixture(scope="module", autouse=True)
def processes_end() -> Iterator[None]:
    """After all tests nothing of the sandbox is left; where the machine lacks a protection, there is nothing to test, and it is told."""
    try:
        with Sandbox() as python:
            python.check()
    except Mistake as missing:
        pytest.skip(str(missing))
    yield
    birth.close()
    assert not [child for child in psutil.Process().children(recursive=True) if "nursery" in " ".join(child.cmdline())]


def test_no_attempt_to_escape_succeeds_and_each_ends_within_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "ESCAPED")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        unix.bind(str(tmp_path / "socket"))
        abstract.bind(f"\0agentloop-test-{os.getpid()}")
        for listening in (unix, abstract):
            listening.listen()
        words = {
            "test": __file__,
            "owner": os.getpid(),
            "canary": str(tmp_path / "canary"),
            "tcp": tcp.getsockname()[1],
            "unix": str(tmp_path / "socket"),
            "abstract": f"agentloop-test-{os.getpid()}",
            "python": sys.executable,
        }
        numbers = NUMBERS.get(os.uname().machine)
        attempts = {name: case for name, case in ATTEMPTS.items() if numbers or "syscall({" not in case[0]}

        def attempt(name: str) -> str:
            code, expected = (text.format(**words, **(numbers or {})) for text in attempts[name])
            with Sandbox(SMALL) as python:
                started = time.monotonic()
                output = python.run(code)
                took = time.monotonic() - started
                after = python.run("1 + 1")
            told = f"{output.ending}: " + re.sub(r"^  line \d+: .*\n", "", output.text, flags=re.MULTILINE)  # without lines of the program
            wrong = []
            if "ESCAPED" in told or not re.search(expected, told, re.DOTALL):
                wrong.append(f"expected {expected!r}")
            if len(output.text) > SMALL.output + 2_000 or took > SMALL.seconds + 20:  # its limit, and a machine that does other things too
                wrong.append(f"{len(output.text)} characters, {took:.1f} s")
            if name not in ("thread bomb", "fill the memory", "open files without end") and (after.text, after.ending) != ("2", "finished"):
                wrong.append(f"the next program: {after}")
            return f"{name}: {'; '.join(wrong)}; found {told:.300}" if wrong else ""

        with ThreadPoolExecutor(8) as executor:
            failed = [told for told in executor.map(attempt, attempts) if told]
        assert len(attempts) >= 40 and failed == []
        assert not (tmp_path / "canary").exists()
        for listening in (tcp, unix, abstract):
            listening.setblocking(False)
            with pytest.raises(BlockingIOError):
                listening.accept()


def test_a_session_is_a_notebook() -> None:
    with Sandbox() as python:
        assert python.run("import math\ndef double(x):\n    return 2 * x\nkept = double(21)").text == ""
        assert python.run("print('first')\nkept").text == "first\n42"
        wrong = python.run("kept += 1\nprint('so far')\nkept / 0")
        assert (wrong.ending, wrong.text) == ("raised", "so far\n  line 3: kept / 0\nZeroDivisionError: division by zero")
        assert python.run("kept").text == "43", "what raised leaves the variables"
        assert "SyntaxError" in python.run("print(").text and python.run("import sys; sys.exit(3)").ending == "raised"
        assert python.run("input()").text.endswith("EOFError: EOF when reading a line"), "nobody answers"
        assert python.run("open('note', 'w').write('kept'); open('note').read()").text == "'kept'"
        chance = python.run("import random; random.random()").text
        python.restart()
        assert "NameError" in python.run("kept").text and "FileNotFoundError" in python.run("open('note')").text
        assert python.run("import random; random.random()").text == chance, "an episode repeats itself"
        lost = python.run("import os; os._exit(3)")
        assert (lost.ending, lost.text) == ("died", "error: the process ended (exit code 3); the variables of earlier programs are lost")
        assert python.run("'\\ud800'").finished and "characters" in python.run("x" * 100_000).text


def test_a_session_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Sandbox() as first:
        first.run("1")
        process = psutil.Process()
        before = (process.num_fds(), len(process.children(recursive=True)))
        for _ in range(10):
            with Sandbox() as python:
                python.run("import threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); open('a', 'w')")
        deadline = time.monotonic() + 20  # processes are gone at once; their parent notices a little later
        while (process.num_fds(), len(process.children(recursive=True))) != before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (process.num_fds(), len(process.children(recursive=True))) == before
    assert list(tmp_path.iterdir()) == []


def test_when_the_owner_is_killed_all_end() -> None:
    program = """
import time
from agentloop.environment.sandbox import Sandbox
python = Sandbox()
python.run("1")
print("there", flush=True)
python.run("import time; time.sleep(60)")
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == b"there\n"
        below = psutil.Process(owner.pid).children(recursive=True)
        assert len(below) >= 4  # where sessions are born, launcher, init, worker
        owner.send_signal(signal.SIGKILL)
        owner.wait(10)
        assert psutil.wait_procs(below, timeout=20)[1] == []


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/usr/bin/python3").exists(), reason="only root can become a plain user")
def test_a_plain_user_has_the_protections_too() -> None:
    program = """
from agentloop.environment.sandbox import Sandbox
with Sandbox(unprotected=["system_calls"]) as python:  # that Python may not have pyseccomp
    print(python.run("import os; open('note', 'w'); os.getuid(), os.listdir('/scratch'), os.path.exists('/etc/passwd'), os.getpid()").text)
    print(sorted(python.missing))
"""
    plain = {"user": 12345, "group": 12345, "extra_groups": []}
    tried = subprocess.run(["/usr/bin/python3", "-c", program], capture_output=True, text=True, cwd=ROOT, **plain)
    if "No module named" in tried.stderr or "SyntaxError" in tried.stderr:
        pytest.skip("a plain user cannot read this checkout, or the system's Python is too old")
    shown, missing = tried.stdout.splitlines() or ["", tried.stderr]
    assert shown == "(12345, ['note'], False, 2)" and missing in ("[]", "['system_calls']"), tried


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs the program unshare")
def test_where_a_protection_is_missing_it_is_named_and_refused_unless_allowed(tmp_path: Path) -> None:
    program = """
from agentloop.environment.sandbox import Sandbox
try:
    Sandbox().run("1")
except Exception as error:
    print(type(error).__name__, error)
with Sandbox(unprotected=["files"]) as python:
    print(python.run("import socket, os\\ntry: socket.socket()\\nexcept OSError as error: print(error)\\nos.fork()").text)
    print(sorted(python.missing))
"""
    without = f"echo 0 > /proc/sys/user/max_user_namespaces && exec {sys.executable} -c '{program}'"  # in a namespace of its own only
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    tried = subprocess.run(["unshare", "-Ur", "sh", "-c", without], capture_output=True, text=True, cwd=ROOT, env=environment)
    if tried.returncode and "unshare" in tried.stderr:
        pytest.skip("this machine has no namespaces")
    refused, network, *fork, missing = tried.stdout.splitlines() or [tried.stderr]
    assert refused.startswith(
        "Mistake this machine cannot keep a model's programs from reading and writing files (files: the kernel refuses"
    ), tried
    assert refused.endswith("unprotected: [files]") and missing == "['files']"
    assert "not permitted" in network and "PermissionError" in "".join(fork), "the filter of system calls guards these alone"
    assert list(tmp_path.iterdir()) == []


def test_wrong_options_are_told() -> None:
    with pytest.raises(Mistake, match="no such protection.*did you mean 'files'"):
        Sandbox(unprotected=["file"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="seconds of a sandbox is more than 0"):
        Limits(seconds=0)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("So:\n```python\nx = 1\nprint(x)\n```\nThen", ("x = 1\nprint(x)",)),
        ("```py\na\n```\nand\n```Python\nb\n```", ("a", "b")),
        ("```python\nnot closed", ("not closed",)),
        ('<tool_call>{"name": "python", "arguments": {"code": "1 + 1"}}</tool_call>', ("1 + 1",)),
        ("python(code='1 + 1')", ("1 + 1",)),
        ("<think>```python\nx\n```</think>The answer is 4.", ()),
        ("The answer is \\boxed{4}. ```\ntext\n```", ()),
        ("```python\n\n```", ()),
    ],
)
def test_programs_are_found(text: str, found: tuple[str, ...]) -> None:
    assert programs(text) == found
