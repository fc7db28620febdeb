-- What shortens waits and tidies up. :"schema" is replaced by the quoted name. Runs once, like 0001.

-- Tells whoever listens that somebody else than a device wrote, once for each transaction: the server
-- drops what was told before in the same one. A transaction that told cannot be prepared for a commit in
-- two phases, so where the server allows those nobody is told, and the devices find out at their polls.
create function :"schema".tidewater_tell(workspace text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  if current_setting('max_prepared_transactions') = '0' then
    perform pg_notify('tidewater_' || to_hex(hashtextextended(workspace, 0)), '');
  end if;
end
$$;

create or replace function :"schema".tidewater_stamp() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  new.tidewater_change := :"schema".tidewater_time10(clock_timestamp()) || :"schema".tidewater_tail16();
  if tg_op = 'UPDATE' and left(old.tidewater_change, 10) > left(new.tidewater_change, 10) then
    new.tidewater_change := left(old.tidewater_change, 10) || right(new.tidewater_change, 16);
  end if;
  new.tidewater_xid := pg_current_xact_id();
  new.tidewater_device := '0';
  perform :"schema".tidewater_tell(tg_table_schema);
  return new;
end
$$;

-- Deletes and changes of keys leave tombstones, whoever makes them.
create function :"schema".tidewater_buried() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  perform :"schema".tidewater_tell(tg_table_schema);
  return null;
end
$$;
create trigger tidewater_buried after insert on :"schema".tidewater_tombstones
  for each statement execute function :"schema".tidewater_buried();
alter table :"schema".tidewater_tombstones enable always trigger tidewater_buried;

revoke all on function :"schema".tidewater_buried() from public;
