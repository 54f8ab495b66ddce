"""What every settings file shares: the strict base of its schema, reading YAML, and errors as sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from trained_binarization.errors import UserError, cut, shown

LARGEST_FILE = 100_000
"""Bytes of a settings file; the largest committed one has a sixth of that."""

DEEPEST = 20
"""Mappings and lists within each other."""

LARGEST = 1e30
"""Of any number with a fraction: float32 ends at 3.4e38."""

Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]  # becomes a part of file names
Sentence = Annotated[str, Field(pattern=r"\S", max_length=2000)]
Positive = Annotated[float, Field(gt=0, le=LARGEST)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST)]


class Settings(BaseModel):
    """Base of all settings: an unknown key is an error, and no value is converted from another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, serialize_by_alias=True)


Schema = TypeVar("Schema", bound=Settings)


def load(path: Path, schema: type[Schema]) -> Schema:
    """The settings in a YAML file; UserError with one line for the first thing that is wrong in it."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: found {type(content).__name__}; allowed: a mapping with the keys of {schema.__name__}"
        )
    return validate(path, content, schema)


def validate(path: Path, content: dict[str, Any], schema: type[Schema]) -> Schema:
    """The content of a settings file as settings; UserError, which names the file, for the first thing wrong in it."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {describe(error, content)}") from None


def describe(error: ValidationError, content: Any) -> str:
    """The first fault of a validation of `content` as `key: found ...; allowed: ...`."""
    fault = error.errors()[0]
    kind, context, message = fault["type"], fault.get("ctx", {}), fault["msg"].removeprefix("Value error, ")
    key = ".".join(_keys(fault["loc"], content, kind == "missing"))
    if kind == "value_error":  # a validator of ours: it says what was found, or names the key further down first
        return f"{key}: {message}" if message.startswith("found ") else f"{key}.{message}".removeprefix(".")
    if kind.startswith("union_tag"):
        key = f"{key}.{context['discriminator'].strip(chr(39))}"
    if kind == "union_tag_invalid":
        return f"{key}: found {shown(context['tag'])}; allowed: {context['expected_tags']}"
    if kind in ("missing", "union_tag_not_found"):
        return f"{key}: missing; every key without a default is required"
    if kind == "extra_forbidden":
        return f"{key}: unknown key; allowed: only keys that the schema has"
    if kind == "less_than_equal" and isinstance(context["le"], float):
        message = f"At most {context['le']:g}"
    return f"{key}: found {shown(fault['input'])}; allowed: {message[0].lower()}{message[1:]}"


def _keys(location: tuple[int | str, ...], content: Any, missing: bool) -> Iterator[str]:
    """The keys of a fault's location that stand in the file: pydantic adds the names of a union's members."""
    for number, part in enumerate(location):
        if (isinstance(content, dict) and part in content) or isinstance(part, int):
            content = content[part]
            yield cut(str(part))
        elif missing and number == len(location) - 1:
            yield str(part)


def read_yaml(path: Path) -> Any:
    """The content of a YAML 1.2 file as plain values.

    UserError where the file is missing, too large, no YAML, or says something that readers of YAML understand
    differently: a key that stands twice or is no text, an alias, a tag, a number with a leading zero.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
        text = raw.decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; allowed: a file of settings, such as params.yaml") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if len(raw) > LARGEST_FILE:
        raise UserError(f"{path}: found more than {LARGEST_FILE:,} bytes; allowed: at most as many")
    try:
        return _Content(path, YAML(typ="safe", pure=True).parse(text)).read()
    except YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{path}: {line}not YAML: {problem or getattr(error, 'reason', 'cannot be parsed')}") from None


# YAML 1.2's core schema (section 10.3.2): what a word without quotes means. Other words are text.
WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,29})")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # of these no file's name or text can be made


class _Content:
    """Plain values from the events that ruamel.yaml's parser finds in a file."""

    def __init__(self, path: Path, events: Iterator[Event]) -> None:
        self.path, self.events = path, events

    def read(self) -> Any:
        next(self.events)  # the stream's start
        event = next(self.events)
        if isinstance(event, StreamEndEvent):
            return None
        if isinstance(event, DocumentStartEvent) and event.version not in (None, (1, 2)):
            raise self.fault(event, "not YAML 1.2: found another version")
        value = self.value(next(self.events), 0)
        next(self.events)  # the document's end
        if not isinstance(event := next(self.events), StreamEndEvent):
            raise self.fault(event, "not YAML that is read here: found a second document; allowed: one")
        return value

    def fault(self, event: Event, message: str) -> UserError:
        return UserError(f"{self.path}: line {event.start_mark.line + 1}: {message}")

    def value(self, event: Event, depth: int) -> Any:
        if isinstance(event, AliasEvent):
            raise self.fault(event, f"found the alias *{event.anchor}; allowed: the value itself")
        assert isinstance(event, ScalarEvent | SequenceStartEvent | MappingStartEvent)
        if event.tag is not None:
            raise self.fault(event, f"not YAML that is read here: found the tag {event.tag}; allowed: none")
        if depth > DEEPEST:
            raise self.fault(event, f"found more than {DEEPEST} mappings and lists within each other")
        if isinstance(event, MappingStartEvent):
            return self.mapping(depth)
        if isinstance(event, SequenceStartEvent):
            items = []
            while not isinstance(event := next(self.events), SequenceEndEvent):
                items.append(self.value(event, depth + 1))
            return items
        return self.scalar(event)

    def mapping(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            key = self.value(event, depth + 1)
            if not isinstance(key, str):
                raise self.fault(event, f"found {shown(key)} as a key; allowed: text")
            if key in found:
                raise self.fault(event, f"key {shown(key)} stands twice")
            found[key] = self.value(next(self.events), depth + 1)
        return found

    def scalar(self, event: ScalarEvent) -> str | int | float | bool | None:
        text = event.value
        if CONTROL.search(text):
            raise self.fault(event, f"found {shown(text)}; allowed: text without control characters")
        if event.style is not None:  # in quotes, or a block of lines
            return text
        if text in WORDS:
            return WORDS[text]
        if INTEGER.fullmatch(text):
            if not DECIMAL.fullmatch(text):
                raise self.fault(event, f"found {shown(text)}; allowed: up to 30 digits, no zero in front")
            return int(text)
        if FLOAT.fullmatch(text) or NOT_FINITE.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return text
