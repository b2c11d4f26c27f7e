-- What the writers committed, counted in the very transactions.

CREATE SCHEMA shop_ledger;
CREATE SEQUENCE shop_ledger.names;
CREATE TABLE shop_ledger.committed (
  writer integer NOT NULL,
  kind text NOT NULL,
  count bigint NOT NULL,
  last_commit_at timestamptz NOT NULL,
  PRIMARY KEY (writer, kind)
) WITH (fillfactor = 40);
COMMENT ON TABLE shop_ledger.committed IS 'Each writer has its own rows, so that writers never wait here';
