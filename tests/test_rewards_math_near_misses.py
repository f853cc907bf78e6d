"""Answers that look like the gold answer and are not: none of them may count as correct."""

import re

import pytest

from r1jax.rewards.math import math_reward, same_answer

# One line a gold answer, then answers that differ from it.
NEAR_MISSES = {
    "powers and factorials": r"""
2^{100} | 2^{99} | 2^{101} | 2^{100}+1 | 100^2 | 2^{10^2}-1 | 2 \cdot 100 | 4^{51}
\frac{1}{2^{98}} | \frac{1}{2^{99}} | 2^{98} | \frac{1}{98^2} | 0 | \frac{1}{2^{98}+1} | \frac{2}{2^{98}}
\frac{1}{2004!} | \frac{1}{2006!} | \frac{1}{2005!} | 0 | 2004!
2^{4950} | 2^{4951} | 2^{4950}-1 | 2^{495}
2^{100}-2 | 2^{100} | 2^{100}-1 | 2^{99}-2 | 2-2^{100}
10^{60} | 10^{60}+1 | 10^{61} | 10^{-60}
x^{10} | x^{9} | x^{11} | 10x | x_{10}
e^{\pi\sqrt{163}} | 262537412640768744 | 640320^3+744
262537412640768744 | e^{\pi\sqrt{163}}
""",
    "numbers": r"""
72 | 73 | -72 | 7.2 | 720 | 72.01 | 27 | 7 2 | 72 72 | 0.72 | 72i
1234 | 1.234 | 1, 234 | (1,234) | 12,34 | 1234.5 | 1,2,3,4 | 1,2345 | 123,4
\frac{1}{2} | 2 | \frac{-1}{2} | 0.05 | \frac{1}{2}\% | 0.51 | \frac12 \pi | 1,2 | 12 | 1:3
\frac{1}{3} | 0.33 | 0.333 | 0.3333333333333333 | \frac{3}{1} | 0.\overline{34} | 33\% | 0.3\overline{4} | 33.3\%
\pi | 3.14 | 3.14159 | \frac{22}{7} | \frac{355}{113} | 3.14159265358979323846 | \pi^2 | -\pi | p
\sqrt{2} | 1.414 | 1.41421356237 | \sqrt{3} | -\sqrt{2} | 2 | \sqrt[3]{2} | \pm\sqrt{2} | \sqrt{-2} | \frac{99}{70}
2\sqrt{3} | \sqrt{6} | \sqrt[2]{3} | 3\sqrt{2} | \sqrt{23} | 2+\sqrt{3} | 2^{\sqrt{3}}
1\frac{2}{3} | \frac{2}{3} | \frac{12}{3} | 1 \cdot \frac{2}{3} | 1\frac{3}{2} | -1\frac{2}{3}
-1\frac{1}{2} | -\frac{1}{2} | \frac{3}{2} | -1+\frac{1}{2}
3.50 | 35 | 3.05 | 350 | 3,50
0.5 | 0.48 | 0.49999999 | \frac{6}{11} | 0.50001 | 5
0.67 | 0.6666 | 0.66 | 0.7
0.323 | \frac{10}{31} | \frac{21}{65}
0 | 10^{-50} | 0.0001 | e^{-1000} | \emptyset | \text{none}
\infty | -\infty | 10^{100} | \pm\infty
1 | 0.999 | 0.9999999999999999999999999999 | 1.0000000000000000000000001 | 1+10^{-300} | i
\log_2 3 | \log_3 2 | \log 3 | \frac{\log 2}{\log 3} | 1.585
""",
    "complex and expressions": r"""
7+24i | 7-24i | -7+24i | 24+7i | 7+24 | 31i | 7+24j | (7,24)
x^2+12x+35 | x^2+12x-35 | x^2-12x+35 | x^2+35x+12 | (x+5)(x-7) | y^2+12y+35 | x^3+12x+35 | 2x^2+24x+70
x^2+12x+35 | x^2+12x+35=0+1
x | |x| | \sqrt{x^2} | -x | x+1 | X | x^2 | y
\sqrt{x^2} | x | -x | x^2
2^{n-1} | 2^n - 1 | 2^{n+1} | 2n-1 | n^{2-1} | 2^{m-1}
\sin x | \cos x | \sin y | \sin^2 x | \sin(-x) | \arcsin x | \sin
\frac{2}{n} | \frac{n}{2} | 2n | \frac{2}{m}
3\sec \frac{1}{2}\theta | 3\sec\theta | 3\cos\frac{1}{2}\theta
-(ab+ac+bc) | ab+ac+bc | -ab+ac+bc
xy | x+y | x,y | (x,y) | x^y
5x_1 | 5x_2 | 5x | 51x
|x-10| | 10-x | x-10 | |x+10|
10-x | |x-10| | \sqrt{(x-10)^2}
f(2x) | 2f(x) | f(x)^2
f(-x) | -f(x) | f'(-x)
f(4-x) | f(x-4) | f(4+x) | 4-x
AB | BA | CD | A,B
""",
    "equations and inequalities": r"""
y = 2x - 13 | y = 2x + 13 | y = -2x - 13 | x = 2y - 13 | y = 13 - 2x | 2x + 13 | y < 2x - 13 | z = 2x - 13
y = 2x - 13 | y \ge 2x-13
x = 2 | x - 2 = 0 | 3x + 1 = 7
x = 2 | x = -2 | y = 2 | x = 2, 3 | x > 2 | x \ne 2 | x^2 = 4 | 2x = 2
5 | 2x = 5 | x > 5 | x \ge 5 | x + y = 5 | x = 5, 6 | 5 = 6 | 4 = 5 | x \neq 5 | 6 \approx 5
2x + z - 5 = 0 | 2x + z + 5 = 0 | 2x - z - 5 = 0 | 2x + y - 5 = 0 | 2x + z - 5
x > 3 | x \ge 3 | x < 3 | 3 > x | y > 3 | [3, \infty) | (-\infty, 3) | 3
s^2 \le 8r^2 | s^2 < 8r^2 | s^2 \ge 8r^2 | s \le 8r | s^2 = 8r^2
-80\leq g(x)\leq 82 | -80 < g(x) \le 82 | -80 \le g(x) \le 83 | (-80, 82) | 80 \le g(x) \le 82
AB=9, CD=4 | AB=4, CD=9 | 4, 9 | AB=9 | AB=9, CD=5
""",
    "lists, sets, tuples, intervals": r"""
1, 2 | 1 | 2 | 1, 3 | 1, 2, 3 | 1, -2 | (1,2) | 1, 1, 2 | 12 | 1+2 | 1.2 | x=1, y=3 | 1 \pm 2
(1,5) | (1,5) \text{ or } (2,3) | (1,5) \text{ or } (5,1) | (5,1)
(1,2) | (2,1) | [1,2] | (1,2] | \{1,2\} | (1,2,3) | 1, 2 | (1;3) | 1.2 | (1,-2) | 3 | x=2, y=1 | (1,2),(1,2)
(1,2) | \frac{1}{2}
\{1,2\} | (1,2) | [1,2] | \{1\} | \{1,2,3\} | \{1,3\} | 1 \le x \le 2
[-1,2] | (-1,2) | [-1,2) | [-1,3] | [2,-1] | -1 < x < 2 | \{-1,2\} | (-\infty,2] | x \ge -1 \text{ or } x \le 2
(1,\infty) | [1,\infty) | (-\infty,1) | (1,100) | (1,-\infty) | 1 | x \ge 1 | x > 1.01
(-\infty,2) \cup (2,\infty) | (-\infty,\infty) | (-\infty,2] \cup (2,\infty) | (-\infty,2) | x = 2
(-\infty,2) \cup (2,\infty) | (-\infty,2) \cap (2,\infty) | (-\infty,3) \cup (3,\infty)
(1,2) \cup (3,4) | (1,4) | (1,2),(3,4) | (1,2) \cup (3,5) | (1,2] \cup (3,4) | (1,2) | \{1,2,3,4\}
75^\circ, 75^\circ | 75^\circ | 75^\circ, 76^\circ | 150^\circ
1 \pm \sqrt{2} | 1 + \sqrt{2} | 1 - \sqrt{2} | \pm(1+\sqrt{2}) | -1 \pm \sqrt{2} | 1 \pm \sqrt{3}
\begin{pmatrix} 1 \\ 2 \end{pmatrix} | \begin{pmatrix} 2 \\ 1 \end{pmatrix}
\begin{pmatrix} 1 \\ 2 \end{pmatrix} | \begin{pmatrix} 1 & 2 \\ 0 & 0 \end{pmatrix} | (2,1)
\begin{pmatrix} 1 \\ 2 \end{pmatrix} | \begin{pmatrix} 1 \\ -2 \end{pmatrix} | \{1,2\}
\begin{pmatrix} 1 \\ 2 \end{pmatrix} | \begin{pmatrix} 1 & 2 \end{pmatrix}
\begin{pmatrix} 2 & 4 \\ 1 & 3 \end{pmatrix} | \begin{pmatrix} 2 & 1 \\ 4 & 3 \end{pmatrix}
\begin{pmatrix} 2 & 4 \\ 1 & 3 \end{pmatrix} | \begin{pmatrix} 2 & 4 & 1 & 3 \end{pmatrix}
\begin{pmatrix} 2 & 4 \\ 1 & 3 \end{pmatrix} | \begin{vmatrix} 2 & 4 \\ 1 & 3 \end{vmatrix} | 2
\begin{pmatrix} 2 & 4 \\ 1 & 3 \end{pmatrix} | \begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix} | (2,4,1,3)
\emptyset | 0 | \{0\} | \{\emptyset\} | \mathbb{R}
""",
    "units and percent": r"""
5\text{ cm} | 5\text{ m} | 5\text{ cm}^2 | 50 \text{ cm} | 5 \text{ kg} | 5\% | 5 \text{ inches} | 5 \text{ cm/s}
5\text{ cm} | 5\text{ apples} | 5 \text{ square cm} | 5m
10 | 10\% | 0.1 | 10 \text{ or so} | 10 \text{ thousand} | 10 \text{ dozen} | 10 \text{ percent}
10 | \text{about 10 or 11}
10\% | 10 | 0.01 | 1 | 10^\circ | 0.1\% | 100\% | \frac{1}{10}\% | 90\%
\$18 | \$18\% | \$18^\circ | \$18 \text{ m} | \$18 \text{ cents}
\$18 | 18 \text{ cents} | 18 \text{ euros} | €18 | £18 | \$1.8 | \$180 | 18\% | \$18 \text{ million} | \$-18
90^\circ | 90\pi | 91^\circ | 90\text{ radians} | 90\% | \pi | -90^\circ | 90^\circ C
2400\text{ cm}^2 | 2400 \text{ cm}^3 | 2400 \text{ cm} | 2400\text{ m}^2 | 2.4 \text{ m}^2
60 \text{ mph} | 60 \text{ km/h} | 60 \text{ miles} | 60 \text{ miles per minute} | 60 \text{ hours}
3 \text{ red apples} | 3 \text{ red oranges}
10 | 10 \text{ tenths} | 10 \text{ thirds} | 10 \text{ degrees below zero} | 10 \text{ doubled} | 10m | 10 x/y
21\text{ dogs} | 21\text{ cats} | 20 \text{ dogs} | 21\text{ dollars}
40\text{ min} | 40 \text{ s} | 40\text{ hours} | 40 \text{ m}
80\text{ cents} | \$80 | \$8 | 0.8
72 | 72 \text{ squared} | 72 \text{ not} | \text{not } 72 | \text{at least } 72 | 72 \text{ more than } x
72 | \text{less than } 72
""",
    "texts, choices, bases, ratios": r"""
B | A | C | (C) | \text{D} | A, B | A \text{ or } B | \text{not } B | BB | (A)(B) | A) B | 2 | AB | \text{B or C}
\text{Monday} | \text{Tuesday} | \text{Monday or Tuesday} | \text{not Monday} | \text{Mon day} | \text{Sunday} | M
\text{even} | \text{odd} | \text{neither} | \text{not even} | \text{even and odd}
\text{A,B} | \text{A} | \text{A,C} | \text{A,B,C} | AB | (A,B)
1011_2 | 1011 | 1011_3 | 11 | 1101_2 | 1011_{20} | 13_8 | 11_{10} | -1011_2 | 10112
11 | 1011_2 | 11_2 | 11_3
3:5 | 5:3 | 3:4 | 3.5 | 35 | 3:5:1 | \frac{5}{3} | 6:11
8\!:\!34 \text{ p.m.} | 8:34 \text{ a.m.} | 8:43 \text{ p.m.} | 8.34 | 8:34:00 \text{ p.m.} | 34:8 \text{ p.m.}
1:20 | 2:40 | 1:02
05:00 | 7:0 | -05:00 | 05:01
\text{October 30} | \text{October 31} | \text{October} | 30 | \text{November 30}
\text{CBAD} | \text{ABCD} | \text{CBDA} | CBA
""",
    "hedges in one box": r"""
4 | 3 \text{ or } 4 | 3, 4 | 4 \text{ or } 3 | 3/4 | \{3,4\} | 4 \pm 0 | 4 \text{ (or 3)} | 4 \text{ maybe} | 4?
4 | 3 < x < 5 | x \in \{3,4\} | 4 = 3 | 3 = 4 | 4 \text{ if } x > 0 | 3;4 | 4 \text{ and } 4 \text{ or } 5
4 | \text{either 3 or 4} | \text{4, but possibly 3} | \pm 4 | 4 \quad 3 | 4\\3 | 1\text{ to }10 | \geq 4 | \ldots 4
4 | 4 \ldots | 4 \text{ or } 4.5
7 | \text{any number} | x | n | \text{seven or eight} | 7 \text{ through } 9 | \lceil 6.5 \rceil + 1
""",
    "sets in sets": r"""
\{1,\{2\}\} | \{1,2\} | \{\{1\},2\} | \{\{1\},\{2\}\} | \{1,\{2\},2\}
\{\{1\}\} | \{1,2\} | \{\{2\}\}
""",
    "work left undone": r"""
144 | 12 \times 12 | 48 + 96 | 150 - 6 | 12 \cdot 12 | 2 \times 72 | (48/2) \times 6 | x = 12 \times 12
144 | \sum_{k=1}^{144} 1 | \int_0^{144} dx
\frac{5}{6} | \frac{1}{2} + \frac{1}{3} | 1 - \frac{1}{6} | \frac{2+3}{6}
""",
}  # fmt: skip
CASES = [
    (kind, gold, answer)
    for kind, lines in NEAR_MISSES.items()
    for line in lines.strip().splitlines()
    for gold, *answers in [re.split(r" \| ", line.strip())]
    for answer in answers
]


def outcome(gold, answer: str, **record) -> str:
    return math_reward({"answer": gold, **record}, f"So the answer is \\boxed{{{answer}}}.").outcome


@pytest.mark.parametrize("kind", NEAR_MISSES)
def test_near_misses_are_wrong(kind):
    found = {(gold, answer): outcome(gold, answer) for k, gold, answer in CASES if k == kind}
    assert {case: result for case, result in found.items() if result != "wrong"} == {}


def test_the_list_is_long_and_its_golds_can_be_met():
    """A judge that calls everything wrong would pass the list above, so every gold must be its own answer."""
    assert len(CASES) > 450
    golds = {gold for _, gold, _ in CASES}
    assert {gold for gold in golds if outcome(gold, f" {gold} ") != "correct" or not same_answer(gold, gold)} == set()
