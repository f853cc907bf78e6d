"""Runs of tokens: taken apart at separators outside all brackets, and freed from what only surrounds an answer."""

from r1jax.rewards.math.latex import Token

OPENING = {"(", "[", r"\{", "<<", "{", "floor(", "ceil("}
CLOSING = {")", "]", r"\}", ">>", "}", "floor)", "ceil)"}
LEADING_WORDS = set("the final answer is are approximately about roughly exactly option choice".split())


def split(tokens: list[Token], marks: set[str]) -> tuple[list[list[Token]], list[str]]:
    """The parts of tokens between those operators that stand outside all brackets, and these operators."""
    parts, found, depth = [[]], [], 0
    for token in tokens:
        if token.kind == "op":
            depth += (token.text in OPENING or token.text.startswith(r"\begin")) - (
                token.text in CLOSING or token.text.startswith(r"\end")
            )
            if depth == 0 and token.text in marks:
                parts.append([])
                found.append(token.text)
                continue
        parts[-1].append(token)
    return parts, found


def trim(tokens: list[Token]) -> list[Token]:
    """Tokens without the punctuation around them and the words that only announce an answer."""
    start, end = 0, len(tokens)
    while end > start and tokens[end - 1].kind == "op" and tokens[end - 1].text in (".", ",", ";", ":", '"', r"\\"):
        end -= 1
    while start < end and (
        (tokens[start].kind == "op" and tokens[start].text in ("~=", "=", ":", '"'))
        or (tokens[start].kind == "word" and tokens[start].text.lower() in LEADING_WORDS and end - start > 1)
    ):
        start += 1
    return tokens[start:end]


def closes_at_end(tokens: list[Token]) -> bool:
    """Whether the bracket that the first token opens is closed by the last one."""
    depth = 0
    for place, token in enumerate(tokens):
        if token.kind == "op":
            depth += (token.text in OPENING) - (token.text in CLOSING)
            if depth == 0:
                return place == len(tokens) - 1
    return False
