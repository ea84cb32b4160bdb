-- db.class, for SQLite and PostgreSQL alike. What is portable here, and why: docs/decisions/0102.
-- BIGINT is any number, BYTEA any bytes (SQLite gives such a column the affinity NUMERIC, which leaves bytes as they are), TEXT any text; nothing
-- has a default, and no identity is given out by the database.

CREATE TABLE batches (
  number BIGINT NOT NULL PRIMARY KEY,
  tenant BYTEA NOT NULL,
  boundary TEXT NOT NULL,
  first_seq BIGINT NOT NULL,
  last_seq BIGINT NOT NULL,
  da_root BYTEA NOT NULL UNIQUE,
  k BIGINT NOT NULL,
  n BIGINT NOT NULL,
  length BIGINT NOT NULL,
  receipts BIGINT NOT NULL,
  receipts_root BYTEA NOT NULL,
  root_cid TEXT NOT NULL,
  sealed_sha256 BYTEA NOT NULL,
  created_ms BIGINT NOT NULL,
  state TEXT NOT NULL,
  included BIGINT NOT NULL,
  attested_height BIGINT,
  final_height BIGINT,
  attestation BYTEA,
  inclusion BYTEA,
  UNIQUE (boundary, first_seq)
);
CREATE INDEX batches_by_state ON batches (state, number);

CREATE TABLE acknowledgements (
  da_root BYTEA NOT NULL REFERENCES batches (da_root),
  pinner BYTEA NOT NULL,
  bytes BYTEA NOT NULL,
  PRIMARY KEY (da_root, pinner)
);

-- The records of batch b are those of its boundary from first_seq to last_seq, so that an index on batch would be one too many.
CREATE TABLE cid_map (
  boundary TEXT NOT NULL,
  seq BIGINT NOT NULL,
  batch BIGINT NOT NULL,
  position BIGINT NOT NULL,
  cid TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  container_id TEXT NOT NULL,
  leaf BYTEA UNIQUE,
  PRIMARY KEY (boundary, seq)
);
CREATE INDEX cid_map_by_container ON cid_map (container_id);

CREATE TABLE sealed_headers (
  height BIGINT NOT NULL PRIMARY KEY,
  bytes BYTEA NOT NULL
);

CREATE TABLE inclusions (
  leaf BYTEA NOT NULL PRIMARY KEY,
  height BIGINT NOT NULL REFERENCES sealed_headers (height),
  bytes BYTEA NOT NULL
);

CREATE TABLE keyslots (
  da_root BYTEA NOT NULL REFERENCES batches (da_root),
  reader TEXT NOT NULL,
  wrapped BYTEA,
  revoked_ms BIGINT,
  PRIMARY KEY (da_root, reader)
);
CREATE INDEX keyslots_by_reader ON keyslots (reader);

CREATE TABLE sbom_signers (
  key_id TEXT NOT NULL PRIMARY KEY,
  public_key_pem TEXT NOT NULL,
  name TEXT NOT NULL,
  added_ms BIGINT NOT NULL,
  removed_ms BIGINT
);

CREATE TABLE cursors (
  boundary TEXT NOT NULL PRIMARY KEY,
  next_seq BIGINT NOT NULL,
  digest BYTEA NOT NULL
);

CREATE TABLE incidents (
  id BIGINT NOT NULL PRIMARY KEY,
  time_ms BIGINT NOT NULL,
  what TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  boundary TEXT NOT NULL,
  container_id TEXT NOT NULL,
  detail TEXT NOT NULL,
  previous BYTEA NOT NULL,
  digest BYTEA NOT NULL
);
