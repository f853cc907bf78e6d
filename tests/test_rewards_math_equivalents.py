"""Answers that say the same as the gold answer in other words, as models write them."""

import json
import os
import re
from pathlib import Path

import pytest

from r1jax.rewards.math import check_gold, math_reward

EQUIVALENT = {
    "fractions": r"""
1/2 | \frac{1}{2} | \dfrac12 | \tfrac{1}{2} | 0.5 | .5 | 0.50 | \frac{2}{4} | \frac 12 | $\frac{1}{2}$ | \(1/2\) | ½
1/2 | 2^{-1} | 50\% | \nicefrac{1}{2} | {1 \over 2} | \frac12 \text{ or } 0.5 | \text{.5}
-\frac{3}{4} | -3/4 | \frac{-3}{4} | \frac{3}{-4} | -0.75 | −0.75 | - \dfrac{3}{4} | \left(-\frac{3}{4}\right)
-\frac{3}{4} | -\frac34.
\frac{11}{15} | 11/15 | \frac{ 11 }{ 15 } | \frac{{11}}{{15}} | 0.7\overline{3} | 0.7\bar{3} | 0.7(3)
\frac13 | 0.\overline{3} | 0.\overline{33} | 0.3\overline{3} | 1/3 | 0.\bar 3 | 0.\dot{3}
1\frac{2}{3} | \frac{5}{3} | 1 2/3 | 5/3 | 1\tfrac23 | 1+\frac{2}{3} | 1.\overline{6}
-15\frac{3}{5} | -15.6 | -\frac{78}{5} | -15 3/5
""",
    "integers": r"""
72 | 72.0 | 72. | \text{72} | \mathbf{72} | {72} | +72 | 72\text{ clips} | 72 clips | \$72 | $72$ | **72** | x = 72
72 | 72 = x | \boxed{72} | 7.2 \times 10^1 | 072 | \frac{144}{2} | ７２
1234 | 1,234 | 1{,}234 | 1\,234 | 1,\!234 | 1 234 | 1~234 | 1234.00 | \$1,234 | 1.234\times 10^3 | 1.234e3
1234 | 1.234 \cdot 10^{3}
1,000,000 | 10^6 | 1000000 | 1{,}000{,}000 | 1\,000\,000 | 1 \text{ million} | 1e6 | one million
-7 | −7 | - 7 | -7.0 | (-7) | x=-7 | {-}7
0 | 0.0 | -0 | \frac{0}{5} | 0\% | zero
120 | 5! | \binom{10}{3} | 2^3 \cdot 15 | \text{120 ways} | 120^\circ | 120 \text{ (ways)}
1024 | 2^{10} | 4^5 | 2^10 | 32^2
3.50 | 3.5 | \$3.50 | 7/2 | 3{,}5 | 350 \times 10^{-2}
""",
    "radicals and constants": r"""
2\sqrt{2} | \sqrt{8} | 2 \sqrt 2 | 2\cdot\sqrt{2} | \sqrt{2}\cdot 2 | 2*sqrt(2) | 2√2 | \frac{4}{\sqrt{2}} | 2^{3/2}
{5 \choose 2} | 10 | \binom{5}{2} | 5 \choose 2
2\sqrt{2} | 8^{1/2} | \sqrt2 + \sqrt2
\frac{\sqrt{3}}{3} | \frac{1}{\sqrt{3}} | \sqrt{\frac13} | \frac{\sqrt 3}3 | \tan 30^\circ | \tan(\pi/6) | 3^{-1/2}
\sqrt[3]{4} | 4^{1/3} | 2^{2/3} | \sqrt[3]{2^2} | \sqrt[6]{16}
10\pi | 10 \pi | 10π | \pi \cdot 10 | 10*pi | \frac{20\pi}{2} | 31\pi - 21\pi
100-25\pi | 25(4-\pi) | -25\pi + 100 | 100 - 25 \cdot \pi
\frac{1+\sqrt{5}}{2} | \frac{1}{2} + \frac{\sqrt{5}}{2} | (1+\sqrt 5)/2 | \frac{2}{\sqrt{5}-1} | \frac12(1+\sqrt5)
2-\sqrt{3} | \tan 15^\circ | \tan\frac{\pi}{12} | \frac{1}{2+\sqrt{3}}
\log_2 3 | \frac{\ln 3}{\ln 2} | \frac{\log 3}{\log 2} | \log_{2}{3} | \log_2(3) | \log_4 9
3 | \log_2 8 | \sqrt{9} | \lfloor \pi \rfloor | |{-3}| | \ln e^3 | 3^1
e^2 | e^{2} | \exp(2) | e \cdot e
\frac{\pi}{2} | 90^\circ | \arccos 0 | \pi/2 | 0.5\pi | \sin^{-1}(1)
""",
    "complex": r"""
7+24i | 24i + 7 | (4+3i)^2 | 7 + 24 i | 7+24\mathrm{i}
-i | \frac{1}{i} | i^3 | 0 - i
3i,-3i | \pm 3i | -3i, 3i | \{3i, -3i\} | 3i \text{ and } -3i
""",
    "expressions": r"""
x^2+12x+35 | (x+5)(x+7) | x^2 + 35 + 12x | (x+6)^2 - 1 | x^{2}+12x+35 | x² + 12x + 35 | f(x) = x^2+12x+35
x^2+12x+35 | x**2 + 12*x + 35
\frac{x+5}{6} | \frac{x}{6}+\frac{5}{6} | (x+5)/6 | \frac16(x+5)
\frac{2}{n} | 2/n | 2n^{-1} | 2 \cdot \frac{1}{n}
30p\sqrt{p} | 30p^{3/2} | 30\sqrt{p^3} | 30 \sqrt{p} \, p
\sqrt{x^2} | |x| | \left|x\right| | \sqrt{(-x)^2}
|x-10| | |10-x| | \sqrt{(x-10)^2} | \sqrt{x^2-20x+100}
f(4-x) | f(-x+4)
\cos^2\alpha | 1-\sin^2\alpha | (\cos\alpha)^2 | \cos^2(\alpha) | \frac{1+\cos 2\alpha}{2} | cos^2 α
2 \sin 5x \cos x | \sin 6x + \sin 4x | 2\cos(x)\sin(5x)
2^{n-1} | \frac{2^n}{2} | 2^n \cdot 2^{-1} | 2^{-1+n}
-(ab+ac+bc) | -ab-bc-ca | -(ab + bc + ac)
\frac{1}{2}gt^2 | \frac{gt^2}{2} | gt^2/2 | 0.5gt^2
5x_1 + 2x_2 | 2x_2+5x_1 | 5x_{1}+2x_{2}
""",
    "equations": r"""
y = 2x - 13 | y=2x-13 | 2x - 13 | 2x - y = 13 | 2x-y-13=0 | y + 13 = 2x | 4x-2y=26
x = 2 | 2 | x=2 | 2 = x | x = 2.0
5 | x = 5 | n=5 | f(2) = 5 | a_5 = 5 | AB = 5 | \angle ABC = 5^\circ | \text{Area} = 5 | x \approx 5
2x + z - 5 = 0 | z = 5 - 2x | 2x+z=5 | -2x - z + 5 = 0 | 4x+2z=10
y^2 - 4x - 6y + 9 = 0 | (y-3)^2 = 4x | 4x = y^2-6y+9
0.56 = 56\% | 0.56 | 56\% | \frac{14}{25}
AB=9, CD=4 | AB = 9, CD = 4 | CD=4, AB=9 | AB=9 \text{ and } CD=4
""",
    "lists and sets": r"""
1, 2 | 2, 1 | 1,2 | 1 \text{ and } 2 | 1 or 2 | \{1, 2\} | x=1, x=2 | x = 1 \text{ or } x = 2 | x=1,2 | 1; 2
1, 2 | 2 and 1 | x \in \{1,2\}
-12 \text{ or } -30 | -30, -12 | -12, -30 | x=-12 or x=-30
2, 3, \text{ and } 4 | 2, 3, 4 | 4,3,2 | 2, 3 and 4
1 + \sqrt{2}, 1 - \sqrt{2} | 1 \pm \sqrt{2} | 1 ± √2 | 1-\sqrt{2}, 1+\sqrt{2} | x = 1 \pm \sqrt{2}
\{4,5,7\} | {4,5,7} | 4,5,7 | \{7,5,4\} | \left\{4, 5, 7\right\} | \{4,5,7,7\} | \{4\} \cup \{5, 7\}
\sqrt{2},-\sqrt{2} | \pm\sqrt{2} | \pm \sqrt 2
75^\circ, 75^\circ | 75, 75 | 75^\circ,75^\circ
\emptyset | \varnothing | ∅ | \{\} | \text{no solution} | no solutions
\frac 74,7 | 7, 1.75 | \frac{7}{4}, 7
1000, 2000 | 1,000, 2,000 | 2000,1000 | 1{,}000 \text{ and } 2{,}000
""",
    "tuples, intervals and matrices": r"""
(1,2) | (1, 2) | \left(1, 2\right) | ( 1 , 2 ) | \langle 1, 2 \rangle | (x,y) = (1,2) | (1, \frac{4}{2}) | x=1, y=2
(1,2) | $(1,2)$ | （1，2）
(8\sqrt3, 14, 2, 4) | (8\sqrt{3},14,2,4) | \left( 8 \sqrt{3}, 14, 2, 4 \right)
(1,234) | (1, 234)
(1, \infty) | x > 1 | 1 < x | x \in (1, \infty) | (1,+\infty) | \left(1,\infty\right) | \{x \mid x > 1\} | (1, ∞)
[-1,2] | -1 \le x \le 2 | 2 \ge x \ge -1 | x \in [-1,2] | [-1, 2.0] | -1 \leq x \leq 2 | x \ge -1 \text{ and } x \le 2
(-\infty,2) \cup (2,\infty) | x \ne 2 | x < 2 \text{ or } x > 2 | (2,\infty) \cup (-\infty,2)
(-\infty,2) \cup (2,\infty) | \mathbb{R} \setminus \{2\} | (-\infty,2) or (2,\infty) | x<2 or x>2
[1,3] | [1,2] \cup [2,3] | [1,2) \cup [2,3]
(-\infty,\infty) | \mathbb{R} | \text{all real numbers}
\begin{pmatrix} 1 \\ 2 \end{pmatrix} | \begin{bmatrix}1\\2\end{bmatrix} | (1,2) | \begin{pmatrix}1\\[6pt]2\end{pmatrix}
\begin{pmatrix} 1 \\ 2 \end{pmatrix} | \left(\begin{array}{c} 1 \\ 2 \end{array}\right)
\begin{pmatrix} 1 \\ 2 \end{pmatrix} | \begin{pmatrix} 1 \\ 4/2 \end{pmatrix}
\begin{pmatrix} 2 & 4 \\ 1 & 2 \end{pmatrix} | \begin{bmatrix} 2 & 4 \\ 1 & 2 \end{bmatrix}
\begin{pmatrix} 2 & 4 \\ 1 & 2 \end{pmatrix} | 2\begin{pmatrix} 1 & 2 \\ \frac12 & 1 \end{pmatrix} | [[2,4],[1,2]]
\begin{pmatrix} 2 & 4 \\ 1 & 2 \end{pmatrix} | A = \begin{pmatrix} 2 & 4 \\ 1 & 2 \end{pmatrix}
s^2 \le 8r^2 | 8r^2 \ge s^2 | s^2 - 8r^2 \le 0 | 2s^2 \leq 16r^2
""",
    "units": r"""
10\text{ cm} | 10 | 10 cm | 10cm | 10~\mathrm{cm} | 10\,\text{cm} | 10 \text{ centimeters} | 0.1\text{ m}
10\text{ cm} | 10 \mathrm{~cm} | 10\text{\,cm} | 100 \text{ mm} | 10\ \mathrm{cm}
5\text{ m} | 5 m | 5 | 5 \text{ meters} | 500 cm
2400 \mbox{ cm}^2 | 2400 cm^2 | 2400\text{ cm}^2 | 2400 \text{ square centimeters} | 2400 | 2400\text{ cm}^{2}
2400 \mbox{ cm}^2 | 2400 \text{ sq cm} | 2400 sq cm | 2400 \mathrm{~cm}^{2}
12 | 12 \mathrm{~m} / \mathrm{s} | 12 m/s | 12\,\mathrm{m} | \$12 \text{ per hour} | \$12 each | 12\\
5 \text{ m/s} | 5 m/s | 5\,\mathrm{m}\cdot\mathrm{s}^{-1}
\$18 | 18 | 18 dollars | \$18.00 | 18\text{ USD} | $18 | 1800 \text{ cents} | \text{\$18}
18 | \$18 | 18\text{ dollars} | 18 eggs | 18 \text{ eggs per day} | 18.00
80\text{ cents} | 80 | \$0.80 | 80¢
10\% | 10\% | 10 percent | 0.1 | \frac{1}{10} | 10 \% | 10% | 10\text{ percent} | 10％
90^\circ | 90 | 90° | 90 degrees | 90\text{ degrees} | 90^{\circ} | \frac{\pi}{2} | 90\degree
40\text{ min} | 40 minutes | 40 | \frac23 \text{ hours} | 2400 \text{ s}
60 \text{ mph} | 60 | 60 miles per hour | 60 \text{ miles/hour} | 60\text{ mi/h}
21\text{ dogs} | 21 | 21 dogs | \text{21 dogs}
7 \text{ distinct integers} | 7 integers | 7
6\frac{1}{6}\text{ feet} | \frac{37}{6} | 6 1/6 feet | \frac{37}{6}\text{ ft} | 74 \text{ inches}
20000 | 20 thousand | 20\text{ thousand}
""",
    "texts and choices": r"""
B | (B) | \text{B} | \text{(B)} | B) | B. | \textbf{(B)} | \mathrm{B} | \boxed{B} | B) 12 | (B) 12 | \text{(B) }12
B | \textbf{(B)}\ 12 | Option B | B: 12
\text{(E)} | E | (E) | \text{E}
\text{Monday} | Monday | monday | \text{ Monday } | \mathrm{Monday} | \text{Monday}.
\text{two lines} | two lines | 2 lines | \text{Two lines}
\mbox{four} | 4 | four
\text{A, B} | A, B | B,A | A \text{ and } B | \text{B}, \text{A}
\text{October 30} | October 30
\text{even} | even | Even
""",
    "bases, ratios, times": r"""
1011_2 | 1011_{2} | (1011)_2 | 1011_{\text{two}} | 01011_2
24_{10} | 24
\text{A5}_{11} | A5_{11} | \mathrm{A5}_{11}
3:5 | 6:10 | 3 : 5 | 3\!:\!5 | \frac{3}{5} | 3:5.
2:30 \text{ PM} | 2:30 p.m. | 2{:}30\text{ p.m.}
4\!:\!51\!:\!06 \text{ p.m.} | 4:51:06 PM | 4:51:06\text{ pm}
05\!:\!00 | 5:00 | 05:00
""",
    "rounded golds": r"""
0.333 | 1/3 | \frac13
2.667 | \frac{8}{3}
\$\dfrac23 \approx \$0.67 | \$0.67 | \frac{2}{3} | 0.67
8.24 | \approx 8.24 | x \approx 8.24
\frac{2}{3} | \frac{2}{3} \approx 0.667
\frac{1}{2} | \frac{2}{4} = \frac{1}{2} | \frac{1}{2} = 0.5
""",
    "symbolic": r"""
\sum_{k=1}^{n} k^2 | \sum_{j=1}^{n} j^2 | \frac{n(n+1)(2n+1)}{6}
""",
}  # fmt: skip
CASES = [
    (kind, gold, answer.strip())
    for kind, lines in EQUIVALENT.items()
    for line in lines.strip().splitlines()
    for gold, *answers in [re.split(r" \| ", line)]
    for answer in [gold, *answers]
]


def outcome(gold, answer: str, **record) -> str:
    return math_reward({"answer": gold, **record}, f"So the answer is \\boxed{{{answer}}}.").outcome


@pytest.mark.parametrize("kind", EQUIVALENT)
@pytest.mark.filterwarnings("error")
def test_equivalent_answers_are_correct(kind):
    cases = [(gold, answer) for k, gold, answer in CASES if k == kind]
    assert {
        gold: check_gold(gold) for gold, _ in cases if check_gold(gold)
    } == {}  # starts the symbolic tier, if need be
    assert {case for case in cases if outcome(*case) != "correct"} == set()


def test_the_list_is_long():
    assert len(CASES) > 500


def assets() -> Path:
    if "R1JAX_ASSETS" not in os.environ:
        pytest.skip("R1JAX_ASSETS does not name the folder of data sets")
    return Path(os.environ["R1JAX_ASSETS"])


REWRITINGS = {
    "as it is": lambda gold: gold,
    "dfrac": lambda gold: re.sub(r"\\[dt]?frac(?![a-z])", r"\\dfrac", gold),
    "tfrac": lambda gold: re.sub(r"\\[dt]?frac(?![a-z])", r"\\tfrac", gold),
    "dollars": lambda gold: gold if "$" in gold else f"${gold}$",
    "parentheses for mathematics": lambda gold: rf"\({gold}\)",
    "trailing dot": lambda gold: gold.rstrip(".") + ".",
    "spaces around": lambda gold: f" {gold} ",
    "left": lambda gold: gold if "text" in gold else re.sub(r"(?<!\\left)[(]", r"\\left(", gold),
    "braces": lambda gold: f"{{{gold}}}" if gold.isdigit() else gold,
    "display style": lambda gold: rf"\displaystyle {gold}",
    "typographic minus": lambda gold: gold.replace("-", "−"),
    "thousands": lambda gold: gold.replace(r",\!", "{,}"),
    "decimal zeros": lambda gold: f"{gold}.0" if gold.isdigit() else gold,
    "box in a box": lambda gold: rf"\boxed{{{gold}}}",
}


def test_math_golds_rewritten_as_models_do():
    rows = json.loads((assets() / "math" / "train.json").read_text())
    golds = sorted({row["answer"] for row in rows if row["answer"] and check_gold(row["answer"]) is None})
    misses = [
        (name, gold)
        for name, rewrite in REWRITINGS.items()
        for gold in golds[:: 1 if name == "as it is" else 3]
        if outcome(gold, rewrite(gold)) != "correct"
    ]
    assert misses == []


def test_published_golds_are_judged_right_against_themselves():
    """GSM8K solutions end in their answer; the other sets have only the answer, which is put into a box."""
    folder, pairs = assets(), []
    for name in ("train", "test"):
        for line in (folder / "gsm8k" / f"{name}.jsonl").read_text().splitlines():
            solution = json.loads(line)["answer"]
            pairs.append((solution.split("#### ")[1], solution))
    rows = json.loads((folder / "math" / "train.json").read_text())
    rows += json.loads((folder / "aime" / "aime24.json").read_text())
    rows += [json.loads(line) for line in (folder / "amc" / "amc23.jsonl").read_text().splitlines()]
    pairs += [(row["answer"], rf"Therefore the answer is $\boxed{{{row['answer']}}}$.") for row in rows]
    right = sum(math_reward({"answer": gold}, text).outcome == "correct" for gold, text in pairs)
    assert len(pairs) > 16_000 and right / len(pairs) >= 0.998
