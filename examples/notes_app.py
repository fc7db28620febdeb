#!/usr/bin/env python3
"""A small app that knows nothing of tidewater: it writes notes to its own SQLite file.

    notes_app.py FILE write [SECONDS]    adds, edits and deletes a note now and then
    notes_app.py FILE read [SECONDS]     says what is in the file, whenever it changes

SECONDS is the pause between two looks, 3 unless given.
"""

import random
import sqlite3
import sys
import time
import uuid

SCHEMA = """
create table if not exists notes (
  id text primary key,
  body text not null,
  done integer not null default 0,
  edited_at text not null
)
"""
WORDS = "milk bread tea letter train garden window river paper lamp".split()


def connect(file):
    """The file as any app would open it; a second writer is waited for."""
    app = sqlite3.connect(file, timeout=5, isolation_level=None)
    app.execute("pragma journal_mode = wal")
    app.execute(SCHEMA)
    return app


def write(app):
    """One edit: mostly a new note, sometimes a change or a delete of an old one."""
    row = app.execute("select id from notes order by random() limit 1").fetchone()
    dice = random.random()
    if row is None or dice < 0.6:
        body = f"{random.choice(WORDS)} and {random.choice(WORDS)}"
        app.execute(
            "insert into notes (id, body, edited_at) values (?, ?, datetime('now'))",
            (str(uuid.uuid4()), body),
        )
        return f"added a note: {body}"
    if dice < 0.9:
        app.execute(
            "update notes set done = 1 - done, edited_at = datetime('now') where id = ?", row
        )
        return "ticked a note"
    app.execute("delete from notes where id = ?", row)
    return "deleted a note"


def summary(app):
    notes, done = app.execute("select count(*), coalesce(sum(done), 0) from notes").fetchone()
    return f"{notes} notes, {done} of them done"


def main():
    if len(sys.argv) not in (3, 4) or sys.argv[2] not in ("write", "read"):
        sys.exit(__doc__)
    app = connect(sys.argv[1])
    pause = float(sys.argv[3]) if len(sys.argv) == 4 else 3.0
    said = None
    while True:
        if sys.argv[2] == "write":
            print(write(app), flush=True)
        now = summary(app)
        if now != said:
            print(now, flush=True)
            said = now
        time.sleep(pause)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
