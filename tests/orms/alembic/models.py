# As the last revision leaves it.
from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))


class Book(Base):
    __tablename__ = "book"
    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    author_id: Mapped[str] = mapped_column(ForeignKey("author.id"))
    heading: Mapped[str] = mapped_column(String(200))
