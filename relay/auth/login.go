package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"time"

	"keyrite/artifact/fault"
	"keyrite/relay/audit"
	"keyrite/relay/store"
)

// LoginLifetime is how long a login token is good.
const LoginLifetime = 12 * time.Hour

// ErrLogin is the one answer to every failed login.
var ErrLogin = fault.New(fault.Token, "login refused: account, user or password is wrong")

// ErrToken is the one answer to every login token that is not good.
var ErrToken = fault.New(fault.Token, "not logged in, or the login has ended")

// Logins logs users in.
type Logins struct {
	DB      *store.DB
	Trail   *audit.Trail
	Hasher  *Hasher
	Limiter *Limiter
	Now     func() time.Time
}

// Attempt is one try to log in.
type Attempt struct {
	Account, User string
	Password      []byte
	Key           string // client key's thumbprint
	Source        string // network address
}

// Login checks an attempt and returns a token with its expiry. Unknown, wrong
// and disabled are one answer after the same work.
func (l *Logins) Login(ctx context.Context, a Attempt) (token, expires string, err error) {
	var u store.User
	var known bool
	err = l.DB.Read(ctx, func(tx *store.Tx) error {
		if u, err = tx.User(a.Account, a.User); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		known, err = tx.KnownKey(a.Account, a.User, a.Key)
		return err
	})
	if err != nil {
		return "", "", err
	}
	counters := []Counter{UserCounter(a.Account, a.User, a.Key, known)}
	if !known {
		// A key that logged in before is not locked out by who shares its address.
		counters = append(counters, SourceCounter(a.Source))
	}
	if err := l.Limiter.Begin(counters...); err != nil {
		return "", "", l.refused(ctx, a, err)
	}
	good, err := l.Hasher.Check(ctx, u.Password, a.Password)
	if err != nil {
		return "", "", err
	}
	if !good || u.Disabled {
		return "", "", l.refused(ctx, a, ErrLogin)
	}
	l.Limiter.Forgive(counters...)
	return l.begin(ctx, a)
}

func entry(a Attempt) audit.Entry {
	return audit.Entry{Account: a.Account, Action: "login", Actor: "user " + a.User, Object: "key " + a.Key, Source: a.Source}
}

func (l *Logins) refused(ctx context.Context, a Attempt, why error) error {
	e := entry(a)
	e.Result, e.Class = audit.Refused, string(fault.ClassOf(why))
	if errors.Is(why, ErrTries) && !l.Limiter.FirstOf("login", a.Source) {
		return why
	}
	if err := l.Trail.Note(ctx, e); err != nil {
		return err
	}
	return why
}

func (l *Logins) begin(ctx context.Context, a Attempt) (token, expires string, err error) {
	var r [32]byte
	rand.Read(r[:])
	token = base64.RawURLEncoding.EncodeToString(r[:])
	now := l.Now()
	expires = audit.Stamp(now.Add(LoginLifetime))
	err = l.DB.Do(ctx, func(tx *store.Tx) error {
		e := entry(a)
		e.Result = audit.Done
		if err := l.Trail.Add(tx, e); err != nil {
			return err
		}
		return tx.AddLogin(store.Login{Token: hashToken(token), Account: a.Account, User: a.User, Key: a.Key, Expires: expires}, audit.Stamp(now))
	})
	return token, expires, err
}

func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// Session is a login in force.
type Session struct {
	Account, User, Key string
	ID                 string // first 32 digits of the token's hash
	hash               string
}

// Session returns the login of a token presented with the client key key.
func (l *Logins) Session(ctx context.Context, token, key string) (*Session, error) {
	var row store.Login
	err := l.DB.Read(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.Login(hashToken(token))
		return err
	})
	return l.session(row, key, err)
}

// Still returns nil if the login whose ID a ticket names is in force.
func (l *Logins) Still(ctx context.Context, id, key string) error {
	var row store.Login
	err := l.DB.Read(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.LoginByID(id)
		return err
	})
	_, err = l.session(row, key, err)
	return err
}

func (l *Logins) session(row store.Login, key string, err error) (*Session, error) {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, ErrToken
	case err != nil:
		return nil, err
	case subtle.ConstantTimeCompare([]byte(row.Key), []byte(key)) != 1, row.Expires <= audit.Stamp(l.Now()):
		return nil, ErrToken
	}
	return &Session{Account: row.Account, User: row.User, Key: row.Key, ID: row.Token[:32], hash: row.Token}, nil
}

// Logout ends a login.
func (l *Logins) Logout(ctx context.Context, s *Session, source string) error {
	return l.DB.Do(ctx, func(tx *store.Tx) error {
		if err := tx.RemoveLogin(s.hash); err != nil {
			return err
		}
		if err := tx.Bump(); err != nil {
			return err
		}
		return l.Trail.Add(tx, audit.Entry{Account: s.Account, Action: "logout", Actor: "user " + s.User, Result: audit.Done, Source: source})
	})
}
