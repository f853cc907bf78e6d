"""Completions labelled by hand before any was judged: does the format hold, what share is in the prompt's language.

Bands of the share: ALL, MOST, HALF, FEW, NONE; None where the judge must say that there is nothing to measure.
"""

from typing import NamedTuple

from reasoning_paragraphs import BARE, BARE_CODE, CPP, DISPLAY, INLINE, PARAGRAPHS, PYTHON

ALL, MOST, HALF, FEW, NONE = (0.95, 1.0), (0.6, 0.9), (0.35, 0.65), (0.1, 0.4), (0.0, 0.05)
ZERO, RELEASED = "zero", "released"


class Case(NamedTuple):
    name: str
    record: dict
    completion: str
    style: str
    well_formed: bool
    share: tuple[float, float] | None


QUESTIONS = {
    "en": "A train leaves the station at nine and travels at 60 km/h. When does the second train catch up with it?",
    "zh": "一列火车九点出发，每小时行驶60公里，另一列火车晚40分钟出发，每小时行驶80公里，几小时后追上？",
    "fr": "Un train part à neuf heures et roule à 60 km/h. Quand le second train le rattrape-t-il ?",
    "de": "Ein Zug fährt um neun Uhr ab und fährt 60 km/h. Wann holt ihn der zweite Zug ein?",
    "es": "Un tren sale a las nueve y viaja a 60 km/h. ¿Cuándo lo alcanza el segundo tren?",
    "it": "Un treno parte alle nove e viaggia a 60 km/h. Quando lo raggiunge il secondo treno?",
    "pt": "Um trem sai às nove horas e viaja a 60 km/h. Quando o segundo trem o alcança?",
    "nl": "Een trein vertrekt om negen uur en rijdt 60 km/u. Wanneer haalt de tweede trein hem in?",
    "sv": "Ett tåg går klockan nio och kör i 60 km/h. När hinner det andra tåget ikapp det?",
    "pl": "Pociąg odjeżdża o dziewiątej i jedzie z prędkością 60 km/h. Kiedy dogoni go drugi pociąg?",
    "tr": "Bir tren saat dokuzda kalkıyor ve saatte 60 km hızla gidiyor. İkinci tren ona ne zaman yetişir?",
    "vi": "Một đoàn tàu khởi hành lúc chín giờ với tốc độ 60 km/h. Khi nào tàu thứ hai đuổi kịp nó?",
    "id": "Sebuah kereta berangkat pukul sembilan dengan kecepatan 60 km/jam. Kapan kereta kedua menyusulnya?",
    "ru": "Поезд отправляется в девять часов и едет со скоростью 60 км/ч. Когда его догонит второй поезд?",
    "uk": "Поїзд вирушає о дев'ятій годині і їде зі швидкістю 60 км/год. Коли його наздожене другий поїзд?",
    "ja": "電車が九時に出発して時速60キロで走ります。二番目の電車はいつ追いつきますか。",
    "ko": "기차가 아홉 시에 출발하여 시속 60km로 달립니다. 두 번째 기차는 언제 따라잡습니까?",
    "ar": "ينطلق قطار في الساعة التاسعة بسرعة ستين كيلومترا في الساعة. متى يلحق به القطار الثاني؟",
    "hi": "एक रेलगाड़ी नौ बजे चलती है और उसकी गति साठ किलोमीटर प्रति घंटा है। दूसरी गाड़ी उसे कब पकड़ेगी?",
    "el": "Ένα τρένο φεύγει στις εννέα και ταξιδεύει με 60 χιλιόμετρα την ώρα. Πότε το προλαβαίνει το δεύτερο;",
    "th": "รถไฟออกเดินทางตอนเก้าโมงด้วยความเร็วหกสิบกิโลเมตรต่อชั่วโมง ขบวนที่สองจะตามทันเมื่อใด",
}
P, Q = PARAGRAPHS, {code: {"question": question} for code, question in QUESTIONS.items()}


def zero(*parts: str, answer: str = "2") -> str:
    return "<think>\n" + "\n\n".join(parts) + f"\n</think>\n<answer> {answer} </answer>"


def released(*parts: str, summary: str = "The answer is \\boxed{2}.") -> str:
    return "<think>\n" + "\n\n".join(parts) + f"\n</think>\n\n{summary}"


def swap_lines(first: str, second: str) -> str:
    """Two texts line by line in turn, as a policy that drifts back and forth."""
    return "\n".join(line for pair in zip(first.split("\n"), second.split("\n"), strict=False) for line in pair)


def good(name, code, share, *parts, style=RELEASED) -> Case:
    return Case(name, Q[code], (zero if style == ZERO else released)(*parts), style, True, share)


PURE = [good(f"{key}, pure", key[:2], ALL, P[key]) for key in P if key != "en names"]
FOREIGN = [
    good(f"{asked} asked, {key} thought", asked, NONE, P[key])
    for asked, key in [
        *[("en", f"{code} train") for code in ("zh", "fr", "de", "es", "it", "pt", "nl", "sv", "pl", "tr", "vi", "id")],
        *[("en", f"{code} train") for code in ("ru", "ja", "ko", "ar", "hi", "el", "th")],
        *[("zh", "en train"), ("zh", "en roots"), ("zh", "ja train"), ("zh", "ko train"), ("zh", "fr roots")],
        *[("fr", "en train"), ("fr", "es roots"), ("fr", "it train"), ("fr", "de roots"), ("fr", "zh train")],
        *[("de", "en roots"), ("de", "nl train"), ("de", "fr train"), ("de", "sv train"), ("de", "zh roots")],
        *[("es", "en train"), ("es", "pt train"), ("es", "it train"), ("es", "fr train"), ("es", "zh traditional")],
        *[("pt", "es train"), ("it", "es roots"), ("nl", "de train"), ("ru", "uk train"), ("uk", "ru train")],
        *[("ja", "zh train"), ("ko", "ja train"), ("ja", "en story"), ("ar", "en train"), ("el", "en roots")],
    ]
]
MIXED = [
    good("en and zh, halves", "en", HALF, P["en train"], P["zh train"]),
    good("zh and en, halves", "zh", HALF, P["zh roots"], P["en roots"]),
    good("en and fr, halves", "en", HALF, P["en train"], P["fr train"]),
    good("fr and en, line by line", "fr", HALF, swap_lines(P["fr train"], P["en train"])),
    good("de and en, halves", "de", HALF, P["de train"], P["en train"]),
    good("de and en, line by line", "de", HALF, swap_lines(P["de train"], P["en train"])),
    good("es and en, halves", "es", HALF, P["es train"], P["en train"]),
    good("es and fr, halves", "es", HALF, P["es train"], P["fr train"]),
    good("es and pt, line by line", "es", HALF, swap_lines(P["es train"], P["pt train"])),
    good("ja and zh, halves", "ja", HALF, P["ja train"], P["zh train"]),
    good("en, a third zh", "en", MOST, P["en train"], P["en roots"], P["zh roots"]),
    good("fr, a third en", "fr", MOST, P["fr train"], P["fr roots"], P["en roots"]),
    good("de, a quarter es", "de", MOST, P["de train"], P["de roots"], P["de train"], P["es roots"]),
    good("es, mostly en", "es", FEW, P["en train"], P["en story"], P["en roots"], P["es roots"]),
    good("zh, mostly en", "zh", FEW, P["en train"], P["en story"], P["en names"], P["zh roots"]),
    good("en with one Chinese aside", "en", (0.9, 0.99), P["en train"], "等一下，这里不对。", P["en roots"]),
    good("zh with one English aside", "zh", (0.88, 0.99), P["zh train"], "Wait, this is not right.", P["zh roots"]),
    good(
        "words of two languages in one sentence",  # 16 characters and 19 words
        "zh",
        (0.3, 0.5),
        "我们先 compute the sum of all terms，然后 check whether the result 是不是偶数。接着 we need to divide "
        "both sides，最后得到 the final answer。",
    ),
    good("a foreign summary is not reasoning", "en", ALL, P["en roots"])._replace(
        completion=released(P["en roots"], summary="所以答案是二，这就是最后的结果，请检查一下。")
    ),
    good("only the summary is in the language", "zh", NONE, P["en roots"])._replace(
        completion=released(P["en roots"], summary=P["zh roots"])
    ),
]
MATTER = [
    good("names and places", "en", ALL, P["en names"]),
    good("en and Python", "en", ALL, P["en train"], PYTHON, P["en roots"], style=ZERO),
    good("zh and Python", "zh", ALL, P["zh train"], PYTHON, P["zh roots"], style=ZERO),
    good("fr and C++", "fr", ALL, P["fr train"], CPP, CPP, style=ZERO),
    good("de, mostly code", "de", ALL, PYTHON, CPP, PYTHON, P["de roots"], style=ZERO),
    good("es and code without a fence", "es", (0.9, 1.0), P["es train"], BARE_CODE, P["es roots"], style=ZERO),
    good("zh and code without a fence", "zh", (0.9, 1.0), P["zh train"], BARE_CODE, P["zh roots"], style=ZERO),
    good(
        "de and inline code", "de", ALL, P["de roots"] + " Die Funktion `count the number of pairs(values)` zählt sie."
    ),
    good("en and formulas", "en", ALL, P["en roots"], DISPLAY, INLINE, P["en train"]),
    good("zh and formulas", "zh", ALL, P["zh roots"], DISPLAY, INLINE, BARE),
    good("fr, mostly formulas", "fr", ALL, DISPLAY, INLINE, BARE, DISPLAY, "Donc les deux solutions sont exactes."),
    good("de and bare formulas", "de", ALL, P["de roots"], BARE),
    good("es and formulas", "es", ALL, P["es roots"], INLINE, BARE, DISPLAY),
    good("ru and formulas", "ru", ALL, P["ru train"], INLINE, BARE),
    good("el words, not letters", "el", ALL, P["el train"], BARE),
    good("formulas only", "en", None, DISPLAY, INLINE, BARE),
    good("code only", "en", None, PYTHON, CPP, style=ZERO),
    good("numbers only", "fr", None, "12 + 7 = 19, 19 * 3 = 57, 57 - 1 = 56"),
    good(
        "en with addresses",
        "en",
        ALL,
        P["en roots"] + " See https://fr.wikipedia.org/wiki/Équation_du_second_degré or"
        " write to hilfe@beispiel.de about /usr/share/les/racines.txt before Friday.",
    ),
    good(
        "prices are not formulas",
        "en",
        ALL,
        "One pen costs $5 and one book costs $12, so three pens and two books cost"
        " $39 together, which leaves $11 from the note.",
    ),
    good(
        "prices, the other language",
        "zh",
        NONE,
        "One pen costs $5 and one book costs $12, so three pens and two books"
        " cost $39 together, which leaves $11 from the note.",
    ),
    good("en in capital letters", "en", ALL, "THE ANSWER MUST BE EVEN BECAUSE THE SUM OF TWO ODD NUMBERS IS EVEN."),
    good(
        "fr in capital letters",
        "en",
        NONE,
        "LA RÉPONSE EST PAIRE PARCE QUE LA SOMME DE DEUX NOMBRES IMPAIRS EST PAIRE.",
    ),
    good(
        "en in a list",
        "en",
        ALL,
        "- First, **check** the base case.\n- Then assume it holds for k.\n1. Prove the next one.",
    ),
]
TERSE = [
    good("fr, telegraphic", "fr", ALL, "Posons y=x+1. Discriminant positif, racines réelles."),
    good("fr, nothing but verbs", "fr", ALL, "On développe, on réduit, on factorise."),
    good("fr, nothing but verbs, en asked", "en", NONE, "On développe, on réduit, on factorise."),
    good("fr, base case, en asked", "en", NONE, "Récurrence immédiate. Initialisation vérifiée."),
    good("fr, base case", "fr", ALL, "Récurrence immédiate. Initialisation vérifiée."),
    good("de, telegraphic", "de", ALL, "Sei x reell. Setze f(x)=x^2. Annahme: n ungerade. Widerspruch."),
    good("de, parity, en asked", "en", NONE, "Sei n gerade. Dann n^2 gerade. Kongruenz modulo 7: Rest 3."),
    good("es, telegraphic", "es", ALL, "Sea n par. Luego n^2 par. Hipótesis: n impar. Absurdo."),
    good("es, sequence", "es", ALL, "Sucesión geométrica, razón 2. Término general conocido."),
    good("es, area, en asked", "en", NONE, "Llamemos S al área total. Calculemos S."),
    good("es, coefficients, fr asked", "fr", NONE, "Aplicamos Bézout. Coeficientes enteros."),
    good("en, telegraphic", "en", ALL, "Geometric sequence, ratio 2. General term known. Simple arithmetic: 3+4=7."),
    good("en, theorem", "en", ALL, "Cross-multiply. Discriminant negative. No real roots. Rule out 4. Plug in. Done."),
    good("zh, keywords", "zh", ALL, "用 Python 写一个 for 循环，然后 return 结果。先写 if 判断，再写 else 分支。"),
    good("zh, variables", "zh", ALL, "设置变量 count 和 total，注意 index 从零开始，直到 queue 为空，返回一个 list。"),
    good("zh, variables, en asked", "en", NONE, "设置变量 count 和 total，注意 index 从零开始，直到 queue 为空。"),
    good("zh and en by the word", "zh", (0.4, 0.8), "我们 need 计算 the 面积 of 这个圆，so 答案 would 是五。"),
    good(
        "de with American names",
        "de",
        ALL,
        "Herr Johnson wohnt in New York, Frau O'Brien in San Francisco und Herr Smith in Los Angeles.",
    ),
]
LONG = [
    good("long en", "en", ALL, *[P["en train"], P["en roots"], P["en story"], INLINE] * 8),
    good("long zh", "zh", ALL, *[P["zh train"], DISPLAY, P["zh roots"], P["zh terms"]] * 8, style=ZERO),
    good("long de and en", "de", HALF, *[P["de train"], P["en train"], PYTHON] * 8, style=ZERO),
    good("long fr that ends in en", "fr", MOST, *[P["fr train"]] * 9, *[P["en train"]] * 3),
]
SCRIPT = P["en roots"]
BROKEN = [
    Case("never closed", Q["en"], "<think>\n" + SCRIPT, RELEASED, False, ALL),
    Case("never closed, zh", Q["en"], "<think>\n" + P["zh roots"], ZERO, False, NONE),
    Case("no tags at all", Q["en"], SCRIPT, RELEASED, False, ALL),
    Case("no tags at all, fr", Q["en"], P["fr roots"], ZERO, False, NONE),
    Case("no summary", Q["en"], released(SCRIPT, summary=""), RELEASED, False, ALL),
    Case("invisible summary", Q["en"], released(SCRIPT, summary="\u200b\u2060 \ufeff"), RELEASED, False, ALL),
    Case("only a special token", Q["en"], released(SCRIPT, summary="<｜end▁of▁sentence｜>"), RELEASED, False, ALL),
    Case("text before", Q["en"], "Sure! " + released(SCRIPT), RELEASED, False, ALL),
    Case("thought twice", Q["en"], released(SCRIPT) + released(P["zh roots"]), RELEASED, False, HALF),
    Case("closed twice", Q["en"], released(SCRIPT + "</think>" + P["zh roots"]), RELEASED, False, HALF),
    Case("closed with capitals", Q["en"], released(SCRIPT).replace("</think>", "</Think>"), RELEASED, False, ALL),
    Case("summary before", Q["en"], "</think> 2 <think> " + SCRIPT, RELEASED, False, ALL),
    Case("zero without answer tags", Q["en"], released(SCRIPT), ZERO, False, ALL),
    Case("zero, empty answer", Q["en"], zero(SCRIPT, answer=" \n "), ZERO, False, ALL),
    Case("zero, dots for an answer", Q["en"], zero(SCRIPT, answer="..."), ZERO, False, ALL),
    Case("zero, invisible answer", Q["en"], zero(SCRIPT, answer="\u200b\u3164"), ZERO, False, ALL),
    Case("zero, two answers", Q["en"], zero(SCRIPT) + "<answer> 3 </answer>", ZERO, False, ALL),
    Case("zero, text after", Q["en"], zero(SCRIPT) + "\nI hope this helps!", ZERO, False, ALL),
    Case("zero, text between", Q["en"], zero(SCRIPT).replace("</think>", "</think>\nSo:"), ZERO, False, ALL),
    Case("zero, answer in the reasoning", Q["en"], f"<think> {SCRIPT} <answer> 2 </answer> </think>", ZERO, False, ALL),
    Case("zero, a tag quoted in code", Q["en"], zero(SCRIPT + " I end with `</answer>`."), ZERO, False, ALL),
    Case("zero, reasoning in the answer", Q["en"], zero(SCRIPT, answer="<think> 2 </think> 2"), ZERO, False, ALL),
    Case("zero, attributes", Q["en"], zero(SCRIPT).replace("<answer>", '<answer type="int">'), ZERO, False, ALL),
    Case("zero, capitals in the answer", Q["en"], zero(SCRIPT, answer="2 </ANSWER> 3"), ZERO, False, ALL),
    Case("zero, end of sequence left in", Q["en"], zero(SCRIPT) + "<｜end▁of▁sentence｜>", ZERO, False, ALL),
    Case("zero, cut off in the answer", Q["en"], zero(SCRIPT)[: -len(" </answer>")], ZERO, False, ALL),
]
FINE = [
    Case("zero, no white space", Q["en"], f"<think>{SCRIPT}</think><answer>2</answer>", ZERO, True, ALL),
    Case("zero, brackets for an answer", Q["en"], zero(SCRIPT, answer="] )"), ZERO, True, ALL),
    Case("zero, a comparison for an answer", Q["en"], zero(SCRIPT, answer="<"), ZERO, True, ALL),
    Case("zero, other tags in the reasoning", Q["en"], zero(SCRIPT + " <b>x</b> < think >"), ZERO, True, ALL),
    Case("zero, a box in the answer", Q["zh"], zero(P["zh roots"], answer="\\boxed{2}"), ZERO, True, ALL),
    Case("empty reasoning", Q["en"], "<think>\n\n</think>\n\nTwo.", RELEASED, True, None),
    Case("released, an answer block in the summary", Q["en"], zero(SCRIPT), RELEASED, True, ALL),
]
OPENED = {"prefill": "<think>\n"}
PREFILLED = [
    Case("prefilled", Q["en"] | OPENED, released(SCRIPT).removeprefix("<think>\n"), RELEASED, True, ALL),
    Case("prefilled, zero", Q["zh"] | OPENED, zero(P["zh roots"]).removeprefix("<think>\n"), ZERO, True, ALL),
    Case("prefilled, foreign", Q["fr"] | OPENED, released(SCRIPT).removeprefix("<think>\n"), RELEASED, True, NONE),
    Case("prefilled and written again", Q["en"] | OPENED, released(SCRIPT), RELEASED, False, ALL),
    Case("prefilled, never closed", Q["en"] | OPENED, SCRIPT, RELEASED, False, ALL),
    Case("prefilled, closed at once", Q["en"] | OPENED, "</think> Two.", RELEASED, True, None),
]
TARGETS = [
    Case("the record names the language", Q["en"] | {"language": "fr"}, released(P["fr roots"]), RELEASED, True, ALL),
    Case("with a region", {"language": "zh-TW", "question": "?"}, released(P["zh traditional"]), RELEASED, True, ALL),
    Case("from a prompt", {"prompt": QUESTIONS["de"]}, released(P["de roots"]), RELEASED, True, ALL),
    Case("a formula in the question", {"question": "Résoudre l'équation $x^2 = 2$ où $x$ est réel, for real."},
         released(P["fr roots"]), RELEASED, True, ALL),
]  # fmt: skip

CASES = PURE + FOREIGN + MIXED + MATTER + TERSE + LONG + BROKEN + FINE + PREFILLED + TARGETS
