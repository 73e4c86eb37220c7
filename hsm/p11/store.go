package p11

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/internal/places"
)

// store is the folder in which SoftHSM keeps its tokens as files. SoftHSM
// cuts a token's token.object to 0 bytes and writes it anew at each login and
// change of PIN, without fsync: a kill or a full disk in between destroys the
// token. So a copy is made first and put back where the file is found cut.
//
//	TOKENDIR/UUID/token.object     PINs and flags; the serial is the end of UUID
//	TOKENDIR/.keyrite.lock         held around every login, and around whatever makes,
//	                               lists or destroys objects, by all of our processes
//	TOKENDIR/.keyrite-UUID.copy    token.object as it was, while a login is under way
//	TOKENDIR/.keyrite-HEX.pins     counter of wrong PINs, package pincount
type store struct {
	dir   string
	named bool     // by the variable, not found where SoftHSM looks without it
	lock  *os.File // nil unless held
	depth int      // how often it is held by its one user
}

const (
	tokenFile = "token.object"
	// minFree bytes must be free before a token file is touched: many times
	// what one login or one key writes.
	minFree = 1 << 20
)

// hold takes the lock of the whole store; release gives it back.
func (s *store) hold() error { return s.take(os.O_CREATE) }

// join is hold for a store that may turn out to be no business of the module: if
// nobody named it, nothing new is left in it.
func (s *store) join() error {
	if s == nil || s.named {
		return s.hold()
	}
	return s.take(0)
}

// another is the same store for a further session of this process. The lock belongs
// to an open file, so the sessions of one process exclude each other, too.
func (s *store) another() *store {
	if s == nil {
		return nil
	}
	return &store{dir: s.dir, named: s.named}
}

func (s *store) held() bool { return s != nil && s.depth > 0 }

func (s *store) take(create int) error {
	if s == nil {
		return nil
	}
	if s.depth > 0 {
		s.depth++
		return nil
	}
	f, err := os.OpenFile(filepath.Join(s.dir, places.StoreLock), create|os.O_RDWR, 0o600)
	if create == 0 && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return wrap("lock token store", s.dir, err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return wrap("lock token store", s.dir, err)
	}
	s.lock, s.depth = f, 1
	return nil
}

func (s *store) release() {
	if !s.held() {
		return
	}
	if s.depth--; s.depth == 0 {
		s.lock.Close()
		s.lock = nil
	}
}

// recover puts back what a killed login destroyed. The lock must be held.
func (s *store) recover() error {
	if s == nil {
		return nil
	}
	copies, err := filepath.Glob(filepath.Join(s.dir, ".keyrite-*.copy"))
	if err != nil {
		return wrap("recover token", s.dir, err)
	}
	for _, c := range copies {
		uuid := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(c), ".keyrite-"), ".copy")
		if err := s.settle(uuid); err != nil {
			return err
		}
	}
	return nil
}

// folder finds the folder of a token by its serial number.
func (s *store) folder(serial string) (string, error) {
	ds, err := os.ReadDir(s.dir)
	if err != nil {
		return "", wrap("find token folder", s.dir, err)
	}
	found := ""
	for _, d := range ds {
		flat := strings.ReplaceAll(d.Name(), "-", "")
		if !d.IsDir() || serial == "" || !strings.HasSuffix(flat, serial) {
			continue
		}
		if found != "" {
			return "", faultf("find token folder", frame.KindAmbiguous, "two folders of %s end in %s", s.dir, serial)
		}
		found = d.Name()
	}
	if found == "" {
		return "", faultf("find token folder", frame.KindNotFound, "no folder of %s ends in %s", s.dir, serial)
	}
	return found, nil
}

// guard calls f, which makes SoftHSM rewrite the token's file, with a copy of
// that file aside.
func (s *store) guard(serial string, f func() error) (err error) {
	if s == nil {
		return f()
	}
	if err := s.hold(); err != nil {
		return err
	}
	defer s.release()
	uuid, err := s.folder(serial)
	if err != nil {
		return err
	}
	// What another process left when it was killed in its login.
	if _, err := os.Lstat(s.copyPath(uuid)); err == nil {
		if err := s.settle(uuid); err != nil {
			return err
		}
	}
	if err := s.copyAside(uuid); err != nil {
		return err
	}
	// A refused login rewrites the file too, so both outcomes are settled.
	defer func() { err = errors.Join(err, s.settle(uuid)) }()
	return f()
}

func (s *store) copyPath(uuid string) string {
	return filepath.Join(s.dir, ".keyrite-"+uuid+".copy")
}

func (s *store) copyAside(uuid string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &fs); err != nil {
		return wrap("copy token file", s.dir, err)
	}
	if fs.Bavail*uint64(fs.Bsize) < minFree || (fs.Files > 0 && fs.Ffree < 8) {
		return faultf("copy token file", frame.KindStorage, "less than %d bytes free in %s", minFree, s.dir)
	}
	src, err := os.ReadFile(filepath.Join(s.dir, uuid, tokenFile))
	if err != nil {
		return wrap("copy token file", uuid, err)
	}
	defer clear(src)
	if _, good := parseObject(src); !good {
		return faultf("copy token file", frame.KindStorage, "%s of token %s is cut, and there is no copy of it", tokenFile, uuid)
	}
	return wrap("copy token file", uuid, s.writeSynced(s.copyPath(uuid), src))
}

func (s *store) writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = syncPath(filepath.Dir(path))
	}
	return err
}

// settle puts the copy back where the original was cut, else makes sure that the
// original is on disk, and destroys the copy: it opens with the PINs of its time
// for ever.
func (s *store) settle(uuid string) error {
	const op = "recover token"
	orig, cp := filepath.Join(s.dir, uuid, tokenFile), s.copyPath(uuid)
	now, err := os.ReadFile(orig)
	if errors.Is(err, os.ErrNotExist) {
		return faultf(op, frame.KindStorage, "%s is gone; its copy is %s", orig, cp)
	}
	if err != nil {
		return wrap(op, orig, err)
	}
	defer clear(now)
	b, err := os.ReadFile(cp)
	if err != nil {
		return wrap(op, cp, err)
	}
	defer clear(b)
	switch _, good := parseObject(b); {
	case wholeLike(now, b):
		// The copy may be cut itself, if making or destroying it was.
		err = syncPath(orig)
	case good:
		// In place: SoftHSM keeps the file open, and its lock is on the file.
		err = s.writeSynced(orig, b)
	default:
		return faultf(op, frame.KindStorage, "%s is cut, and so is its copy %s", orig, cp)
	}
	if err != nil {
		return wrap(op, orig, err)
	}
	clear(b)
	if err := overwrite(cp, len(b)); err != nil {
		return wrap(op, "overwrite "+cp, err)
	}
	if err := os.Remove(cp); err != nil {
		return wrap(op, cp, err)
	}
	return wrap(op, s.dir, syncPath(s.dir))
}

// overwrite writes zeros over the first n bytes. On a file system that moves
// data it is a best effort, and the threat model says so.
func overwrite(path string, n int) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, n))
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

func syncPath(p string) error {
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	err = f.Sync()
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// sync makes the token's files durable: C_CopyObject and C_GenerateKeyPair of
// SoftHSM answer before anything is on disk.
func (s *store) sync(serial string) error {
	if s == nil {
		return nil
	}
	uuid, err := s.folder(serial)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, uuid)
	ds, err := os.ReadDir(dir)
	if err != nil {
		return wrap("sync token", dir, err)
	}
	for _, d := range ds {
		if err := syncPath(filepath.Join(dir, d.Name())); err != nil {
			return wrap("sync token", d.Name(), err)
		}
	}
	if err := syncPath(dir); err != nil {
		return wrap("sync token", dir, err)
	}
	return wrap("sync token", s.dir, syncPath(s.dir))
}

// objectFiles names the object files of a token that are cut, which no PKCS#11
// call can see, and counts the others; token.object is no object.
func (s *store) objectFiles(serial string) (bad []string, whole int, err error) {
	if s == nil {
		return nil, 0, nil
	}
	uuid, err := s.folder(serial)
	if err != nil {
		return nil, 0, err
	}
	files, err := filepath.Glob(filepath.Join(s.dir, uuid, "*.object"))
	if err != nil {
		return nil, 0, wrap("read token files", uuid, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, 0, wrap("read token files", f, err)
		}
		if _, good := parseObject(b); !good {
			bad = append(bad, filepath.Base(f))
		} else if filepath.Base(f) != tokenFile {
			whole++
		}
		clear(b)
	}
	slices.Sort(bad)
	return bad, whole, nil
}

// alone calls f while no other process of ours reads or writes objects. SoftHSM
// loses attributes of an object, or the whole of it, when one process makes it
// while another lists; and what one has under its pen looks cut to the others, and
// would be swept.
func (s *store) alone(f func() error) error {
	if err := s.hold(); err != nil {
		return err
	}
	defer s.release()
	return f()
}

// making is alone for an f that makes objects, and wants their files to be whole
// afterwards: SoftHSM says OK for a write that was lost, and goes on from its cache.
func (s *store) making(serial string, f func() error) error {
	return s.alone(func() error {
		before, _, err := s.objectFiles(serial)
		if err != nil {
			return err
		}
		if err := f(); err != nil {
			return err
		}
		after, _, err := s.objectFiles(serial)
		if err != nil {
			return err
		}
		bad := slices.DeleteFunc(after, func(name string) bool { return slices.Contains(before, name) })
		if len(bad) > 0 {
			return faultf("make objects", frame.KindStorage, "the token said OK, and these of its files are cut: %s", strings.Join(bad, " "))
		}
		return nil
	})
}

// sweep removes the object files of 0 bytes that a killed C_CopyObject
// leaves, which no PKCS#11 call can see, and returns their names.
func (s *store) sweep(serial string) ([]string, error) {
	removed := []string{}
	if s == nil {
		return removed, nil
	}
	uuid, err := s.folder(serial)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, uuid)
	files, err := filepath.Glob(filepath.Join(dir, "*.object"))
	if err != nil {
		return nil, wrap("sweep token", dir, err)
	}
	for _, f := range files {
		st, err := os.Lstat(f)
		if err != nil {
			return nil, wrap("sweep token", f, err)
		}
		if filepath.Base(f) == tokenFile || !st.Mode().IsRegular() || st.Size() != 0 {
			continue
		}
		if err := os.Remove(f); err != nil {
			return nil, wrap("sweep token", f, err)
		}
		if err := os.Remove(strings.TrimSuffix(f, ".object") + ".lock"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, wrap("sweep token", f, err)
		}
		removed = append(removed, filepath.Base(f))
	}
	slices.Sort(removed)
	return removed, wrap("sweep token", dir, syncPath(dir))
}
