"""The hub's tables.

Pixels and headers stay in the item files; a row holds what the agenda and the answers ask for.
The same tables serve SQLite and PostgreSQL, so times are whole microseconds since 1970 (UTC) and
lists are JSON text.  Whoever changes a table here adds a migration; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

__all__ = ["answers", "items", "metadata", "questions", "strata"]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite counts only an INTEGER primary key up by itself
Number = BigInteger().with_variant(Integer(), "sqlite")

strata = Table(
    "strata",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, unique=True),
    Column("asked", BigInteger, nullable=False, server_default="0", comment="frames handed out so far"),
)

items = Table(
    "items",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True, comment="order of arrival"),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("stratum", Number, ForeignKey("strata.number"), nullable=False),
    Column("value", Float, nullable=False),
    Column("station", Text, nullable=False),
    Column("camera", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("captured_at_us", BigInteger, nullable=False),
    Column("received_at_us", BigInteger, nullable=False),
    Column("model", Text, nullable=False),
    Column("reason", String(16), nullable=False),
    Column("inclusion_probability", Float, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("picture_type", String(16), nullable=False),
    Column("width", Integer, nullable=False, comment="of the picture, pixels"),
    Column("height", Integer, nullable=False),
    Column("grid_rows", Integer, comment="of the confidence map; null without one"),
    Column("grid_columns", Integer),
    Column("open", Integer, nullable=False, comment="questions still to be answered"),
    Column("leased_until_us", BigInteger, nullable=False, server_default="0"),
    Column("holder", String(200), comment="who is being asked; meaningless once the lease has run out"),
    sqlite_autoincrement=True,
)
# an answered item leaves the index, so asking costs the same whatever has been answered before
Index(
    "ix_items_open",
    items.c.stratum,
    items.c.value.desc(),
    items.c.number,
    sqlite_where=text("open > 0"),
    postgresql_where=text("open > 0"),
)
Index(
    "ix_items_holder",
    items.c.holder,
    sqlite_where=text("open > 0"),
    postgresql_where=text("open > 0"),
)

questions = Table(
    "questions",
    metadata,
    Column("item", Number, ForeignKey("items.number"), primary_key=True),
    Column("place", Integer, primary_key=True, comment="number in the item; -1 is the whole picture"),
    Column("class_name", Text, comment="null for the whole picture"),
    Column("confidence", Float),
    Column("box", Text, comment="JSON [left, top, right, bottom], frame pixels"),
    Column("cells", Text, comment="JSON [[row, column], ...]"),
    Column("asked", Integer, nullable=False, comment="1 where operators are asked this by themselves"),
    Column("answered", Integer, nullable=False, server_default="0", comment="1 while an answer stands"),
    CheckConstraint("asked in (0, 1)", name="asked_is_a_truth_value"),
    CheckConstraint("answered in (0, 1)", name="answered_is_a_truth_value"),
)

answers = Table(
    "answers",
    metadata,
    Column(
        "number", Number, primary_key=True, autoincrement=True, comment="order of arrival; marks count it"
    ),
    Column("id", String(36), nullable=False),
    Column("item", Number, ForeignKey("items.number"), nullable=False),
    Column("place", Integer, nullable=False, comment="as in questions"),
    Column("answer", String(8), nullable=False),
    Column("class_name", Text),
    Column("operator", String(200), nullable=False),
    Column("device", String(200), nullable=False),
    Column("answered_at_us", BigInteger, nullable=False, comment="by the operator's clock: a hint"),
    Column("received_at_us", BigInteger, nullable=False, comment="by the hub's clock"),
    Column("after_ms", BigInteger, nullable=False),
    Column("page", String(200), nullable=False),
    Column("withdraws", String(36)),
    UniqueConstraint("id"),
    CheckConstraint("answer in ('confirm', 'infirm', 'unsure')", name="answer_is_known"),
    Index("ix_answers_item", "item"),
    Index("ix_answers_withdraws", "withdraws"),
    sqlite_autoincrement=True,
)
