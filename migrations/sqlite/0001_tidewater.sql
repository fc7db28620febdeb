-- Everything tidewater keeps in the app's own file. The app's SQLite reads this schema too, however
-- old it is: no STRICT, nothing newer than 3.8.2.

-- One row: who this device is and what it has seen. Text values; see sqlite/state.rs for the keys.
create table tidewater_state (
  name text primary key,
  value text
) without rowid;

-- Echo guard: v is 1 only inside the transaction in which remote rows are applied.
create table tidewater_guard (id integer primary key, v integer);
insert into tidewater_guard (id, v) values (1, 0);

-- The key log, written by the triggers inside the app's transactions. No constraint but the integer
-- key: the app's OR REPLACE / OR IGNORE would override its conflict handling. Columns k2.. are added
-- when a wider key is tracked. op: I, U, D, or B for rows that stood there at init.
create table tidewater_log (id integer primary key, tbl, op, at, k1);

-- Keys of rows that a REPLACE may evict without firing a delete trigger.
create table tidewater_candidate (id integer primary key, tbl, k1);

-- Tracked tables: their description (JSON of model::Table) and what was learned of their mirrors.
create table tidewater_table (
  name text primary key,
  rank integer not null,             -- parents before children
  spec text not null,
  mirror text,                       -- JSON of remote::Mirror; null until first contact
  followed integer not null default 0, -- 1: the feed was followed for it from the start, without a gap
  heal integer not null default 0    -- 1: capture was bare; every key counts as dirty until compared
) without rowid;

-- Interned causal tokens, for snapshots are long and many entries share one.
create table tidewater_base (id integer primary key, token text not null unique);

-- Claimed changes on their way to the remote. id is the place in the queue.
create table tidewater_outbox (
  id integer primary key,
  change_key text not null,
  tbl text not null,
  pk text not null,                  -- canonical text of the key
  op text not null,                  -- upsert, delete
  payload text,                      -- the row as JSON; null for deletes and after the acknowledgement
  bytes integer not null,
  base integer not null,             -- tidewater_base
  known integer not null,            -- 0: this device has never known the row, so the change is an insert
  carried integer not null default 0,-- 1: taken over from a former identity
  status text not null,              -- pending, uploading, failed, synced
  batch integer,                     -- tidewater_batch.seq while uploading
  attempts integer not null default 0,
  next_attempt_at integer,           -- ms since 1970
  error_code text,
  sqlstate text,
  error text,
  remedy text,
  created_at integer not null,       -- ms, when it was claimed
  edited_at integer not null,        -- ms, when the app wrote
  synced_at integer
);
create index tidewater_outbox_key on tidewater_outbox (tbl, pk);
create index tidewater_outbox_status on tidewater_outbox (status, id);

-- The batch that was sent and is not confirmed. A sent batch is never recomposed.
create table tidewater_batch (
  seq integer primary key,
  batch_key text not null,
  prev_key text
);

-- Rows of the feed that were not installed, with the token from before their page.
create table tidewater_note (
  tbl text not null,
  pk text not null,
  base integer not null,
  primary key (tbl, pk)
) without rowid;

-- Downloaded rows: those that could not be applied, with the reason, and the history of applied ones.
create table tidewater_inbox (
  id integer primary key,
  tbl text not null,
  pk text not null,
  op text not null,
  change_key text,
  device text,
  status text not null,              -- failed, applied
  error text,
  payload text,
  at integer not null
);
create index tidewater_inbox_key on tidewater_inbox (tbl, pk);
create index tidewater_inbox_status on tidewater_inbox (status, at);

-- Conflicts that this device won or lost.
create table tidewater_conflict (
  id text primary key,
  tbl text not null,
  pk text not null,
  kind text not null,
  policy text not null,
  winner text not null,              -- local, remote
  local text,                        -- the row as JSON, null for a delete
  remote text,
  local_change text,
  remote_change text,
  local_at integer,
  remote_at integer,
  remote_device text,
  detected_at integer not null,
  seen integer not null default 0,
  original_file text
) without rowid;

-- Work asked of a running service by another process, and its answer.
create table tidewater_request (
  id integer primary key,
  asked_at integer not null,
  request text not null,             -- JSON
  answer text                        -- JSON, null until done
);
