import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade():
    with op.batch_alter_table("book") as batch_op:
        batch_op.alter_column(
            "title", new_column_name="heading", existing_type=sa.String(200), existing_nullable=False
        )
