package hsmtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"keyrite/hsm/internal/frame"
)

// Durable are the system calls that change what is on a disk.
const Durable = "write,pwrite64,writev,openat,creat,ftruncate,truncate,rename,renameat,renameat2,link,linkat,unlink,unlinkat,fsync,fdatasync,mkdir,mkdirat,rmdir,fallocate"

// Traced is a module process of keyrite-hsmd under strace, with the test in place
// of its supervisor. What the module's C code and what keyrite's Go code asks of
// the kernel is seen alike, and can be cut short at any call.
type Traced struct {
	cmd  *exec.Cmd
	data *os.File
	t    testing.TB
}

// traces numbers the logs of this test program.
var traces atomic.Uint64

// Trace starts a module process for the job with PINs by role. Each of inject is
// what strace takes after -e, as "inject=write:signal=KILL:when=3"; strace counts
// the calls of each thread, and the module is used by the first one.
func (e *Env) Trace(t testing.TB, job frame.Job, pins map[frame.Role]string, log string, inject ...string) *Traced {
	t.Helper()
	near, far, err := frame.DataPair()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	jr, jw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer jr.Close()
	args := []string{"-f", "-qq", "-y", "-s", "16", "-o", log, "-e", "trace=" + Durable}
	for _, i := range inject {
		args = append(args, "-e", i)
	}
	cmd := exec.Command("strace", append(args, HSMD(t), "module")...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "GOTRACEBACK=none", "SOFTHSM2_CONF=" + e.Conf}
	verdict, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer verdict.Close()
	cmd.ExtraFiles = []*os.File{far, jr, verdict} // p11.DataFD, p11.JobFD and what a supervisor is told
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: scripts/setup installs strace", err)
	}
	job.Module = e.Config.Module
	err = frame.Write(jw, job)
	for role, pin := range pins {
		if err == nil {
			err = frame.WritePIN(jw, role, []byte(pin))
		}
	}
	if err = errors.Join(err, jw.Close()); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Log(err) // it was killed before it read its job
	}
	return &Traced{cmd: cmd, data: near, t: t}
}

// Hello waits for the greeting of a session.
func (p *Traced) Hello() error {
	var a frame.Response
	if err := frame.Read(p.data, &a); err != nil {
		return err
	}
	if a.Fault != nil {
		return a.Fault
	}
	return nil
}

// Ask sends one request and waits for its answer.
func (p *Traced) Ask(q frame.Request) (*frame.Response, error) {
	if err := frame.Write(p.data, q); err != nil {
		return nil, err
	}
	var a frame.Response
	if err := frame.Read(p.data, &a); err != nil {
		return nil, err
	}
	if a.Fault != nil {
		return nil, a.Fault
	}
	return &a, nil
}

// Result waits for the one answer of a process that serves no requests.
func (p *Traced) Result() (*frame.Result, error) {
	var r frame.Result
	if err := frame.Read(p.data, &r); err != nil {
		return nil, err
	}
	if r.Fault != nil {
		return nil, r.Fault
	}
	return &r, nil
}

// End closes the data socket and reports whether the process was killed.
func (p *Traced) End() (killed bool) {
	p.t.Helper()
	p.data.Close()
	err := p.cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return !exit.Exited() || exit.ExitCode() == 128+9
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return false
}

// Point is one system call of the thread that uses the module.
type Point struct {
	Call string
	N    int    // of the calls of that name in that thread, from 1
	Path string // of the file or descriptor, as strace shows it
}

// String is what a test prints of a point.
func (p Point) String() string { return fmt.Sprintf("%s %d, %s", p.Call, p.N, filepath.Base(p.Path)) }

// Kill is the injection that kills the process just before the call.
func (p Point) Kill() string { return fmt.Sprintf("inject=%s:signal=KILL:when=%d", p.Call, p.N) }

// Fail is the injection that makes this one call fail with an error, such as
// ENOSPC, and leaves every other alone.
func (p Point) Fail(errno string) string {
	return fmt.Sprintf("inject=%s:error=%s:when=%d", p.Call, errno, p.N)
}

var (
	callLine = regexp.MustCompile(`^(\d+)\s+(\w+)\((.*)`)
	onPath   = regexp.MustCompile(`[<"](/[^>"]*)[>"]`)
)

// Points reads the log of a process that ran to its end: the calls that change a
// file below dir, and the answers (writes to a socket).
func Points(t testing.TB, log, dir string) []Point {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var out []Point
	first, n := "", map[string]int{}
	for line := range strings.Lines(string(text)) {
		m := callLine.FindStringSubmatch(line)
		if m == nil {
			continue // the end of a call that began in an earlier line, or a signal
		}
		if first == "" {
			first = m[1]
		}
		if m[1] != first {
			continue
		}
		n[m[2]]++
		path := ""
		if p := onPath.FindAllStringSubmatch(m[3], -1); len(p) > 0 {
			path = p[len(p)-1][1]
			for _, x := range p {
				if strings.HasPrefix(x[1], dir) {
					path = x[1]
				}
			}
		}
		reads := m[2] == "openat" && !strings.Contains(m[3], "O_CREAT") && !strings.Contains(m[3], "O_TRUNC")
		if strings.HasPrefix(path, dir) && !reads {
			out = append(out, Point{m[2], n[m[2]], path})
		}
	}
	return out
}

// TraceLog names a log of its own below the environment.
func (e *Env) TraceLog() string {
	return filepath.Join(e.Dir, fmt.Sprintf("trace-%d", traces.Add(1)))
}
