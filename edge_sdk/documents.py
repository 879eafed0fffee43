"""Documents on disk: YAML that people write, canonical JSON that machines write.

The configuration, the manifest and the records are all read and written here, so that an unknown
key, a wrong value or a torn file is told the same way everywhere.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from edge_sdk.errors import ConfigError, FormatError

__all__ = [
    "Document",
    "Tolerant",
    "canonical_json",
    "parse_json",
    "read_json",
    "read_yaml",
    "sha256_file",
    "sha256_hex",
    "utc_text",
    "write_atomic",
    "write_together",
]


class Document(BaseModel):
    """Base of what people write: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Tolerant(BaseModel):
    """Base of what machines write: frozen, and a reader passes over what it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")


AnyDocument = TypeVar("AnyDocument", bound=BaseModel)


def canonical_json(value: Any) -> bytes:
    """UTF-8, keys sorted, no white space, floats as Python's ``repr``: equal values, equal bytes.

    Raises:
        FormatError: A number is NaN or infinite, or a value has no JSON form.
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True)
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise FormatError(f"a number is NaN or infinite ({error}); JSON has neither, give a finite one") from error
    except TypeError as error:
        raise FormatError(f"{error}; give text, numbers, lists or objects") from error
    return text.encode("utf-8")


def sha256_hex(data: bytes) -> str:
    """The digest of some bytes, 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """The digest of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def utc_text(moment: datetime) -> str:
    """``2026-11-21T10:00:00.000123Z``: UTC with microseconds."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename, fsync of the folder.

    Raises:
        OSError: The disk refused; ``path`` is as it was, and the temporary file is gone.
    """
    write_together({path: data})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files that belong to each other: none gets its name before the bytes of all are on the disk.

    Raises:
        OSError: The disk refused; the files are as they were, and the temporary ones are gone.
    """
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    try:
        for path, data in files.items():
            with temporary[path].open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path in files:
            os.replace(temporary[path], path)
    except OSError:
        for path in temporary.values():
            with suppress(OSError):
                path.unlink()
        raise
    for parent in {path.parent for path in files}:
        folder = os.open(parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def parse_json(data: bytes, model: type[AnyDocument], *, name: str) -> AnyDocument:
    """Read a machine's document.

    Args:
        data: The bytes of a JSON document.
        model: What it must be.
        name: What the document is called in an error.

    Raises:
        FormatError: It is not JSON, or a field is missing or wrong.
    """
    try:
        value = json.loads(data)
    except ValueError as error:
        raise FormatError(f"{name} is not JSON ({error}); it is damaged or not what its name says") from error
    except RecursionError as error:
        raise FormatError(f"{name} is nested too deeply to be what its name says") from error
    try:
        return model.model_validate(value)
    except ValidationError as error:
        _, sentence = next(_sentences(error, value, model))
        raise FormatError(f"{name}: {sentence}") from error


def read_json(path: Path, model: type[AnyDocument]) -> AnyDocument:
    """Read a machine's document from a file.

    Raises:
        FormatError: The file is missing, is not JSON, or a field is missing or wrong.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}); is the path right?") from error
    return parse_json(data, model, name=str(path))


def read_yaml(path: Path, model: type[AnyDocument]) -> AnyDocument:
    """Read a document that a person wrote.

    Raises:
        ConfigError: The file is missing or not YAML, a key is unknown or twice there, or a value is
            wrong; the message begins with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); is the path right?", path=path) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8", path=path) from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = None if mark is None else mark.line + 1
        problem = getattr(error, "problem", None) or "a character that YAML does not take"
        where = f"{path}:{line}" if line else str(path)
        raise ConfigError(f"{where}: not YAML: {problem}; mind indents and quotes", path=path, line=line) from error
    lines: dict[tuple[Any, ...], int] = {(): 1}
    if node is not None:
        _note_lines(node, (), lines, path)
    if not isinstance(value, dict):
        raise ConfigError(f"{path}:1: no settings here; write them as `name: value` lines", path=path, line=1)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        field, sentence = next(_sentences(error, value, model))
        line = next(lines[field[:n]] for n in range(len(field), -1, -1) if field[:n] in lines)
        raise ConfigError(f"{path}:{line}: {sentence}", path=path, line=line) from error


def _note_lines(node: yaml.Node, at: tuple[Any, ...], lines: dict[tuple[Any, ...], int], path: Path) -> None:
    """Where each key stands, by its place in the document."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, key.value)
            line = key.start_mark.line + 1
            if here in lines:
                first = lines[here]
                raise ConfigError(
                    f"{path}:{line}: {_dotted(here)} stands here and in line {first}; keep one of the two",
                    path=path,
                    line=line,
                )
            lines[here] = line
            _note_lines(value, here, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            there = (*at, index)
            lines[there] = value.start_mark.line + 1
            _note_lines(value, there, lines, path)


def _dotted(field: tuple[Any, ...]) -> str:
    text = ""
    for part in field:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def _sentences(error: ValidationError, value: Any, model: type[BaseModel]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Each finding as its place and a sentence, unknown keys first."""
    findings = sorted(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    for found in findings:
        # pydantic puts the name of a union's branch into the place: keep what exists in the document
        place = _real_place(found["loc"], value)
        kind, given, context = found["type"], found.get("input"), found.get("ctx", {})
        name, shown = _dotted(place), _shown(given)
        if kind == "extra_forbidden":
            yield place, _unknown_key(place, model)
        elif kind == "missing":
            yield place, f"{name} is missing; add it"
        elif kind == "value_error":
            # a validator over several settings writes its own whole sentence
            whole = isinstance(given, dict)
            yield place, f"{context['error']}" if whole else f"{name} is {shown}; {context['error']}"
        else:
            yield place, f"{name} is {shown}; {_wanted(kind, context, found['msg'])}"


def _real_place(place: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    real: list[Any] = []
    for number, part in enumerate(place):
        last = number == len(place) - 1
        if isinstance(value, dict) and (part in value or last):
            real.append(part)
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            real.append(part)
            value = value[part] if part < len(value) else None
    return tuple(real)


def _shown(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _unknown_key(place: tuple[Any, ...], model: type[BaseModel]) -> str:
    fields: Any = model
    for part in place[:-1]:
        if isinstance(part, int):
            continue
        field = fields.model_fields.get(part) if fields is not None else None
        fields = None if field is None else _model_in(field.annotation)
    known = [] if fields is None else [f.alias or name for name, f in fields.model_fields.items()]
    near = difflib.get_close_matches(str(place[-1]), known, 1, 0.5)
    if near:
        advice = f"did you mean {near[0]}?"
    elif known:
        advice = f"there are {', '.join(known)}"
    else:
        advice = "remove it"
    return f"no setting named {_dotted(place)}; {advice}"


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found is not None:
            return found
    return None


_BOUNDS = {
    "greater_than": ("gt", "give a number above"),
    "greater_than_equal": ("ge", "give at least"),
    "less_than": ("lt", "give a number below"),
    "less_than_equal": ("le", "give at most"),
}
_KINDS = {
    "int_type": "give a whole number",
    "int_parsing": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "float_parsing": "give a number",
    "finite_number": "give a finite number",
    "bool_type": "give true or false",
    "bool_parsing": "give true or false",
    "string_type": "give text, in quotes if need be",
    "list_type": "give a list",
    "tuple_type": "give a list",
    "model_type": "give settings as `name: value`",
    "model_attributes_type": "give settings as `name: value`",
    "dict_type": "give settings as `name: value`",
}


def _wanted(kind: str, context: dict[str, Any], message: str) -> str:
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{words} {context[name]:g}"
    if kind in ("literal_error", "enum"):
        return f"give {context['expected']}"
    return _KINDS.get(kind, message[0].lower() + message[1:])
