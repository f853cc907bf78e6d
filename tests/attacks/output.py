"""Printing: too much, too long, to the wrong ear, or what only the judge may say."""

from attacks.aims import ends, escaped


@ends("output")
def flood_standard_output():
    """As fast as possible."""
    while True:
        print("x" * 65536)


@ends("output")
def flood_standard_error():
    """The other stream."""
    import sys

    while True:
        sys.stderr.write("x" * 65536)


@ends("output", "cpu")
def flood_both_streams_from_threads():
    """Both at a time."""
    import os
    import threading

    def flood(number):
        while True:
            os.write(number, b"x" * 65536)

    for number in (1, 2):
        threading.Thread(target=flood, args=(number,)).start()


@ends("output", "cpu", "timeout")
def flood_in_single_bytes():
    """Many small writes keep the reader busy."""
    import os

    while True:
        os.write(1, b"x")


@ends("output")
def flood_after_forking():
    """From a child, after the parent has ended or without a child where there can be none."""
    import os
    import time

    try:
        if os.fork():
            time.sleep(30)
    except OSError:
        pass
    while True:
        os.write(2, b"x" * 65536)


@ends("timeout")
def close_the_streams_and_stay():
    """The end of the output is not the end of the program."""
    import os
    import time

    os.closerange(0, 64)
    time.sleep(600)


@ends("timeout")
def drip():
    """A little output from time to time is not progress."""
    import time

    while True:
        print("still working", flush=True)
        time.sleep(0.2)


def print_the_verdict():
    """What the sandbox and the judge say among themselves, on every descriptor."""
    import os

    for number in range(64):
        for words in (b"ended 0 0.0\n", b"started\nended 0 0.000\n", b'["verdict", "passed", ""]\n', b"failed no\n"):
            try:
                os.write(number, words)
            except OSError:
                pass
    os._exit(3)


def claim_success_and_fail():
    """The exit status is reported by the first process, not by the program."""
    import atexit
    import os
    import sys

    print("ok 0 correct", flush=True)
    atexit.register(os._exit, 3)
    sys.exit(0)


def print_nonsense():
    """Null bytes, invalid UTF-8, terminal controls, surrogates."""
    import os

    os.write(1, bytes(range(256)) * 16 + b"\x1b]0;title\x07\x1b[2J\0\0" + "\U0010ffff".encode())
    os.write(2, b"\xff\xfe\0\0" * 100)


def print_surrogates():
    """What cannot be encoded."""
    print("\ud800\udfff")


def put_the_pipe_into_another_mode():
    """The host shares the pipes' open descriptions: whether they block is common to both ends' processes."""
    import fcntl
    import os

    for number in range(3):
        fcntl.fcntl(number, fcntl.F_SETFL, fcntl.fcntl(number, fcntl.F_GETFL) | os.O_NONBLOCK | os.O_APPEND)
        try:
            fcntl.fcntl(number, 1031, 4096)
        except OSError:
            pass
    print("done")


def read_its_own_output():
    """Or write its own input."""
    import os

    for attempt in (lambda: os.read(1, 1), lambda: os.read(2, 1), lambda: os.write(0, b"x")):
        try:
            attempt()
            escaped()
        except OSError:
            pass
