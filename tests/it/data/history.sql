-- A browser's history: counts, origins and a search index that triggers keep, and settings of any type.
CREATE TABLE origins (id INTEGER PRIMARY KEY, prefix TEXT NOT NULL, host TEXT NOT NULL, frecency INTEGER NOT NULL, UNIQUE (prefix, host));
CREATE TABLE places (id INTEGER PRIMARY KEY, url LONGVARCHAR, title LONGVARCHAR, rev_host LONGVARCHAR, visit_count INTEGER DEFAULT 0, hidden INTEGER DEFAULT 0 NOT NULL, typed INTEGER DEFAULT 0 NOT NULL, frecency INTEGER DEFAULT -1 NOT NULL, last_visit_date INTEGER, guid TEXT, foreign_count INTEGER DEFAULT 0 NOT NULL, url_hash INTEGER DEFAULT 0 NOT NULL, description TEXT, origin_id INTEGER REFERENCES origins (id));
CREATE INDEX places_url_hash ON places (url_hash);
CREATE INDEX places_host ON places (rev_host);
CREATE INDEX places_frecency ON places (frecency DESC, last_visit_date DESC);
CREATE UNIQUE INDEX places_guid ON places (guid);
CREATE TABLE visits (id INTEGER PRIMARY KEY, from_visit INTEGER, place_id INTEGER REFERENCES places (id), visit_date INTEGER, visit_type INTEGER, session INTEGER, source INTEGER DEFAULT 0 NOT NULL);
CREATE INDEX visits_place ON visits (place_id, visit_date);
CREATE TABLE inputhistory (place_id INTEGER NOT NULL, input LONGVARCHAR NOT NULL, use_count REAL, PRIMARY KEY (place_id, input));
CREATE TABLE bookmarks (id INTEGER PRIMARY KEY, type INTEGER, fk INTEGER DEFAULT NULL REFERENCES places (id), parent INTEGER, position INTEGER, title LONGVARCHAR, date_added INTEGER, last_modified INTEGER, guid TEXT UNIQUE);
CREATE TABLE icons (id TEXT PRIMARY KEY, page_url TEXT COLLATE NOCASE, width INTEGER NOT NULL DEFAULT 0, data BLOB);
CREATE TABLE settings (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE VIEW recent AS SELECT p.title, p.url, v.visit_date FROM visits v JOIN places p ON p.id = v.place_id ORDER BY v.visit_date DESC;
CREATE VIRTUAL TABLE search USING fts5 (title, url, content = 'places', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2');
CREATE TRIGGER places_origin AFTER INSERT ON places FOR EACH ROW BEGIN
  INSERT OR IGNORE INTO origins (prefix, host, frecency)
    VALUES (substr(NEW.url, 1, instr(NEW.url, '://') + 2), substr(NEW.url, instr(NEW.url, '://') + 3), NEW.frecency);
  UPDATE places SET origin_id = (SELECT id FROM origins WHERE prefix || host = NEW.url) WHERE id = NEW.id;
END;
CREATE TRIGGER visits_in AFTER INSERT ON visits FOR EACH ROW BEGIN
  UPDATE places SET visit_count = visit_count + (NEW.visit_type NOT IN (0, 4, 7, 8, 9)),
    last_visit_date = max(ifnull(last_visit_date, 0), NEW.visit_date) WHERE id = NEW.place_id;
END;
CREATE TRIGGER visits_out AFTER DELETE ON visits FOR EACH ROW BEGIN
  UPDATE places SET visit_count = visit_count - (OLD.visit_type NOT IN (0, 4, 7, 8, 9)),
    last_visit_date = (SELECT visit_date FROM visits WHERE place_id = OLD.place_id ORDER BY visit_date DESC LIMIT 1)
    WHERE id = OLD.place_id;
END;
CREATE TRIGGER bookmarks_in AFTER INSERT ON bookmarks FOR EACH ROW BEGIN
  UPDATE places SET foreign_count = foreign_count + 1 WHERE id = NEW.fk;
END;
CREATE TRIGGER bookmarks_out AFTER DELETE ON bookmarks FOR EACH ROW BEGIN
  UPDATE places SET foreign_count = foreign_count - 1 WHERE id = OLD.fk;
END;
CREATE TRIGGER bookmarks_up AFTER UPDATE OF fk ON bookmarks FOR EACH ROW BEGIN
  UPDATE places SET foreign_count = foreign_count + 1 WHERE id = NEW.fk;
  UPDATE places SET foreign_count = foreign_count - 1 WHERE id = OLD.fk;
END;
CREATE TRIGGER places_out AFTER DELETE ON places FOR EACH ROW BEGIN
  DELETE FROM inputhistory WHERE place_id = OLD.id;
  DELETE FROM origins WHERE id = OLD.origin_id AND NOT EXISTS (SELECT 1 FROM places WHERE origin_id = OLD.origin_id);
END;
CREATE TRIGGER search_in AFTER INSERT ON places BEGIN
  INSERT INTO search (rowid, title, url) VALUES (NEW.id, NEW.title, NEW.url);
END;
CREATE TRIGGER search_out AFTER DELETE ON places BEGIN
  INSERT INTO search (search, rowid, title, url) VALUES ('delete', OLD.id, OLD.title, OLD.url);
END;
CREATE TRIGGER search_up AFTER UPDATE OF title, url ON places BEGIN
  INSERT INTO search (search, rowid, title, url) VALUES ('delete', OLD.id, OLD.title, OLD.url);
  INSERT INTO search (rowid, title, url) VALUES (NEW.id, NEW.title, NEW.url);
END;
