package places

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestOf: a module gets the sockets and folders that its configuration names, and
// one that is not known gets none.
func TestOf(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\nobjectstore.backend = file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	nss := "configdir='sql:" + dir + "' certPrefix=''"
	for _, tc := range []struct {
		name, module, args string
		env                map[string]string
		sockets            string
		write              []string
		abstract           bool
	}{
		{name: "SoftHSM", module: "/l/libsofthsm2.so", env: map[string]string{"SOFTHSM2_CONF": conf}, sockets: "none", write: []string{dir}},
		{name: "SoftHSM behind another", module: "/l/x.so", env: map[string]string{"SOFTHSM2_CONF": conf}, sockets: "none", write: []string{dir}},
		{name: "unknown", module: "/l/vendor.so", sockets: "none"},
		{name: "NSS", module: "/l/libsoftokn3.so", args: nss, sockets: "none", write: []string{dir}},
		{name: "NSS with a relative folder", module: "/l/libsoftokn3.so", args: "configdir='sql:x'", sockets: "none"},
		{name: "OpenSC", module: "/l/opensc-pkcs11.so", sockets: "unix"},
		{name: "TPM as a device", module: "/l/libtpm2_pkcs11.so.1", env: map[string]string{"TPM2_PKCS11_TCTI": "device:/dev/tpmrm0", "TPM2_PKCS11_STORE": dir}, sockets: "none", write: []string{dir}},
		{name: "swtpm", module: "/l/libtpm2_pkcs11.so.1", env: map[string]string{"TPM2_PKCS11_TCTI": "swtpm:host=127.0.0.1,port=23210"}, sockets: "tcp:23210 tcp:23211"},
		{name: "swtpm as usual", module: "/l/libtpm2_pkcs11.so.1", env: map[string]string{"TPM2TOOLS_TCTI": "mssim"}, sockets: "tcp:2321 tcp:2322"},
		{name: "swtpm behind a Unix socket", module: "/l/libtpm2_pkcs11.so.1", env: map[string]string{"TPM2_PKCS11_TCTI": "swtpm:path=/run/x"}, sockets: "unix"},
		{name: "resource manager", module: "/l/libtpm2_pkcs11.so.1", env: map[string]string{"TPM2_PKCS11_TCTI": "tabrmd:bus_type=session", "DBUS_SESSION_BUS_ADDRESS": "unix:abstract=/x"}, sockets: "unix", abstract: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := Of(tc.module, tc.args, func(n string) string { return tc.env[n] }, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if p.Sockets() != tc.sockets || !slices.Equal(p.Write, tc.write) || p.Abstract != tc.abstract {
				t.Errorf("sockets %s, writes %v, abstract %v", p.Sockets(), p.Write, p.Abstract)
			}
		})
	}
	p, err := Of("/l/vendor.so", "", func(string) string { return "" }, []string{"unix", "tcp:9000", "tcp:9000"}, []string{"/srv/hsm"})
	if err != nil || p.Sockets() != "unix tcp:9000" || !slices.Equal(p.Write, []string{"/srv/hsm"}) {
		t.Errorf("%+v, %v", p, err)
	}
}
