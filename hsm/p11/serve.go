package p11

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/confine"
	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
	"keyrite/internal/secmem"
)

// Descriptors that the supervisor hands to a module process.
const (
	DataFD = 3 // Request and Response, or one Result
	JobFD  = 4 // Job and PINs
	// VerdictFD takes frame.Verdict bytes; only a process that opens a token has it.
	VerdictFD = 5
)

// Main is the whole module process. It returns nil when its data socket
// closes; what goes wrong before is told on that socket, not here.
func Main() error {
	runtime.LockOSThread() // some modules keep state per thread
	data, jobs := os.NewFile(DataFD, "data"), os.NewFile(JobFD, "job")
	if data == nil || jobs == nil {
		return errors.New("keyrite-hsmd module: started by hand; it is started by its supervisor")
	}
	for _, fd := range []int{DataFD, JobFD, VerdictFD} {
		syscall.CloseOnExec(fd) // none of them is for a program that a module starts
	}
	var job frame.Job
	if err := frame.Read(jobs, &job); err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	// Before the first secret, and after it is known whom to tell.
	err := secmem.Harden()
	if err == nil {
		err = confine.Filter(confine.Rules{Unix: job.Unix, TCP: job.TCP})
	}
	if err != nil {
		return report(data, job, err)
	}
	pins, err := frame.ReadPINs(jobs, frame.SOPIN, frame.UserPIN, frame.NextSOPIN, frame.NextUserPIN)
	if err != nil {
		return report(data, job, err)
	}
	jobs.Close()
	defer pins.Wipe()
	m, st, err := start(job)
	if err != nil {
		return report(data, job, err)
	}
	if job.Purpose != frame.ForOpen {
		res, err := m.once(job, st, pins)
		if err != nil {
			return report(data, job, err)
		}
		return errors.Join(frame.Write(data, res), m.ctx.Finalize())
	}
	s, err := m.login(job, st, pins)
	if err != nil {
		return report(data, job, err)
	}
	// One more than sessions: while none is idle, the scheduler of Go takes the processor
	// of each call into the module that lasts, and the call must win it back. Still more
	// would only wake each other up.
	runtime.GOMAXPROCS(max(job.Sessions, 1) + 1)
	pool, err := newPool(s, max(job.Sessions, 1))
	if err != nil {
		return report(data, job, err)
	}
	hello, err := json.Marshal(frame.Hello{Version: frame.Version, Module: m.info, Token: s.token})
	if err != nil {
		return err
	}
	say(frame.VerdictOpen)
	if err := frame.Write(data, frame.Response{Body: hello}); err != nil {
		return err
	}
	if err = pool.serve(data); errors.Is(err, errSpoiled) || clientGone(err) {
		err = nil
	}
	if pool.lost() {
		say(frame.VerdictLost)
	}
	// Logging out and finalising is courtesy to the token; the end of the
	// process does the same.
	return errors.Join(err, s.ctx.Logout(s.h), s.ctx.Finalize())
}

// say tells the supervisor what became of the token, before the client hears of
// it. If the supervisor is gone, so is this process in a moment.
func say(v frame.Verdict) {
	_, _ = syscall.Write(VerdictFD, []byte{byte(v)})
}

// report tells the other end why there will be no session.
func report(w io.Writer, job frame.Job, err error) error {
	f := asFault(string(job.Purpose), "start", err)
	if job.Purpose != frame.ForOpen {
		return frame.Write(w, frame.Result{Fault: f})
	}
	v := frame.VerdictRefused
	if f.Kind == frame.KindLost {
		v = frame.VerdictLost
	}
	say(v)
	return frame.Write(w, frame.Response{Fault: f})
}

// start loads the module while no other process of ours is logging in: SoftHSM
// fails to start now and then beside one that is. What a killed login destroyed is
// put back before the module looks at it.
func start(job frame.Job) (*module, *store, error) {
	m, err := loadModule(job)
	if err != nil {
		return nil, nil, err
	}
	st, missing := findStore()
	if err := st.join(); err != nil {
		st, missing = nil, err
	}
	defer st.release()
	if st.held() {
		if err := st.recover(); err != nil {
			st, missing = nil, err
		}
	}
	if err := m.initialize(job.ModuleArgs); err != nil {
		return nil, nil, err
	}
	st, err = confirm(st, missing, m.info)
	m.job, m.store = job, st
	m.info.Hardening = confine.Report(job.Landlock)
	m.info.Hardening.Sockets = job.Sockets
	return m, st, err
}

// login finds the token and logs in, alone: while another process does, SoftHSM
// shows the token's file cut.
func (m *module) login(job frame.Job, st *store, pins frame.PINs) (s *session, err error) {
	err = st.alone(func() error {
		s, err = m.loginAlone(job, st, pins)
		return err
	})
	return s, err
}

func (m *module) loginAlone(job frame.Job, st *store, pins frame.PINs) (*session, error) {
	slot, err := m.find(job.Token)
	if err != nil {
		return nil, err
	}
	s, err := m.openSession(slot, st)
	if err != nil {
		return nil, err
	}
	s.pin, s.cut = pins[frame.UserPIN], job.CutCurrent
	if err := s.login(pkcs11.CKU_USER, s.pin, s.cut); err != nil {
		return nil, err
	}
	return s, nil
}

// answer runs one request. A panic of the binding is answered and then ends
// the process, since the state of the session is unknown.
func (s *session) answer(q *frame.Request) (a *frame.Response, fatal error) {
	a = &frame.Response{ID: q.ID}
	defer func() {
		if p := recover(); p != nil {
			a = &frame.Response{ID: q.ID, Fault: faultf(string(q.Op), frame.KindLost, "the module's binding failed; the outcome is unknown")}
			fatal = errors.New("keyrite-hsmd: panic in a request")
		}
	}()
	body, err := s.do(q, a)
	if err == nil && body != nil {
		a.Body, err = json.Marshal(body)
	}
	clear(q.Input) // it may be what was to be encrypted
	if err != nil {
		clear(a.Data)
		a.Data, a.Body, a.Fault = nil, nil, asFault(string(q.Op), "request", err)
		s.spoiled = s.spoiled || a.Fault.Code == pkcs11.CKR_OPERATION_ACTIVE
		s.lost = s.lost || s.spoiled || a.Fault.Kind == frame.KindLost
	}
	if s.spoiled {
		fatal = errSpoiled
	}
	return a, fatal
}

// clientGone says that the client closed its end, which it may do with requests
// under way: the session ends in good order.
func clientGone(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// errSpoiled ends a session in good order: the client hears the answer, and that
// the session is over.
var errSpoiled = errors.New("an operation was begun and not ended")

// manyObjects says that a request makes, lists or destroys objects.
func manyObjects(op frame.Op) bool {
	switch op {
	case frame.OpGenerate, frame.OpCopy, frame.OpRead, frame.OpLook, frame.OpObjects, frame.OpCertificates, frame.OpDestroy, frame.OpAdmit, frame.OpReceive, frame.OpRemove, frame.OpHealth:
		return true
	}
	return false
}

func (s *session) do(q *frame.Request, a *frame.Response) (body any, err error) {
	if !manyObjects(q.Op) {
		return s.doOne(q, a)
	}
	err = s.store.alone(func() error {
		body, err = s.doOne(q, a)
		return err
	})
	return body, err
}

func (s *session) doOne(q *frame.Request, a *frame.Response) (any, error) {
	id := func() (keyspec.KeyID, error) {
		if q.Key == nil {
			return keyspec.KeyID{}, faultf(string(q.Op), frame.KindUsage, "no key id")
		}
		return *q.Key, nil
	}
	switch q.Op {
	case frame.OpRandom:
		return nil, s.random(q, a)
	case frame.OpGenerate:
		return decoded(q.Body, s.generate)
	case frame.OpCopy:
		k, err := id()
		if err != nil {
			return nil, err
		}
		return s.copyToToken(k)
	case frame.OpRead:
		k, err := id()
		if err != nil {
			return nil, err
		}
		found, err := s.lookup(k)
		if err != nil {
			return nil, err
		}
		return s.state(found)
	case frame.OpSign:
		k, err := id()
		if err == nil {
			a.Data, err = s.signOnly(k, q.Input)
		}
		return nil, err
	case frame.OpMAC:
		k, err := id()
		if err == nil {
			a.Data, err = s.mac(k, q.Input)
		}
		return nil, err
	case frame.OpEncrypt, frame.OpDecrypt:
		k, err := id()
		if err != nil {
			return nil, err
		}
		return nil, s.crypt(k, q, a)
	case frame.OpLook:
		k, err := id()
		if err != nil {
			return nil, err
		}
		return s.look(k)
	case frame.OpObjects:
		return s.inventory()
	case frame.OpCertificates:
		return s.certificates()
	case frame.OpDestroy:
		return decoded(q.Body, s.destroy)
	case frame.OpAdmit:
		return decoded(q.Body, s.admit)
	case frame.OpReceive:
		return decoded(q.Body, s.receive)
	case frame.OpRemove:
		k, err := id()
		if err != nil {
			return nil, err
		}
		return nil, s.remove(k)
	case frame.OpHealth:
		return decoded(q.Body, s.health)
	case frame.OpCardKeys, frame.OpCardSign, frame.OpCardDerive, frame.OpCardMake:
		return s.card(q, a)
	case frame.OpSync:
		return nil, s.store.sync(s.token.Serial)
	}
	return nil, faultf("request", frame.KindUsage, "operation %q is not known", q.Op)
}

// decoded reads the body of a request and hands it on.
func decoded[B, R any](body json.RawMessage, f func(B) (R, error)) (any, error) {
	var b B
	if err := frame.Decode(body, &b); err != nil {
		return nil, err
	}
	return f(b)
}

// maxRandom is plenty for one secret and keeps a request short.
const maxRandom = 4096

func (s *session) random(q *frame.Request, a *frame.Response) error {
	var n int
	if err := frame.Decode(q.Body, &n); err != nil {
		return err
	}
	if n < 1 || n > maxRandom {
		return faultf("random", frame.KindUsage, "need 1 to %d bytes", maxRandom)
	}
	b, err := s.ctx.GenerateRandom(s.h, n)
	if err == nil && len(b) != n {
		err = pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)
	}
	a.Data = b
	return wrap("random", "C_GenerateRandom", err)
}

// crypt encrypts or decrypts.
func (s *session) crypt(id keyspec.KeyID, q *frame.Request, a *frame.Response) (err error) {
	if q.Op == frame.OpEncrypt {
		a.Data, err = s.encrypt(id, q.Input, q.AAD)
	} else {
		a.Data, err = s.decrypt(id, q.Input, q.AAD)
	}
	return err
}
