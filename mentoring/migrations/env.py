"""How Alembic reaches the hub's database: by the connection it is handed, or on paper as SQL."""

from __future__ import annotations

from alembic import context

from mentoring.schema import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    # on paper: `upgrade(..., sql=True)` prints the statements of a dialect
    context.configure(
        dialect_name=context.config.attributes.get("dialect", "postgresql"),
        target_metadata=metadata,
        literal_binds=True,
    )
    with context.begin_transaction():
        context.run_migrations()
else:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with connection.begin(), context.begin_transaction():
        context.run_migrations()
