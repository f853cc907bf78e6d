"""What attacks aim at on the host, filled in by the test, and the tools they share."""

CANARY = ""  # a file of the host that everybody may read and write; it contains SECRET
SECRET = "the secret of the host"
PORT = 0  # of a TCP and of a UDP socket on the loopback interface of the host
ABSTRACT = ""  # name of an abstract socket on which the host listens
SOCKET_PATH = ""  # of a socket on which the host listens, open to everybody
DATAGRAM_PATH = ""  # the same for datagrams
VICTIM = 0  # a process of the host, of the same user
TESTS = ""  # the folder of the tests
VARIABLE = ""  # an environment variable of the host that holds SECRET

# Tools
import ctypes  # noqa: E402
import platform  # noqa: E402

LIBC = ctypes.CDLL(None, use_errno=True)


def ends(*_):
    """Mark how a run may end."""
    return lambda attack: attack


def escaped(what=""):
    """Leave evidence."""
    import os

    os.write(1, b"ESCAPED %r\n" % (what,))


def escaped_if_secret(text):
    """Leave evidence where the secret of the host is in a text."""
    if SECRET in (text if isinstance(text, str) else text.decode(errors="replace")):
        escaped(text)


def escaped_unless_refused(attempt):
    """Leave evidence where a function does not raise OSError."""
    try:
        attempt()
    except OSError:
        return
    escaped()


def system_call(x86_64, aarch64, *arguments):
    """Make a system call by number, -1 where it is refused; None: the architecture does not have it."""
    number = x86_64 if platform.machine() == "x86_64" else aarch64
    return -1 if number is None else LIBC.syscall(number, *arguments)


def escaped_unless_failed(x86_64, aarch64, *arguments):
    """Leave evidence where a system call succeeds."""
    if system_call(x86_64, aarch64, *arguments) >= 0:
        escaped()
