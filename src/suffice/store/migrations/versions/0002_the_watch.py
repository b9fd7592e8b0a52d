"""Records get a place in the order of commits and what the watch needs; audits, watches, steps and tails are new."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """`seq` becomes the key of records: the table is written anew, oldest rows first."""
    op.rename_table("records", "records_0001")
    for name in ("records_task_at", "records_at", "records_response_id"):
        op.drop_index(name, "records_0001")
    records = op.create_table(
        "records",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("dialect", sa.String, nullable=False),
        sa.Column("task", sa.String),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("upstream", sa.String),
        sa.Column("route", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("stage", sa.String),
        sa.Column("release", sa.String),
        sa.Column("score", sa.Float),
        sa.Column("threshold", sa.Float),
        sa.Column("predicted", sa.Text),
        sa.Column("acceptable", sa.Boolean),
        sa.Column("watch", sa.Integer),
        sa.Column("coin", sa.Float),
        sa.Column("audited", sa.Boolean),
        sa.Column("stakes", sa.String),
        sa.Column("status", sa.Integer),
        sa.Column("failure", sa.String),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("completion_tokens", sa.Integer),
        sa.Column("tokens_estimated", sa.Boolean, nullable=False),
        sa.Column("cost_usd", sa.Float),
        sa.Column("latency_ms", sa.Float),
        sa.Column("first_chunk_ms", sa.Float),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("session", sa.String),
        sa.Column("group", sa.String),
        sa.Column("slices", sa.String, nullable=False),
        sa.Column("input", sa.Text),
        sa.Column("request", sa.LargeBinary),
        sa.Column("answer", sa.LargeBinary),
        sa.Column("response_id", sa.String),
        sa.Column("schema", sa.Integer, nullable=False),
    )
    new = {"seq", "predicted", "acceptable", "watch", "audited", "stakes"}
    kept = [column.name for column in records.columns if column.name not in new]
    old = sa.table("records_0001", *(sa.column(name) for name in kept))
    op.execute(records.insert().from_select(kept, sa.select(*old.columns).order_by(old.c.at, old.c.id)))
    op.drop_table("records_0001")
    op.create_index("records_task_at", "records", ["task", "at"])
    op.create_index("records_at", "records", ["at"])
    op.create_index("records_response_id", "records", ["response_id"])
    watched = sa.text("watch IS NOT NULL")
    op.create_index("records_watch", "records", ["seq"], sqlite_where=watched, postgresql_where=watched)
    op.execute("DELETE FROM meta WHERE key = 'schema'")  # `alembic_version` tells it from now on
    op.add_column("events", sa.Column("kind", sa.String))
    op.create_table(
        "audits",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("record", sa.String, nullable=False, unique=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("upstream", sa.String),
        sa.Column("status", sa.Integer),
        sa.Column("answer", sa.LargeBinary),
        sa.Column("failure", sa.String),
        sa.Column("prompt_tokens", sa.Integer),
        sa.Column("completion_tokens", sa.Integer),
        sa.Column("cost_usd", sa.Float),
        sa.Column("latency_ms", sa.Float),
    )
    op.create_table(
        "tails",
        sa.Column("task", sa.String, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("release", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("delta", sa.Float, nullable=False),
        sa.Column("labels", sa.Integer, nullable=False),
        sa.Column("errors", sa.Float, nullable=False),
        sa.Column("promised", sa.Boolean, nullable=False),
    )
    op.create_table(
        "watches",
        sa.Column("task", sa.String, primary_key=True),
        sa.Column("n", sa.Integer, primary_key=True),
        sa.Column("release", sa.Integer, nullable=False),
        sa.Column("opened_at", sa.Float, nullable=False),
        sa.Column("closed_at", sa.Float),
        sa.Column("outcome", sa.String),
        sa.Column("state", sa.Text, nullable=False),
    )
    op.create_table(
        "steps",
        sa.Column("record", sa.String, primary_key=True),
        sa.Column("task", sa.String, nullable=False),
        sa.Column("watch", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("coin", sa.Float, nullable=False),
        sa.Column("stakes", sa.String, nullable=False),
        sa.Column("differs", sa.Float),
        sa.Column("loss", sa.Float),
        sa.Column("missing", sa.Boolean, nullable=False),
    )
    op.create_index("steps_watch", "steps", ["task", "watch", "loss"])
