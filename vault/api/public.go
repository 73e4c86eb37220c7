package api

import (
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/identity"
	"keyrite/vault/node"
)

// told is the answer to one of the public paths.
type told struct {
	status int
	body   any
	err    error
}

// pathHealth is the one path without an entry in the log: it is asked every few seconds
// by whatever watches the vault.
const pathHealth = "sys/health"

// public answers how the vault is, to whoever asks, and takes shares. These paths work
// on a sealed vault too.
func (s *Server) public(r *http.Request, path string, query url.Values) (told, bool) {
	type key struct{ method, path string }
	at := key{r.Method, path}
	if r.Method == http.MethodHead {
		at.method = http.MethodGet
	}
	if at.method == http.MethodPost {
		at.method = http.MethodPut
	}
	answers := map[key]func(*http.Request, url.Values) told{
		{"GET", pathHealth}:                   s.health,
		{"GET", "sys/seal-status"}:            s.sealStatus,
		{"GET", "sys/leader"}:                 s.leader,
		{"GET", "sys/init"}:                   s.initialized,
		{"PUT", "sys/init"}:                   byCeremony,
		{"PUT", "sys/unseal"}:                 s.unseal,
		{"GET", "sys/internal/specs/openapi"}: s.openAPI,
	}
	f, ok := answers[at]
	if !ok {
		return told{}, false
	}
	t := f(r, query)
	if path != pathHealth {
		did := access.Read
		if at.method == http.MethodPut {
			did = access.Update
		}
		s.cfg.Vault.Looked(r.Context(), node.Look{Operation: string(did), Path: path, Peer: Peer(r), Refused: t.err})
	}
	return t, true
}

// tell writes the answer to a public path.
func (s *Server) tell(w http.ResponseWriter, r *http.Request, t told) int {
	if t.err != nil {
		return s.refuse(w, "", t.err)
	}
	if r.Method == http.MethodHead {
		w.WriteHeader(t.status)
		return t.status
	}
	return s.encode(w, t.status, t.body)
}

func (s *Server) progress() Progress {
	if s.cfg.Opening == nil {
		return Progress{Initialized: true}
	}
	return s.cfg.Opening.Progress()
}

// Health is how the vault is. The codes are those of HashiCorp Vault; a vault of ours
// is never on standby.
type Health struct {
	Initialized                bool   `json:"initialized"`
	Sealed                     bool   `json:"sealed"`
	Standby                    bool   `json:"standby"`
	PerformanceStandby         bool   `json:"performance_standby"`
	ReplicationPerformanceMode string `json:"replication_performance_mode"`
	ReplicationDRMode          string `json:"replication_dr_mode"`
	ServerTimeUTC              int64  `json:"server_time_utc"` // seconds
	Version                    string `json:"version"`
	ClusterName                string `json:"cluster_name"`
	ClusterID                  string `json:"cluster_id"`
	Keyrite                    Trust  `json:"keyrite"`
}

// Trust is what is ours of how the vault is.
type Trust struct {
	World string `json:"world"`
	// Stopped and Behind are classes only: whoever may ask keyrite/status learns more.
	Stopped string `json:"stopped,omitempty"` // why nothing is served, after a failed write
	Behind  string `json:"behind,omitempty"`  // why the head of the store cannot be advanced
}

// The codes of health, by the parameter that changes each.
const (
	codeActive   = "activecode"
	codeSealed   = "sealedcode"
	codeUninit   = "uninitcode"
	defActive    = http.StatusOK
	defSealed    = http.StatusServiceUnavailable
	defUninit    = http.StatusNotImplemented
	lowestStatus = 200
	highStatus   = 599
)

func (s *Server) health(_ *http.Request, query url.Values) told {
	codes := map[string]int{codeActive: defActive, codeSealed: defSealed, codeUninit: defUninit}
	// Of states that a vault of ours is never in; they are read so that a wrong one is found.
	others := []string{"standbycode", "drsecondarycode", "performancestandbycode", "haunhealthycode"}
	for k, v := range query {
		_, ours := codes[k]
		switch {
		case k == "standbyok" || k == "perfstandbyok":
			continue
		case !ours && !slices.Contains(others, k):
			return told{err: fault.Errorf(fault.Usage, "parameter %.40q is not known here", k)}
		}
		n, err := strconv.Atoi(v[0])
		if err != nil || len(v) != 1 || n < lowestStatus || n > highStatus {
			return told{err: fault.Errorf(fault.Usage, "%s is not a status", k)}
		}
		if ours {
			codes[k] = n
		}
	}
	st, p := s.cfg.Vault.Status(), s.progress()
	h := Health{
		Initialized: p.Initialized, Sealed: st.Sealed, ReplicationPerformanceMode: "disabled", ReplicationDRMode: "disabled",
		ServerTimeUTC: time.Now().Unix(), Version: s.cfg.Version, ClusterName: "keyrite", ClusterID: clusterID(st), Keyrite: trust(st),
	}
	switch {
	case !p.Initialized:
		return told{status: codes[codeUninit], body: h}
	case st.Sealed, st.Store.Stopped != nil:
		return told{status: codes[codeSealed], body: h}
	}
	return told{status: codes[codeActive], body: h}
}

func trust(st node.Status) Trust {
	t := Trust{World: string(st.World)}
	if st.Store.Stopped != nil {
		t.Stopped = string(fault.ClassOf(st.Store.Stopped))
	}
	if st.Store.Keeper != nil {
		t.Behind = string(fault.ClassOf(st.Store.Keeper))
	}
	return t
}

// clusterID is the vault id in the form that clients expect of such an id.
func clusterID(st node.Status) string {
	raw, err := hex.DecodeString(st.Vault)
	if err != nil || len(raw) < 16 {
		return ""
	}
	h := hex.EncodeToString(raw[:16])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// SealStatus is how far the opening is.
type SealStatus struct {
	Type         string `json:"type"`
	Initialized  bool   `json:"initialized"`
	Sealed       bool   `json:"sealed"`
	Need         int    `json:"t"`
	Of           int    `json:"n"`
	Progress     int    `json:"progress"`
	Nonce        string `json:"nonce"`
	Version      string `json:"version"`
	BuildDate    string `json:"build_date"`
	Migration    bool   `json:"migration"`
	ClusterName  string `json:"cluster_name,omitempty"`
	ClusterID    string `json:"cluster_id,omitempty"`
	RecoverySeal bool   `json:"recovery_seal"`
	StorageType  string `json:"storage_type"`
	Keyrite      Trust  `json:"keyrite"`
}

func (s *Server) sealStatus(*http.Request, url.Values) told {
	st, p := s.cfg.Vault.Status(), s.progress()
	return told{status: http.StatusOK, body: SealStatus{
		Type: "shamir", Initialized: p.Initialized, Sealed: st.Sealed, Need: p.Need, Of: p.Of, Progress: p.Have, Nonce: p.Attempt,
		Version: s.cfg.Version, ClusterName: "keyrite", ClusterID: clusterID(st), StorageType: "keyrite", Keyrite: trust(st),
	}}
}

// Leader says that there is one server.
type Leader struct {
	HAEnabled            bool   `json:"ha_enabled"`
	IsSelf               bool   `json:"is_self"`
	ActiveTime           string `json:"active_time"`
	LeaderAddress        string `json:"leader_address"`
	LeaderClusterAddress string `json:"leader_cluster_address"`
	PerformanceStandby   bool   `json:"performance_standby"`
}

// errNoLeader is that of a sealed vault in the words of HashiCorp's: their command
// "status" goes on only if it finds them.
var errNoLeader = fault.New(fault.Sealed, "Vault is sealed")

func (s *Server) leader(*http.Request, url.Values) told {
	st := s.cfg.Vault.Status()
	if st.Sealed {
		return told{err: errNoLeader}
	}
	return told{status: http.StatusOK, body: Leader{IsSelf: true, ActiveTime: st.Since.UTC().Format(time.RFC3339)}}
}

// Initialized says whether there is a vault.
type Initialized struct {
	Initialized bool `json:"initialized"`
}

func (s *Server) initialized(*http.Request, url.Values) told {
	return told{status: http.StatusOK, body: Initialized{s.progress().Initialized}}
}

// byCeremony answers whoever wants to found a vault over the network.
func byCeremony(*http.Request, url.Values) told {
	return told{err: fault.Hint(fault.Errorf(fault.Policy, "%w: a vault is founded by a ceremony", engine.ErrByCharter), "keyrite ceremony new genesis --out FILE, then keyrite-vault create")}
}

// unseal takes one answer and says how far it is now.
func (s *Server) unseal(r *http.Request, query url.Values) told {
	if s.cfg.Opening == nil {
		return told{err: fault.New(fault.Policy, "shares are not taken here")}
	}
	c := &call{Call: node.Call{Peer: identity.Peer{UID: noUID}}} // who sends shares has shown nothing
	raw, size, err := s.body(nil, r, c.bodyLimit())
	defer s.give(size)
	if err != nil {
		return told{err: err}
	}
	p, err := params(raw, query)
	if err != nil {
		return told{err: err}
	}
	if err := s.cfg.Opening.Unseal(r.Context(), p); err != nil {
		return told{err: err}
	}
	return s.sealStatus(r, nil)
}
