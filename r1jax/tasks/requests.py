"""Requests: greet somebody, name things of a kind. What is helpful is a rule that no policy is shown.

The rule stands in for the people whose preferences a reward model learns: it labels pairs of responses and measures
helpfulness, and is never a reward itself.
"""

import numpy as np

from r1jax.rewards.answer import conclusion
from r1jax.rewards.judgement import Judgement
from r1jax.tasks.languages import LANGUAGES, Language

LEVELS = (1, 2, 3)
NAMES = (
    "Ana",
    "Ben",
    "Cleo",
    "Dan",
    "Eva",
    "Finn",
    "Gia",
    "Hugo",
    "Ida",
    "Jon",
    "Kai",
    "Lea",
    "Max",
    "Nora",
    "Otto",
    "Pia",
)
OCCASIONS = {
    "greeting": {"en": ("Greet", "Hello"), "zh": ("问候", "你好")},
    "farewell": {"en": ("Say goodbye to", "Goodbye"), "zh": ("告别", "再见")},
    "thanks": {"en": ("Thank", "Thank you"), "zh": ("感谢", "谢谢")},
    "congratulation": {"en": ("Congratulate", "Congratulations"), "zh": ("祝贺", "恭喜")},
}
"""What is asked for, and the words that do it."""
POLITE = {"en": "and all the best", "zh": "祝一切都好"}
KINDS = {
    "fruit": {"en": ("fruits", "apple pear plum grape lemon mango melon"), "zh": ("种水果", "苹果 梨 李子 葡萄 柠檬 芒果 甜瓜")},
    "animal": {"en": ("animals", "dog cat horse cow sheep goat hen"), "zh": ("种动物", "狗 猫 马 牛 绵羊 山羊 母鸡")},
    "colour": {"en": ("colours", "red blue green black white pink brown"), "zh": ("种颜色", "红 蓝 绿 黑 白 粉 棕")},
    "drink": {"en": ("drinks", "tea coffee milk juice water cocoa soup"), "zh": ("种饮料", "茶 咖啡 牛奶 果汁 水 可可 汤")},
    "place": {"en": ("places", "park lake hill beach forest river cave"), "zh": ("个地方", "公园 湖 小山 海滩 森林 河 山洞")},
    "tool": {"en": ("tools", "hammer saw drill axe file spade rake"), "zh": ("种工具", "锤子 锯子 钻头 斧头 锉刀 铲子 耙子")},
}  # fmt: skip
"""The name of a kind, and the things of that kind."""
LISTING = {"en": ("Name", "but not"), "zh": ("列出", "但不要")}
ENDS = {"en": ".", "zh": "。"}


def things(kind: str, language: Language) -> list[str]:
    """The words for the things of a kind."""
    return KINDS[kind][language][1].split()


def draw(level: int, rng: np.random.Generator, language: Language | None = None) -> dict:
    """A request: level 1 asks for a polite sentence to somebody, level 2 for 2 or 3 things of a kind, level 3 for 4 or 5.

    One thing that the kind has is excluded.

    Raises:
      ValueError: unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"no level {level!r}: levels are {LEVELS}")
    language = language or str(rng.choice(LANGUAGES))
    record = {"family": "requests", "level": level, "language": language}
    if level == 1:
        occasion, name = str(rng.choice(list(OCCASIONS))), str(rng.choice(NAMES))
        asked = f"{OCCASIONS[occasion][language][0]} {name}"
        return record | {"question": f"{asked} {ENDS[language]}", "occasion": occasion, "name": name}
    kind, count = str(rng.choice(list(KINDS))), 2 * level - int(rng.integers(1, 3))
    excluded, (name, without) = int(rng.integers(len(things(kind, language)))), LISTING[language]
    asked = f"{name} {count} {KINDS[kind][language][0]} {without} {things(kind, language)[excluded]}"
    return record | {"question": f"{asked} {ENDS[language]}", "kind": kind, "count": count, "excluded": excluded}


def content(record: dict) -> str:
    """What is asked, whatever the language: what decides the split."""
    return str([record.get(name) for name in ("occasion", "name", "kind", "count", "excluded")])


def said(completion: str) -> str:
    """What a completion says to the user: its conclusion, without the tags of an answer block."""
    return (conclusion(completion) or "").replace("<answer>", " ").replace("</answer>", " ").strip()


def judge(record: dict, completion: str) -> Judgement:
    """How helpful a completion is, from 0 to 1; "correct" where nothing is amiss.

    A polite sentence has the right word, the name, and the polite ending, a third each; a list scores the share of its
    demands that it meets: every one of the things named is of the kind, allowed, and named once, and they are as many
    as asked. What is said beside that halves the score.
    """
    text = said(completion)
    if not text:
        return Judgement("no_answer", 0.0, "nothing is said")
    score, surplus = (_politeness if record["level"] == 1 else _listing)(record, text)
    score *= 0.5 if surplus else 1.0
    return Judgement("correct" if score == 1.0 else "wrong", score, f"surplus {surplus!r}" if surplus else "")


def _politeness(record: dict, text: str) -> tuple[float, str]:
    language = record["language"]
    met, left = 0, f" {text} "
    for wanted in (OCCASIONS[record["occasion"]][language][1], record["name"], POLITE[language]):
        if f" {wanted} " in left:
            met += 1
            left = left.replace(f" {wanted} ", "  ", 1)
    return met / 3, _without_stops(left)


def _listing(record: dict, text: str) -> tuple[float, str]:
    language, allowed = record["language"], things(record["kind"], record["language"])
    excluded = allowed.pop(record["excluded"])
    named = [part.strip() for part in text.removesuffix(ENDS[language]).split(",")]
    good = [part for part in dict.fromkeys(named) if part in allowed]
    share = len(good) / max(record["count"], len(named))
    strange = [part for part in named if part not in allowed and part != excluded]
    return share, " ".join(strange)


def _without_stops(text: str) -> str:
    return " ".join(word for word in text.split() if word not in (".", "。", ",", "，"))
