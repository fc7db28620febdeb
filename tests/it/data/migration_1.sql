PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE items (id text primary key, body text, n integer);
INSERT INTO items VALUES('stood','before init',0);
INSERT INTO items VALUES('claimed','first',11);
INSERT INTO items VALUES('large','xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx',2);
INSERT INTO items VALUES('logged','not claimed',3);
CREATE TABLE pair (a text, b integer, v text, primary key (a, b));
INSERT INTO pair VALUES('p',7,'claimed');
INSERT INTO pair VALUES('q',8,'not claimed');
CREATE TABLE tidewater_state (
  name text primary key,
  value text
) without rowid;
INSERT INTO tidewater_state VALUES('device_id','01M873M878FTHD5HA06NYJNE8M');
INSERT INTO tidewater_state VALUES('device_name','old');
INSERT INTO tidewater_state VALUES('initialised_at','1795535020264');
INSERT INTO tidewater_state VALUES('migration','1');
INSERT INTO tidewater_state VALUES('problems','[{"code":"SYNC-001","message":"connecting to postgres://nobody@127.0.0.1:1/x: Connection refused (os error 111)","remedy":"check the network and the server; nothing is lost, it is tried again"}]');
INSERT INTO tidewater_state VALUES('pruned_at','1795535020477');
INSERT INTO tidewater_state VALUES('schema_version','26');
INSERT INTO tidewater_state VALUES('settings','TrackSettings { include: ["*"], exclude: [], privacy: {} }');
CREATE TABLE tidewater_guard (id integer primary key, v integer);
INSERT INTO tidewater_guard VALUES(1,0);
CREATE TABLE tidewater_log (id integer primary key, tbl, op, at, k1, k2);
INSERT INTO tidewater_log VALUES(1,'items','I',1795535020499,'logged',NULL);
INSERT INTO tidewater_log VALUES(2,'items','U',1795535020517,'claimed',NULL);
INSERT INTO tidewater_log VALUES(3,'pair','I',1795535020529,'q',8);
CREATE TABLE tidewater_candidate (id integer primary key, tbl, k1, k2);
CREATE TABLE tidewater_table (
  name text primary key,
  rank integer not null,             -- parents before children
  spec text not null,
  mirror text,                       -- JSON of remote::Mirror; null until first contact
  heal integer not null default 0    -- 1: capture was bare; every key counts as dirty until compared
) without rowid;
INSERT INTO tidewater_table VALUES('items',0,'{"name":"items","columns":[{"name":"id","declared":"TEXT","not_null":false,"has_default":false,"generated":false,"redacted":false},{"name":"body","declared":"TEXT","not_null":false,"has_default":false,"generated":false,"redacted":false},{"name":"n","declared":"INTEGER","not_null":false,"has_default":false,"generated":false,"redacted":false}],"key":["id"],"key_collations":["BINARY"],"without_rowid":false,"uniques":[],"foreign_keys":[],"has_app_triggers":false,"sql":"CREATE TABLE items (id text primary key, body text, n integer)","indexes":[],"privacy":"Full"}',NULL,0);
INSERT INTO tidewater_table VALUES('pair',1,'{"name":"pair","columns":[{"name":"a","declared":"TEXT","not_null":false,"has_default":false,"generated":false,"redacted":false},{"name":"b","declared":"INTEGER","not_null":false,"has_default":false,"generated":false,"redacted":false},{"name":"v","declared":"TEXT","not_null":false,"has_default":false,"generated":false,"redacted":false}],"key":["a","b"],"key_collations":["BINARY","BINARY"],"without_rowid":false,"uniques":[],"foreign_keys":[],"has_app_triggers":false,"sql":"CREATE TABLE pair (a text, b integer, v text, primary key (a, b))","indexes":[],"privacy":"Full"}',NULL,0);
CREATE TABLE tidewater_base (id integer primary key, token text not null unique);
INSERT INTO tidewater_base VALUES(1,'{"last":"1:1:","target":null,"pos":null}');
CREATE TABLE tidewater_outbox (
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
INSERT INTO tidewater_outbox VALUES(1,'0000000000CE5CTPPAYGKHKDF8','items','["stood"]','upsert','{"id":"stood","body":"before init","n":0}',41,1,0,0,'pending',NULL,0,NULL,NULL,NULL,NULL,NULL,1795535020437,0,NULL);
INSERT INTO tidewater_outbox VALUES(2,'01M873M8AB2V8QJ2NRPPJVMMYK','items','["claimed"]','upsert','{"id":"claimed","body":"first","n":1}',37,1,0,0,'pending',NULL,0,NULL,NULL,NULL,NULL,NULL,1795535020437,1795535020363,NULL);
INSERT INTO tidewater_outbox VALUES(3,'01M873M8ABGGJV19NVPGGHWT7V','items','["large"]','upsert','{"id":"large","body":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","n":2}',330,1,0,0,'failed',NULL,0,NULL,'SYNC-005',NULL,'the row takes 330 bytes, more than row_bytes_max (200)','shrink the row, or raise [upload] row_bytes_max and run `tidewater retry`',1795535020437,1795535020363,NULL);
INSERT INTO tidewater_outbox VALUES(4,'01M873M8BWAY1T8QB8M2ZTY8GW','pair','["p",7]','upsert','{"a":"p","b":7,"v":"claimed"}',29,1,0,0,'pending',NULL,0,NULL,NULL,NULL,NULL,NULL,1795535020437,1795535020412,NULL);
CREATE TABLE tidewater_batch (
  seq integer primary key,
  batch_key text not null,
  prev_key text
);
CREATE TABLE tidewater_note (
  tbl text not null,
  pk text not null,
  base integer not null,
  primary key (tbl, pk)
) without rowid;
INSERT INTO tidewater_note VALUES('items','["stuck"]',1);
CREATE TABLE tidewater_inbox (
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
INSERT INTO tidewater_inbox VALUES(1,'items','["stuck"]','upsert','01J00000000000000000000000','0','failed','NOT NULL constraint failed: items.body',NULL,1700000000000);
CREATE TABLE tidewater_conflict (
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
INSERT INTO tidewater_conflict VALUES('01J00000000000000000000001','items','["stood"]','update_update','last_write_wins','local','{"id":"stood"}','{"id":"stood","body":"theirs"}',NULL,NULL,NULL,NULL,NULL,1700000000000,0,NULL);
CREATE TABLE tidewater_request (
  id integer primary key,
  asked_at integer not null,
  request text not null,             -- JSON
  answer text                        -- JSON, null until done
);
CREATE INDEX tidewater_outbox_key on tidewater_outbox (tbl, pk);
CREATE INDEX tidewater_outbox_status on tidewater_outbox (status, id);
CREATE INDEX tidewater_inbox_key on tidewater_inbox (tbl, pk);
CREATE INDEX tidewater_inbox_status on tidewater_inbox (status, at);
CREATE TRIGGER "tidewater_ai_items" after insert on "items"
when (select v from tidewater_guard where id = 1) is not 1
begin
  insert into tidewater_log (tbl, op, at, k1) values ('items', 'I', cast((julianday('now') - 2440587.5) * 86400000 + 0.5 as integer), new."id");
end;
CREATE TRIGGER "tidewater_au_items" after update on "items"
when (select v from tidewater_guard where id = 1) is not 1
begin
  insert into tidewater_log (tbl, op, at, k1) select 'items', 'D', cast((julianday('now') - 2440587.5) * 86400000 + 0.5 as integer), old."id" where old."id" is not new."id" collate binary or typeof(old."id") <> typeof(new."id");
  insert into tidewater_log (tbl, op, at, k1) values ('items', 'U', cast((julianday('now') - 2440587.5) * 86400000 + 0.5 as integer), new."id");
end;
CREATE TRIGGER "tidewater_ad_items" after delete on "items"
when (select v from tidewater_guard where id = 1) is not 1
begin
  insert into tidewater_log (tbl, op, at, k1) values ('items', 'D', cast((julianday('now') - 2440587.5) * 86400000 + 0.5 as integer), old."id");
end;
CREATE TRIGGER "tidewater_ai_pair" after insert on "pair"
when (select v from tidewater_guard where id = 1) is not 1
begin
  insert into tidewater_log (tbl, op, at, k1, k2) values ('pair', 'I', cast((julianday('now') - 2440587.5) * 86400000 + 0.5 as integer), new."a", new."b");
end;
CREATE TRIGGER "tidewater_au_pair" after update on "pair"
when (select v from tidewater_guard where id = 1) is not 1
begin
  insert into tidewater_log (tbl, op, at, k1, k2) select 'pair', 'D', cast((julianday('now') - 2440587.5) * 86400000 + 0.5 as integer), old."a", old."b" where old."a" is not new."a" collate binary or typeof(old."a") <> typeof(new."a") or old."b" is not new."b" collate binary or typeof(old."b") <> typeof(new."b");
  insert into tidewater_log (tbl, op, at, k1, k2) values ('pair', 'U', cast((julianday('now') - 2440587.5) * 86400000 + 0.5 as integer), new."a", new."b");
end;
CREATE TRIGGER "tidewater_ad_pair" after delete on "pair"
when (select v from tidewater_guard where id = 1) is not 1
begin
  insert into tidewater_log (tbl, op, at, k1, k2) values ('pair', 'D', cast((julianday('now') - 2440587.5) * 86400000 + 0.5 as integer), old."a", old."b");
end;
COMMIT;
