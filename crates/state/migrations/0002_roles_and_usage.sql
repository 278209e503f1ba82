CREATE TABLE roles (id TEXT PRIMARY KEY, account TEXT NOT NULL, record TEXT NOT NULL);
-- What was used, an hour a row.
CREATE TABLE usage (id TEXT PRIMARY KEY, account TEXT NOT NULL, record TEXT NOT NULL);
