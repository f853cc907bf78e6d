"""Tables of notation: typographic signs, LaTeX commands, names and words."""

SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
SIGNS = r"""
− - – - — - ‒ - ﹣ - ➖ - × \times ✕ \times · \cdot ⋅ \cdot ∙ \cdot • \cdot ÷ \div √ \sqrt π \pi ∞ \infty ± \pm ∓ \mp
≤ \le ⩽ \le ≦ \le ≥ \ge ⩾ \ge ≧ \ge ≠ \ne ≈ \approx ∪ \cup ∩ \cap ∈ \in ∅ \emptyset ° \degree º \degree ∖ \setminus
… \ldots θ \theta α \alpha β \beta γ \gamma λ \lambda φ \phi ω \omega ℝ \mathbb{R} ⟨ \langle 〈 \langle ⟩ \rangle
〉 \rangle ∠ \angle △ \triangle ⌊ \lfloor ⌋ \rfloor ⌈ \lceil ⌉ \rceil ½ \frac{1}{2} ⅓ \frac{1}{3} ⅔ \frac{2}{3}
¼ \frac{1}{4} ¾ \frac{3}{4} ⅛ \frac{1}{8} ⅜ \frac{3}{8} ⅝ \frac{5}{8} ⅞ \frac{7}{8} ⅕ \frac{1}{5} ′ ' ’ ' “ " ” " ￥ ¥
""".split()
SYMBOLS = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # full-width forms
SYMBOLS |= {
    ord(sign): f"{text} " if text[0] == "\\" else text for sign, text in zip(SIGNS[::2], SIGNS[1::2], strict=True)
}
SYMBOLS |= {
    ord("，"): ", ",
    ord("、"): ", ",
    ord("；"): "; ",
    ord("。"): ". ",
}  # with a space: never a thousands separator
SYMBOLS |= dict.fromkeys(map(ord, "\u3000\u2009\u202f\u00a0\u2002\u2003"), " ")
SYMBOLS |= dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202a\u202c\u202d\u202e"), "")

FUNCTIONS = frozenset(
    """sin cos tan sec csc cot arcsin arccos arctan arccot arcsec arccsc asin acos atan sinh cosh tanh
    coth sech csch arsinh arcosh artanh arcsinh arccosh arctanh
    log ln lg exp sqrt cbrt abs floor ceil""".split()
)
OPERATOR_PAIRS = r"""
\cdot * \times * \ast * \div / \le <= \leq <= \leqslant <= \ge >= \geq >= \geqslant >= \lt < \gt > \ne != \neq !=
\approx ~= \simeq ~= \in in \cup cup \cap cap \setminus setminus \backslash setminus \pm +- \mp -+ \% % \$ $ \{ \{
\} \} \lbrace \{ \rbrace \} \lvert | \rvert | \vert | \mid | \| || \langle << \rangle >> \colon : \ldots ...
\dots ... \cdots ... \lfloor floor( \rfloor floor) \lceil ceil( \rceil ceil) \\ \\ \lbrack [ \rbrack ] \land and
\wedge and \lor or \vee or \over over \choose choose \_ _ \& and \pounds £ \euro €
""".split()
OPERATORS = dict(zip(OPERATOR_PAIRS[::2], OPERATOR_PAIRS[1::2], strict=True))
COMMANDS = {name: "frac" for name in ("frac", "dfrac", "tfrac", "cfrac", "nicefrac", "sfrac")} | {"sqrt": "sqrt"}
COMMANDS |= {name: "binom" for name in ("binom", "dbinom", "tbinom")}
COMMANDS |= {name: "over" for name in ("overline", "bar", "vec", "overrightarrow", "widehat", "hat")}
NAMES = frozenset(
    """alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau
    upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega pi infty emptyset
    varnothing angle triangle ell""".split()
)
SYMBOLIC = frozenset("sum prod int iint oint lim partial det gcd max min sup inf".split())
"""Commands of a computation that is still to be done."""
UNIT_LETTERS = frozenset(
    """sq cu cm mm km dm nm ft yd mi lb lbs oz kg mg hr hrs min mins sec secs ms mph kph kmh mL ml cc USD usd am pm""".split()
)
"""Runs of letters that are units behind a number."""
SHORT_WORDS = frozenset("or and to of is no not per cm mm km kg mg".split())
"""Runs of letters that are words anywhere."""
