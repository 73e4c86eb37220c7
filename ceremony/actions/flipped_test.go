package actions

import (
	"bytes"
	"io/fs"
	"os"
)

// flipped is a folder of which one file has one byte changed, or other content.
type flipped struct {
	dir, name string
	at        int
	data      []byte // instead of a flip
}

func (f *flipped) content() ([]byte, error) {
	if f.data != nil {
		return f.data, nil
	}
	data, err := fs.ReadFile(os.DirFS(f.dir), f.name)
	if err == nil {
		data[f.at] ^= 0x01
	}
	return data, err
}

func (f *flipped) Open(name string) (fs.File, error) {
	file, err := os.DirFS(f.dir).Open(name)
	if err != nil || name != f.name {
		return file, err
	}
	data, err := f.content()
	if err != nil {
		return nil, err
	}
	return &flippedFile{file, bytes.NewReader(data), int64(len(data))}, nil
}

type flippedFile struct {
	fs.File
	r    *bytes.Reader
	size int64
}

func (f *flippedFile) Read(p []byte) (int, error) { return f.r.Read(p) }

func (f *flippedFile) Stat() (fs.FileInfo, error) {
	info, err := f.File.Stat()
	return &flippedInfo{info, f.size}, err
}

type flippedInfo struct {
	fs.FileInfo
	size int64
}

func (i *flippedInfo) Size() int64 { return i.size }
