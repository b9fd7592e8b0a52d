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
    ):
        op.add_column("records", sa.Column(name, kind))
