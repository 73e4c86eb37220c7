// Package transit is the engine that works with keys for processes which never see
// them: sign, verify, encrypt, decrypt, rewrap, authenticate, draw random bytes.
// It speaks the shapes of HashiCorp Vault's engine of that name, so its clients
// need no change.
//
// Which keys there are is the charter's word (charter.TransitKey). A software key
// is made when the charter is taken over and stays in the store, which seals it;
// other keys live in the token and are asked to sign there. There is no export, no
// import, no derivation and no convergent encryption, and nothing here may be
// added that lets a private key out.
package transit

import (
	"slices"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Classes of refusal.
var (
	// ErrCiphertext says that what was to be opened was not made with this key, or
	// was altered. It does not say which.
	ErrCiphertext = fault.New(fault.Verify, "the ciphertext does not open with this key")
	// ErrVersion says that the key has no such version, or not for this any more.
	ErrVersion = fault.New(fault.Policy, "the key has no such version for this")
	// ErrType says that a key of this type does not do this.
	ErrType = fault.New(fault.Usage, "a key of this type does not do that")
	// ErrNoExport says that keys do not leave the vault.
	ErrNoExport = fault.New(fault.Policy, "keys do not leave the vault")
	// ErrWorn says that a version has encrypted as much as it safely can.
	ErrWorn = fault.New(fault.Quota, "this version of the key has encrypted as often as is safe")
)

// MaxBatch bounds a batch: more is refused whole, before anything is done.
const MaxBatch = 1_000

// Engine is the engine at one mount.
type Engine struct {
	host     *engine.Host
	releases underway
}

// New is the engine of a host's mount.
func New(h *engine.Host) *Engine {
	return &Engine{host: h, releases: underway{since: map[string]time.Time{}}}
}

// Plan implements engine.Engine.
func (e *Engine) Plan(r *engine.Request) (*engine.Plan, error) {
	if len(r.Rest) == 0 {
		return nil, engine.ErrNoPath
	}
	switch head, rest := r.Rest[0], r.Rest[1:]; head {
	case "keys":
		return e.planKeys(r, rest)
	case "export", "backup", "restore", "byok-export", "wrapping_key":
		return nil, ErrNoExport
	case "cache-config", "config":
		return nil, byCharter()
	case "random":
		return e.planRandom(r, rest)
	case "releases":
		return e.planReleases(r, rest)
	case "hash":
		return planHash(r, rest)
	default:
		return e.planUse(r, head, rest)
	}
}

// byCharter is the refusal of whatever would change a key.
func byCharter() error {
	return fault.Hint(engine.ErrByCharter, "keys of this engine are stated by the approvers: keyrite charter propose "+charter.TypeTransitKey+" --body FILE")
}

// planKeys reads requests about keys themselves.
func (e *Engine) planKeys(r *engine.Request, rest []string) (*engine.Plan, error) {
	switch {
	case len(rest) == 0 && r.Method == engine.List:
		if err := r.Params.Only(); err != nil {
			return nil, err
		}
		return &engine.Plan{Needs: access.List, Apply: func(*seal.Tx) (*engine.Answer, error) {
			names := e.host.Charter().TransitKeys(e.host.Mount)
			if len(names) == 0 {
				return nil, engine.ErrNotThere
			}
			return &engine.Answer{Data: map[string]any{"keys": names}}, nil
		}}, nil
	case len(rest) == 1 && r.Method == engine.Read:
		return e.planLook(r, rest[0])
	case len(rest) == 1 && r.Method == engine.Write:
		return e.planMake(r, rest[0])
	case len(rest) == 1 && r.Method == engine.Delete, len(rest) == 2 && r.Method == engine.Write && slices.Contains([]string{"config", "import", "import_version", "rotate", "trim", "csr", "set-certificate"}, rest[1]):
		return nil, byCharter()
	}
	return nil, engine.ErrNoPath
}

// planMake answers clients that create their key before they use it: they get on
// if the charter has it and it is of the type they want.
func (e *Engine) planMake(r *engine.Request, name string) (*engine.Plan, error) {
	typ, err := r.Params.String("type")
	if err != nil {
		return nil, err
	}
	if typ == "" {
		typ = typeAES // the default of HashiCorp Vault
	}
	for _, p := range []string{"exportable", "derived", "convergent_encryption", "allow_plaintext_backup"} {
		if yes, err := r.Params.Bool(p); err != nil || yes {
			return nil, byCharter()
		}
	}
	return &engine.Plan{Needs: access.Update, Shown: shownType(typ), Apply: func(*seal.Tx) (*engine.Answer, error) {
		k, err := e.key(name)
		if err != nil || k.typ != typ {
			return nil, byCharter()
		}
		return &engine.Answer{}, nil
	}}, nil
}

// shownType is what the audit keeps of a type: nothing that is none.
func shownType(typ string) map[string]any {
	if !slices.Contains(charter.TransitTypes(), typ) {
		return nil
	}
	return map[string]any{"type": typ}
}
