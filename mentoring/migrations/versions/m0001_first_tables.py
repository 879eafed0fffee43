"""The first tables: items, their questions, the answers.

Revision ID: 0001
Revises: none
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "strata",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "asked", sa.BigInteger(), server_default="0", nullable=False, comment="frames handed out so far"
        ),
        sa.PrimaryKeyConstraint("number", name="pk_strata"),
        sa.UniqueConstraint("name", name="uq_strata_name"),
    )
    op.create_table(
        "items",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False, comment="order of arrival"),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("stratum", _NUMBER, nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("station", sa.Text(), nullable=False),
        sa.Column("camera", sa.Text(), nullable=False),
        sa.Column("boot_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("captured_at_us", sa.BigInteger(), nullable=False),
        sa.Column("received_at_us", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("inclusion_probability", sa.Float(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("picture_type", sa.String(16), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False, comment="of the picture, pixels"),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("grid_rows", sa.Integer(), comment="of the confidence map; null without one"),
        sa.Column("grid_columns", sa.Integer()),
        sa.Column("open", sa.Integer(), nullable=False, comment="questions still to be answered"),
        sa.Column("leased_until_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "holder", sa.String(200), comment="who is being asked; meaningless once the lease has run out"
        ),
        sa.PrimaryKeyConstraint("number", name="pk_items"),
        sa.UniqueConstraint("sha256", name="uq_items_sha256"),
        sa.ForeignKeyConstraint(["stratum"], ["strata.number"], name="fk_items_stratum_strata"),
        sqlite_autoincrement=True,
    )
    still_open = sa.text("open > 0")
    op.create_index(
        "ix_items_open",
        "items",
        ["stratum", sa.text("value DESC"), "number"],
        sqlite_where=still_open,
        postgresql_where=still_open,
    )
    op.create_index(
        "ix_items_holder", "items", ["holder"], sqlite_where=still_open, postgresql_where=still_open
    )
    op.create_table(
        "questions",
        sa.Column("item", _NUMBER, nullable=False),
        sa.Column(
            "place", sa.Integer(), nullable=False, comment="number in the item; -1 is the whole picture"
        ),
        sa.Column("class_name", sa.Text(), comment="null for the whole picture"),
        sa.Column("confidence", sa.Float()),
        sa.Column("box", sa.Text(), comment="JSON [left, top, right, bottom], frame pixels"),
        sa.Column("cells", sa.Text(), comment="JSON [[row, column], ...]"),
        sa.Column(
            "asked", sa.Integer(), nullable=False, comment="1 where operators are asked this by themselves"
        ),
        sa.Column(
            "answered", sa.Integer(), server_default="0", nullable=False, comment="1 while an answer stands"
        ),
        sa.PrimaryKeyConstraint("item", "place", name="pk_questions"),
        sa.ForeignKeyConstraint(["item"], ["items.number"], name="fk_questions_item_items"),
        sa.CheckConstraint("asked in (0, 1)", name=op.f("ck_questions_asked_is_a_truth_value")),
        sa.CheckConstraint("answered in (0, 1)", name=op.f("ck_questions_answered_is_a_truth_value")),
    )
    op.create_table(
        "answers",
        sa.Column(
            "number", _NUMBER, autoincrement=True, nullable=False, comment="order of arrival; marks count it"
        ),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("item", _NUMBER, nullable=False),
        sa.Column("place", sa.Integer(), nullable=False, comment="as in questions"),
        sa.Column("answer", sa.String(8), nullable=False),
        sa.Column("class_name", sa.Text()),
        sa.Column("operator", sa.String(200), nullable=False),
        sa.Column("device", sa.String(200), nullable=False),
        sa.Column(
            "answered_at_us", sa.BigInteger(), nullable=False, comment="by the operator's clock: a hint"
        ),
        sa.Column("received_at_us", sa.BigInteger(), nullable=False, comment="by the hub's clock"),
        sa.Column("after_ms", sa.BigInteger(), nullable=False),
        sa.Column("page", sa.String(200), nullable=False),
        sa.Column("withdraws", sa.String(36)),
        sa.PrimaryKeyConstraint("number", name="pk_answers"),
        sa.UniqueConstraint("id", name="uq_answers_id"),
        sa.ForeignKeyConstraint(["item"], ["items.number"], name="fk_answers_item_items"),
        sa.CheckConstraint(
            "answer in ('confirm', 'infirm', 'unsure')", name=op.f("ck_answers_answer_is_known")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_answers_item", "answers", ["item"])
    op.create_index("ix_answers_withdraws", "answers", ["withdraws"])
    if op.get_context().dialect.name == "sqlite":
        # elsewhere the hub's role is not granted UPDATE and DELETE on this table
        for deed in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER answers_keep_{deed.lower()} BEFORE {deed} ON answers "
                "BEGIN SELECT RAISE(ABORT, 'an answer is never changed; withdraw it by a new one'); END"
            )


def downgrade() -> None:
    """Drop them, children first."""
    op.drop_table("answers")
    op.drop_table("questions")
    op.drop_table("items")
    op.drop_table("strata")
