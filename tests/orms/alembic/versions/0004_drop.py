from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade():
    with op.batch_alter_table("book") as batch_op:
        batch_op.drop_column("pages")
