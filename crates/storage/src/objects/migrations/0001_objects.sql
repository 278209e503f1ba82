-- Buckets are unique per node, as S3's are unique per partition; each belongs to one account.
CREATE TABLE buckets (
    name       TEXT    NOT NULL PRIMARY KEY,
    account    TEXT    NOT NULL,
    region     TEXT    NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

-- `blobs` is a JSON list of [blob, bytes]: one for a plain object, one a part for a multipart one.
CREATE TABLE objects (
    bucket        TEXT    NOT NULL REFERENCES buckets (name),
    key           TEXT    NOT NULL,
    etag          TEXT    NOT NULL,
    size          INTEGER NOT NULL,
    modified_ms   INTEGER NOT NULL,
    storage_class TEXT    NOT NULL,
    attributes    TEXT    NOT NULL,
    blobs         TEXT    NOT NULL,
    PRIMARY KEY (bucket, key)
) STRICT;

CREATE TABLE uploads (
    id            TEXT    NOT NULL PRIMARY KEY,
    bucket        TEXT    NOT NULL REFERENCES buckets (name),
    key           TEXT    NOT NULL,
    storage_class TEXT    NOT NULL,
    attributes    TEXT    NOT NULL,
    created_ms    INTEGER NOT NULL
) STRICT;
CREATE INDEX uploads_by_key ON uploads (bucket, key, id);

CREATE TABLE parts (
    upload      TEXT    NOT NULL REFERENCES uploads (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    etag        TEXT    NOT NULL,
    size        INTEGER NOT NULL,
    modified_ms INTEGER NOT NULL,
    checksum    TEXT    NOT NULL,
    blob        TEXT    NOT NULL,
    PRIMARY KEY (upload, number)
) STRICT;
