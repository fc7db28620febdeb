import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.create_table(
        "author",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
    )
    op.create_table(
        "book",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("author_id", sa.String(26), sa.ForeignKey("author.id"), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
    )
