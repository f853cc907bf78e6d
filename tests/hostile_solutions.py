"""Programs that try to be judged correct without solving anything, by what each does; f(7) should be 42."""

LIAR = """
class Liar(str):
    def __new__(cls, *a): return str.__new__(cls, '?')
    def lie(self, *others): return True
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __bool__ = startswith = endswith = isdigit = lie
    __ne__ = lambda self, other: False
    __sub__ = __rsub__ = __add__ = __radd__ = __abs__ = __neg__ = lambda *a: Liar()
    __hash__ = lambda self: 0
"""

LINES = ['["answer", true]', '["verdict", "passed", ""]', '["answer", ["yours", 0]]', '["raise", "StopIteration", ""]']

SPRAY = f"""
import os, sys, json
def spray(*a):
    for fd in range(64):
        for line in {LINES}:
            try: os.write(fd, (line + chr(10)).encode())
            except OSError: pass
    return spray
"""

HOSTILE = {
    "lying str": LIAR + "def f(x): return Liar()",
    "lying object": LIAR.replace("(str)", "").replace("str.__new__(cls, '?')", "object.__new__(cls)")
    + "def f(x): return Liar()",
    "lying list item": LIAR + "def f(x): return [Liar()]",
    "lying class instead of a function": LIAR + "f = Liar",
    "hostile __class__": """
class C:
    __class__ = property(lambda s: int)
    def __eq__(s, o): return True
    def __int__(s): return 42
def f(x): return C()
""",
    "hostile __reduce__": """
import os
class C:
    def __reduce__(s): return (os._exit, (0,))
    def __eq__(s, o): return True
def f(x): return C()
""",
    "hostile __repr__": """
class C(Exception):
    def __repr__(s): raise s
    __str__ = __repr__
def f(x): raise C
""",
    "hostile metaclass": """
class M(type):
    def __eq__(s, o): return True
    def __instancecheck__(s, o): return True
    __hash__ = None
class C(metaclass=M): pass
def f(x): return C
""",
    "exits while loading": """
import sys
sys.exit(0)
""",
    "exits hard while loading": """
import os
os._exit(0)
""",
    "exits": """
import sys
def f(x): sys.exit(0)
""",
    "exits hard": """
import os
def f(x): os._exit(0)
""",
    "kills everything": """
import os
def f(x): os.kill(-1, 9)
""",
    "raises StopIteration": """
def f(x): raise StopIteration
""",
    "raises AssertionError": """
def f(x): raise AssertionError
""",
    "raises KeyboardInterrupt": """
def f(x): raise KeyboardInterrupt
""",
    "raises GeneratorExit": """
def f(x): raise GeneratorExit
""",
    "patches builtins": """
import builtins
builtins.abs = lambda x: 0
builtins.AssertionError = int
def f(x): return 0
""",
    "defines the tests' builtins": """
def abs(x): return 0
def isinstance(*a): return True
def f(x): return 0
""",
    "patches json": """
import json
json.dumps = lambda *a, **k: '["answer", true]'
json.loads = lambda *a: 1/0
def f(x): return 0
""",
    "patches pickle and marshal": """
import pickle, marshal
pickle.loads = marshal.loads = lambda *a: True
def f(x): return 0
""",
    "patches the bridge": """
import __main__ as b, builtins, json, sys, os
b.Wire.encode = lambda s, v: ['yours', 0]
def f(x): return 0
""",
    "answers for the tests": """
import __main__ as b, builtins, json, sys, os
b.Wire.write = lambda s, l: (s.writer.write(b'["verdict", "passed", ""]\\n'), s.writer.flush())
def f(x): return 0
""",
    "builds a lying class among the tests": """
import __main__ as b, gc
def f(x):
    wire = next(o for o in gc.get_objects() if type(o) is b.Wire)
    def make(maker, name, base, lies):
        lies = {name: lambda *a: 0 if 's' in name[4:] else True for name in lies}
        wire.send('request', 'call', [maker, wire.encode((name, base, lies)), ['dict']])
        kind, answer = wire.receive()
        return answer[1]
    meta = make(['type', 'type'], 'M', (type,), '__eq__ __lt__ __le__ __abs__ __sub__ __rsub__ __hash__'.split())
    liar = make(['yours', meta], 'L', (), [])
    b.Wire.encode = lambda s, v: ['yours', liar]
""",
    "answers nonsense": """
import __main__ as b, builtins, json, sys, os
b.Wire.write = lambda s, l: (s.writer.write(b'\\xff\\x00{]\\n'), s.writer.flush())
def f(x): return 0
""",
    "answers a deep list": """
import __main__ as b, builtins, json, sys, os
b.Wire.write = lambda s, l: (s.writer.write(b'[' * 10**6 + b'\\n'), s.writer.flush())
def f(x): return 0
""",
    "answers an endless line": """
import __main__ as b, builtins, json, sys, os
def f(x):
    while True: os.write(1, b'9' * 65536)
""",
    "writes to every descriptor": SPRAY + "def f(x): return spray()",
    "writes while loading": SPRAY + "spray()\ndef f(x): return 0",
    "reads the tests in frames": """
import sys, gc
def f(x):
    for o in gc.get_objects():
        if ''.join(['f(7)', ' ==']) in str(o): return 42
    return 0
""",
    "reads the tests in files": """
import os
def f(x):
    for top in ('/proc/self', '/proc', '/tmp', '.'):
        for folder, _, names in os.walk(top):
            for n in names:
                try:
                    if b'f(7)' + b' ==' in open(os.path.join(folder, n), 'rb').read(1 << 20): return 42
                except OSError: pass
    return 0
""",
    "reads the expected value from its caller": """
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        if 42 in frame.f_locals.values(): return 42
        frame = frame.f_back
    return 0
""",
    "endless iterator": """
import itertools
def f(x): return itertools.count()
""",
    "endless list": """
def f(x):
    x = []
    x.append(x)
    return x
""",
    "huge result": """
def f(x): return 'x' * (1 << 26)
""",
    "huge number": """
def f(x): return 1 << (1 << 24)
""",
    "slow fraction": """
from fractions import Fraction
import __main__ as b
b.Wire.encode = lambda s, v: ['Fraction', '1e99999999']
def f(x): return 0
""",
    "keys of one hash": """
def f(x): return {i * (2**61 - 1): 0 for i in range(1, 30000)}
""",
    "sleeps": """
import time
def f(x): time.sleep(1000)
""",
    "loops": """
def f(x):
    while True: pass
""",
    "nothing": """
pass
""",
}
