"""The forms in which data sets are published: which fields a row has, and the uniform record it becomes.

Uniform records are JSON objects with "family" and "id", and by family
  math                "question", "answer"; "solution", "level", "subject" where published
  code                "question", "tests", "setup"; "solution", "entry_point", "preamble" where published
  knights_and_knaves  "question", "names", "solution" (true: knight)
  preference          "messages", "chosen", "rejected" (the last two are messages)
  conversation        "messages", "tools" where published; a message is {"role", "content"} and may have "reasoning",
                      "tool_calls"
  text                "text"
"""

from typing import Any

from r1jax.data.messages import alpaca_messages, openai_messages
from r1jax.data.schema import LIST, NUMBER, OBJECT, TEXT, Field, Form, type_name
from r1jax.data.talks import (
    conversation,
    preference,
    prompt_completion,
    question_preference,
    share_gpt,
    two_conversations,
)
from r1jax.rewards.answer import boxes


def recognise(row: Any) -> Form | None:
    """The form whose required fields a row has; of several, the one that asks for most; None where none or two fit."""
    if not isinstance(row, dict):
        return None
    if all(field.name in row for field in UNIFORM.fields):
        return UNIFORM
    fits = [form for form in FORMS if all(field.name in row for field in form.fields if field.required)]
    asks = lambda form: sum(field.required for field in form.fields)
    best = [form for form in fits if asks(form) == max(map(asks, fits))]
    return best[0] if len(best) == 1 else None


def number_text(value: int | float | str) -> str:
    """An answer as text: 27.0 becomes "27"."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def last_boxed(solution: str) -> str:
    r"""The contents of the last \boxed{} or \fbox{} of a solution, as the MATH data set gives its answers.

    Raises:
      ValueError: there is none, it is not closed, or it is empty.
    """
    start = max(solution.rfind("\\boxed"), solution.rfind("\\fbox"))
    if start < 0:
        raise ValueError("the solution has no \\boxed answer")
    rest = solution[start:].partition("ed" if solution.startswith("\\boxed", start) else "box")[2]
    if rest.startswith(" "):  # \boxed 2, in a few solutions
        return rest.split("$")[0].strip()
    found = boxes(solution[start:]) if rest.startswith("{") else []
    answer = (found[0].text or "").strip() if found else ""
    if not answer:
        raise ValueError("the last \\boxed of the solution is empty or not closed")
    return answer


def _grade_school(row: dict) -> dict:
    solution, mark, answer = row["answer"].rpartition("#### ")
    if not mark or not answer.strip():
        raise ValueError("field 'answer' does not end in a line '#### ' and the answer")
    return {"question": row["question"], "answer": answer.strip().replace(",", ""), "solution": row["answer"]}


def _competition(row: dict) -> dict:
    record = {"question": row["problem"], "answer": last_boxed(row["solution"]), "solution": row["solution"]}
    return record | {"level": row["level"], "subject": row["type"]}


def _problem(row: dict) -> dict:
    answer = row["answer"] if "answer" in row else row["expected_answer"]
    record = {"question": row["problem"], "answer": number_text(answer)}
    solution = row.get("solution") or row.get("reference_solution")
    record |= {"solution": solution} if solution else {}
    about = {"subject": row.get("type") or row.get("subject"), "level": row.get("level") or row.get("difficulty")}
    return record | {name: value for name, value in about.items() if value}


def _word_problem(row: dict) -> dict:
    return {"question": row["input"], "answer": number_text(row["target"])}


def _basic_programming(row: dict) -> dict:
    tests = [_text_of(test, "test_list") for test in row["test_list"]]
    imports = [_text_of(line, "test_imports") for line in row.get("test_imports") or ()]
    setup = "\n".join(filter(None, [*imports, row.get("test_setup_code")]))
    task = row["text"] if "text" in row else row["prompt"]
    question = f"{task}\nYour code should pass tests such as:\n\n{tests[0]}"
    return {"question": question, "tests": tests, "setup": _unix(setup), "solution": _unix(row["code"])}


def _human_eval(row: dict) -> dict:
    prompt, name = row["prompt"], row["entry_point"]
    helpers = prompt[: max(prompt.rfind(f"def {name}("), 0)]  # imports and functions that an answer may leave out
    record = {"question": prompt, "tests": [f"{row['test']}\n\ncheck({name})\n"], "setup": "", "preamble": helpers}
    return record | {"solution": prompt + row["canonical_solution"], "entry_point": name}


def _knights(row: dict) -> dict:
    names, solution = row["names"], row["solution"]
    names = [_text_of(name, "names") for name in names]
    if len(names) != len(solution) or not all(isinstance(value, bool) for value in solution):
        raise ValueError(f"'solution' must say true or false for each of the {len(names)} names; it is {solution}")
    return {"question": row["quiz"], "names": names, "solution": solution}


def _text_of(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{field!r} holds {type_name(value)} {str(value)[:40]!r} where text was expected")
    return _unix(value)


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n")


UNIFORM_FIELDS = {
    "math": ("question", "answer"),
    "code": ("question", "tests"),
    "knights_and_knaves": ("question", "names", "solution"),
    "preference": ("messages", "chosen", "rejected"),
    "conversation": ("messages",),
    "text": ("text",),
}
"""What a uniform record must have by its family; other families are the tasks' own, with a question."""


def _uniform(row: dict) -> dict:
    missing = [name for name in UNIFORM_FIELDS.get(row["family"], ("question",)) if not row.get(name)]
    if missing:
        raise ValueError(f"a record of family {row['family']!r} needs {', '.join(map(repr, missing))}")
    return {name: value for name, value in row.items() if name not in ("family", "id")}


def _optional(name: str, *types: type) -> Field:
    return Field(name, types or TEXT, required=False, may_be_empty=True)


ANSWER = TEXT + NUMBER
UNIFORM = Form("uniform", "", (Field("family"), Field("id")), _uniform, "id")
"""What this project writes itself; the family is in the row."""
FORMS = (
    Form("gsm8k", "math", (Field("question"), Field("answer")), _grade_school),
    Form("math", "math", (Field("problem"), Field("solution"), Field("level"), Field("type")), _competition),
    Form("math_answers", "math", (Field("problem"), Field("answer", ANSWER), _optional("solution")), _problem),
    Form(
        "aime",
        "math",
        (
            Field("problem"),
            Field("solution"),
            Field("answer", ANSWER),
            Field("year", (int,)),
            Field("problem_number", (int,)),
        ),
        _problem,
    ),
    Form(
        "nemo_skills",
        "math",
        (Field("id", ANSWER), Field("problem"), Field("expected_answer", ANSWER), _optional("reference_solution")),
        _problem,
        "id",
    ),
    Form("amc", "math", (Field("id", ANSWER), Field("problem"), Field("answer", ANSWER), Field("url")), _problem, "id"),
    Form("mawps", "math", (Field("input"), Field("target", NUMBER)), _word_problem),
    Form(
        "mbpp",
        "code",
        (
            Field("task_id", (int,)),
            Field("text"),
            Field("code"),
            Field("test_list", LIST),
            _optional("test_setup_code"),
        ),
        _basic_programming,
        "task_id",
    ),
    Form(
        "mbpp_sanitized",
        "code",
        (
            Field("task_id", (int,)),
            Field("prompt"),
            Field("code"),
            Field("test_list", LIST),
            _optional("test_imports", list),
        ),
        _basic_programming,
        "task_id",
    ),
    Form(
        "humaneval",
        "code",
        (Field("task_id"), Field("prompt"), Field("canonical_solution"), Field("test"), Field("entry_point")),
        _human_eval,
        "task_id",
    ),
    Form(
        "knights_and_knaves",
        "knights_and_knaves",
        (Field("quiz"), Field("names", LIST), Field("solution", LIST)),
        _knights,
    ),
    Form(
        "share_gpt_preference",
        "preference",
        (Field("conversations", LIST), Field("chosen", TEXT + OBJECT), Field("rejected", TEXT + OBJECT)),
        preference,
    ),
    Form(
        "preference",
        "preference",
        (Field("prompt", TEXT + LIST), Field("chosen", TEXT + LIST + OBJECT), Field("rejected", TEXT + LIST + OBJECT)),
        preference,
    ),
    Form(
        "question_preference",
        "preference",
        (_optional("system"), Field("question"), Field("chosen"), Field("rejected")),
        question_preference,
    ),
    Form(
        "two_conversations",
        "preference",
        (Field("chosen", TEXT + LIST), Field("rejected", TEXT + LIST)),
        two_conversations,
    ),
    Form(
        "prompt_completion",
        "conversation",
        (Field("prompt", TEXT + LIST), Field("completion", TEXT + LIST)),
        prompt_completion,
    ),
    Form(
        "alpaca",
        "conversation",
        (Field("instruction"), _optional("input"), Field("output"), _optional("system"), _optional("history", list)),
        lambda row: conversation(alpaca_messages(row), row),
    ),
    Form(
        "share_gpt", "conversation", (Field("conversations", LIST), _optional("system"), _optional("tools")), share_gpt
    ),
    Form(
        "openai",
        "conversation",
        (Field("messages", LIST), _optional("tools", str, list)),
        lambda row: conversation(openai_messages(row["messages"]), row),
    ),
    Form("text", "text", (Field("text"),), lambda row: {"text": row["text"]}),
    UNIFORM,
)
"""Every known form."""
