"""System calls by which kernels have been entered, or namespaces left."""

from attacks.aims import LIBC, escaped, escaped_unless_failed, escaped_unless_refused, system_call


def unshare_namespaces():
    """In a user namespace of its own it would be root."""
    for flags in (0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x04000000, 0x08000000, 0x02000000, 0x80, 0x7E020000):
        escaped_unless_failed(272, 97, flags)


def clone_into_namespaces():
    """The same by clone and clone3."""
    for flags in (0x10000000, 0x10020000, 0x20000000):
        found = system_call(56, 220, flags | 17, 0, 0, 0, 0)
        if found == 0:
            system_call(231, 94, 0)
        if found > 0:
            escaped(flags)
    found = system_call(435, 435, (0x10000000).to_bytes(8, "little") + bytes(24) + b"\x11" + bytes(55), 88)
    if found == 0:
        system_call(231, 94, 0)
    if found > 0:
        escaped("clone3")


def enter_namespaces_of_the_host():
    """setns with whatever it can open."""
    for number in range(3):
        escaped_unless_failed(308, 268, number, 0)


def mount_file_systems():
    """The old way and the new way."""
    escaped_unless_failed(165, 40, b"none", b"/tmp", b"tmpfs", 0, None)
    escaped_unless_failed(165, 40, b"proc", b"/tmp", b"proc", 0, None)
    escaped_unless_failed(165, 40, None, b"/", None, 32 | 4096, None)
    escaped_unless_failed(430, 430, b"tmpfs", 0)
    escaped_unless_failed(428, 428, -100, b"/", 1)
    escaped_unless_failed(429, 429, -100, b"/", -100, b"/tmp", 0)
    escaped_unless_failed(442, 442, -100, b"/", 0x8000, bytes(8) + b"\x01" + bytes(23), 32)


def unmount_what_is_in_the_way():
    """Below a mount lies what it covers."""
    for path in (b"/tmp", b"/", b"/lib", b"/dev/null"):
        escaped_unless_failed(166, 39, path, 2)


def change_the_root():
    """chroot and pivot_root."""
    escaped_unless_failed(161, 51, b"/tmp")
    escaped_unless_failed(155, 41, b"/", b"/tmp")


def use_the_keyring():
    """Keys of the user, which namespaces do not hide."""
    for arguments in ((0, -3, 1), (0, -4, 1), (0, -5, 1), (1, 0), (11, -3, 0, 0)):
        escaped_unless_failed(250, 219, *arguments)
    escaped_unless_failed(248, 217, b"user", b"name", b"value", 5, -3)


def load_a_program_into_the_kernel():
    """bpf."""
    for command in range(8):
        escaped_unless_failed(321, 280, command, bytes(128), 128)


def measure_the_kernel():
    """perf_event_open."""
    event = (0).to_bytes(4, "little") + (112).to_bytes(4, "little") + bytes(104)
    escaped_unless_failed(298, 241, event, 0, -1, -1, 0)


def submit_to_io_uring():
    """It makes system calls that no filter sees."""
    import ctypes

    escaped_unless_failed(425, 425, 8, ctypes.create_string_buffer(120))


def handle_page_faults():
    """userfaultfd stops the kernel in the middle."""
    for flags in (0, 1):
        escaped_unless_failed(323, 282, flags)


def load_modules_and_kernels():
    """init_module, finit_module, delete_module, kexec_load, kexec_file_load."""
    escaped_unless_failed(175, 105, b"x", 1, b"")
    escaped_unless_failed(313, 273, 0, b"", 0)
    escaped_unless_failed(176, 106, b"x", 0)
    escaped_unless_failed(246, 104, 0, 0, None, 0)
    escaped_unless_failed(320, 294, 0, 0, 0, b"", 0)


def administrate():
    """reboot, swap, accounting, quotas, clocks, names, the log."""
    escaped_unless_failed(169, 142, 0xFEE1DEAD, 672274793, 0, None)
    escaped_unless_failed(167, 224, b"/tmp/main.py", 0)
    escaped_unless_failed(163, 89, b"/tmp/log")
    escaped_unless_failed(227, 112, 0, bytes(16))
    escaped_unless_failed(170, 161, b"host", 4)
    escaped_unless_failed(171, 162, b"host", 4)
    escaped_unless_failed(103, 116, 3, bytes(64), 64)
    escaped_unless_failed(179, 60, 0, b"/", 0, None)


def touch_the_hardware():
    """Ports, and segments of the processor."""
    escaped_unless_failed(172, None, 3)
    escaped_unless_failed(173, None, 0x60, 1, 1)
    escaped_unless_failed(154, None, 1, bytes(16), 16)


def become_another_user():
    """Root first."""
    import os

    if os.getuid() != 0 and os.geteuid() != 0:
        attempts = (lambda: os.setuid(0), lambda: os.seteuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgid(0))
        for attempt in (*attempts, lambda: os.setgroups([0]), lambda: os.setresgid(0, 0, 0)):
            try:
                attempt()
                escaped()
            except OSError:
                pass
    else:  # without namespaces and as the host's root it keeps the number, which must be worth nothing
        for attempt in (lambda: os.setuid(12345), lambda: os.setgroups([]), lambda: os.setgid(12345)):
            try:
                attempt()
                escaped()
            except OSError:
                pass


def take_capabilities():
    """capset, ambient capabilities, and keeping them."""
    import ctypes

    header = ctypes.create_string_buffer((0x20080522).to_bytes(4, "little") + bytes(4))
    escaped_unless_failed(126, 91, header, ctypes.create_string_buffer(b"\xff" * 24))
    data = ctypes.create_string_buffer(24)
    if system_call(125, 90, header, data) == 0 and any(data.raw):
        escaped(data.raw)
    if LIBC.prctl(47, 2, 21, 0, 0) == 0:
        escaped("ambient")


def loosen_the_filter():
    """A further filter can only tighten; the mode cannot be left."""
    import ctypes
    import struct

    allow_all = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
    LIBC.prctl(22, 2, ctypes.c_char_p(struct.pack("HxxxxxxP", 1, ctypes.addressof(allow_all))))
    LIBC.prctl(38, 0, 0, 0, 0)
    escaped_unless_failed(41, 198, 2, 1, 0)
    escaped_unless_failed(272, 97, 0x10000000)


def use_the_other_call_tables():
    """x32 numbers, and 32-bit calls by machine code: the same kernel under other numbers."""
    import ctypes
    import mmap
    import os
    import platform

    if platform.machine() != "x86_64":
        return
    try:
        child = os.fork()
    except OSError:
        child = 0
    if child == 0:
        if LIBC.syscall(0x40000000 + 41, 1, 1, 0) >= 0:
            escaped("x32")
        os._exit(0)
    code = (
        b"\xb8\x66\x01\x00\x00\x53\xbb\x02\x00\x00\x00\xb9\x01\x00\x00\x00\x31\xd2\xcd\x80\x5b\xc3"  # socket(2, 1, 0)
    )
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    if ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))() >= 0:
        escaped("int 0x80")


def change_the_personality():
    """Switches off the randomisation of addresses."""
    escaped_unless_failed(135, 92, 0x0040000)


def watch_the_file_system():
    """fanotify sees every access of the host; inotify and F_NOTIFY those in the folders that are in view."""
    import fcntl
    import os

    escaped_unless_failed(300, 262, 0, 0)
    escaped_unless_failed(294, 26, 0)
    libraries = os.open(os.path.dirname(os.__file__), os.O_RDONLY)
    escaped_unless_refused(lambda: fcntl.fcntl(libraries, fcntl.F_NOTIFY, fcntl.DN_ACCESS))


def hold_up_writers_of_the_host():
    """A lease on a file that is in view: who opens it to write has to wait."""
    import fcntl
    import os
    import sys

    for path in (os.__file__, sys.executable):
        escaped_unless_refused(lambda path=path: fcntl.fcntl(os.open(path, os.O_RDONLY), fcntl.F_SETLEASE, 0))


def flag_the_files_of_the_host():
    """ioctl changes attributes of files that are open for reading, and Landlock does not see it."""
    import fcntl
    import os
    import struct
    import sys

    for path in (os.__file__, sys.executable):
        file = os.open(path, os.O_RDONLY)
        for request, size in ((0x40086602, 8), (0x401C5820, 28)):  # FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR
            escaped_unless_refused(lambda: fcntl.ioctl(file, request, struct.pack(f"{size}x")))


def flush_the_disks_of_the_host():
    """sync and syncfs, of all that the host has written."""
    import os

    escaped_unless_failed(162, 81)
    escaped_unless_failed(306, 267, os.open(os.__file__, os.O_RDONLY))


def compare_and_advise_other_processes():
    """kcmp, process_madvise, move_pages, migrate_pages."""
    import os

    escaped_unless_failed(312, 272, os.getpid(), 1, 0, 0, 0)
    escaped_unless_failed(440, 440, 0, bytes(16), 1, 4, 0)
    escaped_unless_failed(256, 238, 1, 8, bytes(8), bytes(8))
    escaped_unless_failed(279, 239, 1, 0, None, None, None, 0)
