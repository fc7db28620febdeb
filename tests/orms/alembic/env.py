# Alembic's environment: the file that APP_DB names, batch mode, and tidewater's tables left out.
import os

from alembic import context
from sqlalchemy import create_engine

from models import Base


# The recipe of docs/orms.md: what tidewater keeps in the file is none of the app's business.
def include_name(name, type_, parent_names):
    return not (type_ == "table" and name.startswith("tidewater_"))


engine = create_engine("sqlite:///" + os.environ["APP_DB"], connect_args={"timeout": 20})
with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        include_name=None if os.environ.get("WITHOUT_RECIPE") else include_name,
    )
    with context.begin_transaction():
        context.run_migrations()
