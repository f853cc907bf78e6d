"""The symbolic tier: a process that is killed when it takes too long, from threads and from daemons."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from r1jax.rewards.math import check_gold, math_reward, symbolic

SECONDS = 2.0  # the promise for one item
SUM = r"\sum_{k=1}^{n} k"
MONSTERS = {
    "tower": "9^{9^{9^{9^{9}}}}",
    "factorial": "(10^{10})!",
    "binomial": r"\binom{10^{9}}{10^{8}}",
    "parentheses": "(" * 3000 + "1" + ")" * 3000,
    "zeta": r"\zeta(\zeta(\zeta(3)))",
    "integral": r"\int_0^{100} e^{-x^{100}} \sin(x^{50}) dx",
    "long sum": r"\sum_{k=1}^{10^9} \frac{1}{k^3}",
}


def outcome(gold, text: str) -> str:
    return math_reward({"answer": gold}, text).outcome


@pytest.mark.parametrize("name", MONSTERS)
def test_monsters_against_a_gold_of_the_symbolic_tier(name):
    assert check_gold(SUM) is None
    start = time.perf_counter()
    found = outcome(SUM, rf"\boxed{{{MONSTERS[name]}}}")
    assert time.perf_counter() - start < SECONDS
    assert found in ("wrong", "timeout")  # "timeout" only where the machine is too busy to tell


def eventually_correct(text: str) -> bool:
    """The symbolic tier may say that it is not ready on a busy machine, but not for ever, and never anything wrong."""
    for _ in range(20):
        found = outcome(SUM, text)
        assert found in ("correct", "timeout")
        if found == "correct":
            return True
    return False


def test_the_symbolic_tier_outlives_monsters_and_its_own_death():
    assert check_gold(SUM) is None
    assert outcome(SUM, r"\boxed{\int_0^{100} e^{-x^{100}} \sin(x^{50}) dx}") in ("wrong", "timeout")
    assert eventually_correct(r"\boxed{\frac{n(n+1)}{2}}")
    symbolic.kept_solver().process.kill()
    assert eventually_correct(r"\boxed{\frac{n(n+1)}{2}}")


def test_the_judge_works_in_threads():
    results, threads = [], []
    for i in range(8):
        text = [r"\boxed{5}", r"\boxed{9^{9^{9^9}}}", r"\boxed{\frac{10}{2}}", r"\boxed{\sin x}"][i % 4]
        threads.append(threading.Thread(target=lambda text=text: results.append(outcome("5", text))))
    threads.append(threading.Thread(target=lambda: results.append(eventually_correct(rf"\boxed{{{SUM}}}"))))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, results)) == ["True"] + ["correct"] * 4 + ["wrong"] * 4


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore")
def test_the_symbolic_tier_works_in_daemonic_processes(method):
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=judge_in_process, args=(sender,), daemon=True)
    process.start()
    assert receiver.poll(60) and receiver.recv() is True
    process.join()


def judge_in_process(sender) -> None:
    sender.send(check_gold(SUM) is None and eventually_correct(r"\boxed{\frac{n(n+1)}{2}}"))


def test_no_pipe_or_process_is_left_open_not_even_by_a_fork():
    code = (
        "import gc, os, sys\nfrom r1jax.rewards.math import symbolic\n"
        "first = symbolic.kept_solver()\nchild = os.fork()\n"
        "symbolic.stop()\ndel first\ngc.collect()\n"
        "child and os.waitpid(child, 0)\nsymbolic.kept_solver().process.kill()\n"
    )
    found = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (found.returncode, found.stderr) == (0, "")


def test_the_symbolic_tier_knows_a_bound_on_both_sides_of_zero():
    assert check_gold(r"\max(x, 0)") is None
    assert outcome(r"\max(x, 0)", r"\boxed{x}") in ("wrong", "timeout")


def test_no_process_outlives_a_killed_parent():
    code = (
        "from r1jax.rewards.math import check_gold, symbolic\n"
        rf"assert check_gold(r'{SUM}') is None" + "\nprint(symbolic.kept_solver().process.pid, flush=True)\n"
        r"symbolic.same_expression('1', r'\int_0^{100} e^{-x^{100}} \sin(x^{50}) dx', 60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=os.getcwd())
    solver = int(parent.stdout.readline())
    time.sleep(0.1)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while running(solver) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(solver)


def running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
