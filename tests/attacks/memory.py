"""Using up memory, files and time."""

from attacks.aims import LIBC, ends, escaped, system_call


@ends("memory")
def fill_a_bytearray():
    """Two gigabytes at once."""
    escaped(len(bytearray(2 << 30)))


@ends("memory", "cpu")
def grow_a_list():
    """Little by little."""
    chunks = []
    while True:
        chunks.append(bytearray(1 << 20))


@ends("memory", "nonzero", "cpu")
def map_memory():
    """Private and shared mappings."""
    import mmap

    maps = []
    for flags in (mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS):
        while len(maps) < 64:
            maps.append(mmap.mmap(-1, 64 << 20, flags))
            maps[-1][:: mmap.PAGESIZE] = b"x" * (64 << 20 >> 12)
    escaped(len(maps))


@ends("memory", "signal", "ok", "nonzero", "cpu")
def fill_memory_in_many_processes():
    """Each below its own limit."""
    import os
    import time

    try:
        for _ in range(12):
            if os.fork() == 0:
                data = bytearray(120 << 20)
                data[::4096] = b"x" * (120 << 20 >> 12)
                time.sleep(30)
        time.sleep(30)
        escaped()
    except OSError:
        pass


def keep_memory_in_segments():
    """System V shared memory stays without being mapped, and after the process."""
    for _ in range(100):
        if system_call(29, 194, 0, 64 << 20, 0o1600) >= 0:
            escaped()


def keep_memory_in_a_file_without_a_name():
    """memfd_create: memory that no address space shows."""
    if system_call(319, 279, b"x", 0) >= 0 or system_call(447, 447, 0) >= 0:
        escaped()


def keep_memory_in_message_queues():
    """System V and POSIX queues and semaphores."""
    if system_call(68, 186, 0, 0o1600) >= 0 or system_call(64, 190, 0, 30000, 0o1600) >= 0:
        escaped()
    if LIBC.syscall(240, b"queue", 0o102, 0o600, None) >= 0:
        escaped()


def keep_memory_in_pipes():
    """As many as possible, as large as possible."""
    import fcntl
    import os

    total = 0
    try:
        while True:
            hear, tell = os.pipe()
            os.set_blocking(tell, False)
            try:
                fcntl.fcntl(tell, 1031, 1 << 20)
            except OSError:
                pass
            try:
                while True:
                    total += os.write(tell, bytes(1 << 16))
            except BlockingIOError:
                pass
    except OSError:
        if total > 256 << 20:
            escaped(total)


def keep_memory_in_socket_pairs():
    """The same with sockets and descriptors in flight."""
    import socket

    pairs, total = [], 0
    try:
        while True:
            pairs.append(socket.socketpair())
            pairs[-1][0].setblocking(False)
            try:
                while True:
                    total += pairs[-1][0].send(bytes(1 << 16))
            except BlockingIOError:
                pass
    except OSError:
        if total > 256 << 20:
            escaped(total)


def lock_memory():
    """mlock keeps others from using it."""
    import ctypes

    block = ctypes.create_string_buffer(16 << 20)
    if LIBC.mlock(block, ctypes.c_size_t(16 << 20)) == 0 or LIBC.mlockall(3) == 0:
        escaped()


def fill_the_folder():
    """One large file, many large files: they are memory."""
    total = 0
    try:
        for number in range(1000):
            with open(f"file{number}", "wb", buffering=0) as file:
                for _ in range(16):
                    total += file.write(bytes(1 << 20))
    except OSError:
        pass
    if total > 64 << 20:
        escaped(total)


def fill_shared_memory():
    """/dev/shm, through the C library and the standard library."""
    from multiprocessing import shared_memory

    blocks = []
    try:
        for _ in range(64):
            blocks.append(shared_memory.SharedMemory(create=True, size=8 << 20))
            blocks[-1].buf[:: 1 << 12] = bytes(8 << 20 >> 12)
        escaped(len(blocks))
    except OSError:
        import os

        os._exit(0)


def make_a_sparse_file():
    """A terabyte that is not there."""
    import os

    try:
        with open("sparse", "wb") as file:
            os.ftruncate(file.fileno(), 1 << 40)
        escaped()
    except OSError:
        pass


def make_many_files():
    """Empty files need no space, but kernel memory."""
    import os

    try:
        for number in range(100_000):
            os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY))
        escaped()
    except OSError:
        pass


def make_many_folders_and_links():
    """The same with folders, links, pipes."""
    import os

    made = 0
    for kind in (os.mkdir, lambda name: os.symlink("x" * 2000, name), os.mkfifo, lambda name: os.link("main.py", name)):
        try:
            for number in range(20_000):
                kind(f"{made}-{number}")
                made += 1
        except OSError:
            pass
    if made >= 20_000:
        escaped(made)


def nest_folders_deeply():
    """Cleaning up must not recurse as deeply."""
    import os

    try:
        for _ in range(5000):
            os.mkdir("d")
            os.chdir("d")
    except OSError:
        pass


def open_many_files():
    """Descriptors."""
    import os

    try:
        for count in range(5000):
            os.open("/dev/null", os.O_RDONLY)
        escaped(count)
    except OSError:
        pass


@ends("nonzero", "signal", "memory")
def recurse_without_end():
    """Python's own limit."""

    def down(n):
        return down(n + 1) + 1

    down(0)


@ends("signal", "memory", "nonzero", "timeout", "cpu")
def overflow_the_stack():
    """Without Python's limit, and in C."""
    import sys
    import threading

    sys.setrecursionlimit(1 << 30)
    threading.stack_size(64 << 20)

    class Nested:
        def __repr__(self):
            return repr(self)

    def down(*_):
        return down(*map(down, [1]))

    thread = threading.Thread(target=down)
    thread.start()
    thread.join()
    repr(Nested())


@ends("cpu", "timeout")
def compute_a_huge_number():
    """One operation in C, which no signal handler of Python interrupts."""
    x = 3 ** (1 << 22)
    for _ in range(64):
        x = x * x % (1 << 40_000_000)
    escaped(x)


@ends("cpu", "timeout")
def match_a_catastrophic_pattern():
    """Exponential backtracking."""
    import re

    escaped(re.match(r"(a|a)*$", "a" * 64 + "b"))


@ends("cpu")
def spin():
    """Pure Python."""
    while True:
        pass


@ends("cpu")
def spin_in_c():
    """Without ever giving the lock back."""
    escaped(sum(iter(int, 1)))


@ends("timeout")
def sleep_forever():
    """Uses nothing but time."""
    import time

    time.sleep(1e8)


@ends("timeout")
def wait_for_itself():
    """A lock taken twice."""
    import threading

    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@ends("memory", "nonzero", "signal", "cpu", "timeout")
def parse_a_deeply_nested_program():
    """The compiler recurses in C."""
    for text in ("(" * 100_000, "-" * 1_000_000 + "1", "[" * 90 + "]" * 90, "f" * 90_000_000):
        try:
            compile(text, "x", "eval")
        except (SyntaxError, RecursionError):
            pass
    bytearray(2 << 30)
