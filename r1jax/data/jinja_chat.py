"""Chat templates as Hugging Face tokenizers carry them: jinja, rendered in its sandbox as transformers renders it."""

import copy
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from r1jax.config import UserError
from r1jax.data.chat import Part, Template

TEMPLATE_FILE, CONFIG_FILE = "chat_template.jinja", "tokenizer_config.json"

ChatText = Callable[[Sequence[dict], bool], str]
"""(messages, whether to write the beginning of the next response) -> the conversation as one text."""


def chat_text(source: str, **variables) -> ChatText:
    """A jinja chat template as a function; its text is that of transformers' apply_chat_template, byte for byte.

    The template is somebody else's program: it runs in the sandbox, and gets a copy of the messages.

    Args:
      source: the template.
      variables: given to the template, such as bos_token, eos_token, tools.

    Raises:
      ValueError: the template has an error; so does the function, where the template refuses the messages or fails.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    given = {"tools": None, "documents": None} | variables
    try:
        compiled = environment.from_string(source)
    except TemplateError as error:
        raise ValueError(f"the chat template has an error: {error}") from error

    def text(messages: Sequence[dict], prompt: bool) -> str:
        named = [_with_reasoning(copy.deepcopy(message)) for message in messages]
        try:
            return compiled.render(messages=named, add_generation_prompt=prompt, **given)
        except (TemplateError, TypeError, AttributeError, KeyError, IndexError) as error:  # of the template's program
            raise ValueError(f"the chat template fails: {error}") from error

    return text


def jinja_template(source: str, *, end: str, **variables) -> Template:
    """A jinja chat template as a `Template`, with what the assistant says told apart.

    The response begins where the prompt that the template itself makes for it ends, and ends with the token `end`.

    Args:
      source: the template.
      end: the token that ends a response, as the template spells it.
      variables: see `chat_text`.

    Raises (the template):
      ValueError: it refuses the messages; it drops the reasoning of the last message; the prompt it makes for a
        response is not how it renders one.
    """
    return functools.partial(_jinja_parts, text=_remembering(chat_text(source, **variables)), end=end)


def hugging_face_template(folder: str | Path, **variables) -> Template:
    """The chat template of a Hugging Face folder, from its chat_template.jinja or tokenizer_config.json.

    Raises:
      UserError: there is none.
    """
    folder = Path(folder)
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        own = folder / TEMPLATE_FILE
        source = template_source(config, own.read_text(encoding="utf-8") if own.is_file() else None)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if source is None:
        raise UserError(f"{path} has no chat_template; use r1_template or plain_template")
    tokens = spelled_tokens(config)
    try:
        return jinja_template(source, end=tokens.get("eos_token", ""), **(tokens | variables))
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from error


def template_source(config: Mapping, own_file: str | None) -> str | None:
    """The template that a tokenizer_config.json and the text of a chat_template.jinja, if there is one, give; or None.

    Of several named templates in the configuration it is the one called "default".
    """
    if own_file is not None:
        return own_file
    found = config.get("chat_template")
    if isinstance(found, list):
        found = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}.get("default")
    return found if isinstance(found, str) else None


def spelled_tokens(config: Mapping) -> dict[str, str]:
    """The special tokens that a tokenizer_config.json names, such as bos_token, as a template spells them."""
    named = {name: token for name, token in config.items() if name.endswith("_token")}
    texts = {name: token.get("content") if isinstance(token, dict) else token for name, token in named.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


class _Generation(Extension):
    """{% generation %} ... {% endgeneration %}, with which some templates mark responses: what is inside is kept."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(reason: str):
    raise ValueError(f"the chat template refuses the messages: {reason}")


def _with_reasoning(message: dict) -> dict:
    """Reasoning under the names that published templates read."""
    names = ("reasoning_content", "thinking", "reasoning")
    found = next((message[name] for name in names if message.get(name) is not None), None)
    return message if found is None else {"thinking": found, **message, "reasoning_content": found}


def _remembering(text: ChatText) -> ChatText:
    """Renders every beginning of a conversation once, though each of its turns asks for all that went before."""
    known: dict[tuple[int, bool], tuple[list[dict], str]] = {}

    def remembered(messages: Sequence[dict], prompt: bool) -> str:
        key, messages = (len(messages), prompt), list(messages)
        before, rendered = known.get(key, (None, ""))
        if before != messages:
            rendered = text(messages, prompt)
            if before is not None:  # another conversation
                known.clear()
            known[key] = copy.deepcopy(messages), rendered
        return rendered

    return remembered


def _jinja_parts(messages: Sequence[dict], *, text: ChatText, end: str) -> list[Part]:
    answered = messages[-1]["role"] == "assistant"
    whole = text(messages, not answered)
    earlier = [_earlier_borders(messages[:n], whole, text, end) for n in range(1, len(messages))]
    last = _response_borders(messages, text, end) if answered else None
    parts, at = [], 0
    for borders in [*filter(None, earlier), *([last] if last else [])]:
        start, stop = borders
        parts += [Part(whole[at:start]), Part(whole[start:stop], borders == last)]
        at = stop
    return [*parts, Part(whole[at:])]


def _earlier_borders(messages: Sequence[dict], whole: str, text, end: str) -> tuple[int, int] | None:
    """Where an earlier response was cut when it was the last, if it is still to be seen there."""
    if messages[-1]["role"] != "assistant":
        return None
    try:
        start, stop = _response_borders(messages, text, end)
    except ValueError:  # it cannot be learned, but it can be read
        return None
    return (start, stop) if whole.startswith(text(messages, False)[:stop]) else None


def _response_borders(messages: Sequence[dict], text, end: str) -> tuple[int, int]:
    prompt, whole = text(messages[:-1], True), text(messages, False)
    if not whole.startswith(prompt):
        raise ValueError(
            f"the template's prompt for a response ends in {prompt[-40:]!r}, which is not how it renders this one; "
            "a variable of the template, such as open_thinking, may make them agree"
        )
    stop = whole.rfind(end) + len(end)
    if not end or stop <= len(prompt):
        raise ValueError(f"the template does not end a response with {end!r}")
    if (messages[-1].get("reasoning") or "").strip() not in whole[len(prompt) :]:
        raise ValueError("the template drops the reasoning of the last message; see r1_template")
    return len(prompt), stop
