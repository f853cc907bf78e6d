"""Seeing and changing the host's files."""

from attacks.aims import (
    CANARY,
    LIBC,
    SECRET,
    TESTS,
    VARIABLE,
    escaped,
    escaped_if_secret,
    escaped_unless_failed,
    escaped_unless_refused,
)


def read_by_absolute_path():
    """The canary."""
    escaped_unless_refused(lambda: open(CANARY).read())


def read_by_climbing_up():
    """The canary, from the working directory."""
    escaped_unless_refused(lambda: open("../" * 30 + CANARY.lstrip("/")).read())


def read_through_a_symbolic_link():
    """A link to the canary."""
    import os

    try:
        os.symlink(CANARY, "link")
    except OSError:
        return
    escaped_unless_refused(lambda: open("link").read())


def read_through_a_hard_link():
    """A second name for the canary."""
    import os

    escaped_unless_refused(lambda: os.link(CANARY, "link"))


def read_through_a_descriptor_of_a_folder():
    """Open relative to a folder's descriptor."""
    import os

    def attempt():
        folder = os.open("/", os.O_RDONLY | os.O_PATH)
        return os.read(os.open(CANARY.lstrip("/"), os.O_RDONLY, dir_fd=folder), 100)

    escaped_unless_refused(attempt)


def read_through_roots_of_processes():
    """/proc/<pid>/root leads into the file systems of others."""
    for process in ["self", "thread-self", *range(1, 50)]:
        for path in (f"/proc/{process}/root{CANARY}", f"/proc/{process}/cwd/../../../../..{CANARY}"):
            try:
                escaped_if_secret(open(path).read())
            except OSError:
                pass


def read_environments():
    """What the host was started with, keys and tokens among it."""
    import glob
    import os

    escaped_if_secret(repr(os.environ) + os.environ.get(VARIABLE, ""))
    for path in ["/proc/self/environ", "/proc/1/environ", *glob.glob("/proc/*/environ")]:
        try:
            escaped_if_secret(open(path, "rb").read())
        except OSError:
            pass


def read_the_mounts():
    """Which file systems the host has."""
    for path in ("/proc/self/mountinfo", "/proc/mounts", "/etc/mtab", "/etc/fstab"):
        escaped_unless_refused(lambda: open(path).read())


def read_the_users():
    """Accounts, password hashes, host keys."""
    import glob

    for path in ("/etc/passwd", "/etc/shadow", "/etc/hostname", "/etc/machine-id", *glob.glob("/etc/ssh/*key")):
        escaped_unless_refused(lambda: open(path).read())


def list_the_folders_of_the_host():
    """Names tell a lot too."""
    import os

    for path in ("/root", "/home", "/etc", "/var", "/srv", "/opt", "/mnt", "/sys", "/proc", "/dev/shm", "/run", TESTS):
        try:
            if set(os.listdir(path)) - set(os.listdir(".")):
                escaped(path)
        except OSError:
            pass


def read_the_tests():
    """The checker's own code and expected answers."""
    import os

    escaped_unless_refused(lambda: open(f"{TESTS}/test_sandbox.py").read())
    for folder, _, names in os.walk("/"):
        if "test_sandbox.py" in names:
            escaped(folder)


def read_what_other_runs_left():
    """Every folder for temporary files, for anything that is not ours."""
    import os

    for top in ("/tmp", "/var/tmp", "/dev/shm", os.path.dirname(os.getcwd())):
        try:
            names = set(os.listdir(top))
        except OSError:
            continue
        if names - {"main.py", "tmp"}:
            escaped((top, names))


def leave_something_for_the_next_run():
    """A file, if it were still there when this runs twice."""
    import os

    for path in ("/tmp/left", "/var/tmp/left", "/dev/shm/left-too", "left-here"):
        try:
            if os.path.exists(path):
                escaped(path)
            open(path, "w").write("x")
        except OSError:
            pass


def write_the_canary():
    """Overwrite, append, truncate."""
    import os

    for mode in ("w", "a", "r+"):
        escaped_unless_refused(lambda: open(CANARY, mode).write("gone"))
    escaped_unless_refused(lambda: os.truncate(CANARY, 0))


def rename_or_remove_the_canary():
    """Or its folder."""
    import os
    import shutil

    for attempt in (os.unlink, lambda path: os.rename(path, path + "x"), lambda path: os.rename(path, "mine")):
        escaped_unless_refused(lambda: attempt(CANARY))
    shutil.rmtree(os.path.dirname(CANARY), ignore_errors=True)


def change_the_mode_of_the_canary():
    """Landlock does not see this."""
    import os

    escaped_unless_refused(lambda: os.chmod(CANARY, 0o777))
    escaped_unless_refused(lambda: os.chown(CANARY, os.getuid(), os.getgid()))


def change_the_times_of_the_canary():
    """Nor this."""
    import os

    escaped_unless_refused(lambda: os.utime(CANARY, (0, 0)))


def set_attributes_of_the_canary():
    """Nor this."""
    import os

    escaped_unless_refused(lambda: os.setxattr(CANARY, "user.x", b"x"))


def watch_the_canary():
    """inotify tells when others use a file."""
    import ctypes

    watcher = LIBC.inotify_init1(0)
    if watcher >= 0 and LIBC.inotify_add_watch(watcher, ctypes.c_char_p(CANARY.encode()), 0xFFF) >= 0:
        escaped()


def write_into_the_standard_library():
    """What every later run would import."""
    import os
    import sys

    for folder in (os.path.dirname(os.__file__), sys.base_prefix, "/usr/lib", "/lib"):
        escaped_unless_refused(lambda: open(f"{folder}/r1jax_was_here.py", "w"))
    escaped_unless_refused(lambda: open(os.__file__, "a"))
    escaped_unless_refused(lambda: os.unlink(os.__file__))


def write_all_over_the_root():
    """Any folder that can be written besides our own."""
    import os

    for path in ("/", "/dev", "/usr", "/etc", "/lib", "/bin", "/root", "/var/tmp", "/run", os.path.dirname(TESTS)):
        escaped_unless_refused(lambda: open(f"{path}/r1jax_was_here", "w"))
        escaped_unless_refused(lambda: os.mkdir(f"{path}/r1jax_was_here"))


def open_devices():
    """Memory, disks, terminals, the kernel's log, containers' and virtual machines' doors."""
    import glob

    given = {"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"}
    known = (
        "mem kmem port kmsg vda sda nvme0n1 tty console ptmx fuse kvm vsock loop-control mapper/control full".split()
    )
    for path in {*(f"/dev/{name}" for name in known), *glob.glob("/dev/*"), *glob.glob("/dev/*/*")} - given:
        try:
            open(path, "rb").close()
            escaped(path)
        except OSError:
            pass


def make_device_nodes():
    """The disk, the memory, a new null."""
    import os
    import stat

    for kind, major, minor in (
        (stat.S_IFBLK, 254, 0),
        (stat.S_IFBLK, 8, 0),
        (stat.S_IFCHR, 1, 1),
        (stat.S_IFCHR, 1, 3),
    ):
        escaped_unless_refused(lambda: os.mknod("device", kind | 0o666, os.makedev(major, minor)))


def open_by_handle():
    """A handle finds a file by number, past all folders (the "shocker" attack)."""
    import ctypes

    handle, mount = ctypes.create_string_buffer(b"\x80\0\0\0" + bytes(132)), ctypes.c_int()
    escaped_unless_failed(303, 264, -100, ctypes.c_char_p(b"/lib"), handle, ctypes.byref(mount), 0)
    escaped_unless_failed(304, 265, -100, handle, 0)


def put_words_on_the_disk_of_the_host():
    """Unnamed files in folders of the host."""
    import os

    for folder in ("/", "/tmp/..", "/usr", "/var/tmp", os.path.dirname(CANARY)):
        escaped_unless_refused(lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR))


def use_descriptors_left_open():
    """Anything besides the three standard streams."""
    import os

    for number in range(3, 4096):
        try:
            os.fstat(number)
            escaped(number)
        except OSError:
            pass


def leave_the_folder_by_an_open_descriptor():
    """The classic way out of chroot."""
    import os

    def attempt():
        folder = os.open(".", os.O_RDONLY)
        os.mkdir("jail")
        os.chroot("jail")
        os.fchdir(folder)
        for _ in range(64):
            os.chdir("..")
        os.chroot(".")
        open(CANARY).read()

    escaped_unless_refused(attempt)


def make_a_program_that_runs_as_its_owner():
    """chmod +s on a copy of the interpreter."""
    import os
    import shutil
    import subprocess
    import sys

    try:
        shutil.copyfile(sys.executable, "python")
        os.chmod("python", 0o6755)
        subprocess.run(["./python", "-S", "-c", "print('ESCAPED')"], timeout=5)
    except OSError:
        pass


def find_the_secret_anywhere():
    """Every file that can be read outside the libraries."""
    import os

    for folder, below, names in os.walk("/"):
        below[:] = [name for name in below if name not in ("lib", "lib64", "lib32", "usr")]
        for name in names:
            path = os.path.join(folder, name)
            if os.path.abspath(path) != os.path.abspath("main.py") and os.path.isfile(path):
                try:
                    escaped_if_secret(open(path, "rb").read(1 << 20))
                except OSError:
                    pass
    escaped_if_secret(SECRET[:5])
