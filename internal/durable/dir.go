package durable

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CreateDir makes the folder path with what fill writes into it: whole, or not
// at all. fill gets a folder under a temporary name beside path; it is renamed
// when fill is done, and removed with everything in it when something fails. A
// path that exists, in any form, is an Error of class "exists".
func CreateDir(path string, fill func(dir string) error) error {
	path = filepath.Clean(path)
	if _, err := os.Lstat(path); err == nil {
		return wrap("create", path, fs.ErrExist)
	}
	var r [8]byte
	rand.Read(r[:])
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+hex.EncodeToString(r[:]))
	if err := os.Mkdir(temp, 0o755); err != nil { //nolint:gosec // outputs are public
		return wrap("create", path, err)
	}
	err := fill(temp)
	if err == nil {
		err = SyncDir(temp)
	}
	if err == nil {
		err = Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, wrap("remove", temp, os.RemoveAll(temp)))
	}
	return nil
}

// Rename gives a file or folder another name in the same folder. A name that is
// taken, in any form, is an Error of class "exists".
func Rename(from, to string) error {
	// Unlike rename(2), this never replaces an empty folder of that name.
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE); err != nil {
		return wrap("rename", to, err)
	}
	return SyncDir(filepath.Dir(to))
}
