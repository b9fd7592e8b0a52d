"""Discovery: patterns and their members, names that tasks had, what was found; datasets; how far imports came."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Records say how their task was told; the rest is new."""
    op.add_column("records", sa.Column("rule", sa.String))
    op.create_table(
        "patterns",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key", sa.String, nullable=False, unique=True),
        sa.Column("rule", sa.Text),
        sa.Column("parent", sa.Integer),
        sa.Column("label", sa.String),
        sa.Column("matcher", sa.String),
        sa.Column("least", sa.Float),
        sa.Column("task", sa.String),
        sa.Column("decided", sa.Boolean, nullable=False),
        sa.Column("ignored", sa.Boolean, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("records", sa.Integer, nullable=False),
        sa.Column("whole", sa.Integer, nullable=False),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("completion_tokens", sa.Integer, nullable=False),
        sa.Column("cost_usd", sa.Float, nullable=False),
        sa.Column("unpriced", sa.Integer, nullable=False),
        sa.Column("first_at", sa.Float),
        sa.Column("last_at", sa.Float),
    )
    op.create_index("patterns_task", "patterns", ["task"])
    op.create_table(
        "members",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("pattern", sa.Integer, nullable=False),
        sa.Column("coin", sa.Integer, nullable=False),
    )
    op.create_index("members_pattern", "members", ["pattern", "coin"])
    op.create_table(
        "aliases",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("task", sa.String, nullable=False),
    )
    op.create_table(
        "found",
        sa.Column("task", sa.String, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "datasets",
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("task", sa.String, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("manifest", sa.LargeBinary, nullable=False),
    )
    op.create_index("datasets_task", "datasets", ["task", "at"])
    op.create_table(
        "imports",
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("task", sa.String, primary_key=True),
        sa.Column("path", sa.String, nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("offset", sa.Integer, nullable=False),
        sa.Column("done_at", sa.Float),
    )
