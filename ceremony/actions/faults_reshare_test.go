package actions

import (
	"errors"
	"os"
	"slices"
	"testing"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/hsm/hsmtest"
)

// around holds the reshare with one call spoiled.
func (x *tiny) around(t *testing.T, name string, action hsmtest.Action, enters func(state string)) (string, error) {
	t.Helper()
	return x.perform(t, attempt{name: name, text: tinyReshare, action: action, enters: enters, bind: func(b *Bind) {
		of := x.binding(t)
		b.Shares, b.Tokens, b.Anchors, b.Charter, b.Records = of.Shares, of.Tokens, of.Anchors, of.Charter, of.Records
	}})
}

// count learns how often a reshare calls each function.
func (x *tiny) count(t *testing.T) {
	t.Helper()
	x.fresh(t)
	dir, err := x.around(t, "whole", 0, x.learn)
	if err != nil {
		t.Fatal(err)
	}
	x.total, _ = x.faults.Calls()
	if x.opens(t, dir, 1) || !x.opens(t, dir, 2) {
		t.Fatal("without a fault, not the new epoch alone opens the token")
	}
}

// spoil holds a reshare with one call spoiled. It must be void, with no object
// more or less, and the old shares alone open the token, by itself or, which
// recovered says, by recover.
func (x *tiny) spoil(t *testing.T, sp spoiling) (recovered bool) {
	t.Helper()
	x.fresh(t)
	before := x.objects(t)
	x.faults.Reset(sp.function, sp.n, sp.action)
	dir, err := x.around(t, sp.String(), sp.action, nil)
	if _, done := x.faults.Calls(); !done {
		t.Errorf("%s: the call never came: %v", sp, err)
		return false
	}
	x.faults.Reset(0, 0, 0)
	if fault.ClassOf(err) != fault.Void {
		t.Errorf("%s: the outcome is %v (%s)", sp, err, fault.ClassOf(err))
		return false
	}
	if errors.Is(err, ceremony.ErrUnsettled) {
		recovered = true
		x.settle(t, sp, dir)
	}
	v, err := record.Read(os.DirFS(dir))
	if v == nil || v.State != "VOID" || fault.ClassOf(err) != fault.Void {
		t.Errorf("%s: the record reads as %v", sp, err)
		return false
	}
	if after := x.objects(t); !slices.Equal(after, before) {
		t.Errorf("%s: objects %v became %v", sp, before, after)
	}
	st, err := ceremony.ReadState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !x.opens(t, dir, 1) || st.Dealt["work"].Epoch.Epoch == 2 && x.opens(t, dir, 2) {
		t.Errorf("%s: not the old epoch alone opens the token", sp)
	}
	return recovered
}

// settle recovers a reshare that could not put its token back.
func (x *tiny) settle(t *testing.T, sp spoiling, dir string) {
	t.Helper()
	st, err := ceremony.ReadState(dir)
	if err != nil {
		t.Fatal(err)
	}
	epochs := []int{1}
	if _, repinned := st.Repinned["work"]; repinned {
		epochs = append(epochs, 2)
	}
	if err := x.recover(t, dir, epochs...); fault.ClassOf(err) != fault.Void {
		t.Errorf("%s: recover: %v", sp, err)
	}
}

// Each kind of request of a reshare fails, hangs or crashes the module, in turn: the
// reshare is void, and the vault goes on with its old shares, by itself or by
// recover (R-CER-14, R-CER-24).
func TestEachKindOfRequestOfAReshareSpoiled(t *testing.T) {
	t.Parallel()
	x := newTiny(t)
	x.count(t)
	kinds := 0
	for i := range x.total {
		if n := x.total[i] - x.armed[i]; n > 0 {
			x.spoil(t, spoiling{i, x.armed[i] + (n+1)/2, []hsmtest.Action{hsmtest.Fail, hsmtest.Crash, hsmtest.Hang}[kinds%3]})
			kinds++
		}
	}
	if kinds < 10 {
		t.Errorf("only %d kinds of requests were seen", kinds)
	}
}

// A login of a reshare that crashes leaves its try counted as a wrong PIN. The
// reshare is put back all the same, without any wait (R-CER-14, R-CER-24).
func TestLoginsOfAReshareCrash(t *testing.T) {
	t.Parallel()
	x := newTiny(t)
	x.count(t)
	login := slices.Index(hsmtest.Functions(), "C_Login")
	if x.total[login]-x.armed[login] < 5 {
		t.Fatalf("a reshare logs in %d times", x.total[login]-x.armed[login])
	}
	for n := x.armed[login] + 1; n <= x.total[login]; n++ {
		x.spoil(t, spoiling{login, n, hsmtest.Crash})
	}
}

// Every single request of a reshare is spoiled once in each way (R-CER-14, R-CER-24).
func TestLongEveryRequestOfAReshareSpoiled(t *testing.T) {
	long(t)
	x := newTiny(t)
	x.count(t)
	sweep(t, "reshare", x.every, func(t *testing.T, sp spoiling) string {
		t.Helper()
		if x.spoil(t, sp) {
			return "recovered"
		}
		return "void"
	})
}
