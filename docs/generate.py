"""The pages of ``docs/reference`` that follow from the code: ``make docs`` writes them, a test compares them.

Command lines from their own ``--help``, settings and JSON Schemas from the pydantic documents, the public names
from their docstrings.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

REFERENCE = Path(__file__).resolve().parent / "reference"
NOTE = "<!-- Written by `make docs`; edit the code it comes from. -->\n\n"

DOCUMENTS = {
    "station-1": ("edge_sdk.config", "StationConfig", "`station.yaml`, what a station is told"),
    "dataset-1": ("edge_sdk.quality.layouts", "DatasetFile", "`dataset.yaml` beside labelled pictures"),
    "module-1": ("export.recipe", "ModuleRecipe", "a recipe file of `python -m export onnx`"),
    "recipe-1": ("training.config", "Config", "a recipe file of `python -m training`"),
    "bundle-1": ("edge_sdk.manifest", "Manifest", "`manifest.json` of a bundle"),
    "item-1": ("edge_sdk.records", "ItemHeader", "the first line of an item file"),
    "answer-1": ("edge_sdk.answers", "Answer", "one answer of an operator"),
    "mentored-1": ("edge_sdk.answers", "MentoredExport", "`export.json` of the hub's export"),
    "mentored-row-1": ("edge_sdk.answers", "MentoredRow", "a line of `records.jsonl` in the hub's export"),
    "ranges-1": ("calibration.ranges", "RangeTable", "`ranges.json`, the INT8 range table"),
    "tuned-1": ("calibration.tuned", "TunedFile", "what `tuned.safetensors` of `export qat` says of its weights"),
    "result-1": ("benchmarks.results", "ResultFile", "a file of `benchmarks/results`"),
}
"""Schema file to the document's module, class and what it is."""

PROGRAMS = {
    "edge-sdk": ("edge_sdk.cli", "the station"),
    "python -m training": ("training.cli", "the workstation: train, adapt, retrain, evaluate"),
    "python -m export": ("export.cli", "the workstation: graphs and bundles"),
    "python -m calibration": ("calibration.cli", "the workstation: INT8 ranges"),
    "python -m mentoring": ("mentoring.cli", "the hub"),
    "python -m benchmarks": ("benchmarks.cli", "figures"),
}


def pages() -> dict[Path, str]:
    """Every generated file and its text."""
    made = {REFERENCE / "cli.md": cli_page(), REFERENCE / "python.md": python_page()}
    made[REFERENCE / "station-yaml.md"] = settings_page()
    for name, (module, document, what) in DOCUMENTS.items():
        model = getattr(importlib.import_module(module), document)
        made[REFERENCE / "schemas" / f"{name}.json"] = schema(model, name, what)
    return made


def main() -> None:
    """Write what differs."""
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"written: {path.relative_to(REFERENCE.parent.parent)}", file=sys.stderr)


# Command lines


def helps() -> Iterator[tuple[str, str]]:
    """Each command and its ``--help``, the program's own first."""
    for program, (module, _) in PROGRAMS.items():
        home = importlib.import_module(module)
        if program == "edge-sdk":
            yield from _of_argparse(home.parser())
        else:
            yield from _of_typer(program, home.app)


def _of_argparse(parser: Any) -> Iterator[tuple[str, str]]:
    yield parser.prog, parser.format_help()
    (commands,) = [action for action in parser._actions if isinstance(action.choices, dict)]
    for command in commands.choices.values():
        yield command.prog, command.format_help()


def _of_typer(program: str, app: Any) -> Iterator[tuple[str, str]]:
    import typer.testing

    runner = typer.testing.CliRunner()
    asked = [[], *([name] for name in typer.main.get_command(app).commands)]  # type: ignore[attr-defined]
    for words in asked:
        done = runner.invoke(app, [*words, "--help"], prog_name=program)
        yield " ".join([program, *words]), done.output


def cli_page() -> str:
    """``cli.md``."""
    parts = [
        NOTE + "# Command lines\n",
        "Data goes to stdout, talk to stderr; `--json` prints one JSON object. Exit code 0: it worked; 1: it did not, "
        "and the last line on stderr says why; 2: it was asked wrongly.\n",
    ]
    for command, text in helps():
        if command in PROGRAMS:
            parts.append(f"## {command}: {PROGRAMS[command][1]}\n")
        else:
            parts.append(f"### {command}\n")
        parts.append(f"```text\n{text.strip()}\n```\n")
    return "\n".join(parts)


# Settings and schemas


def said_of_fields(model: type[BaseModel]) -> dict[str, str]:
    """The sentence that stands below each field in the source."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(body, ast.ClassDef)
    said = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            said[field.target.id] = inspect.cleandoc(str(text.value.value)).replace("\n", " ")
    return said


def models_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A document and every document within it, outermost first."""
    seen: list[type[BaseModel]] = []

    def walk(one: Any) -> None:
        if isinstance(one, type) and issubclass(one, BaseModel):
            if one in seen:
                return
            seen.append(one)
            for field in one.model_fields.values():
                walk(field.annotation)
        for inner in get_args(one):
            walk(inner)

    walk(model)
    yield from seen


def schema(model: type[BaseModel], name: str, what: str) -> str:
    """The JSON Schema with the sentences of the source as descriptions."""
    made = model.model_json_schema(by_alias=True)
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"{name}.json", **made, "$comment": what}
    for inner in models_in(model):
        place = made if inner is model else made["$defs"].get(inner.__name__)
        if place is None:
            continue
        for field, text in said_of_fields(inner).items():
            alias = inner.model_fields[field].alias or field
            place["properties"][alias].setdefault("description", text)
    return json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def settings_page() -> str:
    """``station-yaml.md``: every setting of ``station.yaml``."""
    from edge_sdk.config import StationConfig

    parts = [
        NOTE + "# station.yaml\n",
        "Relative paths are relative to the file. An unknown or wrong setting is an error that names file and line. "
        "Editors take [the schema](schemas/station-1.json).\n",
    ]
    sections: dict[type[BaseModel], str] = {StationConfig: ""}
    for name, field in StationConfig.model_fields.items():
        for inner in _kinds_in(field.annotation):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                sections[inner] = name
    for model, section in sections.items():
        title = f"## {section}" if section else "## At the top"
        parts.append(f"{title}\n\n{_as_markdown(model.__doc__ or '')}")
        said = said_of_fields(model)
        rows = ["| setting | kind | default | meaning |", "|---|---|---|---|"]
        for name, field in model.model_fields.items():
            if model is StationConfig and name in sections.values():
                kind = f"[section](#{name})"
            else:
                kind = _kind(field.annotation, field.metadata)
            default = "**required**" if field.is_required() else _default(field.get_default(call_default_factory=True))
            place = f"{section}.{name}" if section else name
            rows.append(f"| `{place}` | {kind} | {default} | {_ticks(said.get(name, ''))} |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _kinds_in(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _kinds_in(inner)


def _kind(annotation: Any, metadata: list[Any]) -> str:
    names = {Path: "path", str: "text", float: "number", int: "whole number", bool: "true or false", type(None): ""}
    if annotation in names:
        text = names[annotation]
    elif hasattr(annotation, "__metadata__"):
        return _kind(get_args(annotation)[0], list(annotation.__metadata__))
    elif getattr(annotation, "__origin__", None) is tuple:
        text = "list of " + _kind(get_args(annotation)[0], [])
    elif "Literal" in str(annotation) and all(isinstance(value, str) for value in get_args(annotation)):
        text = ", ".join(f"`{value}`" for value in get_args(annotation))
    elif get_args(annotation):
        text = " or ".join(kind for kind in (_kind(inner, []) for inner in get_args(annotation)) if kind)
    else:
        text = getattr(annotation, "__name__", str(annotation))
    bounds = []
    for rule in metadata:
        for sign, word in (("gt", "above"), ("ge", "from"), ("lt", "below"), ("le", "to")):
            if getattr(rule, sign, None) is not None:
                bounds.append(f"{word} {getattr(rule, sign):g}")
    return " ".join([text, *bounds])


def _default(value: Any) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, BaseModel):
        return "as below"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    return f"`{value}`"


# Public names


def python_page() -> str:
    """``python.md``: what ``edge_sdk`` exports."""
    import edge_sdk

    parts = [NOTE + "# The Python interface\n", inspect.cleandoc(edge_sdk.__doc__ or "").partition("\n")[0] + "\n"]
    parts.append("`from edge_sdk import NAME`; each is loaded when it is used.\n")
    for name in edge_sdk.__all__:
        thing = getattr(edge_sdk, name)
        if name.startswith("__"):
            continue
        parts.append(f"## {name}\n")
        parts += list(_described(thing))
    parts.append("## `__version__`\n\nThe version as text.\n")
    return "\n".join(parts)


NO_NEWS = (Exception, BaseException, object)


def _described(thing: type) -> Iterator[str]:
    if issubclass(thing, BaseException):
        bases = ", ".join(f"`{base.__name__}`" for base in thing.__mro__[1:] if base not in NO_NEWS)
        yield f"An error; also {bases}.\n"
    yield _as_markdown(thing.__doc__ or "")
    if issubclass(thing, Enum):
        yield "\n".join(f"- `{member.name}`: {member.value!r}" for member in thing) + "\n"
        return
    if is_dataclass(thing):
        said = said_of_fields(thing)  # type: ignore[arg-type]
        rows = [f"- `{field}`: {_ticks(said.get(field, ''))}" for field in thing.__dataclass_fields__]
        yield "\n".join(row.rstrip(": ") for row in rows) + "\n"
    for name, member in vars(thing).items():
        if name.startswith("_") or not (inspect.isfunction(member) or isinstance(member, (classmethod, property))):
            continue
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        text = inspect.getdoc(function) or ""
        shown = name if isinstance(member, property) else f"{name}{_signature(function)}"
        yield f"### `{thing.__name__}.{shown}`\n\n{_as_markdown(text)}"


def _signature(function: Any) -> str:
    found = inspect.signature(function)
    kept = [parameter for name, parameter in found.parameters.items() if name not in ("self", "cls")]
    return str(found.replace(parameters=kept)).replace("'", "")


SECTIONS = ("Args", "Returns", "Raises", "Yields", "Reference")


def _as_markdown(docstring: str) -> str:
    """Google sections as lists below a bold word, indented examples as code."""
    lines: list[str] = []
    section, code = "", False
    for line in inspect.cleandoc(docstring).splitlines():
        if line.endswith(":") and line[:-1] in SECTIONS:
            section = line[:-1]
            lines += ["", f"**{section}**", ""]
            continue
        indented = line.startswith("    ")
        if section and indented:
            name, colon, rest = line.strip().partition(":")
            if line.startswith("     ") or section in ("Returns", "Reference"):
                lines.append(("  " if line.startswith("     ") else "") + line.strip())
            else:
                lines.append(f"- `{name}`:{rest}" if colon else f"- {name}")
            continue
        if indented != code and (line or not code):
            lines.append("```python" if indented else "```")
            code = indented
        lines.append(line[4:] if indented else line)
    if code:
        lines.append("```")
    return _ticks("\n".join(lines)) + "\n"


def _ticks(text: str) -> str:
    """Sphinx writes code between two backticks, Markdown between one."""
    return re.sub(r"``(?!`)(.+?)``", r"`\1`", text)


if __name__ == "__main__":
    main()
