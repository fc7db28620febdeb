-- Rows whose keys the database handed out, and what refers to them.

-- Of a key_collision that was lost here: the rows that belong to the loser, [[table, pk], ...], as they were
-- known when the conflict arrived; null: not looked for yet.
alter table tidewater_conflict add column children text;
-- The key under which the original was written back, where that is another one.
alter table tidewater_conflict add column restored text;
create index tidewater_conflict_children on tidewater_conflict (id)
  where kind = 'key_collision' and winner = 'remote' and children is null;

-- The existing rows of a table at its first init, as long as they go to the workspace page by page and
-- past the outbox: the part of the key log (op B) that stands for those that are still to be sent, and
-- the last entry of the outbox when they were logged. Both ends null: none, or they go like any change.
alter table tidewater_table add column first_from integer;
alter table tidewater_table add column first_to integer;
alter table tidewater_table add column first_mark integer;
-- A batch of such rows: their table, and the last row of the log that it takes with it. Null for a
-- batch of outbox entries.
alter table tidewater_batch add column first_table text;
alter table tidewater_batch add column first_to integer;

-- The order of a row's history, which no clock tells: the epoch in which a change was acknowledged or
-- applied. What was applied in an epoch came before the acknowledgement that ended it.
alter table tidewater_outbox add column epoch integer;
alter table tidewater_inbox add column epoch integer;

-- The ledger: the keys of all rows of those tables whose rows a REPLACE may evict through an index that no
-- trigger can look into (an expression, a generated column). Written by the service only (sqlite/ledger.rs):
-- a key that stands here, and neither in its table nor in the key log, was evicted unseen. Columns k2.. are
-- added when a wider key is tracked, to the index too.
create table tidewater_ledger (tbl, k1);
create index tidewater_ledger_key on tidewater_ledger (tbl, k1);
