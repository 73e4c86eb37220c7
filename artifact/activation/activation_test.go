package activation_test

import (
	"bytes"
	"strings"
	"testing"

	"keyrite/artifact/activation"
	"keyrite/artifact/fault"
)

func valid() activation.Activation {
	return activation.Activation{
		Access: "relay.example:443", ActivationKey: "ABCDEFGHIJKLMNOPQRSTUVWXYZ", Format: activation.Format,
		PolicyKey: activation.Fingerprint([]byte("key")), World: "rehearsal:0123456789ab",
	}
}

func TestParse(t *testing.T) {
	good := valid()
	data, err := good.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if a, err := activation.Parse(data); err != nil || *a != good {
		t.Errorf("got %+v, %v", a, err)
	}
	for _, addr := range []string{"10.0.0.1:443", "[2001:db8::1]:8443", "a:1"} {
		a := valid()
		a.Access = addr
		if _, err := a.Marshal(); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := valid()
	data, err := good.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(*activation.Activation)) []byte {
		a := valid()
		f(&a)
		if _, err := a.Marshal(); err == nil {
			t.Errorf("%+v was written", a)
		}
		return []byte(`{"access":"` + a.Access + `","activation_key":"` + a.ActivationKey + `","format":"` + a.Format + `","policy_key":"` + a.PolicyKey + `","world":"` + string(a.World) + `"}`)
	}
	for name, bad := range map[string][]byte{
		"nothing": nil, "newline": append(bytes.Clone(data), '\n'), "unknown member": []byte(strings.Replace(string(data), `{`, `{"a":1,`, 1)),
		"too long":         bytes.Repeat([]byte(" "), activation.MaxBytes+1),
		"no port":          change(func(a *activation.Activation) { a.Access = "relay.example" }),
		"port 0":           change(func(a *activation.Activation) { a.Access = "relay.example:0" }),
		"no host":          change(func(a *activation.Activation) { a.Access = ":443" }),
		"shell in host":    change(func(a *activation.Activation) { a.Access = "$(reboot):443" }),
		"path":             change(func(a *activation.Activation) { a.Access = "h:443/x" }),
		"short key":        change(func(a *activation.Activation) { a.ActivationKey = "ABC" }),
		"key with dashes":  change(func(a *activation.Activation) { a.ActivationKey = "ABCDE-FGHIJKLMNOPQRSTUVWXY" }),
		"other format":     change(func(a *activation.Activation) { a.Format = "keyrite/activation/v2" }),
		"upper case hash":  change(func(a *activation.Activation) { a.PolicyKey = strings.ToUpper(a.PolicyKey) }),
		"no world":         change(func(a *activation.Activation) { a.World = "" }),
		"world of no kind": change(func(a *activation.Activation) { a.World = "rehearsal:x" }),
	} {
		if _, err := activation.Parse(bad); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	good := valid()
	data, err := good.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, in []byte) {
		a, err := activation.Parse(in)
		if err != nil {
			return
		}
		if again, err := a.Marshal(); err != nil || !bytes.Equal(again, in) {
			t.Errorf("accepted bytes come back differently: %v", err)
		}
	})
}
