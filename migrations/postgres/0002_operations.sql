-- What shortens waits and tidies up. :"schema" is replaced by the quoted name. Runs once, like 0001.

-- Whoever listens is told that somebody else than a device wrote, once for each transaction: the server
-- drops what was told before in the same one. Transactions that tell take turns at their commit, which
-- would slow down many writers at once; so only one or two at a time tell, and the devices find what the
-- others wrote with it, with the next one, or at their polls. A transaction that told cannot be prepared
-- for a commit in two phases: where the server allows those nobody is told.

create or replace function :"schema".tidewater_stamp() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  new.tidewater_change := :"schema".tidewater_time10(clock_timestamp()) || :"schema".tidewater_tail16();
  if tg_op = 'UPDATE' and left(old.tidewater_change, 10) > left(new.tidewater_change, 10) then
    new.tidewater_change := left(old.tidewater_change, 10) || right(new.tidewater_change, 16);
  end if;
  new.tidewater_xid := pg_current_xact_id();
  new.tidewater_device := '0';
  if current_setting('max_prepared_transactions') = '0'
    and (pg_try_advisory_xact_lock(hashtextextended(tg_table_schema, 1))
      or pg_try_advisory_xact_lock(hashtextextended(tg_table_schema, 2)))
  then
    perform pg_notify('tidewater_' || to_hex(hashtextextended(tg_table_schema, 0)), '');
  end if;
  return new;
end
$$;

-- Deletes and changes of keys leave tombstones, whoever makes them.
create function :"schema".tidewater_buried() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if current_setting('max_prepared_transactions') = '0'
    and (pg_try_advisory_xact_lock(hashtextextended(tg_table_schema, 1))
      or pg_try_advisory_xact_lock(hashtextextended(tg_table_schema, 2)))
  then
    perform pg_notify('tidewater_' || to_hex(hashtextextended(tg_table_schema, 0)), '');
  end if;
  return null;
end
$$;
create trigger tidewater_buried after insert on :"schema".tidewater_tombstones
  for each statement execute function :"schema".tidewater_buried();
alter table :"schema".tidewater_tombstones enable always trigger tidewater_buried;

revoke all on function :"schema".tidewater_buried() from public;
-- What the ledger knows of each device besides its batches, and what the collection of old tombstones
-- needs. Additive: a program that knows 0001 alone goes on with this workspace.

-- login: the role that the device logs in with, told at its registration.
-- cursor: the snapshot up to which it has read, as it told last; null where it never told.
-- state: active, expired (unseen for longer than the tombstones are kept), retired, revoked.
alter table :"schema".tidewater_devices
  add column if not exists login text collate "C",
  add column if not exists cursor pg_snapshot,
  add column if not exists cursor_at timestamptz,
  add column if not exists state text collate "C" not null default 'active';

-- collected_at: when old tombstones were looked for last.
-- home: the cluster, database and table in which the transaction ids of the rows were handed out. After
-- a dump and reload it differs from where the workspace is, and the rows have to be stamped anew.
alter table :"schema".tidewater_workspace
  add column if not exists collected_at timestamptz,
  add column if not exists home text collate "C";

create index if not exists tidewater_tombstones_age
  on :"schema".tidewater_tombstones (left(tidewater_change, 10), tidewater_xid);

-- How the workspace's apps write the values of a column whose type knows one form only: the first form
-- to be offered stays. And the values that their column's form does not give back, as they were written;
-- one counts only while the column holds what was sent with it.
create table if not exists :"schema".tidewater_forms (
  table_id integer not null,
  col text collate "C" not null,
  form text not null,
  primary key (table_id, col)
);
create table if not exists :"schema".tidewater_originals (
  table_id integer not null,
  pk text collate "C" not null,
  col text collate "C" not null,
  sent text not null,
  original text not null,
  primary key (table_id, pk, col)
);

-- instances: the instance ids that this workspace had before it went back in time. By them a device knows
-- the workspace again, and that another device gave it its new id already.
alter table :"schema".tidewater_workspace
  add column if not exists instances text[] not null default '{}';
