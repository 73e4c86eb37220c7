package station

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/report"
)

// storeName is the ledger within the state folder.
const storeName = "station.db"

// The buckets of the ledger.
var (
	bucketMeta    = []byte("meta")    // settings, anchors, charter, time floor
	bucketBundles = []byte("bundles") // sequence (8 bytes) → imported
	bucketUnits   = []byte("units")   // device serial → Unit
	bucketChips   = []byte("chips")   // chip id → device serial of its last unit
	bucketKeys    = []byte("keys")    // SPKI hash → device serial; no key serves twice
	bucketEvents  = []byte("events")  // number (8 bytes) → event
)

// Stage is how far a unit has come.
type Stage string

// The stages. From Issued on a certificate exists.
const (
	Reserved  Stage = "RESERVED"
	Intent    Stage = "INTENT"
	Issued    Stage = "ISSUED"
	Confirmed Stage = Stage(report.Confirmed)
	Scrapped  Stage = Stage(report.Scrapped)
)

// Unit is one serial and what became of it.
type Unit struct {
	report.Unit
	Bundle string `json:"bundle"` // id
	Seq    int    `json:"seq"`    // of the bundle
	Stage  Stage  `json:"stage"`
	Order  uint64 `json:"order"` // number of the event that ended it
	SPKI   []byte `json:"spki"`
	TBS    []byte `json:"tbs"` // what was, or is to be, signed
}

// imported is a bundle with its place in the station.
type imported struct {
	BundleHash string `json:"bundle_hash"` // of its payload
	Closed     []byte `json:"closed"`      // the report file; empty while it is open
	File       []byte `json:"file"`
	Report     string `json:"report"`               // hash of the report's payload
	Succession []byte `json:"succession,omitempty"` // the statement in force when it was imported
}

// event is one line of the chain: after it, the named record has that hash.
type event struct {
	At   string `json:"at"`
	Hash string `json:"hash"` // hex SHA-256 of the record's bytes
	Kind string `json:"kind"` // bucket, in the singular
	Name string `json:"name"`
	Prev string `json:"prev"` // hex SHA-256 of the event before; 64 zeros for the first
}

// store is the ledger. One process has it open at a time.
type store struct {
	at   string // time of the last event, "" before the first
	db   *bolt.DB
	now  func() time.Time
	head string // hash of the last event
	last uint64 // its number
}

// openStore opens an existing ledger and checks it whole, or makes a new one.
func openStore(dir string, create bool, now func() time.Time) (*store, error) {
	path := filepath.Join(dir, storeName)
	_, err := os.Lstat(path)
	switch {
	case err == nil && create:
		return nil, fault.Errorf(fault.Exists, "%s: there is a station already", path)
	case errors.Is(err, os.ErrNotExist) && !create:
		return nil, fault.Hint(fault.Errorf(fault.Usage, "%s: there is no station", path), "set it up first: keyrite-station setup")
	}
	// One second is enough for a command that is just ending.
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fault.Hint(fault.Errorf(fault.Sealed, "open station: in use by another process"), "keyrite-station serve holds it; stop that first")
	}
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "open station: %w", err)
	}
	s := &store{db: db, now: now, head: strings.Repeat("0", 64)}
	err = s.update(func(tx *bolt.Tx) error {
		for _, b := range [][]byte{bucketMeta, bucketBundles, bucketUnits, bucketChips, bucketKeys, bucketEvents} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func (s *store) close() error {
	if err := s.db.Close(); err != nil {
		return fault.Errorf(fault.Storage, "close station: %w", err)
	}
	return nil
}

// update runs f in one transaction, which is on disk when it returns.
func (s *store) update(f func(*bolt.Tx) error) error {
	head, last, at := s.head, s.last, s.at
	err := s.db.Update(f)
	if err != nil {
		s.head, s.last, s.at = head, last, at // the events of f were not written
	}
	return storage(err)
}

func (s *store) view(f func(*bolt.Tx) error) error { return storage(s.db.View(f)) }

// storage gives errors of bbolt the class storage and leaves ours alone.
func storage(err error) error {
	if err == nil || fault.ClassOf(err) != fault.Unexpected {
		return err
	}
	return fault.Errorf(fault.Storage, "station ledger: %w", err)
}

// put writes a record and the event that vouches for it.
func (s *store) put(tx *bolt.Tx, bucket, key []byte, v any) error {
	kind, name := kindOf(bucket), nameOf(bucket, key)
	data, err := jcs.Marshal(v)
	if err != nil {
		return err
	}
	if err := tx.Bucket(bucket).Put(key, data); err != nil {
		return err
	}
	at := charter.FormatTime(s.now())
	e, err := jcs.Marshal(event{At: at, Hash: hashOf(data), Kind: kind, Name: name, Prev: s.head})
	if err != nil {
		return err
	}
	s.last++
	s.head, s.at = hashOf(e), at
	return tx.Bucket(bucketEvents).Put(number(s.last), e)
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// ErrLedger says that the ledger is not what the station wrote.
var ErrLedger = fault.New(fault.Verify, "the station's ledger is altered")

// check walks the chain and compares every record with its last event. It finds
// rot and edits; a whole older copy put back it cannot find.
func (s *store) check() error {
	return s.view(func(tx *bolt.Tx) error {
		want := map[string]string{}
		err := tx.Bucket(bucketEvents).ForEach(func(k, data []byte) error {
			var e event
			if err := jcs.Unmarshal(data, &e); err != nil {
				return err
			}
			s.last++
			if !bytes.Equal(k, number(s.last)) || e.Prev != s.head {
				return fault.Errorf(fault.Verify, "%w: event %d", ErrLedger, s.last)
			}
			s.head, s.at = hashOf(data), e.At
			want[e.Kind+"/"+e.Name] = e.Hash
			return nil
		})
		if err != nil {
			return err
		}
		for _, bucket := range [][]byte{bucketMeta, bucketBundles, bucketUnits, bucketChips, bucketKeys} {
			err := tx.Bucket(bucket).ForEach(func(k, v []byte) error {
				name := kindOf(bucket) + "/" + nameOf(bucket, k)
				if want[name] != hashOf(v) {
					return fault.Errorf(fault.Verify, "%w: %s", ErrLedger, name)
				}
				delete(want, name)
				return nil
			})
			if err != nil {
				return err
			}
		}
		for name := range want {
			return fault.Errorf(fault.Verify, "%w: %s is missing", ErrLedger, name)
		}
		return nil
	})
}

// kindOf is the kind of a bucket's records in events.
func kindOf(bucket []byte) string { return strings.TrimSuffix(string(bucket), "s") }

// nameOf is the name of a record in events: its key, as text.
func nameOf(bucket, key []byte) string {
	if bytes.Equal(bucket, bucketBundles) {
		return hex.EncodeToString(key)
	}
	return string(key)
}

func get[T any](tx *bolt.Tx, bucket, key []byte) (*T, error) {
	data := tx.Bucket(bucket).Get(key)
	if data == nil {
		return nil, nil
	}
	var v T
	if err := jcs.Unmarshal(data, &v); err != nil {
		return nil, err
	}
	return &v, nil
}
