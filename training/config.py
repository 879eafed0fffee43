"""What a command or a notebook is told: which pictures, which of them are which line, and how to train.

The keys of ``training.recipe.Recipe`` and a few more, flat, from a YAML file (``recipe/1``), from flags, or as
keyword arguments.  This is the one place where data, roles and recipe become lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field, ValidationError, field_validator

from edge_sdk.documents import read_yaml
from edge_sdk.errors import ConfigError
from edge_sdk.quality.datasets import Dataset, Lines, lines_of, load_dataset
from training.data import gaps
from training.recipe import Recipe

__all__ = ["Config", "config_of"]


class Config(Recipe):
    """Data, roles and recipe; frozen.  ``Config(data="pictures", gap="lamp", seed=3)``."""

    schema_: Literal["recipe/1"] = Field("recipe/1", alias="schema")
    data: tuple[Path, ...] = ()
    """Folder of pictures; two for a pair of folders, a line each."""
    original: tuple[str, ...] | None = None
    """Domains of the original line; without it the set's own, or what the checkpoint remembers."""
    new: tuple[str, ...] | None = None
    """One entry a new line, its domains separated by commas."""
    gap: str | None = None
    """Makes the new line out of the original's pictures, e.g. ``stains+lamp``."""
    gap_on: Literal["new", "original"] | None = None
    """Which line stands behind the gap; without it the new one, or what the checkpoint remembers."""
    line: str | None = None
    """Name of the new line that is meant; without it all of them."""
    methods: tuple[str, ...] | None = None
    """How to adapt: one method is taken, of several the label-free rules choose; without it they choose at all."""
    strategy: str | None = None
    """What a retraining takes as known besides the answers; without it what ships."""
    mentored: Path | None = None
    """Answers to retrain from: the folder that ``python -m mentoring export`` wrote."""
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``cuda:1``."""
    threads: int = Field(1, ge=1, le=256)
    """To compute with; one is fastest on a loaded machine."""
    precision: Literal["single", "double"] = "single"
    """Of a training: in double nothing hangs on rounding, so that machines can be compared; much slower on a GPU."""
    quickly: bool = False
    """Fewer iterations, to see that everything runs; a checkpoint that was trained so stays so."""

    @field_validator("data", "original", "new", "methods", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, (str, Path)) else value

    @field_validator("gap")
    @classmethod
    def _known_gap(cls, value: str | None) -> str | None:
        for part in (value or "").split("+") if value is not None else ():
            if part not in gaps.names():
                raise ValueError(
                    f"there is no gap named {part!r}; give one of {', '.join(gaps.names())}, or several with +"
                )
        return value

    @property
    def dtype(self) -> torch.dtype:
        """What ``precision`` means."""
        return torch.float64 if self.precision == "double" else torch.float32

    def recipe(self, said: Mapping[str, Any] | None = None) -> Recipe:
        """The recipe alone; over that of a checkpoint where one is given, only what was asked for here.

        Raises:
            ConfigError: The checkpoint's own recipe is damaged.
        """
        asked = {name: getattr(self, name) for name in self.model_fields_set & Recipe.model_fields.keys()}
        found = _made(Recipe, {**(said or {}), **asked})
        return found.quick() if self.quickly and (said is None or found.iterations > 100) else found

    def lines(
        self, remembered: Mapping[str, Any] | None = None, *, seed: int | None = None, evaluating: bool = False
    ) -> tuple[Dataset, Lines]:
        """The data set and its lines.

        Args:
            remembered: What a checkpoint says of its data: its roles count where none is named here.
            seed: Of the parts; without it the recipe's.
            evaluating: Hand out the truth of the part test.

        Raises:
            ConfigError: No data is named, or a domain is unknown.
            DatasetError: The folder cannot be used.
        """
        if not self.data:
            raise ConfigError("data is missing; give --data FOLDER, or write `data: FOLDER` into the recipe")
        dataset = load_dataset(*self.data)
        original, new, gap, gap_on = self.original, self.new, self.gap, self.gap_on
        if remembered and len(self.data) > 1:
            known = {domain for line in (remembered.get("original", ()), *remembered.get("new", ())) for domain in line}
            if not known.issuperset(dataset.domains):  # a folder that the training did not know makes the new line
                remembered = None
        if remembered and original is None and new is None and gap is None:
            gap, gap_on = remembered.get("gap"), gap_on or remembered.get("gap_on")
            original = tuple(remembered.get("original", ())) or None
            if len(dataset.domains) == 1 and original is not None and len(original) == 1:
                original = None  # the only domain, whatever its folder is called by now
            new = None if gap else tuple(",".join(one) for one in remembered.get("new", ()))
        elif remembered and gap is not None and gap == remembered.get("gap"):
            gap_on = gap_on or remembered.get("gap_on")
        return dataset, lines_of(
            dataset,
            original=original,
            new=new,
            gap=gap,
            gap_on=gap_on or "new",
            seed=self.seed if seed is None else seed,
            evaluating=evaluating,
        )


def config_of(file: Path | None = None, **flags: Any) -> Config:
    """A recipe file with flags over it; a flag that is ``None`` was not given.

    Args:
        file: YAML with the keys of ``Config``; its paths are relative to the file.
        flags: By the same keys.

    Raises:
        ConfigError: A key is unknown or a value wrong; of a file with file and line.
    """
    told: dict[str, Any] = {}
    if file is not None:
        written = read_yaml(file, Config)
        told = written.model_dump(exclude_unset=True, by_alias=True)
        folder = file.absolute().parent
        if "data" in told:
            told["data"] = tuple(folder / path.expanduser() for path in written.data)
        if written.mentored is not None:
            told["mentored"] = folder / written.mentored.expanduser()
    given = {name: value for name, value in flags.items() if value is not None}
    if file is not None and {"original", "new", "gap"} & given.keys():
        told = {name: value for name, value in told.items() if name not in ("original", "new", "gap")}
    return _made(Config, {**told, **given})


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def _made(kind: type[AnyRecipe], values: Mapping[str, Any]) -> AnyRecipe:
    try:
        return kind(**values)
    except ValidationError as error:
        found = error.errors()[0]
        if found["type"] == "value_error":
            raise ConfigError(str(found["ctx"]["error"])) from error
        raise ConfigError(f"{'.'.join(map(str, found['loc']))} is {found['input']}; {found['msg'].lower()}") from error
