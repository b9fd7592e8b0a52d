"""The gateway: keys, caches of providers, attempts, what was held back."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Records tell who asked, what was tried and what was held back."""
    for name, kind in (
        ("key", sa.String),
        ("cached_tokens", sa.Integer),
        ("written_tokens", sa.Integer),
        ("attempts", sa.Text),
        ("egress", sa.String),
        ("path", sa.String),
        ("gone", sa.String),
        ("cuts", sa.Text),
        ("sealed", sa.String),
    ):
        op.add_column("records", sa.Column(name, kind))
    op.create_table(
        "withdrawn",
        sa.Column("response", sa.String, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
    )
    for table in ("audits", "trusted"):
        op.add_column(table, sa.Column("sealed", sa.String))
    kept = sa.text("gone IS NULL")
    op.create_index("records_kept", "records", ["at"], sqlite_where=kept, postgresql_where=kept)
    op.create_table(
        "parts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.String),
        sqlite_autoincrement=True,
    )
    _keys()
    _batches()
    op.create_table(
        "belongings",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("record", sa.String, nullable=False, index=True),
        sa.Column("task", sa.String),
        sa.Column("at", sa.Float, nullable=False),
    )


def _keys() -> None:
    """Virtual keys, and what each has spent."""
    op.create_table(
        "keys",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False, unique=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("last4", sa.String, nullable=False),
        sa.Column("former", sa.LargeBinary),
        sa.Column("former_until", sa.Float),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("revoked_at", sa.Float),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("admin", sa.Boolean, nullable=False),
        sa.Column("egress", sa.String),
        *(sa.Column(name, sa.Text) for name in ("models", "tasks", "budget_usd", "budget_tokens")),
        sa.Column("requests_per_minute", sa.Float),
        sa.Column("tokens_per_minute", sa.Float),
    )
    op.create_index("records_key_at", "records", ["key", "at"], sqlite_where=sa.text("key IS NOT NULL"))


def _batches() -> None:
    """Batches and their files."""
    for name in ("files", "batches"):
        op.create_table(
            name,
            sa.Column("seq", sa.Integer, primary_key=True),
            sa.Column("id", sa.String, nullable=False, unique=True),
            sa.Column("key", sa.String),
            sa.Column("at", sa.Float, nullable=False),
            sa.Column("status", sa.String, nullable=False),
            sa.Column("document", sa.Text, nullable=False),
        )
