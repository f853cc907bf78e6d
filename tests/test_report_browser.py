"""The report of a chain in a real browser, on a phone and on a desk, and that the page needs nothing but itself."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import CHROMIUM, browser

from r1jax.evaluation import Response, summarize_answers
from r1jax.evaluation.files import ResponseLog
from r1jax.report import write_chain_report
from r1jax.report.chain import STAGES, STUDENTS
from r1jax.rewards.judgement import Judgement
from r1jax.tasks.families import draw_records, read_parts, with_ids

PARTS = ("countdown:1", "countdown:2", "chains", "functions", "requests", "safety")
SEARCH = "<think> 3 + 9 = 12 no 9 - 3 = 7 no 3 + 9 = 12 不对 <b>wait</b> </think> The answer is \\boxed{ 9 * 5 } ."
LONG = "<think> " + "antidisestablishmentarianism" * 6 + " </think> <script>alert(1)</script>"
SMALLEST = 12  # CSS pixels of text


def response(rng, skill: float) -> Response:
    right, tokens = rng.random() < skill, int(rng.integers(9, 128))
    judgements = {"accuracy": Judgement("correct" if right else "wrong", float(right))}
    judgements |= {name: Judgement("correct", float(rng.random() < 0.9)) for name in ("format", "language")}
    return Response(SEARCH if rng.random() < 0.8 else LONG, tokens, tokens < 120, judgements)


def metric(step: int, name: str) -> dict:
    shares = ("format_share", "language_score", "verify_share", "retry_share", "reflect_share")
    parts = {"helpful": 0.5 + step / 100, "safety": 0.9} if name == "general_rl" and step > 15 else {}
    return dict.fromkeys(shares, 0.4 + step / 100) | {
        "step": step, "accuracy": 0.2 + step / 60, "mean_response_tokens": 14.0 + step, "reward_parts": parts,
    }  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a chain whose stages have all run."""
    root, rng = tmp_path_factory.mktemp("chain"), np.random.default_rng(0)
    records = with_ids(draw_records(read_parts(PARTS), "held_out", 24, rng))
    prompts = [f"A conversation. User: {record['question']} Assistant:" for record in records]
    for place, name in enumerate((*STAGES, *STUDENTS)):
        folder = root / f"evaluate_{name}"
        folder.mkdir()
        groups = [[response(rng, 0.1 * place + 0.1) for _ in range(4)] for _ in records]
        ResponseLog(folder / "responses.jsonl", records, prompts, 4, 24).write(groups)
        result = summarize_answers(records, groups, [None] * len(records))
        (folder / "evaluation.json").write_text(json.dumps({"result": result}))
    for name in ("r1_zero", "reasoning_rl", "general_rl"):
        (root / name).mkdir()
        lines = "".join(json.dumps(metric(step, name)) + "\n" for step in range(1, 41))
        (root / name / "metrics.jsonl").write_text(lines)
    done = {name: {"seconds": 100.0} for name in ("r1_zero", "cold_start", "reasoning_rl", "evaluate_general_rl")}
    (root / "chain.json").write_text(json.dumps(done))
    return write_chain_report(root)


class Outline(HTMLParser):
    """Tags with their attributes, and whether every tag was closed in its turn."""

    VOID = {"meta", "br", "img", "hr", "link", "input"}

    def __init__(self, text: str):
        super().__init__()
        self.tags, self._open, self.broken = [], [], []
        self.feed(text)
        self.broken += self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if self._open and self._open[-1] == tag:
            self._open.pop()
        else:
            self.broken.append(f"/{tag}")


def test_the_page_needs_nothing_else(page):
    """Read without a browser: no script, no address but data and places on the page, every tag closed."""
    text = page.read_text()
    outline = Outline(text)
    assert not outline.broken
    active = {"script", "link", "iframe", "object", "embed", "base", "form", "input"}
    assert not active & {tag for tag, _ in outline.tags}
    for tag, attributes in outline.tags:
        for name in ("src", "href", "xlink:href", "srcset", "poster", "action", "background"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    policy = next(a["content"] for _, a in outline.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    viewport = next(a["content"] for _, a in outline.tags if a.get("name") == "viewport")
    assert viewport == "width=device-width, initial-scale=1"
    tables = len(re.findall("<table", text))
    assert tables == len(re.findall("<div class=scroll><table", text)) >= 3, "a table without a box to scroll in"


def test_every_stage_is_shown(page):
    text = page.read_text()
    for title in (*STAGES.values(), *STUDENTS.values()):
        assert f"<th>{title}</th>" in text
    assert text.count("<svg") == 10 and "preference reward against accuracy" in text
    marks = set(re.findall(r"<mark class='([^']*)'", text))
    assert {"wrong", "wrong repeated"} <= marks or {"right", "right repeated"} <= marks, marks
    assert "&lt;b&gt;wait&lt;/b&gt;" in text and "Infinity" not in text and "nan" not in text.lower().split()


LAYOUT = """(() => {
  const root = document.documentElement, wide = [], small = [], boxes = [...document.querySelectorAll('.scroll')];
  for (const element of document.body.querySelectorAll('*')) {
    if (element.closest('.scroll') || element.closest('svg')) continue;
    const box = element.getBoundingClientRect();
    if (box.width && box.right > root.clientWidth + 1) wide.push(element.tagName + ' ' + element.className);
  }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode, parent = node.parentElement, svg = parent.closest('svg');
    if (!node.data.trim() || parent.tagName === 'STYLE') continue;
    const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    const size = scale * parseFloat(getComputedStyle(parent).fontSize);
    if (size < %s) small.push(size.toFixed(1) + ': ' + node.data.slice(0, 30));
  }
  return {
    width: innerWidth, page: root.scrollWidth, wide, small, boxes: boxes.length,
    scrolled: boxes.filter(box => box.scrollWidth > box.clientWidth + 1).length,
    scrollable: boxes.every(box => getComputedStyle(box).overflowX === 'auto'),
    drawn: [...document.querySelectorAll('svg')].every(svg => svg.getBoundingClientRect().height > 100),
  };
})()""" % (SMALLEST - 0.25)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on PATH")
def test_in_a_browser(page, tmp_path):
    """On a phone of 390 pixels and on a desk: nothing sticks out, nothing is tiny, no complaint, no request."""
    with browser(tmp_path / "profile") as tab:
        for name, width, height in (("phone", 390, 844), ("desk", 1280, 900)):
            tab.open(page, width, height)
            layout = tab.evaluate(LAYOUT)
            assert layout["width"] == layout["page"] == width, layout
            assert not layout["wide"] and not layout["small"], layout
            assert layout["scrollable"] and layout["drawn"] and layout["boxes"] >= 3
            assert (layout["scrolled"] > 0) == (name == "phone"), layout
            requests = [event["params"] for event in tab.events if event["method"] == "Network.requestWillBeSent"]
            assert [request["request"]["url"] for request in requests] == [page.as_uri()]
            complaints = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
            assert not [event for event in tab.events if event["method"] in complaints]
            tab.screenshot(tmp_path / f"{name}.png")
            assert (tmp_path / f"{name}.png").stat().st_size > 10_000
