-- One table for each kind of resource; `record` is JSON whose shape belongs to the room that owns the resource.
CREATE TABLE images     (id TEXT PRIMARY KEY, account TEXT NOT NULL, record TEXT NOT NULL);
CREATE TABLE versions   (id TEXT PRIMARY KEY, account TEXT NOT NULL, record TEXT NOT NULL);
CREATE TABLE microvms   (id TEXT PRIMARY KEY, account TEXT NOT NULL, record TEXT NOT NULL);
CREATE TABLE bases      (id TEXT PRIMARY KEY, account TEXT NOT NULL, record TEXT NOT NULL);
CREATE TABLE access_keys(id TEXT PRIMARY KEY, account TEXT NOT NULL, record TEXT NOT NULL);
CREATE TABLE settings   (id TEXT PRIMARY KEY, account TEXT NOT NULL, record TEXT NOT NULL);
