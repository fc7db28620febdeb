-- What people operate the device by: the journal, and what privacy has to remember of single rows.

-- The journal: what happened to a row or to the device, for `explain`. Names, codes and counts only,
-- never row values. Pruned with the retention.
create table tidewater_event (
  id integer primary key,
  at integer not null,               -- ms since 1970
  tbl text,                          -- null: it concerns the device
  pk text,                           -- canonical text of the key
  kind text not null,
  change_key text,
  detail text                        -- JSON
);
create index tidewater_event_key on tidewater_event (tbl, pk);
create index tidewater_event_at on tidewater_event (at);

-- Keys of tables with a privacy_column whose rows were never sent: their deletes are dropped here.
create table tidewater_private (
  tbl text not null,
  pk text not null,
  primary key (tbl, pk)
) without rowid;

-- Rows whose redact columns this device does not send: they arrived without that content, or (held = 1)
-- another device raised the level of content that only this device's own app may let out.
create table tidewater_redacted (
  tbl text not null,
  pk text not null,
  held integer not null default 0,
  primary key (tbl, pk)
) without rowid;

-- Keys as the view tidewater_status shows them (sqlite/status_view.rs makes it, with its indexes, for the
-- tables that are tracked): k as it is, ki for keys that are integers, so that a join can search them.
alter table tidewater_outbox add column k;
alter table tidewater_outbox add column ki integer;
-- What an acknowledgement said beyond having it: same; null for the rest.
alter table tidewater_outbox add column outcome text;
alter table tidewater_inbox add column k;
alter table tidewater_inbox add column ki integer;
alter table tidewater_note add column k;
alter table tidewater_note add column ki integer;
alter table tidewater_conflict add column k;
alter table tidewater_conflict add column ki integer;
-- 1: this delete takes a row back that became LOCAL_ONLY; what conflicts keep of it goes too.
alter table tidewater_outbox add column erase integer not null default 0;
-- Parked entries by their change key: a schema change may park those of a whole table (sqlite/brake.rs).
create index tidewater_outbox_failed on tidewater_outbox (change_key) where status = 'failed';
