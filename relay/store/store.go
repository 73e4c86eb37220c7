// Package store keeps the relay's durable state: accounts, users, gateways,
// accepted devices, policies and the audit trail. It is the only package with
// SQL; relay/account, relay/auth and relay/audit say what the rows mean.
//
// Use Create once and Open afterwards, and Do for everything that changes
// something: what Do's function wrote is durable when Do returns nil, and gone
// when it does not. It holds no presence and no tunnel state, and it must never
// hold a password, key or token in clear.
//
// It is database/sql with our own few statements and migrations, not an ORM and
// a migration framework: there are nine tables, one engine and no dynamic query,
// and every row that decides about access can be read here in one place.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"keyrite/artifact/fault"
	"keyrite/artifact/world"
	"keyrite/internal/durable"
)

// File is the database's name within the state folder.
const File = "relay.db"

var (
	// ErrNotFound says that there is no such row.
	ErrNotFound = fault.New(fault.Policy, "not found")
	// ErrConflict says that a row with that name or key exists.
	ErrConflict = fault.New(fault.Exists, "exists already")
	// ErrForeign says that the database belongs to another world or vault.
	ErrForeign = fault.New(fault.Policy, "the relay's state belongs to another world or vault")
)

//go:embed migrations/*.sql
var migrations embed.FS

// schema is the number of the newest migration.
const schema = 1

// DB is the open store. It is safe for several goroutines, and the file for
// several processes.
type DB struct {
	sql   *sql.DB
	world world.World
	vault string
}

// conn is what queries run on: the pool or a transaction.
type conn interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Tx gives the queries. It is valid only inside the function it was given to.
type Tx struct {
	ctx context.Context //nolint:containedctx // lives exactly as long as the call of Do or Read
	c   conn
}

// Create makes the store in folder dir for one world and vault.
func Create(ctx context.Context, dir string, w world.World, vault string) error {
	path := filepath.Join(dir, File)
	if err := durable.WriteNew(path, nil, 0o600); err != nil {
		return err
	}
	d, err := open(ctx, path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Do(ctx, func(t *Tx) error {
		for k, v := range map[string]string{"world": string(w), "vault": vault} {
			if err := t.exec("INSERT INTO meta (key, value) VALUES (?, ?)", k, v); err != nil {
				return err
			}
		}
		return nil
	})
}

// Open opens the store in folder dir.
func Open(ctx context.Context, dir string) (*DB, error) {
	path := filepath.Join(dir, File)
	if _, err := os.Stat(path); err != nil {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "open the relay's state: %w", err), "make it with 'keyrite-relay admin init'")
	}
	d, err := open(ctx, path)
	if err != nil {
		return nil, err
	}
	err = d.Read(ctx, func(t *Tx) error {
		var w string
		for k, to := range map[string]*string{"world": &w, "vault": &d.vault} {
			if err := t.row("SELECT value FROM meta WHERE key = ?", k).Scan(to); err != nil {
				return wrap("read "+k, err)
			}
		}
		d.world = world.World(w)
		return d.world.Check()
	})
	if err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// World is the one world of the store.
func (d *DB) World() world.World { return d.world }

// CheckVault returns nil if the store belongs to this world and vault.
func (d *DB) CheckVault(w world.World, vault string) error {
	if err := world.Match(w, d.world); err != nil {
		return err
	}
	if d.vault != vault {
		return ErrForeign
	}
	return nil
}

func open(ctx context.Context, path string) (*DB, error) {
	// IMMEDIATE: a transaction that will write takes the lock when it begins,
	// so it cannot fail half way because another process was faster. FULL: in
	// WAL mode each commit is synced before Do returns.
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)", "trusted_schema(0)"}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, wrap("open", err)
	}
	db.SetMaxOpenConns(4)
	d := &DB{sql: db}
	if err := d.migrate(ctx); err != nil {
		_ = db.Close()
		return nil, err
	}
	return d, nil
}

func (d *DB) migrate(ctx context.Context) error {
	return d.Do(ctx, func(t *Tx) error {
		var have int
		if err := t.row("PRAGMA user_version").Scan(&have); err != nil {
			return wrap("read version", err)
		}
		if have > schema {
			return fault.Errorf(fault.Usage, "the relay's state is of schema %d, newer than this program's %d", have, schema)
		}
		for n := have + 1; n <= schema; n++ {
			text, err := migrations.ReadFile(fmt.Sprintf("migrations/%04d.sql", n))
			if err != nil {
				return fault.Errorf(fault.Unexpected, "migration %d: %w", n, err)
			}
			if err := t.exec(string(text)); err != nil {
				return err
			}
			if err := t.exec(fmt.Sprintf("PRAGMA user_version = %d", n)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Close closes the store.
func (d *DB) Close() error { return wrap("close", d.sql.Close()) }

// Do runs f in one transaction and commits it if f returns nil.
func (d *DB) Do(ctx context.Context, f func(*Tx) error) error {
	tx, err := d.sql.BeginTx(ctx, nil)
	if err != nil {
		return wrap("begin", err)
	}
	if err := f(&Tx{ctx, tx}); err != nil {
		_ = tx.Rollback()
		return err
	}
	return wrap("commit", tx.Commit())
}

// Read runs f, whose queries each see the newest committed state.
func (d *DB) Read(ctx context.Context, f func(*Tx) error) error { return f(&Tx{ctx, d.sql}) }

// Bump says that something was taken away or changed that open sessions and
// flows depend on.
func (t *Tx) Bump() error { return t.exec("UPDATE epoch SET n = n + 1") }

// Epoch counts the bumps.
func (t *Tx) Epoch() (int64, error) {
	var n int64
	err := t.row("SELECT n FROM epoch").Scan(&n)
	return n, wrap("read epoch", err)
}

func (t *Tx) exec(q string, args ...any) error {
	_, err := t.c.ExecContext(t.ctx, q, args...)
	return wrap("write", err)
}

// one runs a statement that must change exactly one row.
func (t *Tx) one(q string, args ...any) error {
	res, err := t.c.ExecContext(t.ctx, q, args...)
	if err != nil {
		return wrap("write", err)
	}
	n, err := res.RowsAffected()
	if err == nil && n != 1 {
		return ErrNotFound
	}
	return wrap("write", err)
}

func (t *Tx) row(q string, args ...any) *sql.Row { return t.c.QueryRowContext(t.ctx, q, args...) }

func list[T any](t *Tx, scan func(func(...any) error) (T, error), q string, args ...any) ([]T, error) {
	rows, err := t.c.QueryContext(t.ctx, q, args...)
	if err != nil {
		return nil, wrap("read", err)
	}
	defer rows.Close()
	out := []T{}
	for rows.Next() {
		v, err := scan(rows.Scan)
		if err != nil {
			return nil, wrap("read", err)
		}
		out = append(out, v)
	}
	return out, wrap("read", rows.Err())
}

// wrap gives an error of the engine its class.
func wrap(op string, err error) error {
	var e *sqlite.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return ErrNotFound
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("state: %s: %w", op, err)
	case !errors.As(err, &e):
		return fault.Errorf(fault.Storage, "state: %s: %w", op, err)
	}
	switch e.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return ErrConflict
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		return ErrNotFound
	case sqlite3.SQLITE_BUSY:
		return fault.Errorf(fault.Sealed, "state: %s: in use: %w", op, err)
	}
	return fault.Errorf(fault.Storage, "state: %s: %w", op, err)
}
