-- Portable SQL: text, bigint and blob only; no rowid, triggers or JSON functions.
CREATE TABLE log (
    seq BIGINT NOT NULL PRIMARY KEY,
    stream TEXT NOT NULL,
    stream_seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    body TEXT NOT NULL,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL,
    UNIQUE (stream, stream_seq)
);
-- One row: whoever holds it numbers the entries of a commit.
CREATE TABLE head (
    id BIGINT NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    shipped BIGINT NOT NULL
);
CREATE TABLE checkpoints (
    seq BIGINT NOT NULL PRIMARY KEY,
    log TEXT NOT NULL,
    hash TEXT NOT NULL,
    at BIGINT NOT NULL,
    signature TEXT NOT NULL
);
-- Sealed under a data key that is named in the value; bound to this table, the digest and this column.
CREATE TABLE payloads (
    digest TEXT NOT NULL PRIMARY KEY,
    body BLOB NOT NULL
);
CREATE TABLE data_keys (
    id TEXT NOT NULL PRIMARY KEY,
    wrapped BLOB NOT NULL
);
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
-- What is shown to people, and who holds the target. Everything here can be rebuilt from the log.
CREATE TABLE targets (
    uid TEXT NOT NULL PRIMARY KEY,
    address TEXT NOT NULL,
    condition TEXT NOT NULL,
    owner TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
