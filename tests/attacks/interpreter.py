"""Tricks of the language and its interpreter."""

from attacks.aims import SECRET, TESTS, ends, escaped, escaped_if_secret


def patch_the_interpreter():
    """What the judge would use, if it were in this process."""
    import builtins
    import json
    import os
    import subprocess
    import sys

    builtins.print = builtins.open = json.loads = subprocess.Popen = lambda *_, **__: "ok"
    builtins.AssertionError = type("Harmless", (BaseException,), {})
    sys.exit = os._exit = lambda *_: None
    sys.modules.clear()


def look_for_the_host_in_memory():
    """Objects, frames and modules that a sandbox in the same process would leave."""
    import gc
    import sys

    for thing in gc.get_objects():
        if isinstance(thing, dict) and ("filter" in thing and "identity" in thing):
            escaped("order")
    frame = sys._getframe()
    while frame:
        if "control" in frame.f_globals or "order" in frame.f_globals:
            escaped("frame")
        frame = frame.f_back
    for name in ("r1jax", "pytest", "numpy", "attacks"):
        if name in sys.modules:
            escaped(name)


def look_into_its_own_memory():
    """The interpreter was started afresh: nothing of the host is in its arguments or environment."""
    import ctypes

    for symbol in ("environ", "program_invocation_name"):
        escaped_if_secret(repr(ctypes.c_char_p.in_dll(ctypes.CDLL(None), symbol).value))
    environment = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    place = 0
    while environment[place]:
        escaped_if_secret(environment[place])
        place += 1


def import_the_project():
    """And with it the checkers."""
    import sys

    sys.path += [TESTS, TESTS + "/.."]
    for name in ("r1jax", "attacks", "pytest", "jax"):
        try:
            __import__(name)
            escaped(name)
        except ImportError:
            pass


def exit_without_cleaning_up():
    """os._exit in the middle of printing."""
    import os

    print("not flushed")
    os._exit(0)


@ends("signal")
def crash_in_c():
    """Read address 0."""
    import ctypes

    ctypes.string_at(0)


@ends("signal")
def crash_by_a_broken_code_object():
    """Bytecode that the compiler would not write."""

    def victim():
        pass

    code = victim.__code__.replace(co_code=bytes([100, 255] * 40), co_consts=())
    for _ in range(100):
        exec(code)
    import ctypes

    ctypes.string_at(8)


@ends("timeout")
def go_on_at_exit():
    """A bomb with a timer: all looks well until the end."""
    import atexit
    import time

    atexit.register(time.sleep, 600)
    print("done")


@ends("timeout")
def go_on_in_a_thread():
    """The interpreter waits for it."""
    import threading
    import time

    threading.Thread(target=time.sleep, args=(600,)).start()
    print("done")


@ends("timeout")
def go_on_in_a_destructor():
    """When the modules are torn down."""
    import time

    class Late:
        def __del__(self, sleep=time.sleep):
            sleep(600)

    globals()["late"] = Late()


@ends("timeout")
def refuse_to_be_interrupted():
    """Swallow every exception, SystemExit too."""
    import time

    while True:
        try:
            time.sleep(1)
            raise SystemExit
        except BaseException:
            pass


def debug_the_parent():
    """gdb by hand: the standard library's own tools."""
    import faulthandler
    import sys

    faulthandler.enable()
    sys.settrace(lambda *_: None)
    sys.setprofile(lambda *_: None)
    if hasattr(sys, "remote_exec"):
        try:
            sys.remote_exec(1, "main.py")
            escaped()
        except (OSError, RuntimeError, ValueError):
            pass


def unpickle_and_evaluate():
    """Code in data is still code in here."""
    import pickle

    class Payload:
        def __reduce__(self):
            return eval, ("__import__('os').listdir('/root')",)

    try:
        pickle.loads(pickle.dumps(Payload()))
        escaped()
    except (OSError, pickle.PicklingError, AttributeError):
        pass


def replace_its_own_file():
    """The program is read once; what it writes over itself is nobody's."""
    try:
        with open(__file__, "w") as file:
            file.write(SECRET[:0])
    except OSError:
        pass
