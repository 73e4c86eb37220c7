package paper

import (
	_ "embed"

	"keyrite/artifact/lines"
	"keyrite/artifact/signrequest"
)

//go:embed request.html
var requestHTML string

// MaxRequestBytes is the longest request that a sheet holds, as a code and as
// lines. A longer one goes as a file only.
const MaxRequestBytes = 2331 // ISO/IEC 18004, table 7: version 40, level M, bytes

// Request renders a request for a signature as a sheet that a person takes to the
// machine where he signs: what it says, its digest in words, and the file as a QR
// code and as lines. shown is what it says.
func Request(q *signrequest.Request, shown *signrequest.Shown) ([]byte, error) {
	file, err := q.Marshal()
	if err != nil {
		return nil, err
	}
	text, err := lines.Of(file)
	if err != nil {
		return nil, err
	}
	digest, _ := q.Digest()
	h := head{Title: "Request to " + q.Name, World: string(q.World), Footer: "request " + digest[:16]}
	return renderPage("request", page{h, struct {
		*signrequest.Request
		Shown  *signrequest.Shown
		Digest string
		QR     string
		Rows   []shareLine
	}{q, shown, digest, string(file), rowsOf(text)}}, requestHTML)
}
