package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// root is the top of the module, seen from this package's folder.
const root = "../.."

func TestTreeFollowsDirection(t *testing.T) {
	pkgs, err := List(t.Context(), root, true, "./...")
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) == 0 {
		t.Fatal("go list found no package")
	}
	for _, v := range Tree.Check(pkgs) {
		t.Error(v)
	}
}

func TestBinariesLinkOnlyTheirZone(t *testing.T) {
	for _, b := range Tree.Binaries {
		if _, err := os.Stat(filepath.Join(root, b.Program)); os.IsNotExist(err) {
			continue // a program appears when something lives in it
		}
		deps, err := List(t.Context(), root, true, "-deps", "./"+b.Program)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range b.CheckBinary(deps) {
			t.Error(v)
		}
	}
}

// Every program but keyrite-hsmd is pure Go, so that it runs on any machine and
// no C library shares memory with its secrets.
func TestOnlyHsmdNeedsCgo(t *testing.T) {
	mains, err := filepath.Glob(filepath.Join(root, "cmd", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range mains {
		name := filepath.Base(dir)
		if name == "keyrite-hsmd" {
			continue
		}
		deps, err := List(t.Context(), root, false, "-deps", "./cmd/"+name)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range CheckPureGo(Module+"/cmd/"+name, deps) {
			t.Error(v)
		}
	}
}

// A rule that names a program or prefix twice would silently shadow the other.
func TestRulesAreUnambiguous(t *testing.T) {
	seen := map[string]bool{}
	for _, l := range Tree.Layers {
		if seen[l.Prefix] {
			t.Errorf("layer %s stands twice", l.Prefix)
		}
		seen[l.Prefix] = true
		for _, a := range l.Allow {
			if _, ok := Tree.layerOf(a); !ok {
				t.Errorf("layer %s allows %s, which no layer owns", l.Prefix, a)
			}
		}
	}
	for _, b := range Tree.Binaries {
		if !seen[b.Program] {
			t.Errorf("binary %s has no layer", b.Program)
		}
	}
	for _, c := range Tree.Confined {
		if c.Reason == "" {
			t.Errorf("confinement of %s gives no reason", c.Target)
		}
	}
}

func TestCheckCatchesPlantedImports(t *testing.T) {
	imports := func(path string, imps ...string) Package { return Package{ImportPath: path, Imports: imps} }
	tests := []struct {
		name string
		pkg  Package
		want string // the import that must be named; empty for none
	}{
		{"gateway to pkcs11", imports("keyrite/gateway/update", "github.com/miekg/pkcs11"), "github.com/miekg/pkcs11"},
		{"gateway to hsm", imports("keyrite/gateway", "keyrite/hsm"), "keyrite/hsm"},
		{"gateway to relay", imports("keyrite/gateway/uplink", "keyrite/relay/access"), "keyrite/relay/access"},
		{"relay to gateway", imports("keyrite/relay/access", "keyrite/gateway"), "keyrite/gateway"},
		{"vpn to store", imports("keyrite/relay/vpn", "keyrite/relay/store"), "keyrite/relay/store"},
		{"vpn to account", imports("keyrite/relay/vpn", "keyrite/relay/account"), "keyrite/relay/account"},
		{"client to signer", imports("keyrite/client", "keyrite/signer"), "keyrite/signer"},
		{"station to vault", imports("keyrite/provisioning/station", "keyrite/vault"), "keyrite/vault"},
		{"station to headquarters' side", imports("keyrite/provisioning/station", "keyrite/provisioning/export"), "keyrite/provisioning/export"},
		{"headquarters to station", imports("keyrite/provisioning/accept", "keyrite/provisioning/station"), "keyrite/provisioning/station"},
		{"engine to hsm", imports("keyrite/ceremony", "keyrite/hsm"), "keyrite/hsm"},
		{"engine to actions", imports("keyrite/ceremony", "keyrite/ceremony/actions"), "keyrite/ceremony/actions"},
		{"artifact to internal", imports("keyrite/artifact/record", "keyrite/internal/durable"), "keyrite/internal/durable"},
		{"artifact to sigstore", imports("keyrite/artifact/firmware", "github.com/sigstore/sigstore/pkg/signature"), "github.com/sigstore/sigstore/pkg/signature"},
		{"artifact to a new module", imports("keyrite/artifact/firmware", "example.com/new"), "example.com/new"},
		{"wire to artifact", imports("keyrite/wire/tunnel", "keyrite/artifact/envelope"), "keyrite/artifact/envelope"},
		{"internal to artifact", imports("keyrite/internal/cli", "keyrite/artifact/fault"), "keyrite/artifact/fault"},
		{"hsm to artifact", imports("keyrite/hsm", "keyrite/artifact/record"), "keyrite/artifact/record"},
		{"hsm to p11", imports("keyrite/hsm", "keyrite/hsm/p11"), "keyrite/hsm/p11"},
		{"hsm to pkcs11", imports("keyrite/hsm/admit", "github.com/miekg/pkcs11"), "github.com/miekg/pkcs11"},
		{"anything to cmd", imports("keyrite/ceremony/console", "keyrite/cmd/keyrite"), "keyrite/cmd/keyrite"},
		{"one main to another", imports("keyrite/cmd/keyrite-verify", "keyrite/cmd/keyrite"), "keyrite/cmd/keyrite"},
		{"verifier to signer", imports("keyrite/cmd/keyrite-verify", "keyrite/signer"), "keyrite/signer"},
		{"SQL outside the store", imports("keyrite/relay/access", "database/sql"), "database/sql"},
		{"driver outside the store", imports("keyrite/relay/access", "modernc.org/sqlite"), "modernc.org/sqlite"},
		{"cobra in a library", imports("keyrite/vault", "github.com/spf13/cobra"), "github.com/spf13/cobra"},
		{"shamir outside quorum", imports("keyrite/vault/seal", "github.com/hashicorp/vault/shamir"), "github.com/hashicorp/vault/shamir"},
		{"TPM at the relay", imports("keyrite/relay/auth", "github.com/google/go-tpm/tpm2"), "github.com/google/go-tpm/tpm2"},
		{"TUF in the relay", imports("keyrite/relay/rollout", "github.com/theupdateframework/go-tuf/v2/metadata"), "github.com/theupdateframework/go-tuf/v2/metadata"},
		{"test tokens in a program", imports("keyrite/vault", "keyrite/hsm/hsmtest"), "keyrite/hsm/hsmtest"},
		{"testify", imports("keyrite/relay/store", "github.com/stretchr/testify/require"), "github.com/stretchr/testify/require"},
		{"weak randomness", imports("keyrite/vault/quorum", "math/rand/v2"), "math/rand/v2"},
		{"a folder that no rule knows", imports("keyrite/util"), "anything"},
		{"cgo outside p11", Package{ImportPath: "keyrite/hsm", CgoFiles: []string{"a.go"}}, "C"},
		{"a test reaches over a wall", Package{ImportPath: "keyrite/gateway", XTestImports: []string{"keyrite/vault"}}, "keyrite/vault"},
		{"a test reaches for testify", Package{ImportPath: "keyrite/gateway", TestImports: []string{"github.com/stretchr/testify/assert"}}, "github.com/stretchr/testify/assert"},

		{"p11 speaks PKCS#11", imports("keyrite/hsm/p11", "github.com/miekg/pkcs11", "keyrite/hsm"), ""},
		{"hsmd wires p11", imports("keyrite/cmd/keyrite-hsmd", "keyrite/hsm/p11"), ""},
		{"cgo in p11", Package{ImportPath: "keyrite/hsm/p11", CgoFiles: []string{"a.go"}}, ""},
		{"actions binds all", imports("keyrite/ceremony/actions", "keyrite/hsm", "keyrite/vault/quorum", "keyrite/signer", "keyrite/provisioning/birthca", "keyrite/ceremony"), ""},
		{"quorum splits", imports("keyrite/vault/quorum", "github.com/hashicorp/vault/shamir", "keyrite/artifact/share"), ""},
		{"tests use test tokens", Package{ImportPath: "keyrite/signer", XTestImports: []string{"keyrite/signer", "keyrite/hsm/hsmtest", "testing"}}, ""},
		{"artifact leans on its list", imports("keyrite/artifact/tlog", "golang.org/x/mod/sumdb/tlog", "keyrite/artifact/jcs", "crypto/ed25519"), ""},
		{"artifact's tests compare with sigstore", Package{ImportPath: "keyrite/artifact/firmware", TestImports: []string{"github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Tree.Check([]Package{tt.pkg})
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("got %v, want no violation", got)
			case tt.want != "" && (len(got) != 1 || got[0].Import != tt.want):
				t.Errorf("got %v, want one violation for %s", got, tt.want)
			}
		})
	}
}

func TestCheckBinaryCatchesPlantedLinks(t *testing.T) {
	binary := func(program string) Binary {
		for _, b := range Tree.Binaries {
			if b.Program == program {
				return b
			}
		}
		t.Fatalf("no rule for %s", program)
		return Binary{}
	}
	tests := []struct {
		name, program, dep string
		want               bool
	}{
		{"gateway links an HSM", "cmd/keyrite-gateway", "keyrite/hsm", true},
		{"gateway links pkcs11 through another module", "cmd/keyrite-gateway", "github.com/miekg/pkcs11", true},
		{"connect links the signer", "cmd/keyrite-connect", "keyrite/signer", true},
		{"verify links the ceremony", "cmd/keyrite-verify", "keyrite/ceremony", true},
		{"verify links a web client", "cmd/keyrite-verify", "net/http", true},
		{"relay links the gateway", "cmd/keyrite-relay", "keyrite/gateway/boot", true},
		{"station links the vault", "cmd/keyrite-station", "keyrite/vault/quorum", true},
		{"keyrite loads a module itself", "cmd/keyrite", "keyrite/hsm/p11", true},
		{"gateway links its formats", "cmd/keyrite-gateway", "keyrite/artifact/firmware", false},
		{"gateway links std", "cmd/keyrite-gateway", "crypto/tls", false},
		{"hsmd links p11", "cmd/keyrite-hsmd", "keyrite/hsm/p11", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := binary(tt.program).CheckBinary([]Package{{ImportPath: tt.dep}, {ImportPath: "keyrite/" + tt.program}})
			if (len(got) > 0) != tt.want {
				t.Errorf("got %v, want a violation: %t", got, tt.want)
			}
		})
	}
}

func TestCheckPureGoCatchesPlantedCgo(t *testing.T) {
	broken := Package{ImportPath: "github.com/miekg/pkcs11", Error: &struct{ Err string }{"build constraints exclude all Go files"}}
	for _, deps := range [][]Package{{{ImportPath: "runtime/cgo"}}, {broken}} {
		if got := CheckPureGo("keyrite/cmd/keyrite", deps); len(got) != 1 {
			t.Errorf("CheckPureGo(%v) = %v, want one violation", deps, got)
		}
	}
	if got := CheckPureGo("keyrite/cmd/keyrite", []Package{{ImportPath: "crypto/x509"}}); len(got) != 0 {
		t.Errorf("got %v for std, want none", got)
	}
}

// maxMainLines keeps main to wiring; the rest of a program is testable.
const maxMainLines = 40

func TestMainsAreShort(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "cmd", "*", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Name.Name != "main" || fn.Recv != nil {
				continue
			}
			if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1; n > maxMainLines {
				t.Errorf("%s: main has %d lines, want at most %d", file, n, maxMainLines)
			}
		}
	}
}
