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
