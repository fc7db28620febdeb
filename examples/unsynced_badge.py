#!/usr/bin/env python3
"""Lists the rows of one table with a badge for what is not synced yet.

    python3 unsynced_badge.py app.db messages

Reads the view tidewater_status in the app's own file, with Python's own sqlite3. It works whether
tidewater runs or not, and without the server.
"""

import sqlite3
import sys

BADGES = {"pending": "○ not sent yet", "failed": "✗ failed", "conflict": "≠ in conflict"}


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: unsynced_badge.py FILE TABLE")
    path, table = sys.argv[1:]
    db = sqlite3.connect(path)
    key = [c[1] for c in db.execute(f"pragma table_info({quoted(table)})") if c[5]]
    if len(key) != 1:
        sys.exit(f"{table}: this example takes tables with a key of one column")
    # A question for each row that is shown: each searches an index.
    rows = db.execute(
        f"""select t.{quoted(key[0])},
                   (select s.status from tidewater_status s
                     where s.table_name = ? and s.pk = t.{quoted(key[0])}),
                   (select s.error from tidewater_status s
                     where s.table_name = ? and s.pk = t.{quoted(key[0])})
              from {quoted(table)} t order by 1 limit 50""",
        (table, table),
    )
    for pk, status, error in rows:
        badge = BADGES.get(status, "✓")
        print(f"{pk}  {badge}" + (f": {error}" if error else ""))


if __name__ == "__main__":
    main()
