"""The pool gives every call one verdict, in order, whatever judges and workers do, and leaves nothing behind."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from functools import partial
from pathlib import Path

import pool_judges
import pytest

from r1jax.rewards import handle
from r1jax.rewards.pool import PoolError, RewardPool
from r1jax.rewards.verdict import judge_inline
from r1jax.rewards.worker import descendants
from r1jax.tasks.countdown import countdown_reward

ROOT = Path(__file__).resolve().parent.parent
BOTH = {"deed": pool_judges.misbehave, "parity": pool_judges.parity}


def marked(mark: str) -> list[int]:
    """Processes, ourselves left out, that were started with the mark in their environment."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
            if mark.encode() in Path(f"/proc/{process}/environ").read_bytes() and state != "Z":
                found.append(int(process))
        except OSError:
            continue
    return [process for process in found if process != os.getpid()]


def eventually(condition, seconds: float = 90.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.fixture
def mark(monkeypatch):
    """A string by which to find all that the test's pools start; at the end nothing of it may be left."""
    value = uuid.uuid4().hex
    monkeypatch.setenv("R1JAX_TEST_MARK", value)
    yield value
    assert eventually(lambda: not marked(value)), "processes were left behind"


def texts(count: int) -> list[str]:
    rng = random.Random(0)
    return ["x" * rng.randrange(0, 30) + str(i) * rng.randrange(2) for i in range(count)]


def test_same_verdicts_as_in_this_process(mark):
    judges = {"parity": pool_judges.parity, "countdown": countdown_reward}
    completions = texts(300) + ["<think> a </think> <answer> 3 * 4 </answer>", "\ud800\0 π", "y" * 3_000_000]
    records = [{"numbers": [3, 4, 5], "target": 12, "id": i} for i in range(len(completions))]
    expected = judge_inline(judges, records, completions).result()
    with RewardPool(judges, workers=2, timeout=60) as pool:
        assert marked(mark), "the finder of processes finds nothing"
        assert pool.judge(records, completions) == expected
        assert pool.judge([], []) == []
        tickets = [pool.submit(records[i : i + 50], completions[i : i + 50]) for i in range(0, 300, 50)]
        assert sum((ticket.result() for ticket in tickets), []) == expected[:300]
    assert len({verdicts["parity"].outcome for verdicts in expected}) == 3


FATES = {
    "hang in C": ("timeout", "no verdict within 1 s"),
    "backtrack": ("timeout", "no verdict within 1 s"),
    "sleep": ("timeout", "no verdict within 1 s"),
    "exit": ("error", "exited with code 3"),
    "exit 0": ("error", "exited with code 0"),
    "segfault": ("error", "SIGSEGV"),
    "abort": ("error", "SIGABRT"),
    "kill itself": ("error", "SIGKILL"),
    "SystemExit": ("error", "SystemExit: 0"),
    "KeyboardInterrupt": ("error", "KeyboardInterrupt"),
    "strange": ("error", "Strange"),
    "MemoryError": ("error", "MemoryError"),
    "recurse": ("error", "RecursionError"),
    "None": ("error", "returned None, not a Judgement"),
    "a tuple": ("error", "not a Judgement"),
    "unknown outcome": ("error", "'splendid'"),
    "unhashable outcome": ("error", "['correct']"),
    "nan": ("error", "score nan"),
    "above 1": ("error", "score 1.5"),
    "below 0": ("error", "score -0.1"),
    "a string": ("error", "score '1'"),
    "a long reason": ("correct", "é"),
    "flood": ("correct", "''"),
    "fine": ("correct", "fine"),
}


def test_one_bad_call_costs_one_verdict(mark):
    """All of them in one batch, each between innocent items: only the bad calls fail, each with its own reason."""
    deeds = [deed for bad in FATES for deed in (bad, "fine")]
    with RewardPool(BOTH, workers=2, timeout=1) as pool:
        got = pool.judge([{"deed": deed} for deed in deeds], ["ab"] * len(deeds))
        assert pool.judge([{"deed": "fine"}], ["ab"])[0]["deed"].outcome == "correct"
    for deed, verdicts in zip(deeds, got, strict=True):
        outcome, reason = FATES[deed]
        assert list(verdicts) == ["deed", "parity"]
        assert verdicts["deed"].outcome == outcome and reason in verdicts["deed"].reason, (deed, verdicts["deed"])
        assert verdicts["deed"].score == (1.0 if outcome == "correct" else 0.0) and len(verdicts["deed"].reason) <= 500
        assert verdicts["parity"] == pool_judges.parity({}, "ab")


@pytest.mark.parametrize("then", ["hang", "exit"])
def test_what_a_judge_started_ends_with_it(mark, then):
    """Children in other sessions and twice removed are killed with a worker that hangs or crashes."""
    with RewardPool(BOTH, workers=1, timeout=1) as pool:
        verdicts = pool.judge([{"deed": "daemons", "then": then}, {"deed": "fine"}], ["ab", "ab"])
        assert [v["deed"].outcome for v in verdicts] == ["timeout" if then == "hang" else "error", "correct"]
        worker = set(marked(mark)) & descendants(os.getpid())
        assert eventually(lambda: set(marked(mark)) <= worker | descendants(os.getpid()) and len(marked(mark)) <= 2)


def test_killed_at_random_under_load(mark):
    """A thread kills processes of the pool all the time; every item is judged exactly once, in order."""
    count, killed, finished = 400, [], threading.Event()

    def kill():
        rng = random.Random(1)
        while not finished.wait(rng.uniform(0.05, 0.35)):
            if below := sorted(descendants(os.getpid())):
                killed.append(rng.choice(below))
                try:
                    os.kill(killed[-1], signal.SIGKILL)
                except ProcessLookupError:
                    killed.pop()

    records, completions = [{"seconds": 0.01}] * count, [text + "z" for text in texts(count)]
    judges = {"slow": pool_judges.slow_parity, "parity": pool_judges.parity}
    with RewardPool(judges, workers=3, timeout=60) as pool:
        killer = threading.Thread(target=kill)
        killer.start()
        try:
            halves = [pool.submit(records[half::2], completions[half::2]) for half in (0, 1)]
            got = [ticket.result(timeout=120) for ticket in halves]
        finally:
            finished.set()
            killer.join()
    for half in (0, 1):
        assert got[half] == judge_inline(judges, [{"seconds": 0}] * (count // 2), completions[half::2]).result()
    assert len(killed) >= 3, "nothing was killed"


def test_killed_while_idle(mark):
    with RewardPool(BOTH, workers=2, timeout=60) as pool:
        for _ in range(3):
            assert pool.judge([{"deed": "fine"}] * 3, ["ab"] * 3)[2]["deed"].outcome == "correct"
            for process in descendants(os.getpid()):
                os.kill(process, signal.SIGKILL)


def test_stopped_worker_costs_its_calls_no_more_than_the_deadline(mark, monkeypatch):
    """A worker that does not even read is replaced, and what it was sent is judged elsewhere or is a timeout."""
    monkeypatch.setattr(handle, "GRACE_SECONDS", 1.0)  # for the keeper, which is stopped too
    with RewardPool(BOTH, workers=1, timeout=2) as pool:
        for process in descendants(os.getpid()):
            os.kill(process, signal.SIGSTOP)
        got = pool.judge([{"deed": "fine"}] * 3, ["ab"] * 3)
        assert [v["parity"].outcome for v in got] == ["correct"] * 3
        assert [v["deed"].outcome for v in got].count("correct") >= 2


def test_submit_returns_while_work_proceeds(mark):
    with RewardPool({"slow": pool_judges.slow_parity}, workers=2, timeout=60) as pool:
        began = time.monotonic()
        ticket = pool.submit([{"seconds": 0.1}] * 20, ["ab"] * 20)
        submitted, seen = time.monotonic() - began, set()
        with pytest.raises(TimeoutError, match="verdicts are missing"):
            ticket.result(timeout=0.01)
        while ticket.progress < 1:
            seen.add(ticket.progress)
            time.sleep(0.02)  # the caller's own work
        worked = time.monotonic() - began
        assert len(ticket.result()) == len(ticket) == 20
    assert submitted < worked / 4 and len(seen) > 4, (submitted, worked, seen)
    assert worked > 0.9, "two workers cannot sleep 2 s in less than 1"


def test_too_much_work_waits(mark):
    with RewardPool({"slow": pool_judges.slow_parity}, workers=1, timeout=60, max_pending=4) as pool:
        first = pool.submit([{"seconds": 0.1}] * 6, ["ab"] * 6)  # more than fits, but nothing else waits
        assert first.progress < 0.5
        second = pool.submit([{"seconds": 0}], ["ab"])
        assert 0.5 <= first.progress, "the second batch did not wait for room"
        assert second.result()[0]["slow"].outcome == "correct"


def test_verdicts_are_remembered_by_key(mark, tmp_path):
    """Called once for a key; failures and keys of None are judged every time; the oldest key is forgotten."""
    log = tmp_path / "log"
    keys = {"logged": pool_judges.gold_and_length}

    def calls(pool, records, completions):
        log.write_text("")
        verdicts = pool.judge([{"log": str(log)} | record for record in records], completions)
        return [line.split()[1] for line in log.read_text().splitlines()], verdicts

    with RewardPool({"logged": pool_judges.logged}, workers=1, timeout=60, keys=keys, cache_size=2) as pool:
        made, verdicts = calls(pool, [{"gold": 1}] * 3 + [{"gold": 2}], ["ab", "cd", "efg", "gh"])
        assert made == ["ab", "efg", "gh"] and [v["logged"].score for v in verdicts] == [0.5] * 4
        assert calls(pool, [{"gold": 1}] * 2, ["xyz", "zz"])[0] == ["zz"]  # (1, 2) was the oldest of three
        for failing in ({"gold": 3, "say": "timeout"}, {"gold": 4, "raises": True}):
            assert calls(pool, [failing] * 2, ["ab", "cd"])[0] == ["ab", "cd"]
        made, verdicts = calls(pool, [{}], ["ab"])
        assert not made and verdicts[0]["logged"] == ("error", 0.0, "KeyError: 'gold'")
    keys = {"logged": pool_judges.no_key}
    with RewardPool({"logged": pool_judges.logged}, workers=1, timeout=60, keys=keys) as pool:
        assert calls(pool, [{}] * 2, ["ab", "ab"])[0] == ["ab", "ab"]


def test_warm_up_is_done_by_every_worker_before_its_calls(mark, tmp_path):
    log = tmp_path / "log"
    warm_up = [({"log": str(log)}, "warm")]
    with RewardPool({"logged": pool_judges.logged}, workers=2, timeout=60, warm_up=warm_up) as pool:
        assert eventually(lambda: log.read_text().count("warm") == 2)
        pool.judge([{"log": str(log)}] * 8, ["hot"] * 8)
    told = [line.split() for line in log.read_text().splitlines()]
    for worker in {worker for worker, _ in told}:
        assert [word for who, word in told if who == worker][0] == "warm"


def test_a_record_that_cannot_be_sent_is_one_error(mark):
    with RewardPool({"parity": pool_judges.parity}, workers=1, timeout=60) as pool:
        got = pool.judge([{}, {"lock": threading.Lock()}, {}], ["ab", "ab", "ab"])
    assert [v["parity"].outcome for v in got] == ["correct", "error", "correct"]
    assert "cannot be sent" in got[1]["parity"].reason and "lock" in got[1]["parity"].reason


def test_judges_that_cannot_be_imported_are_refused_at_once(mark, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "judge_that_breaks.py").write_text("def judge(record, completion): ...")
    import judge_that_breaks

    (tmp_path / "judge_that_breaks.py").write_text("1 / 0")
    sys.modules["judge_that_breaks"].__dict__.pop("__cached__", None)
    for file in tmp_path.rglob("*.pyc"):
        file.unlink()
    with pytest.raises(PoolError, match="ZeroDivisionError.*functions of modules"):
        RewardPool({"broken": judge_that_breaks.judge}, workers=2, timeout=60)
    with pytest.raises(PoolError, match="cannot be pickled.*functions of modules"):
        RewardPool({"local": lambda record, completion: None}, workers=1, timeout=60)
    for wrong in ({"workers": 0}, {"timeout": 0.0}, {"cache_size": 0}, {"keys": {"nobody": len}}):
        with pytest.raises(ValueError):
            RewardPool(**({"judges": BOTH, "workers": 1, "timeout": 60} | wrong))


def test_closing_abandons_what_is_not_judged(mark):
    with RewardPool(BOTH, workers=1, timeout=60) as pool:
        ticket = pool.submit([{"deed": "sleep"}], ["ab"])
        waiting = []
        waiter = threading.Thread(target=lambda: waiting.append(pytest.raises(PoolError, ticket.result)))
        waiter.start()
    waiter.join(timeout=20)
    assert "closed" in str(waiting[0].value)
    for use in (ticket.result, partial(pool.submit, [{}], ["ab"]), partial(pool.judge, [{}], ["ab"])):
        with pytest.raises(PoolError, match="closed"):
            use()
    pool.close()
    with pytest.raises(ValueError), RewardPool(BOTH, workers=1, timeout=60) as pool:
        pool.submit([{"deed": "sleep"}], ["ab", "cd"])
    with pytest.raises(ZeroDivisionError), RewardPool(BOTH, workers=2, timeout=60) as pool:
        pool.submit([{"deed": "hang in C"}] * 3, ["ab"] * 3)
        raise ZeroDivisionError


SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start jobs in the background with SIGINT ignored
sys.path.insert(0, {tests!r})
print("imported", flush=True)
import pool_judges
from r1jax.rewards.pool import RewardPool
pool = RewardPool({{"deed": pool_judges.misbehave}}, workers=2, timeout=600)
ticket = pool.submit([{{"deed": "hang in C"}}, {{"deed": "daemons"}}], ["ab"] * 2)
print("judging", flush=True)
with pool:
    ticket.result()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_the_process_that_holds_the_pool(mark, number, tmp_path):
    """Neither workers stuck in C nor the daemons of a judge; a script without a main guard is not run again."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(ROOT / "tests")))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, script], stdout=pipe, stderr=pipe, text=True, env=environment)
    try:
        for expected in ("imported", "judging"):
            assert process.stdout.readline().strip() == expected
        assert eventually(lambda: len(marked(mark)) >= 1 + 4 + 3), "the daemons never came"
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130) or "KeyboardInterrupt" in errors
    assert "imported" not in output
    assert eventually(lambda: not marked(mark)), marked(mark)


def test_workers_import_neither_jax_nor_main(mark):
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        "import jax, pool_judges; from r1jax.rewards.pool import RewardPool\n"
        "from r1jax.rewards.format import format_reward; from r1jax.tasks.countdown import countdown_reward\n"
        "judges = {'modules': pool_judges.modules, 'format': format_reward, 'accuracy': countdown_reward}\n"
        "with RewardPool(judges, workers=1, timeout=60) as pool: \n"
        "    asked = {'ask': ['jax', 'jaxlib', 'flax', 'r1jax', 'pool_judges', 'numpy']}\n"
        "    print(pool.judge([asked], [''])[0]['modules'].reason)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"r1jax", "pool_judges", "numpy"}


def test_no_descriptor_is_leaked(mark):
    """A worker lost with every item, yet the number of open files stays."""
    open_files = lambda: len(os.listdir("/proc/self/fd"))
    with RewardPool(BOTH, workers=1, timeout=60) as pool:
        pool.judge([{"deed": "exit"}], ["ab"])
        before = open_files()
        pool.judge([{"deed": "exit"}] * 10, ["ab"] * 10)
        assert open_files() <= before + 4  # those that are just leaving
    before = open_files()
    for _ in range(3):
        RewardPool(BOTH, workers=2, timeout=60).close()
    assert open_files() == before
