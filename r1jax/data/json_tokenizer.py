"""Tokenizers of Hugging Face folders: tokenizer.json, read by the library `tokenizers`, and the files beside it."""

import functools
import json
import re
from pathlib import Path

import tokenizers

from r1jax.config import UserError, as_path
from r1jax.data.chat import Template
from r1jax.data.jinja_chat import CONFIG_FILE, TEMPLATE_FILE, jinja_template, spelled_tokens, template_source
from r1jax.rewards.format import TAGS

JSON_NAME = "tokenizer.json"
GENERATION_FILE = "generation_config.json"
JSON_FILES = (JSON_NAME, CONFIG_FILE, GENERATION_FILE, "special_tokens_map.json", "added_tokens.json", TEMPLATE_FILE)
"""What a folder may say about its tokenizer; `save` hands all of it on."""

_BARRED = re.compile(r"<[|｜][^<>]*[|｜]>")


class JsonTokenizer:
    """Text to token ids and back, by a tokenizer.json. See `r1jax.data.tokenizer.Tokenizer`.

    Control tokens are those that the file calls special and those that are spelled <|...|>: DeepSeek's own file does
    not call <｜User｜> special. Other added tokens, such as <think>, are read in text and written to it, and so are the
    tags of the reward formats whatever the file calls them.
    """

    def __init__(self, files: dict[str, bytes], *, folder: str | Path):
        """Read the contents of JSON_FILES; `folder` is where they came from, for messages.

        Raises:
          UserError: a file is broken, there is no end token, or a token is named that the vocabulary lacks.
        """
        self._files, self._folder = files, as_path(folder)
        description = self._json(JSON_NAME)
        added = description.get("added_tokens") or []
        try:
            self.controls = {token["content"]: token["id"] for token in added if _is_control(token)}
            for token in added:
                token["special"] = token["content"] in self.controls
            self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(description))
        except Exception as error:  # the library raises Exception itself
            raise UserError(f"{self._folder / JSON_NAME} is not a tokenizer: {error}") from error
        self._config = self._json("special_tokens_map.json") | self._json(CONFIG_FILE)
        self._tokens = spelled_tokens(self._config)
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self.eos_ids = self._end_ids()
        self.eos_id = self.eos_ids[0]
        self.bos_id = self._id_of("bos_token")
        self.begin_ids = self._begin_ids()
        self._tokenizer.encode_special_tokens = True  # from here on the spelling of a control token is text

    @functools.cached_property
    def chat_template(self) -> Template | None:
        own = self._files.get(TEMPLATE_FILE)
        source = template_source(self._config, None if own is None else own.decode("utf-8"))
        if source is None:
            return None
        try:
            return jinja_template(source, end=self._tokenizer.id_to_token(self.eos_id), **self._tokens)
        except ValueError as error:
            raise UserError(f"{self._folder}: {error}") from error

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_prompt(self, text: str) -> list[int]:
        return [*self.begin_ids, *self.encode(text)]

    def decode(self, ids) -> str:
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def save(self, folder: str | Path) -> None:
        for name, content in self._files.items():
            (as_path(folder) / name).write_bytes(content)

    def _json(self, name: str) -> dict:
        """A file's object; of one that is not there, an empty one."""
        try:
            value = json.loads(self._files.get(name, b"{}"))
        except ValueError as error:
            raise UserError(f"{self._folder / name} is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise UserError(f"{self._folder / name} holds a {type(value).__name__}; expected an object")
        return value

    def _id_of(self, name: str) -> int | None:
        token = self._tokens.get(name)
        found = self._tokenizer.token_to_id(token) if token is not None else None
        if token is not None and found is None:
            raise UserError(f"{self._folder / CONFIG_FILE} names the {name} {token!r}, which {JSON_NAME} does not have")
        return found

    def _end_ids(self) -> tuple[int, ...]:
        """The eos_token first, then what generation_config.json ends a response at."""
        named = self._json(GENERATION_FILE).get("eos_token_id")
        further = named if isinstance(named, list) else [] if named is None else [named]
        wrong = [i for i in further if type(i) is not int or not 0 <= i < self.vocab_size]
        if wrong:
            raise UserError(
                f"{self._folder / GENERATION_FILE}: eos_token_id holds {wrong[0]!r}; expected ids from 0 to "
                f"{self.vocab_size - 1}, the last of {JSON_NAME}"
            )
        own = self._id_of("eos_token")
        ids = tuple(dict.fromkeys([*([] if own is None else [own]), *further]))
        if not ids:
            raise UserError(
                f"{self._folder}: neither eos_token in {CONFIG_FILE} nor eos_token_id in {GENERATION_FILE} says which "
                "token ends a text; add one of them"
            )
        return ids

    def _begin_ids(self) -> tuple[int, ...]:
        """The BOS where add_bos_token says so; where it says nothing, what tokenizer.json puts in front of a text."""
        said = self._config.get("add_bos_token")
        if isinstance(said, bool):
            return (self.bos_id,) if said and self.bos_id is not None else ()
        encoding = self._tokenizer.encode("a", add_special_tokens=True)
        before = encoding.special_tokens_mask.index(0) if 0 in encoding.special_tokens_mask else 0
        return tuple(encoding.ids[:before])


def load_json_tokenizer(folder: str | Path) -> JsonTokenizer:
    """Read the tokenizer.json of a folder and the files beside it.

    Raises:
      UserError: see `JsonTokenizer`.
    """
    found = {name: as_path(folder) / name for name in JSON_FILES}
    return JsonTokenizer({n: path.read_bytes() for n, path in found.items() if path.is_file()}, folder=folder)


def _is_control(token: dict) -> bool:
    special = token.get("special") or _BARRED.fullmatch(token["content"])
    return bool(special) and token["content"] not in TAGS
