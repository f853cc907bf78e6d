"""The code judge: programs by their tests, in sandboxes; honest ones pass, and no other is ever "correct"."""

import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hostile_solutions import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st

from r1jax.rewards.code import check_reference, code_reward
from r1jax.rewards.code.literal_tests import Undecided, answer_equals
from r1jax.rewards.code.names import BrokenTests, read_test_code, solution_names
from r1jax.rewards.sandbox import probe

ASSETS = os.environ.get("R1JAX_ASSETS")
pytestmark = pytest.mark.skipif(probe().level == "none", reason=f"no sandbox on this host: {probe().description}")


def judge(code: str, tests: list, **fields):
    return code_reward({"tests": tests, **fields}, f"Here it is.\n````python\n{code}\n````\n")


def judge_all(cases: dict) -> dict:
    """Outcomes of (code, tests, fields) by name; two at a time, because they mostly wait."""
    with ThreadPoolExecutor(2) as pool:
        judged = {name: pool.submit(judge, code, tests, **fields) for name, (code, tests, fields) in cases.items()}
        return {name: future.result() for name, future in judged.items()}


# Programs that read and print

DOUBLE = "print(2 * int(input()))"
DOUBLED = [{"stdin": f"{n}\n", "stdout": f"{2 * n}\n"} for n in (2, 5, -7)]


def test_a_program_is_judged_by_what_it_prints():
    right = judge(DOUBLE, DOUBLED)
    assert (right.outcome, right.score) == ("correct", 1.0)
    wrong = judge("print(4)", DOUBLED)
    assert (wrong.outcome, wrong.score) == ("wrong", 0.0) and "test 2 of 3" in wrong.reason
    part = judge("print(4)", DOUBLED, scoring="fraction")
    assert (part.outcome, part.score) == ("wrong", 1 / 3)


ENDINGS = {
    "raises": ("print(4)\nraise KeyError('k')", "KeyError"),
    "exits with a status": ("print(4)\nraise SystemExit(3)", "status 3"),
    "loops": ("print(4, flush=True)\nwhile True: pass", "time limit"),
    "sleeps": ("print(4, flush=True)\nimport time\ntime.sleep(1000)", "time limit"),
    "kills itself": ("import os\nprint(4, flush=True)\nos.kill(os.getpid(), 9)", "signal"),
    "takes memory": ("print(4)\nx = [bytearray(1 << 20) for _ in range(4000)]", "limit"),
    "floods": ("while True: print('4' * 1000)", "output limit"),
    "prints more": ("print(4)\nprint('PASSED')", "lines"),
    "no Python": ("print(4", "SyntaxError"),
    "null byte": ("print(4)\0", "null byte"),
    "half a surrogate pair": ("print(4)\nx = '\ud800'", "surrogate"),
}


def test_a_program_that_breaks_a_limit_or_dies_is_wrong_and_the_reason_says_why():
    cases = {name: (code, DOUBLED[:1], {"timeout": 0.5}) for name, (code, _) in ENDINGS.items()}
    for name, found in judge_all(cases).items():
        assert found.outcome == "wrong" and ENDINGS[name][1] in found.reason, (name, found)


def test_slow_programs_cannot_stretch_a_judgement():
    tests = [{"stdin": "", "stdout": "1"}] * 50
    found = judge("import time\ntime.sleep(1000)", tests, timeout=0.2, total_timeout=0.5, scoring="fraction")
    assert found.outcome == "wrong" and found.score == 0.0


def test_a_checker_decides_where_many_outputs_are_right():
    checker = (
        "n, found = int(open('input.txt').read()), [int(word) for word in open('output.txt').read().split()]\n"
        "raise SystemExit(0 if len(found) == 2 and sum(found) == n else 1)\n"
    )
    tests = [{"stdin": "9\n"}, {"stdin": "4\n"}]
    right = "n = int(input())\nprint(n - 1, 1)"
    assert judge(right, tests, checker=checker).outcome == "correct"
    assert judge("print(8, 1)", tests, checker=checker).outcome == "wrong"
    assert judge("print('no number')", tests, checker=checker).outcome == "wrong"
    assert judge("open('output.txt', 'w').write('8 1')", tests, checker=checker).outcome == "wrong"
    slow = judge(right, tests, checker="while True: pass", timeout=0.3)
    assert slow.outcome == "error" and "checker" in slow.reason


def test_long_outputs_are_compared_too():
    lines = "".join(f"{n}\n" for n in range(250_000))
    tests = [{"stdin": "", "stdout": lines}]
    assert judge("for n in range(250_000): print(n, end='  \\n')", tests).outcome == "correct"
    flood = judge("while True: print()", tests)
    assert flood.outcome == "wrong" and "output limit" in flood.reason
    checker = "raise SystemExit(len(open('output.txt').read().split()) != 250_000)"
    assert judge("for n in range(250_000): print(n)", [{"stdin": ""}], checker=checker).outcome == "correct"


def test_an_answer_too_long_to_be_right_is_not_parsed(monkeypatch):
    from r1jax.rewards.code import literal_tests

    parse, longest = json.loads, []
    monkeypatch.setattr(literal_tests.json, "loads", lambda line: longest.append(len(line)) or parse(line))
    judged = [judge(f"def f(): return {value}", ["assert f() == 1e308"]) for value in ("[[]] * 10**5", "10**308")]
    assert [found.outcome for found in judged] == ["wrong", "correct" if 10**308 == 1e308 else "wrong"]
    assert longest and max(longest) < 10_000


def test_a_tolerance_may_be_given():
    tests = [{"stdin": "", "stdout": "0.3333333\n"}]
    assert judge("print(1 / 3)", tests).outcome == "wrong"
    assert judge("print(1 / 3)", tests, tolerance=1e-6).outcome == "correct"


# Tests that are code

STACK = """
class Stack:
    def __init__(self, items=()): self.items = list(items)
    def push(self, item): self.items.append(item)
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __str__(self): return f"Stack{self.items}"
    def __eq__(self, other): return self.items == other.items
    def __iter__(self): return iter(self.items)
"""
STACK_TEST = """
s = Stack([1])
s.push((2, "b"))
assert len(s) == 2 and str(s) == "Stack[1, (2, 'b')]" and list(s) == [1, (2, "b")] and s.items[0] == 1
assert s == Stack([1, (2, "b")]) and s != Stack() and s != [1, (2, "b")]
s.items = [5]
assert s.pop() == 5
try:
    s.pop()
except IndexError as error:
    assert "empty" in str(error)
else:
    raise AssertionError
"""
NODES = """
class Node:
    def __init__(self, value, rest=None): self.value, self.rest = value, rest
def build(values):
    node = None
    for value in reversed(values): node = Node(value, node)
    return node
"""
CHECK = "def check(candidate):\n    assert candidate(3) == 9\n    assert True, 'always'\n"
RESULT = "{(1, 2): {3, 'x'}, 'a': [10**30, -1.5, None, True, b'x', 2j, {}, ()]}"

HONEST = {
    "literals": ("def f(a, b=1): return a + b", ["assert f(1) == 2", "assert f(1, b=4) == 5"], {}),
    "tolerance": ("def f(): return 0.1 + 0.2", ["assert abs(f() - 0.3) < 1e-9"], {}),
    "every kind of data": (f"def f(): return {RESULT}", [f"assert f() == {RESULT}", f"assert {RESULT} == f()"], {}),
    "numbers compare as in Python": ("def f(x): return x", ["assert f(1.0) == 1", "assert f(True) == 1"], {}),
    "subclasses of data": ("""
from collections import *
P = namedtuple('P', 'a b')
def f(): return Counter('aab'), P(1, 2), OrderedDict(a=1)
""", ["assert f() == ({'a': 2, 'b': 1}, (1, 2), {'a': 1})"], {}),
    "exact numbers": ("""
from fractions import *
def f(): return [Fraction(6, 2)]
""", ["assert f() == [3]"], {}),
    "decimals": ("""
from decimal import *
def f(): return Decimal(1) / 4
""", ["assert str(f()) == '0.25'"], {}),
    "not a number": ("def f(): return float('nan')", ["import math\nassert math.isnan(f())"], {}),
    "strange text": ("def f(x): return x * 2", ["assert f('\\ud800\\0é') == '\\ud800\\0é\\ud800\\0é'"], {}),
    "a type as argument": (
        "def f(xs, t): return [x for x in xs if type(x) is t]",
        ["assert f([1, 'a'], int) == [1]"],
        {},
    ),
    "a function as argument": ("def f(g, x): return g(g(x))", ["assert f(lambda v: v * 3, 2) == 18"], {}),
    "functions from a function as argument": (
        "def f(make): return make(2)(3)",
        ["assert f(lambda a: lambda b: a * b) == 6"],
        {},
    ),
    "a class as argument": (
        "def f(kind, x): return kind(x)",
        ["from collections import Counter\nassert f(Counter, 'aab') == {'a': 2, 'b': 1}"],
        {},
    ),
    "a function as result": ("def f(n): return lambda x: x + n", ["assert f(2)(3) == 5"], {}),
    "an endless generator": ("""
def f():
    n = 0
    while True:
        yield n
        n += 1
""", ["import itertools\nassert list(itertools.islice(f(), 3)) == [0, 1, 2]"], {}),
    "an exception": ("def f(x): raise ValueError('odd')", ["""
try:
    f(1)
    ok = 0
except ValueError as e:
    ok = str(e)
assert ok == 'odd'
"""], {}),
    "a class": (STACK, [STACK_TEST], {}),
    "a class of the preamble": (
        "def total(n): return n.value + total(n.rest) if n else 0",
        ["assert total(build([1, 2, 3])) == 6"],
        {"preamble": NODES},
    ),
    "a helper of the preamble": (
        "def f(x): return h(x) + 1",
        ["assert f(2) == h(2) + 1"],
        {"preamble": "def h(x): return x * x\n"},
    ),
    "setup of the tests": ("""
class Node:
    def __init__(self, v): self.v = v
def f(n): return n.v + n.left.v
""", ["assert f(root) == 3"], {"setup": "root = Node(1)\nroot.left = Node(2)"}),
    "imports of the setup": ("def f(x): return math.floor(x)", ["assert f(2.5) == 2"], {"setup": "import math"}),
    "a module nobody imports": ("def f(): return (1,)", ["assert sys.getsizeof(f()) == sys.getsizeof((1,))"], {}),
    "a builtin's name": ("def sum(a, b): return a + b + 1", ["assert sum(1, 2) == 4"], {}),
    "HumanEval's check": ("def f(x): return x * x", [CHECK], {"entry_point": "f"}),
    "HumanEval's check, called": ("def f(x): return x * x", [f"{CHECK}\ncheck(f)"], {"entry_point": "f"}),
    "HumanEval's prompt as setup": (
        "def f(x): return x * x",
        [CHECK],
        {"entry_point": "f", "setup": "def f(x):\n    '''Square.'''"},
    ),
    "printing": ("""
print('hello')
def f(x):
    print('["answer", 1]')
    return x
""", ["assert f(2) == 2"], {}),
    "reading nothing": ("""
import sys
x = sys.stdin.read()
def f(): return x
""", ["assert f() == ''"], {}),
    "a main part": ("""
def f(): return __name__
if __name__ == '__main__': input()
""", ["assert f() != ''"], {}),
    "threads": ("""
import threading
def f():
    r = []
    t = threading.Thread(target=lambda: r.append(1))
    t.start(); t.join()
    return r
""", ["assert f() == [1]"], {}),
    "a dataclass": ("""
from dataclasses import *
@dataclass
class P:
    x: int
def f(): return P(1)
""", ["assert f() == P(1) and f().x == 1"], {}),
    "many tests": ("def f(x): return x", [f"assert f({n}) == {n}" for n in range(40)], {}),
}  # fmt: skip


def test_honest_programs_pass():
    for name, found in judge_all(HONEST).items():
        assert (found.outcome, found.score) == ("correct", 1.0), (name, found)


def test_the_share_of_passed_asserts_counts_where_asked_and_one_death_costs_one_test():
    tests = ["assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3", "assert abs(f(4)) == 4"]
    dies = "import os\ndef f(x):\n    if x == 2: os._exit(0)\n    return x"
    loops = "def f(x):\n    while x == 2: pass\n    return x"
    fields = {"scoring": "fraction", "timeout": 1.0, "total_timeout": 100.0}
    cases = {name: (code, tests, fields) for name, code in (("dies", dies), ("loops", loops))}
    cases |= {f"{name}, literals": (code, tests[:3], fields) for name, (code, tests, fields) in cases.items()}
    for name, found in judge_all(cases).items():
        assert found.outcome == "wrong" and found.score == (2 / 3 if "literals" in name else 3 / 4), (name, found)


# Hostile programs: each must fail both a test of literals and a test that runs as code

TARGETS = {
    "literal": "assert f(7) == 42",
    "code": "assert abs(f(7) - 42) < 1e-6",
    "text": "assert f(7).startswith('42')",
}
TARGETS |= {"member": "assert f(7) in (41, 42)", "list": "assert all(v == 42 for v in map(f, [7]))"}


@pytest.mark.parametrize("target", ["literal", "code"])
def test_hostile_programs_are_wrong(target):
    cases = {name: (code, [TARGETS[target]], {"timeout": 0.7}) for name, code in HOSTILE.items()}
    for name, found in judge_all(cases).items():
        assert found.outcome == "wrong", (name, found)


@pytest.mark.parametrize("target", ["text", "member", "list"])
@pytest.mark.parametrize(
    "name", ["lying str", "lying object", "lying list item", "raises StopIteration", "hostile __class__"]
)
def test_lies_pass_no_form_of_test(name, target):
    assert judge(HOSTILE[name], [TARGETS[target]]).outcome == "wrong"


def test_the_solution_never_sees_what_it_is_compared_with():
    """It records all it is given, and tries to win with it in a later call."""
    code = """
seen = []
class Spy:
    def __getattribute__(self, name):
        def method(*args): seen.extend(args); return Spy()
        return method
    def __eq__(self, other): seen.append(other); return True
    def __sub__(self, other): seen.append(other); return Spy()
    def __lt__(self, other): seen.append(other); return True
    __hash__ = lambda self: 0
def f(x):
    return Spy() if x == 1 else seen
"""
    tests = [
        "try:\n    f(1) == 1234; f(1) < 1234; f(1) - 1234; f(1).same(1)\nexcept Exception: pass",
        "assert f(2) != []",
    ]
    assert judge(code, tests, scoring="fraction").score == 0.5


# Records that judge nothing

BROKEN = {
    "no tests": ({}, "tests"),
    "empty tests": ({"tests": []}, "tests"),
    "tests of another kind": ({"tests": [1]}, "tests[0]"),
    "mixed tests": ({"tests": ["assert f() == 1", {"stdin": "", "stdout": ""}]}, "tests[0]"),
    "no stdout": ({"tests": [{"stdin": ""}]}, "tests[0].stdout"),
    "nothing is expected": ({"tests": [{"stdin": "1", "stdout": "\n"}]}, "empty"),
    "stdout is a number": ({"tests": [{"stdin": "", "stdout": 1}]}, "tests[0].stdout"),
    "a test that is no Python": ({"tests": ["assert f(1 == 1"]}, "tests[0]"),
    "a test of nothing": ({"tests": ["assert 1 == 1"]}, "nothing of the solution"),
    "a test that asks nothing": ({"tests": ["def g(): f()\nassert True"]}, "not asked"),
    "setup that fails by itself": ({"tests": ["assert abs(f(1)) == 1"], "setup": "import no_such\nx = 1"}, "no_such"),
    "preamble that fails": ({"tests": ["assert f(1) == 1"], "preamble": "1 / 0"}, "preamble"),
    "an object that cannot be given": ({"tests": ["assert f(T()) == 1"], "setup": "class T: pass"}, "cannot be given"),
    "unknown scoring": ({"tests": ["assert f() == 1"], "scoring": "most"}, "scoring"),
    "timeout": ({"tests": ["assert f() == 1"], "timeout": 0}, "timeout"),
    "timeout is text": ({"tests": ["assert f() == 1"], "timeout": "1"}, "timeout"),
    "checker for asserts": ({"tests": ["assert f() == 1"], "checker": "pass"}, "checker"),
    "two builtins": ({"tests": ["assert abs(sum(1, 2)) == 3"]}, "entry_point"),
}  # fmt: skip


@pytest.mark.parametrize(("record", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_record_that_judges_nothing_is_said_to_be_broken(record, reason):
    found = code_reward(record, "```python\ndef f(x=1): return x\n```")
    assert found.outcome == "gold_unparseable" and reason in found.reason, found


def test_no_program_is_no_answer_and_an_outage_is_an_error(monkeypatch):
    from r1jax.rewards.code import output_tests
    from r1jax.rewards.sandbox import Run, SandboxUnavailable

    assert code_reward({"tests": DOUBLED}, "I do not know.").outcome == "no_answer"
    assert code_reward({"tests": DOUBLED, "prefill": "<think>"}, f"```python\n{DOUBLE}\n```").outcome == "no_answer"
    given = []
    refused = lambda *args, allow_unsafe, **kwargs: given.append(allow_unsafe) or launch()
    launch = lambda *args, **kwargs: Run("launch_failed", None, b"", b"", 0.0, "no memory")
    monkeypatch.setattr(output_tests, "run_python", launch)
    assert judge(DOUBLE, DOUBLED).outcome == "error"
    monkeypatch.setattr(output_tests, "run_python", refused)
    for allow in (False, True):
        code_reward({"tests": DOUBLED, "allow_unsafe": True}, f"```python\n{DOUBLE}\n```", allow_unsafe=allow)
    assert given == [False, True], "a record cannot allow what the caller does not"

    def refuse(*args, **kwargs):
        raise SandboxUnavailable("no isolation")

    monkeypatch.setattr(output_tests, "run_python", refuse)
    assert judge(DOUBLE, DOUBLED) == ("error", 0.0, "no isolation")


def test_the_judge_can_be_sent_to_workers_and_checks_references():
    assert pickle.loads(pickle.dumps(code_reward)) is code_reward
    record = {"tests": ["assert f(2) == 4"], "solution": "def f(x): return x * 2"}
    assert check_reference(record) is None
    assert "test 1 of 1" in check_reference(record | {"solution": "def f(x): return x"})


# The parts


@pytest.mark.parametrize(
    ("tests", "entry_point", "names"),
    [
        (["assert f(1) == g"], None, {"f", "g"}),
        (["x = f(1)\nassert x == len([1])"], None, {"f"}),
        (["assert max(1, 2) == 2"], None, {"max"}),
        (["assert abs(f(1)) == 2"], None, {"f"}),
        (["import math as m\nassert f(m.pi) == 2"], None, {"f"}),
        (["assert f(math.pi) == 2"], None, {"f"}),
        (["assert string('a') == 2"], None, {"string"}),
        (["assert [f(i) for i in range(3)] == list(map(lambda v: v, [0]))"], None, {"f"}),
        (["def check(c):\n    assert c(1)"], "sum", {"sum"}),
        (["def g(f):\n    h = f\n    return h\nassert f(1) == h(g)"], None, {"f", "h"}),
        (["class A:\n    f = 1\n    def m(self): return k(self)\nassert f(A())"], None, {"f", "k"}),
        (["try:\n    f(1)\nexcept ValueError as e:\n    assert str(e) == u"], None, {"f", "u"}),
        (["from math import *\nassert [f(x) for x in (1, 2)] == [1, 2]"], None, {"f"}),
    ],
)
def test_names_of_the_solution(tests, entry_point, names):
    assert solution_names([read_test_code(test, "test") for test in tests], entry_point) == names


KEYS = st.one_of(st.integers(), st.text(max_size=3), st.tuples(st.integers(), st.none()))
LITERALS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.complex_numbers(allow_nan=False),
              st.text(), st.binary(max_size=5), st.just(10**40)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.sets(st.one_of(st.integers(), st.text(max_size=3)), max_size=3),
    ), max_leaves=10,
)  # fmt: skip


def encoded(value) -> bytes:
    from r1jax.rewards.code.bridge import Wire

    return json.dumps(["answer", Wire(None, None, {}, lambda _: True).encode(value)]).encode()


@settings(deadline=None, max_examples=200)
@given(LITERALS, LITERALS)
def test_answers_compare_as_python_compares_values(found, expected):
    assert answer_equals(encoded(found), expected) is (found == expected)
    assert answer_equals(encoded(expected), expected)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
              st.sampled_from(["list", "tuple", "dict", "set", "int", "bytes", "complex", "mine", "Decimal"])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(st.one_of(st.binary(), JSON.map(lambda data: json.dumps(["answer", data]).encode())), LITERALS)
def test_nonsense_is_an_answer_that_equals_nothing(line, expected):
    try:
        assert answer_equals(line, expected) in (True, False)
    except Undecided:
        assert b"Decimal" in line


@settings(deadline=None, max_examples=200)
@given(st.text(), st.text())
def test_test_code_of_any_kind_is_read_or_refused(setup, test):
    try:
        assert solution_names([read_test_code(setup, "setup"), read_test_code(test, "test")], None)
    except BrokenTests:
        pass


# Published problems


@pytest.mark.skipif(not ASSETS, reason="R1JAX_ASSETS does not name the folder with code/mbpp.jsonl")
def test_references_of_mbpp_pass_and_mutations_of_them_fail():
    """Forty rows; experiments/benchmarks/code_judge.py takes all of them."""
    rows = [json.loads(line) for line in Path(ASSETS, "code", "mbpp.jsonl").read_text().splitlines()][::25]
    fields = {row["task_id"]: {"setup": row["test_setup_code"]} for row in rows}
    right = {row["task_id"]: (row["code"], row["test_list"], fields[row["task_id"]]) for row in rows}
    assert [found for found in judge_all(right).values() if found.outcome != "correct"] == []
    wrong = {row["task_id"]: (mutate(row["code"]), row["test_list"], fields[row["task_id"]]) for row in rows}
    assert [name for name, found in judge_all(wrong).items() if found.outcome != "wrong"] == []


def mutate(code: str) -> str:
    """The same program with functions that return a wrong value of the same type."""
    return f"""{code}
def _wrong(function):
    def other(*args):
        value = function(*args)
        if isinstance(value, bool): return not value
        if isinstance(value, (int, float)): return value + 1
        if isinstance(value, (str, list, tuple)): return value + value[:1] if value else None
        return None
    return other
for _name, _value in list(globals().items()):
    if type(_value) is type(_wrong) and _name != "_wrong": globals()[_name] = _wrong(_value)
"""
