package record

import (
	"bytes"
	"encoding/json"
	"strconv"

	"keyrite/artifact/jcs"
)

// parseEntry reads a line in the one shape that we write, without decoding JSON:
// members in order, data canonical, nothing escaped. False says only that the line
// has to be read in full; what is taken here, jcs.Unmarshal takes with the same
// values.
func parseEntry(line []byte) (*Entry, bool) {
	p := &pieces{rest: line, ok: true}
	p.skip(`{"data":`)
	if !p.ok {
		return nil, false
	}
	n, ok := jcs.Scan(p.rest)
	if !ok {
		return nil, false
	}
	// The entry outlives the line's buffer.
	e := &Entry{Data: json.RawMessage(bytes.Clone(p.rest[:n]))}
	p.rest = p.rest[n:]
	p.skip(`,"mono":`)
	e.Mono = p.number()
	p.skip(`,"prev":`)
	e.Prev = p.text()
	p.skip(`,"seq":`)
	e.Seq = p.number()
	p.skip(`,"step":`)
	e.Step = p.text()
	p.skip(`,"time":`)
	e.Time = p.text()
	p.skip(`,"type":`)
	e.Type = p.text()
	p.skip(`}`)
	return e, p.ok && len(p.rest) == 0
}

// pieces takes a line apart.
type pieces struct {
	rest []byte
	ok   bool
}

func (p *pieces) skip(want string) {
	if !p.ok || len(p.rest) < len(want) || string(p.rest[:len(want)]) != want {
		p.ok = false
		return
	}
	p.rest = p.rest[len(want):]
}

// scan takes one value that begins with one of those bytes.
func (p *pieces) scan(begins string) []byte {
	if !p.ok || len(p.rest) == 0 || bytes.IndexByte([]byte(begins), p.rest[0]) < 0 {
		p.ok = false
		return nil
	}
	n, ok := jcs.Scan(p.rest)
	if !ok {
		p.ok = false
		return nil
	}
	v := p.rest[:n]
	p.rest = p.rest[n:]
	return v
}

func (p *pieces) text() string {
	if v := p.scan(`"`); p.ok {
		return string(v[1 : len(v)-1])
	}
	return ""
}

func (p *pieces) number() int64 {
	v := p.scan("-0123456789")
	n, err := strconv.ParseInt(string(v), 10, 64)
	p.ok = p.ok && err == nil
	return n
}
