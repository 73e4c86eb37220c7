package archtest

// artifactThird is all that a file format may lean on. Whatever is in this
// list is linked into every device and every verifier.
var artifactThird = []string{
	"golang.org/x/mod/sumdb",
	"golang.org/x/crypto",
	"github.com/secure-systems-lab/go-securesystemslib/cjson", // what TUF signs
	"github.com/secure-systems-lab/go-securesystemslib/dsse",
	"filippo.io/age",
	"filippo.io/hpke", // age's own, for recipients that a card opens
	"go.yaml.in/yaml/v3",
	"github.com/gowebpki/jcs",
}

// secretSide is what no program in the field may link: a stolen gateway, relay
// or engineer's PC must not even contain the code that opens a vault.
var secretSide = []string{
	Module + "/ceremony",
	Module + "/hsm",
	Module + "/vault",
	Module + "/signer",
	Module + "/provisioning",
	"github.com/miekg/pkcs11",
	"github.com/hashicorp/vault",
}

// hsmPeer is the one exception to who speaks PKCS#11: it is what scripts/bench
// measures hsm against, the bare binding, and part of no program that is released.
const hsmPeer = "bench/hsmpeer"

// sigstore signs for the vault. The gateway links its signature package, since
// go-tuf, which its updates are checked with, is built on it.
const sigstore = "github.com/sigstore"

// Tree is the table for this repository. docs/design/README.md draws it.
var Tree = Rules{
	Layers: []Layer{
		// The mains only wire, so they may reach what their zone may link.
		{Prefix: "cmd/keyrite", Allow: []string{"scripts/ceremonies", "ceremony", "hsm", "vault", "signer", "provisioning", "artifact", "internal"}},
		{Prefix: "cmd/keyrite-hsmd", Allow: []string{"hsm", "internal"}},
		{Prefix: "cmd/keyrite-verify", Allow: []string{"artifact", "internal"}},
		{Prefix: "cmd/keyrite-vault", Allow: []string{"vault", "signer", "hsm", "artifact", "internal"}},
		{Prefix: "cmd/keyrite-station", Allow: []string{"provisioning/station", "provisioning/birthca", "hsm", "artifact", "wire", "internal"}},
		{Prefix: "cmd/keyrite-gateway", Allow: []string{"gateway", "artifact", "wire", "internal"}},
		{Prefix: "cmd/keyrite-connect", Allow: []string{"client", "artifact", "wire", "internal"}},

		// Offline and factory.
		{Prefix: "ceremony", Allow: []string{"artifact", "internal"}},
		{Prefix: "ceremony/actions", Allow: []string{"ceremony", "hsm", "vault", "signer", "provisioning", "artifact", "internal"}},
		// The shipped scripts are text, embedded for 'keyrite ceremony new'.
		{Prefix: "scripts/ceremonies", Allow: []string{}, Third: []string{}},
		{Prefix: "hsm", Allow: []string{"internal"}},
		// It turns what the attacks came to into the report that others verify.
		{Prefix: "hsm/admit", Allow: []string{"hsm", "artifact", "internal"}},
		{Prefix: "vault", Allow: []string{"hsm", "artifact", "internal"}},
		{Prefix: "signer", Allow: []string{"vault", "artifact", "internal"}},
		{Prefix: "provisioning", Allow: []string{"vault", "artifact", "internal"}},
		// The issuer of certificates serves ceremony, headquarters and station.
		{Prefix: "provisioning/birthca", Allow: []string{"artifact", "internal"}},
		{Prefix: "provisioning/station", Allow: []string{"provisioning/birthca", "hsm", "artifact", "wire", "internal"}},

		// The narrow waist. It imports nothing of ours but itself.
		{Prefix: "artifact", Third: artifactThird},
		{Prefix: "wire", Third: []string{"github.com/hashicorp/yamux"}},

		// Field.
		{Prefix: "gateway", Allow: []string{"artifact", "wire", "internal"}},
		{Prefix: "relay", Allow: []string{"relay/ticket", "relay/firewall", "artifact", "wire", "internal"}},
		// vpn joins two ends and checks a ticket. It knows no account and no SQL,
		// and neither does the ticket.
		{Prefix: "relay/ticket", Allow: []string{"artifact", "wire", "internal"}},
		{Prefix: "relay/firewall", Allow: []string{"relay/ticket", "artifact", "wire", "internal"}},
		{Prefix: "relay/vpn", Allow: []string{"relay/ticket", "relay/firewall", "artifact", "wire", "internal"}},
		// node is one machine with its roles: the only place that joins them.
		{Prefix: "relay/node", Allow: []string{"relay", "relay/ticket", "relay/firewall", "relay/vpn", "artifact", "wire", "internal"}},
		{Prefix: "cmd/keyrite-relay", Allow: []string{"relay", "relay/node", "artifact", "wire", "internal"}},
		{Prefix: "client", Allow: []string{"artifact", "wire", "internal"}},

		// Leaf helpers, free for all but artifact and wire.
		{Prefix: "internal/clitest", Third: []string{"github.com/rogpeppe/go-internal", "golang.org/x/sys"}},
		// The connection to a TPM, for the gateway's element and the vault's host.
		{Prefix: "internal/tpm", Third: []string{"github.com/google/go-tpm"}},
		{Prefix: "internal", Third: []string{"go.yaml.in/yaml/v3", "github.com/spf13/cobra", "golang.org/x"}},

		// Whole-system tests and measurements see everything.
		{Prefix: "e2e", Allow: []string{"ceremony", "hsm", "vault", "signer", "provisioning", "artifact", "wire", "gateway", "relay", "client", "internal"}},
		{Prefix: "bench", Allow: []string{"ceremony", "hsm", "vault", "signer", "provisioning", "artifact", "wire", "gateway", "relay", "client", "internal"}},
	},

	Confined: []Confinement{
		// Ours.
		{Target: Module + "/hsm/p11", Only: []string{"cmd/keyrite-hsmd", hsmPeer}, Reason: "only the child process keyrite-hsmd may load a PKCS#11 module"},
		{Target: Module + "/artifact/artifacttest", Only: []string{"gateway/secureelement/setest", "vault/engine/enginetest", "vault/vaulttest"}, InTests: true, Reason: "the world of software keys is for tests"},
		{Target: Module + "/hsm/hsmtest", Only: []string{"vault/vaulttest"}, InTests: true, Reason: "test tokens are for tests"},
		{Target: Module + "/vault/vaulttest", InTests: true, Reason: "the vault of test keys is for tests"},
		{Target: Module + "/gateway/secureelement/setest", InTests: true, Reason: "the test driver of the secure element is for tests"},
		{Target: Module + "/internal/tpm/tpmtest", Only: []string{"gateway/secureelement/setest"}, InTests: true, Reason: "software TPMs are for tests"},
		{Target: Module + "/relay/store/storetest", InTests: true, Reason: "the suite of the stores is for tests"},
		{Target: Module + "/e2e", InTests: true, Reason: "the whole-system harness is for tests"},
		{Target: Module + "/internal/archtest", Reason: "the architecture test is no library"},
		{Target: Module + "/internal/docscheck", Reason: "the documentation test is no library"},

		// Others', each with the one place that answers for it.
		{Target: "github.com/miekg/pkcs11", Only: []string{"hsm/p11", hsmPeer}, Reason: "only hsm/p11 speaks PKCS#11"},
		{Target: "github.com/hashicorp/vault", Only: []string{"vault/quorum"}, Reason: "the Shamir split stays in vault/quorum"},
		{Target: "github.com/spf13/cobra", Only: []string{"cmd", "internal/cli"}, Reason: "commands live in cmd and internal/cli"},
		{Target: "github.com/spf13/pflag", Only: []string{"cmd", "internal/cli"}, Reason: "flags live in cmd and internal/cli"},
		{Target: "github.com/sigstore", Only: []string{"signer"}, InTests: true, Reason: "sigstore is linked by signer only; formats read the bundle themselves"},
		{Target: "github.com/theupdateframework/go-tuf", Only: []string{"signer/tuf", "gateway/update", "cmd"}, InTests: true, Reason: "TUF is written by signer/tuf and read by gateway/update"},
		{Target: "github.com/google/go-tpm", Only: []string{"gateway/secureelement", "internal/tpm"}, InTests: true, Reason: "the gateway's TPM belongs to gateway/secureelement, that of a vault's host to internal/tpm"},
		{Target: "github.com/zmap", Only: []string{"provisioning/birthca"}, InTests: true, Reason: "certificates are linted where they are issued"},
		{Target: "github.com/go-jose", Only: []string{"vault/identity", "vault/engine"}, InTests: true, Reason: "tokens of others are judged, and ours are made, in the vault"},
		{Target: "rsc.io/qr", Only: []string{"ceremony/qr"}, Reason: "codes are drawn in one place"},
		{Target: "database/sql", Only: []string{"relay/store"}, InTests: true, Reason: "relay/store is the only package with SQL"},
		{Target: "modernc.org/sqlite", Only: []string{"relay/store"}, Reason: "relay/store is the only package with SQL"},
		{Target: "github.com/jackc/pgx", Only: []string{"relay/store"}, Reason: "relay/store is the only package with SQL"},
		{Target: "github.com/uptrace/bun", Only: []string{"relay/store"}, Reason: "relay/store is the only package with SQL"},
		{Target: "github.com/pressly/goose", Only: []string{"relay/store"}, Reason: "relay/store is the only package with SQL"},
		{Target: "github.com/google/go-cmp", InTests: true, Reason: "go-cmp is for tests"},
		{Target: Module + "/internal/clitest", InTests: true, Reason: "the script runner is for tests"},
		{Target: "github.com/rogpeppe/go-internal", Only: []string{"internal/clitest"}, InTests: true, Reason: "testscript is for tests"},
		{Target: "testing", Only: []string{"artifact/artifacttest", "hsm/hsmtest", "vault/engine/enginetest", "gateway/secureelement/setest", "relay/store/storetest", "vault/vaulttest", "internal/clitest", "internal/tpm/tpmtest", "e2e", "bench"}, InTests: true, Reason: "testing is for tests"},

		// Nobody.
		{Target: "github.com/pkg/errors", Reason: "use errors and fmt.Errorf with %w"},
		{Target: "github.com/stretchr/testify", Reason: "use testing and go-cmp"},
		{Target: "gopkg.in/yaml.v3", Reason: "use go.yaml.in/yaml/v3"},
		{Target: "math/rand", InTests: true, Reason: "use crypto/rand"},
	},

	Binaries: []Binary{
		{Program: "cmd/keyrite-verify", Never: append([]string{sigstore, Module + "/wire", "net/http", "database/sql"}, secretSide...), Only: []string{"artifact", "internal"}},
		{Program: "cmd/keyrite-gateway", Never: append([]string{Module + "/relay", Module + "/client", "database/sql"}, secretSide...), Only: []string{"gateway", "artifact", "wire", "internal"}},
		{Program: "cmd/keyrite-connect", Never: append([]string{sigstore, Module + "/relay", Module + "/gateway", "database/sql"}, secretSide...), Only: []string{"client", "artifact", "wire", "internal"}},
		{Program: "cmd/keyrite-relay", Never: append([]string{sigstore, Module + "/gateway", Module + "/client"}, secretSide...), Only: []string{"relay", "artifact", "wire", "internal"}},
		{Program: "cmd/keyrite-station", Never: []string{Module + "/vault", Module + "/signer", Module + "/ceremony", Module + "/hsm/p11", "github.com/miekg/pkcs11", "github.com/hashicorp/vault"}},
		{Program: "cmd/keyrite-vault", Never: []string{Module + "/ceremony", Module + "/hsm/p11", "github.com/miekg/pkcs11"}},
		{Program: "cmd/keyrite", Never: []string{Module + "/hsm/p11", Module + "/gateway", Module + "/relay", Module + "/client", "github.com/miekg/pkcs11"}},
		{Program: "cmd/keyrite-hsmd", Never: []string{Module + "/vault", Module + "/signer", Module + "/ceremony", Module + "/provisioning", Module + "/gateway", Module + "/relay", Module + "/client", "net/http"}, Only: []string{"hsm", "internal"}},
	},

	CgoOnly: []string{"hsm/p11"},
}
