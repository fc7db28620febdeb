# As `alembic revision --autogenerate` renders it in batch mode: each table is made anew.
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    with op.batch_alter_table("author") as batch_op:
        batch_op.alter_column(
            "name", existing_type=sa.String(100), type_=sa.String(200), existing_nullable=False
        )
    with op.batch_alter_table("book", recreate="always") as batch_op:
        batch_op.add_column(sa.Column("pages", sa.Integer(), nullable=True))
