"""The loop, end to end. Homes of this version have no `alembic_version`; they are stamped when they are opened."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Nothing: such a home was made whole."""
