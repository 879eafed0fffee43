"""From a folder to samples: ``labels.csv``, or the folders of MVTec's sets."""

from __future__ import annotations

import csv
import difflib
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from edge_sdk.documents import Document, read_yaml
from edge_sdk.errors import DatasetError
from edge_sdk.quality.pictures import SUFFIXES, check_mask_size, picture_size
from edge_sdk.quality.samples import DEFAULT_HEALTHY, Box, Dataset, Sample

__all__ = ["DatasetFile", "DatasetRoles", "dataset_file", "read_folder"]

COLUMNS = ("image", "label", "mask", "domain", "group", "split", "defect_probability")
BOX_COLUMNS = ("image", "class", "xmin", "ymin", "xmax", "ymax")


class DatasetRoles(Document):
    """Which domains are the original line and which the new one."""

    original: tuple[str, ...] = Field(min_length=1)
    new: tuple[str, ...] = Field(min_length=1)


class DatasetFile(Document):
    """``dataset.yaml``: what a folder of pictures says of itself."""

    schema_: Literal["dataset/1"] = Field("dataset/1", alias="schema")
    title: str = ""
    licence: str = ""
    healthy: tuple[str, ...] | None = None
    """Labels that mean "no defect"; without it the usual words."""
    ignore: tuple[str, ...] = ()
    """Labels that are no truth at all."""
    empty_mask: Literal["unknown", "healthy"] = "unknown"
    domains: DatasetRoles | None = None
    bit_depth: int = Field(16, ge=9, le=16)
    """Used bits of 16-bit pictures: 12 where a camera fills 12 of 16."""

    @field_validator("healthy", "ignore")
    @classmethod
    def _stripped(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else tuple(word.strip() for word in value)


def read_folder(
    root: Path, *, domain: str | None = None, prefix: str = "", unlabelled: bool = False
) -> Dataset:
    """Read one folder of pictures.

    Args:
        root: With ``labels.csv`` (which wins) or ``train/<label>`` and ``test/<label>``, there or one
            folder down; ``dataset.yaml`` beside them if there is one.
        domain: The domain of every picture, in place of what the folder says.
        prefix: Put before every picture's name.
        unlabelled: Take a folder that says nothing of its pictures, in folders of it too, as pictures without labels.

    Raises:
        DatasetError: The folder does not exist, holds no set, or the set contradicts itself.
        ConfigError: ``dataset.yaml`` is wrong; the message begins with file and line.
    """
    if not root.exists():
        raise DatasetError(f"there is no folder {root}; is the path right?")
    if not root.is_dir():
        raise DatasetError(f"{root} is a file; give the folder that holds the pictures")
    table = root / "labels.csv"
    bare = _bare_pictures(root) if unlabelled and not table.is_file() else []
    layout = root if bare or table.is_file() else _layout_folder(root)
    said = dataset_file(root, layout)
    rows = bare or list(_rows_of_table(table) if table.is_file() else _rows_of_folders(layout))
    if not rows:
        raise DatasetError(f"{root} lists no picture; add some, or give another folder")
    own = layout.name if layout.resolve().name == layout.name else layout.resolve().name
    healthy, ignored = _meanings(said, rows, root)
    samples = []
    for row in sorted(rows, key=lambda one: one.image):
        label, good = _label_of(row, healthy, ignored)
        samples.append(
            Sample(
                path=row.path,
                image=prefix + row.image,
                label=label,
                mask=row.mask,
                domain=domain or row.domain or own,
                group=row.group,
                split=row.split,
                probability=row.probability,
                healthy=good,
                bits=said.bit_depth,
            )
        )
    for sample in samples:
        check_mask_size(sample)
    table_of_boxes = root / "boxes.csv"
    boxes = dict(_boxes_of(table_of_boxes, {row.image: row.path for row in rows})) if table_of_boxes.is_file() else {}
    roles = said.domains
    return Dataset(
        root=root,
        title=said.title or own.replace("_", " "),
        licence=said.licence or "not stated",
        samples=tuple(samples),
        classes=tuple(sorted({sample.label for sample in samples if sample.healthy is False})),
        healthy_labels=tuple(sorted({sample.label for sample in samples if sample.healthy})),
        empty_mask=said.empty_mask,
        roles={} if roles is None or domain else {"original": (roles.original,), "new": (roles.new,)},
        boxes={prefix + image: one for image, one in boxes.items()},
    )


def dataset_file(*folders: Path) -> DatasetFile:
    """``dataset.yaml`` of the first of these folders that has one; what it would say by default where none has.

    Raises:
        ConfigError: The file is wrong; the message begins with file and line.
    """
    for folder in folders:
        if (folder / "dataset.yaml").is_file():
            return read_yaml(folder / "dataset.yaml", DatasetFile)
    return DatasetFile()


class _Row:
    """What a folder says of one picture, before its label is understood."""

    def __init__(self, path: Path, image: str, label: str) -> None:
        self.path, self.image, self.label = path, image, label
        self.mask: Path | None = None
        self.domain = ""
        self.group: str | None = None
        self.split: str | None = None
        self.probability: float | None = None


def _label_of(row: _Row, healthy: set[str], ignored: set[str]) -> tuple[str, bool | None]:
    """The label, and whether it means healthy; without one, what mask or probability say."""
    if row.label:
        if row.label in ignored:
            return row.label, None
        return row.label, row.label.casefold() in healthy
    if row.mask is not None or row.probability == 1:
        return "defect", False
    if row.probability == 0:
        return "good", True
    return "", None


def _meanings(said: DatasetFile, rows: Sequence[_Row], root: Path) -> tuple[set[str], set[str]]:
    """Which labels are healthy (without regard to case), and which are ignored."""
    labels = sorted({row.label for row in rows if row.label})
    by_name: dict[str, str] = {}
    for label in labels:
        other = by_name.setdefault(_same_name(label), label)
        if other != label:
            raise DatasetError(
                f"{root} has two classes of one name, {other!r} and {label!r}; "
                "spell them the same, or rename one"
            )
    chosen = DEFAULT_HEALTHY if said.healthy is None else said.healthy
    healthy, ignored = {word.casefold() for word in chosen}, set(said.ignore)
    for word in said.healthy or ():
        near = difflib.get_close_matches(word, labels, 1, 0.7)
        if near and word.casefold() not in {label.casefold() for label in labels}:
            raise DatasetError(
                f"{root / 'dataset.yaml'} calls {word!r} healthy, but no picture is labelled so; "
                f"did you mean {near[0]}?"
            )
        if word in ignored:
            raise DatasetError(
                f"{root / 'dataset.yaml'} has {word!r} under healthy and under ignore; keep one of the two"
            )
    return healthy, ignored


def _same_name(label: str) -> str:
    return "".join(letter for letter in label.casefold() if letter not in " _-")


# -- MVTec's folders


def _layout_folder(root: Path) -> Path:
    """The folder that holds ``train`` or ``test``: ``root``, or the only such folder in it."""
    if _has_layout(root):
        return root
    inner = sorted(child for child in root.iterdir() if child.is_dir() and _has_layout(child))
    if len(inner) == 1:
        return inner[0]
    if inner:
        names = ", ".join(child.name for child in inner)
        raise DatasetError(f"{root} holds several sets ({names}); give one of these folders")
    empty = next(root.iterdir(), None) is None
    raise DatasetError(
        f"{root} is empty; give a folder with pictures"
        if empty
        else f"{root} has neither a labels.csv nor folders train/good and test/<label>; "
        "write a labels.csv with the columns image and label"
    )


def _bare_pictures(root: Path) -> list[_Row]:
    """Pictures below a folder that has neither of the layouts; none where it has one."""
    if _has_layout(root) or any(_has_layout(child) for child in root.iterdir() if child.is_dir()):
        return []
    folders = [root, *sorted(folder for folder in root.rglob("*") if folder.is_dir())]
    return [_Row(path, path.relative_to(root).as_posix(), "") for folder in folders for path in _pictures_in(folder)]


def _has_layout(folder: Path) -> bool:
    return any(
        child.is_dir()
        for part in ("train", "test")
        if (folder / part).is_dir()
        for child in (folder / part).iterdir()
    )


def _pictures_in(folder: Path) -> list[Path]:
    """Sorted by name; hidden files are no pictures, whatever their names end on."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def _rows_of_folders(folder: Path) -> Iterator[_Row]:
    for part in ("train", "test"):
        if not (folder / part).is_dir():
            continue
        for labelled in sorted(child for child in (folder / part).iterdir() if child.is_dir()):
            masks = folder / "ground_truth" / labelled.name
            by_stem = {path.stem: path for path in _pictures_in(masks)} if masks.is_dir() else {}
            for path in _pictures_in(labelled):
                row = _Row(path, path.relative_to(folder).as_posix(), labelled.name.strip())
                row.split = part
                if part == "test":
                    row.mask = by_stem.get(f"{path.stem}_mask") or by_stem.get(path.stem)
                yield row


# -- labels.csv


def _lines_of(
    table: Path, columns: Sequence[str], needed: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row with its line number, its fields stripped, all ``columns`` present."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            _check_header(table, header, columns, needed)
            for fields in reader:
                if not any(field.strip() for field in fields):
                    continue
                if len(fields) != len(header):
                    raise DatasetError(
                        f"{table}:{reader.line_num}: {len(fields)} fields under {len(header)} columns; "
                        "give one field a column, in quotes if it holds a comma"
                    )
                row = dict.fromkeys(columns, "")
                row.update((name, field.strip()) for name, field in zip(header, fields, strict=True))
                yield reader.line_num, row
    except UnicodeDecodeError as error:
        raise DatasetError(f"{table} is not UTF-8 text; save it as UTF-8") from error
    except csv.Error as error:
        raise DatasetError(
            f"{table} is no table of comma-separated values ({error}); save it as CSV"
        ) from error


def _check_header(table: Path, header: Sequence[str], columns: Sequence[str], needed: Sequence[str]) -> None:
    if not any(header):
        raise DatasetError(f"{table} is empty; begin it with a line of column names, e.g. image,label,mask")
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise DatasetError(f"{table}:1: the columns are not separated by commas; save it as CSV with commas")
    for name in header:
        if name not in columns:
            near = difflib.get_close_matches(name, columns, 1, 0.6)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(columns)}"
            raise DatasetError(f"{table}:1: no column named {name!r}; {advice}")
        if header.count(name) > 1:
            raise DatasetError(f"{table}:1: the column {name} stands there twice; keep one of the two")
    for name in needed:
        if name not in header:
            raise DatasetError(f"{table}:1: the column {name} is missing; add it")


def _rows_of_table(table: Path) -> Iterator[_Row]:
    seen: dict[str, int] = {}
    for line, fields in _lines_of(table, COLUMNS, ("image",)):
        where = f"{table}:{line}"
        image = posixpath.normpath(fields["image"]) if fields["image"] else ""
        row = _Row(_file_of(table.parent, fields["image"], where, "image"), image, fields["label"])
        if image in seen:
            raise DatasetError(f"{where}: {image} stands here and in line {seen[image]}; keep one of the two")
        seen[image] = line
        if fields["mask"]:
            row.mask = _file_of(table.parent, fields["mask"], where, "mask")
        row.domain = fields["domain"]
        row.group = fields["group"] or None
        if fields["split"] not in ("", "train", "test"):
            raise DatasetError(f"{where}: split is {fields['split']!r}; give train, test or nothing")
        row.split = fields["split"] or None
        row.probability = _probability(fields["defect_probability"], where)
        yield row


def _probability(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise DatasetError(f"{where}: defect_probability is {text!r}; give a number from 0 to 1")
    return value


def _file_of(root: Path, name: str, where: str, column: str) -> Path:
    if not name:
        raise DatasetError(f"{where}: the field {column} is empty; give the picture's path")
    if name.startswith("/") or posixpath.normpath(name).split("/")[0] == ".." or ":" in name[:3]:
        raise DatasetError(f"{where}: {column} {name} points outside the folder; give a path below {root}")
    path = root / name
    if not path.is_file():
        hint = "write / instead of \\" if "\\" in name else "correct the path, or take the line out"
        raise DatasetError(f"{where}: {column} {name} does not exist; {hint}")
    return path


def _boxes_of(table: Path, images: Mapping[str, Path]) -> Iterator[tuple[str, tuple[Box, ...]]]:
    """Boxes by picture; ``images`` are the set's pictures by name."""
    found: dict[str, list[Box]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for line, fields in _lines_of(table, BOX_COLUMNS, BOX_COLUMNS):
        where = f"{table}:{line}"
        image = posixpath.normpath(fields["image"])
        if image not in images:
            raise DatasetError(
                f"{where}: image {image} is not in the set; correct the path, or take the line out"
            )
        try:
            left, top, right, bottom = (float(fields[name]) for name in BOX_COLUMNS[2:])
        except ValueError as error:
            raise DatasetError(
                f"{where}: a side of the box is no number; give xmin, ymin, xmax, ymax in pixels"
            ) from error
        if not (0 <= left < right and 0 <= top < bottom):
            raise DatasetError(
                f"{where}: the box is {left:g}, {top:g}, {right:g}, {bottom:g}; "
                "give xmin below xmax and ymin below ymax"
            )
        if not fields["class"]:
            raise DatasetError(f"{where}: the field class is empty; name the defect that the box holds")
        if image not in sizes:
            sizes[image] = picture_size(images[image])
        height, width = sizes[image]
        if right > width or bottom > height:
            raise DatasetError(
                f"{where}: the box is {left:g}, {top:g}, {right:g}, {bottom:g}, but {image} is {width} x {height} "
                "pixels; give a box inside the picture, right and bottom outside"
            )
        found.setdefault(image, []).append(Box(fields["class"], left, top, right, bottom))
    for image, boxes in found.items():
        yield image, tuple(boxes)
