-- Times are RFC 3339 UTC in whole seconds, hashes lower-case hex SHA-256.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

-- Counts changes that open sessions depend on; a running node polls it.
CREATE TABLE epoch (n INTEGER NOT NULL) STRICT;
INSERT INTO epoch VALUES (0);

CREATE TABLE account (
    id         TEXT PRIMARY KEY,
    policy_key BLOB NOT NULL,              -- DER SubjectPublicKeyInfo
    created    TEXT NOT NULL,
    disabled   INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE user (
    account  TEXT NOT NULL REFERENCES account(id),
    name     TEXT NOT NULL,
    password TEXT NOT NULL,                -- Argon2id, PHC string
    created  TEXT NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account, name)
) STRICT;

-- Client keys that logged in before; they have a try counter of their own.
CREATE TABLE known_key (
    account TEXT NOT NULL,
    user    TEXT NOT NULL,
    key     TEXT NOT NULL,
    PRIMARY KEY (account, user, key),
    FOREIGN KEY (account, user) REFERENCES user(account, name)
) STRICT;

CREATE TABLE login (
    token   TEXT PRIMARY KEY,              -- hash of the token
    account TEXT NOT NULL,
    user    TEXT NOT NULL,
    key     TEXT NOT NULL,                 -- thumbprint the token is bound to
    expires TEXT NOT NULL,
    FOREIGN KEY (account, user) REFERENCES user(account, name)
) STRICT;

-- A gateway belongs to one account: serial and spki are unique in the table.
CREATE TABLE gateway (
    account    TEXT NOT NULL REFERENCES account(id),
    id         TEXT NOT NULL,
    activation TEXT UNIQUE,                -- hash of the unused activation key
    expires    TEXT NOT NULL,              -- of the activation key
    serial     TEXT UNIQUE,
    spki       TEXT UNIQUE,
    enrolled   TEXT NOT NULL DEFAULT '',
    disabled   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account, id)
) STRICT;

CREATE TABLE acceptance (
    id       TEXT PRIMARY KEY,             -- hash of the production report
    data     BLOB NOT NULL,
    imported TEXT NOT NULL
) STRICT;

-- A device is accepted once in its life, whichever of its names one takes.
CREATE TABLE accepted (
    serial     TEXT PRIMARY KEY,
    spki       TEXT NOT NULL UNIQUE,
    cert       TEXT NOT NULL UNIQUE,
    bundle     TEXT NOT NULL,
    acceptance TEXT NOT NULL REFERENCES acceptance(id)
) STRICT;

CREATE TABLE policy (
    account TEXT NOT NULL REFERENCES account(id),
    version INTEGER NOT NULL,
    hash    TEXT NOT NULL,
    data    BLOB NOT NULL,
    PRIMARY KEY (account, version)
) STRICT;

-- The audit trail: canonical JSON lines and the hashes of their Merkle tree, in
-- the order of golang.org/x/mod/sumdb/tlog. Triggers keep the trail append-only
-- against our own mistakes; against others there are exported checkpoints.
CREATE TABLE audit (seq INTEGER PRIMARY KEY, account TEXT NOT NULL, line BLOB NOT NULL) STRICT;
CREATE TABLE audit_hash (idx INTEGER PRIMARY KEY, hash BLOB NOT NULL) STRICT;
CREATE TRIGGER audit_keep BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER audit_fix BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER hash_keep BEFORE DELETE ON audit_hash BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER hash_fix BEFORE UPDATE ON audit_hash BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
