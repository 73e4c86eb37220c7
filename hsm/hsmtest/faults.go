package hsmtest

import (
	_ "embed"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

//go:embed testdata/fault.c
var faultSource []byte

// Action is what happens to the one call that a fault module spoils.
type Action uint32

// The actions. Fail, Hang and Crash come before the call is passed on, Lose and
// Die after it: its effect is there, and nobody hears of it. Crowd opens 5,000
// sessions before a C_OpenSession is passed on. Finalize makes the call 2,000 times
// while another thread calls C_Finalize.
const (
	Fail Action = iota + 1
	Lose
	Hang
	Crash
	Die
	Crowd
	Finalize
)

// Return values of PKCS#11 v2.40 that a module is made to give.
const (
	DeviceError     = 0x30 // what a spoiled call answers unless ResetCode says more
	OperationActive = 0x90
	SessionCount    = 0xb1
)

// String names the action.
func (a Action) String() string {
	return [...]string{"nothing", "fail", "lose", "hang", "crash", "die", "crowd", "finalize"}[a]
}

// Functions are the calls of PKCS#11 v2.40 in the order of CK_FUNCTION_LIST.
func Functions() []string {
	return []string{
		"C_Initialize", "C_Finalize", "C_GetInfo", "C_GetFunctionList", "C_GetSlotList", "C_GetSlotInfo", "C_GetTokenInfo", "C_GetMechanismList",
		"C_GetMechanismInfo", "C_InitToken", "C_InitPIN", "C_SetPIN", "C_OpenSession", "C_CloseSession", "C_CloseAllSessions", "C_GetSessionInfo",
		"C_GetOperationState", "C_SetOperationState", "C_Login", "C_Logout", "C_CreateObject", "C_CopyObject", "C_DestroyObject", "C_GetObjectSize",
		"C_GetAttributeValue", "C_SetAttributeValue", "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_EncryptInit", "C_Encrypt",
		"C_EncryptUpdate", "C_EncryptFinal", "C_DecryptInit", "C_Decrypt", "C_DecryptUpdate", "C_DecryptFinal", "C_DigestInit", "C_Digest",
		"C_DigestUpdate", "C_DigestKey", "C_DigestFinal", "C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal", "C_SignRecoverInit", "C_SignRecover",
		"C_VerifyInit", "C_Verify", "C_VerifyUpdate", "C_VerifyFinal", "C_VerifyRecoverInit", "C_VerifyRecover", "C_DigestEncryptUpdate",
		"C_DecryptDigestUpdate", "C_SignEncryptUpdate", "C_DecryptVerifyUpdate", "C_GenerateKey", "C_GenerateKeyPair", "C_WrapKey", "C_UnwrapKey",
		"C_DeriveKey", "C_SeedRandom", "C_GenerateRandom", "C_GetFunctionStatus", "C_CancelFunction", "C_WaitForSlotEvent",
	}
}

// Faults is a module of its own over e's store: SoftHSM, with one call spoiled.
// It is compiled for this store, reads no variable and is part of no program.
type Faults struct {
	Module  string
	control string
	t       testing.TB
}

// Faults builds the module. It needs gcc, which cgo needs as well.
func (e *Env) Faults(t testing.TB) *Faults {
	t.Helper()
	f := &Faults{Module: filepath.Join(e.Dir, "libfault.so"), control: filepath.Join(e.Dir, "fault.control"), t: t}
	compileModule(t, e, "fault.c", faultSource, f.Module, f.control)
	f.Reset(0, 0, 0)
	return f
}

// For is the same module for another test, which has e's store to itself.
func (f *Faults) For(t testing.TB) *Faults { return &Faults{f.Module, f.control, t} }

// compileModule builds a module that passes calls on to SoftHSM over e's store.
func compileModule(t testing.TB, e *Env, name string, source []byte, module, control string) {
	t.Helper()
	path := filepath.Join(e.Dir, name)
	if err := os.WriteFile(path, source, 0o600); err != nil {
		t.Fatal(err)
	}
	define := func(name, value string) string { return "-D" + name + `="` + value + `"` }
	cmd := exec.Command("gcc", "-O1", "-Wall", "-shared", "-fPIC", "-o", module, define("REAL", Module(t)), define("CONF", e.Conf), define("CONTROL", control), path, "-ldl", "-lpthread")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	if err := os.Chmod(module, 0o755); err != nil { // whatever the umask: a module that a group may write is refused
		t.Fatal(err)
	}
}

// Reset counts from 0 again and spoils the n-th call (from 1) of function, an
// index of Functions, once; action 0 spoils nothing.
func (f *Faults) Reset(function, n int, action Action) {
	f.t.Helper()
	f.ResetCode(function, n, action, DeviceError)
}

// ResetCode is Reset with the value that the call answers.
func (f *Faults) ResetCode(function, n int, action Action, code uint32) {
	f.t.Helper()
	b := make([]byte, 0, 4*(len(Functions())+5))
	for range Functions() {
		b = binary.NativeEndian.AppendUint32(b, 0)
	}
	for _, v := range []uint32{uint32(function), uint32(n), uint32(action), 0, code} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	// In place: a process that still ends may have the file mapped.
	file, err := os.OpenFile(f.control, os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = file.WriteAt(b, 0)
	}
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// Calls says how often each function was called, and whether one was spoiled.
func (f *Faults) Calls() (calls []int, done bool) {
	f.t.Helper()
	b, err := os.ReadFile(f.control)
	if err != nil {
		f.t.Fatal(err)
	}
	for i := range Functions() {
		calls = append(calls, int(binary.NativeEndian.Uint32(b[4*i:])))
	}
	return calls, binary.NativeEndian.Uint32(b[4*(len(calls)+3):]) != 0
}
