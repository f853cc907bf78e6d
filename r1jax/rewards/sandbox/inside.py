"""The first process of a sandbox: completes the walls, starts the untrusted program behind them, waits, and reports.

Runs in a fresh interpreter that is given this file as compiled code, so it imports the standard library only. Where the
sandbox has a process namespace it is process 1 of it: nothing inside can kill it, and with it the kernel ends all that
is left. It gives the program its standard streams and nothing else, and reads nothing that the program writes.
"""

import _signal as signal  # the module signal takes longer to import than all else here; it only adds enums
import ctypes
import math
import os
import resource
import select
import struct
import time

LIBC = ctypes.CDLL(None, use_errno=True)
WORK = "/sandbox"  # the program's folder, where there are mounts
ROOT = "/proc"  # where a new root is put together: a folder that every host has and no program inside needs

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL, SECCOMP_MODE_FILTER = 4, 2
CAPABILITY_VERSION, CAPABILITIES = 0x20080522, 64
NEW_MOUNT, NEW_CGROUP, NEW_UTS, NEW_IPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEW_USER, NEW_PID, NEW_NET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
ATTR_READ_ONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_SETATTR, LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 442, 444, 445, 446  # the same on every architecture
AT_FDCWD, AT_RECURSIVE, DETACH = -100, 0x8000, 2
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1, 2, 4, 8, 1 << 14  # Landlock's rights
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | 1 << 15
LANDLOCK_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many there are, by version; 16 from the fifth on
EXIT_UNSTARTED = 125
OVERDUE = "overdue"


def main(order: dict, control: int) -> None:
    """Do what the order says; `control` is a socket to the host: its end is the end of the sandbox."""
    os.set_inheritable(control, False)
    try:
        if order["level"] in ("bubblewrap", "namespaces"):
            if order["level"] == "namespaces":
                enter_namespaces(order, control)
            call(LIBC.sethostname(b"sandbox", 7), "sethostname")
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # of the process outside that started the namespaces
        if order["level"] != "none":
            prctl(PR_SET_DUMPABLE, 0)
        folder = make_folder(order)
        hear = listen_for_children()
        child = os.fork()
        if not child:
            start(order, control, folder)
        for stream in range(3):  # the pipes belong to the program alone
            os.close(stream)
        say(control, "started")
        ended = wait(child, control, hear, time.monotonic() + order["wall_seconds"])
        if order["level"] in ("landlock", "none"):  # no namespace ends with this process
            kill_below(child, alive=ended == OVERDUE)
            remove(folder)
        say(control, ended)
    except BaseException as error:
        say(control, f"failed {type(error).__name__}: {error}")
    os._exit(0)


def say(control: int, text: str) -> None:
    """Tell the host, if it is still there."""
    try:
        os.write(control, text.replace("\n", " ")[:4000].encode() + b"\n")
    except OSError:
        pass


def call(result: int, what: str) -> int:
    """The result of a C function, or OSError where it failed."""
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def prctl(option: int, *values: int) -> int:
    """prctl(2); OSError where it fails."""
    padded = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    return call(LIBC.prctl(option, *padded), f"prctl {option}")


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2); OSError where it fails."""
    texts = [text and os.fsencode(text) for text in (source, target, kind, options)]
    call(LIBC.mount(*texts[:3], ctypes.c_ulong(flags), texts[3]), f"mount {source} on {target}")


def seal(path: str, attributes: int, flags: int = 0) -> None:
    """Set attributes of a mount, or with AT_RECURSIVE of all below it too."""
    fields = struct.pack("QQQQ", attributes, 0, 0, 0)
    call(LIBC.syscall(MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), flags, fields, len(fields)), f"mount_setattr {path}")


def enter_namespaces(order: dict, control: int) -> None:
    """Leave the host's namespaces and files behind; returns in process 1 of the sandbox."""
    identity = os.geteuid(), os.getegid()
    flags = NEW_MOUNT | NEW_CGROUP | NEW_UTS | NEW_IPC | NEW_PID | NEW_NET
    call(LIBC.unshare(flags | (0 if order["identity"] else NEW_USER)), "unshare")
    if not order["identity"]:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"1000 {identity[0]} 1"),
            ("gid_map", f"1000 {identity[1]} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    child = os.fork()
    if child:  # outside: hold nothing, wait
        os.closerange(0, control + 1)
        os.waitpid(child, 0)
        os._exit(0)
    os.setsid()
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("none", ROOT, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,nr_inodes=1k,mode=755")
    for source, target in order["readable"]:
        bind(source, ROOT + target, MS_REC)
        seal(ROOT + target, ATTR_READ_ONLY | ATTR_NOSUID | ATTR_NODEV, AT_RECURSIVE)
    for device in order["devices"]:
        bind(device, ROOT + device, 0)
        seal(ROOT + device, ATTR_READ_ONLY | ATTR_NOSUID | ATTR_NOEXEC)
    os.mkdir(ROOT + WORK)
    for link in order["links"]:
        os.symlink(WORK, ROOT + link)
    seal(ROOT, ATTR_READ_ONLY | ATTR_NOSUID | ATTR_NODEV)
    os.chdir(ROOT)
    call(LIBC.pivot_root(b".", b"."), "pivot_root")  # the old root now lies on top of the new one
    call(LIBC.umount2(b".", DETACH), "umount of the host's root")
    os.chdir("/")


def bind(source: str, target: str, flags: int) -> None:
    """Show a file or folder of the host at another path, which is made."""
    os.makedirs(target if os.path.isdir(source) else os.path.dirname(target), exist_ok=True)
    if not os.path.exists(target):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, target, None, MS_BIND | flags)


def make_folder(order: dict) -> str:
    """The program's own folder: a small file system in memory, or where mounts are denied one of the host."""
    if order["level"] in ("bubblewrap", "namespaces"):
        owner = order["identity"] or os.geteuid()
        size = f"size={order['tmpfs_bytes']},nr_inodes={order['tmpfs_files']}"
        mount("none", WORK, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"{size},mode=700,uid={owner},gid={owner}")
        return WORK
    os.mkdir(order["folder"], 0o700)
    if order["identity"]:
        os.chown(order["folder"], order["identity"], order["identity"])
    return order["folder"]


def start(order: dict, control: int, folder: str) -> None:
    """Become the untrusted program, behind all the walls that are left; never returns."""
    try:
        os.setsid()
        os.umask(0o077)
        os.chdir(folder)
        if order["level"] != "none":
            drop_privileges(order["identity"])
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for name, content in order["files"].items():
            os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
            with open(name, "wb") as file:
                file.write(content)
        for limit, value in order["limits"]:
            set_limit(limit, value)
        if order["level"] != "none":
            prctl(PR_SET_NO_NEW_PRIVS, 1)
            restrict_files(order, folder)
            refuse_system_calls(order["filter"])
        os.closerange(3, control)
        os.closerange(control + 1, 65536)
        os.execve(order["program"][0], order["program"], order["environment"] | {"HOME": folder, "TMPDIR": folder})
    except BaseException as error:
        say(control, f"failed {type(error).__name__}: {error}")
    os._exit(EXIT_UNSTARTED)


def drop_privileges(identity: int) -> None:
    """Become a user that nobody else is, where one is given; give up every capability for good."""
    if identity:
        for capability in range(CAPABILITIES):
            LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails beyond the last one
        os.setgroups([])
        os.setresgid(identity, identity, identity)
        os.setresuid(identity, identity, identity)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = ctypes.create_string_buffer(struct.pack("Ii", CAPABILITY_VERSION, 0))
    call(LIBC.capset(header, ctypes.create_string_buffer(24)), "capset")


def set_limit(limit: int, value: int) -> None:
    """Set a resource limit, soft and hard, as far as the host's own hard limit allows."""
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value + 1 if limit == resource.RLIMIT_CPU else value))


def restrict_files(order: dict, folder: str) -> None:
    """Landlock: read the runtime, use the devices, write in the folder if it is in memory; no TCP, no signal out.

    Where there are mounts this is a second wall, taken as far as the kernel has it; without mounts the host has made
    sure that it has all of it.
    """
    version = LIBC.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return
    rights = (1 << LANDLOCK_RIGHTS.get(version, 16)) - 1
    network, scopes = (3 if version >= 4 else 0), (3 if version >= 6 else 0)
    fields = struct.pack("QQQ", rights, network, scopes)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = call(LIBC.syscall(LANDLOCK_CREATE, fields, len(fields), 0), "landlock_create_ruleset")
    in_memory = order["level"] != "landlock"
    allowed = [
        (target if in_memory else source, EXECUTE | READ_FILE | READ_DIR) for source, target in order["readable"]
    ]
    allowed += [(device, READ_FILE | WRITE_FILE | TRUNCATE) for device in order["devices"]]
    allowed.append((folder, rights & ~EXECUTE if in_memory else READ_FILE | READ_DIR))
    for path, granted in allowed:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        granted &= rights if os.path.isdir(path) else rights & FILE_RIGHTS
        rule = struct.pack("=Qi", granted, place)
        call(LIBC.syscall(LANDLOCK_ADD, ruleset, 1, rule, 0), f"landlock_add_rule {path}")
        os.close(place)
    call(LIBC.syscall(LANDLOCK_RESTRICT, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def refuse_system_calls(program: bytes) -> None:
    """Install a seccomp filter."""
    code = ctypes.create_string_buffer(program, len(program))
    fields = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(fields))


def listen_for_children() -> int:
    """A pipe that can be read after a child has ended."""
    hear, tell = os.pipe()
    os.set_blocking(tell, False)
    os.set_blocking(hear, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    return hear


def wait(child: int, control: int, hear: int, deadline: float) -> str:
    """Wait until the program, the host or the time is at its end; how the program ended. Reaps what others leave."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(hear, select.POLLIN)
    while True:
        try:
            while (found := os.wait4(-1, os.WNOHANG))[0]:
                process, status, usage = found
                if process == child:
                    return f"ended {os.waitstatus_to_exitcode(status)} {usage.ru_utime + usage.ru_stime:.3f}"
        except ChildProcessError:
            pass
        left = deadline - time.monotonic()
        if left <= 0:
            return OVERDUE
        ready = [descriptor for descriptor, _ in poll.poll(min(math.ceil(left * 1000), 60_000))]
        if control in ready:  # the host has nothing more to say: it is gone, or wants the end
            return OVERDUE
        if hear in ready:
            os.read(hear, 4096)


def kill_below(child: int, alive: bool) -> None:
    """Kill the program, and what it has left in its process group."""
    try:
        os.killpg(child, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    if alive:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def remove(folder: str) -> None:
    """Delete a folder."""
    for below, _, names in os.walk(folder, topdown=False):
        for name in names:
            os.unlink(os.path.join(below, name))
        os.rmdir(below)
