"""The tables: made by migrations alone, up and down, and the same on paper for PostgreSQL."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, create_mock_engine, inspect
from sqlalchemy.engine import Engine
from sqlalchemy.schema import CreateTable

from edge_sdk.clock import FakeClock
from edge_sdk.errors import ConfigError, FormatError
from mentoring.database import Database, _config, downgrade, newest_revision, revision_of, upgrade
from mentoring.hub import Hub, HubBusyError, exports_of
from mentoring.schema import metadata

POSTGRESQL = create_mock_engine("postgresql://", lambda *_: None).dialect


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return create_engine(f"sqlite:///{tmp_path / 'hub.db'}")


def test_the_migrations_make_the_tables_that_the_code_uses(engine: Engine) -> None:
    upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    checks = {
        name: sorted(str(check["name"]) for check in inspect(engine).get_check_constraints(name))
        for name in metadata.tables
    }
    assert checks["answers"] == ["ck_answers_answer_is_known"]
    assert checks["questions"] == [
        "ck_questions_answered_is_a_truth_value",
        "ck_questions_asked_is_a_truth_value",
    ]
    engine.dispose()


def test_every_migration_goes_down_and_up_again(engine: Engine) -> None:
    upgrade(engine)
    downgrade(engine, to="base")
    assert revision_of(engine) is None
    assert inspect(engine).get_table_names() == ["alembic_version"]
    upgrade(engine)
    assert revision_of(engine) == newest_revision()
    engine.dispose()


def test_the_same_tables_are_made_for_postgresql(capsys: pytest.CaptureFixture[str]) -> None:
    for table in metadata.sorted_tables:
        assert "BIGSERIAL" in str(CreateTable(table).compile(dialect=POSTGRESQL)) or table.name == "questions"
    command.upgrade(_config(None), "head", sql=True)
    printed = capsys.readouterr().out
    assert "CREATE TABLE items" in printed
    assert "number BIGSERIAL NOT NULL" in printed
    assert "WHERE open > 0" in printed
    assert "TRIGGER" not in printed


def test_answers_are_acknowledged_from_the_disk_not_from_memory(tmp_path: Path) -> None:
    database = Database(tmp_path / "hub.db")
    with database.look() as connection:
        for pragma, wanted in (("synchronous", 2), ("journal_mode", "wal"), ("foreign_keys", 1)):
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == wanted
    database.close()


def test_a_change_that_fails_leaves_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "hub.db")

    def fail_half_way() -> None:
        with database.change() as connection:
            connection.exec_driver_sql("INSERT INTO strata (name) VALUES ('a')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    with database.look() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM strata").scalar() == 0
    database.close()


def test_tables_of_a_later_version_are_refused(tmp_path: Path) -> None:
    Database(tmp_path / "hub.db").close()
    with sqlite3.connect(tmp_path / "hub.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(FormatError) as refused:
        Database(tmp_path / "hub.db")
    assert str(refused.value) == (
        f"{tmp_path / 'hub.db'} was written by a later version (tables 9999); start that version, or newer"
    )


def test_an_export_does_not_migrate_what_a_hub_may_be_serving(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "hub.db").close()
    with pytest.raises(
        FormatError, match="holds tables of no hub, this version needs 0001; start the hub once"
    ):
        exports_of(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hub.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(FormatError, match="cannot be used as a database \\(file is not a database\\)"):
        Hub(tmp_path, clock=FakeClock())


def test_a_folder_is_served_by_one_process(tmp_path: Path) -> None:
    with Hub(tmp_path / "hub", clock=FakeClock()):
        with pytest.raises(HubBusyError) as refused:
            Hub(tmp_path / "hub", clock=FakeClock())
        assert "hub is served by another process (pid " in str(refused.value)
        assert str(refused.value).endswith("; stop that one, or give another --data")
    Hub(tmp_path / "hub", clock=FakeClock()).close()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match="cannot be used as the hub's folder \\(Not a directory\\); give another"
    ):
        Hub(tmp_path / "file" / "hub", clock=FakeClock())
