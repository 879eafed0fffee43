"""The hub's database: opened, migrated, and written to by one transaction at a time.

SQLite with eight writers that wait for each other's file lock has seconds of p99; one writer behind
a lock in the process has not.  So every change goes through `Database.change`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from edge_sdk.errors import FormatError

__all__ = ["Database", "downgrade", "moment_of", "newest_revision", "revision_of", "upgrade", "us_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
BUSY_S = 30.0
"""How long a transaction waits for another process (an export taking its mark)."""


class Database:
    """The tables of one hub.

    Raises:
        FormatError: The file is no database, or a later version of the hub wrote it.
    """

    def __init__(self, path: Path, *, migrate: bool = True) -> None:
        """Open ``path``, and bring its tables up to date unless ``migrate`` is false."""
        self.path = path
        self._engine = _sqlite(path)
        self._writing = threading.Lock()
        try:
            found = revision_of(self._engine)
            known = {script.revision for script in _scripts().walk_revisions()}
            if found is not None and found not in known:
                raise FormatError(
                    f"{path} was written by a later version (tables {found}); start that version, or newer"
                )
            if migrate:
                upgrade(self._engine)
            elif found != newest_revision():
                raise FormatError(
                    f"{path} holds tables {found or 'of no hub'}, this version needs {newest_revision()}; "
                    "start the hub once to bring them up to date"
                )
        except DBAPIError as error:
            self.close()
            raise FormatError(
                f"{path} cannot be used as a database ({error.orig}); move it away and start again: "
                "the items are read back from their files, answers are in its backups"
            ) from error
        except FormatError:
            self.close()
            raise

    @contextmanager
    def change(self) -> Iterator[Connection]:
        """A transaction that may write; on disk once the block is left without an error."""
        options = {"begin": "BEGIN IMMEDIATE"}
        with (
            self._writing,
            self._engine.connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """A consistent view to read from; never waits for a writer."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Give the file back.  May be called twice."""
        self._engine.dispose()


def us_of(moment: datetime) -> int:
    """Whole microseconds since 1970, UTC."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment_of(us: int) -> datetime:
    """The aware UTC moment of `us_of`."""
    return _EPOCH + timedelta(microseconds=us)


def upgrade(engine: Engine, *, to: str = "head") -> None:
    """Bring the tables up to a revision."""
    with engine.connect() as connection:
        command.upgrade(_config(connection), to)


def downgrade(engine: Engine, *, to: str) -> None:
    """Take the tables back to a revision; ``"base"`` leaves none."""
    with engine.connect() as connection:
        command.downgrade(_config(connection), to)


def revision_of(engine: Engine) -> str | None:
    """The revision of the tables, ``None`` where there are none yet."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def newest_revision() -> str:
    """The revision that this version of the hub works with."""
    head = _scripts().get_current_head()
    assert head is not None  # there is at least the first migration
    return head


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(None))


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _sqlite(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_S})

    @event.listens_for(engine, "connect")
    def _settings(connection: Any, _record: Any) -> None:
        # the driver's own idea of when a transaction begins is switched off: see _begin
        connection.isolation_level = None
        for setting in (
            "journal_mode=WAL",
            "synchronous=FULL",  # NORMAL may lose the last commits in a power cut; an answer is acknowledged
            "foreign_keys=ON",
            "journal_size_limit=4194304",
        ):
            connection.execute(f"PRAGMA {setting}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine
