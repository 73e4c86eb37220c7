package quorum

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/share"
	"keyrite/artifact/world"
)

// maxAnswerBytes bounds the child's answer.
const maxAnswerBytes = 1 << 20

// Config says which program is started as the child: the caller's own
// executable, whose main runs Child on ChildCommand.
type Config struct {
	Executable string
}

// Self is the Config of the running program.
func Self() (Config, error) {
	exe, err := os.Executable()
	if err != nil {
		return Config{}, fault.Errorf(fault.Unexpected, "find own program: %w", err)
	}
	return Config{exe}, nil
}

// process is a running child.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	err *bytes.Buffer
}

// files become the child's descriptors 3 to 6; nil ones are /dev/null.
type files struct{ passphrases, pins, keys, data *os.File }

// start runs the child with request r.
func (c Config) start(ctx context.Context, r *request, fs files) (*process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "open /dev/null: %w", err)
	}
	defer null.Close()
	or := func(f *os.File) *os.File {
		if f == nil {
			return null
		}
		return f
	}
	cmd := exec.CommandContext(ctx, c.Executable, ChildCommand)
	cmd.Env = []string{} // nothing of the environment reaches it
	cmd.ExtraFiles = []*os.File{or(fs.passphrases), or(fs.pins), or(fs.keys), or(fs.data)}
	p := &process{cmd: cmd, err: &bytes.Buffer{}}
	cmd.Stderr = p.err
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "start share process: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "start share process: %w", err)
	}
	p.in, p.out = in, bufio.NewReaderSize(io.LimitReader(out, maxAnswerBytes), maxAnswerBytes)
	if err := cmd.Start(); err != nil {
		return nil, fault.Errorf(fault.Unexpected, "start share process: %w", err)
	}
	if err := send(in, r); err != nil {
		p.end()
		return nil, fault.Errorf(fault.Unexpected, "talk to share process: %w", err)
	}
	return p, nil
}

func (p *process) answer() (*response, error) {
	line, err := p.out.ReadBytes('\n')
	var resp response
	if err == nil {
		err = json.Unmarshal(line, &resp)
	}
	if err != nil {
		p.end()
		return nil, fault.Errorf(fault.Unexpected, "share process ended without an answer: %s", bytes.TrimSpace(p.err.Bytes()))
	}
	if resp.Error != nil {
		p.end()
		return nil, resp.Error.err()
	}
	return &resp, nil
}

func (p *process) end() {
	_ = p.in.Close()
	_ = p.cmd.Wait()
}

// Dealing is a deal whose secret still exists in the child, until GivePINs or
// Abandon ends it.
type Dealing struct {
	Shares []charter.Share   // public halves, by index
	Files  map[string][]byte // NAME.share by holder
	p      *process
}

// DealParams says what is dealt.
type DealParams struct {
	Vault     string
	World     world.World
	Safe      charter.Safe
	Epoch     int // from 1
	Token     string
	HSMRandom []byte // 32 bytes
	Roster    []charter.Member
}

// Deal makes a safe's secret and deals it to its openers. The derived PINs will
// go to pins, the write end of a pipe whose read end goes to the supervisor.
func (c Config) Deal(ctx context.Context, d DealParams, pins *os.File) (*Dealing, error) {
	r := &request{Op: opDeal, Vault: d.Vault, World: d.World, HSMRandom: d.HSMRandom, Recipients: map[string]string{}}
	r.Epoch = charter.Epoch{Epoch: d.Epoch, Need: d.Safe.Openers.Need, Safe: d.Safe.Name}
	r.Epoch.Token.Label = d.Token
	for _, n := range d.Safe.Openers.Members {
		r.Epoch.Shares = append(r.Epoch.Shares, charter.Share{Holder: n})
	}
	for _, m := range d.Roster {
		r.Recipients[m.Person.Name] = m.Person.Recipient
	}
	p, err := c.start(ctx, r, files{pins: pins})
	if err != nil {
		return nil, err
	}
	resp, err := p.answer()
	if err != nil {
		return nil, err
	}
	return &Dealing{Shares: resp.Shares, Files: resp.Files, p: p}, nil
}

// GivePINs makes the child write the PINs and end. It is called after all
// receipts are in.
func (d *Dealing) GivePINs() error {
	if d.p == nil {
		return fault.New(fault.Unexpected, "the dealing has ended")
	}
	p := d.p
	d.p = nil
	if _, err := p.in.Write([]byte("go\n")); err != nil {
		p.end()
		return fault.Errorf(fault.Unexpected, "talk to share process: %w", err)
	}
	if _, err := p.answer(); err != nil {
		return err
	}
	p.end()
	return nil
}

// Abandon ends the child without PINs; the secret is gone.
func (d *Dealing) Abandon() {
	if d.p != nil {
		d.p.end()
		d.p = nil
	}
}

// base fills a request from the people in force and a safe's epoch.
func base(op string, st *charter.State, e charter.Epoch) *request {
	r := &request{Op: op, Vault: st.Vault, World: st.World, Epoch: e, People: map[string]*person.Person{}}
	for i := range st.People.Roster {
		r.People[st.People.Roster[i].Person.Name] = &st.People.Roster[i].Person
	}
	return r
}

// Receipt makes the receipt of one holder for the share file read back from its
// medium. The passphrase of a key file is the first line of passphrases.
func (c Config) Receipt(ctx context.Context, st *charter.State, e charter.Epoch, o Opener, passphrases *os.File) (*envelope.Envelope, error) {
	r := base(opReceipt, st, e)
	resp, err := c.once(ctx, r, []Opener{o}, files{passphrases: passphrases})
	if err != nil {
		return nil, err
	}
	return resp.Envelopes[0], nil
}

// OpenParams says what is opened, by whom and for what.
type OpenParams struct {
	State       *charter.State
	Safe        string
	Operation   string // hex SHA-256 of what will be done
	Nonce       []byte // 32 random bytes of this attempt
	SO          bool   // the SO PIN goes to pins too, for a change of PINs
	Openers     []Opener
	Passphrases *os.File // one line for each opener with a key file, in order
}

// Opened names those who opened, with their signed openings.
type Opened struct {
	Holders  []string
	Openings []*envelope.Envelope
}

// Open checks the openers' shares and sends the user PIN to pins, the write end
// of a pipe. Too few openers is class quorum, before any passphrase is read.
func (c Config) Open(ctx context.Context, p OpenParams, pins *os.File) (*Opened, error) {
	e, err := p.State.Epoch(p.Safe)
	if err != nil {
		return nil, err
	}
	if len(p.Openers) < e.Need {
		return nil, fault.Hint(fault.Errorf(fault.Quorum, "quorum not met: %d shares of safe %s, %d needed", len(p.Openers), p.Safe, e.Need),
			"give --opener KEYFILE:SHAREFILE once for each key master present")
	}
	return c.openOrCheck(ctx, opOpen, p, e, pins)
}

// Check checks shares without combining them.
func (c Config) Check(ctx context.Context, p OpenParams) (*Opened, error) {
	e, err := p.State.Epoch(p.Safe)
	if err != nil {
		return nil, err
	}
	return c.openOrCheck(ctx, opCheck, p, e, nil)
}

// Prove answers a challenge for one holder: the proof file, checked as its
// challenger will check it. The challenge must be one that may be answered now.
func (c Config) Prove(ctx context.Context, st *charter.State, ch *share.Challenge, o Opener, passphrases *os.File, now time.Time) ([]byte, error) {
	if err := ch.Check(st, now); err != nil {
		return nil, err
	}
	r := base(opProve, st, st.Epochs[ch.Safe])
	r.Challenge = ch
	resp, err := c.once(ctx, r, []Opener{o}, files{passphrases: passphrases})
	if err != nil {
		return nil, err
	}
	data, err := resp.Envelopes[0].Marshal()
	if err != nil {
		return nil, err
	}
	_, err = share.VerifyProof(data, st, now)
	return data, err
}

func (c Config) openOrCheck(ctx context.Context, op string, p OpenParams, e charter.Epoch, pins *os.File) (*Opened, error) {
	r := base(op, p.State, e)
	r.Operation, r.Nonce, r.SO = p.Operation, p.Nonce, p.SO
	resp, err := c.once(ctx, r, p.Openers, files{passphrases: p.Passphrases, pins: pins})
	if err != nil {
		return nil, err
	}
	for i, h := range resp.Holders {
		m, ok := p.State.People.Person(h)
		place, pub, err := share.PlaceOf(p.State, p.Safe, h)
		if !ok || err != nil {
			return nil, errors.Join(fault.New(fault.Verify, "share process named a stranger"), err)
		}
		if err := share.VerifyOpening(resp.Envelopes[i], place, pub, m.Person.PublicKey(), p.Operation, p.Nonce); err != nil {
			return nil, err
		}
	}
	return &Opened{resp.Holders, resp.Envelopes}, nil
}

// once runs the child for these openers and takes its one answer, with an
// envelope for each of them that is signed whole.
func (c Config) once(ctx context.Context, r *request, openers []Opener, fs files) (*response, error) {
	var err error
	if r.Openers, fs.keys, err = messages(openers); err != nil {
		return nil, err
	}
	if fs.keys != nil {
		defer fs.keys.Close()
	}
	p, err := c.start(ctx, r, fs)
	if err != nil {
		return nil, err
	}
	defer p.end()
	resp, err := p.answer()
	if err != nil {
		return nil, err
	}
	if len(resp.Holders) != len(openers) || len(resp.Envelopes) != len(openers) {
		return nil, fault.New(fault.Unexpected, "share process gave an incomplete answer")
	}
	for i, o := range openers {
		if err := o.complete(resp.Envelopes[i]); err != nil {
			return nil, err
		}
	}
	return resp, nil
}
