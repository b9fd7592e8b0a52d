"""Run by Alembic: migrations go over the connection that the home hands in, within its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
context.run_migrations()
