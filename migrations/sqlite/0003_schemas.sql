-- Rows whose keys the database handed out, and what refers to them.

-- Of a key_collision that was lost here: the rows that belong to the loser, [[table, pk], ...], as they were
-- known when the conflict arrived; null: not looked for yet.
alter table tidewater_conflict add column children text;
-- The key under which the original was written back, where that is another one.
alter table tidewater_conflict add column restored text;
create index tidewater_conflict_children on tidewater_conflict (id)
  where kind = 'key_collision' and winner = 'remote' and children is null;
