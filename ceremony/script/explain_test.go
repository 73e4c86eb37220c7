package script

import (
	"strings"
	"testing"
)

// Each kind says who comes, how long, what is made or ends, who can do what
// afterwards, and what can go wrong.
func TestExplain(t *testing.T) {
	says := map[string][]string{
		"genesis": {
			"All 5 key masters", " hours", "key birth-root (p256): certifies the factories", "it signs nothing until it takes the place of firmware", "Factory factory1 may make devices gw100-1 to 1000",
			"Safe root, work, root2, work2: fewer than 3 key masters open nothing", "If 3 key masters lose their shares of safe root, work, root2, work2",
		},
		"new-key":      {"At least 3 of the 5 key masters; up to 2 may be absent.", "Token w (safe work) is opened by 3 of 5", "key extra (p256)", "1 operator, who types", "Auditors who watch for others: 1."},
		"reshare":      {"All 5 key masters", "A new secret and 5 new shares for token w", "the old shares stay in force", "Whoever leaves his role"},
		"transfer":     {"At least 2 of the 3 key masters of group standby", "Key kv leaves safe work for safe work2", "only wrapped"},
		"hsm-lost":     {"Key firmware is spoken of; it need not be there", "Key firmware is lost; firmware-2 takes its place"},
		"succession":   {"Key firmware is destroyed. Nothing brings it back.", "Key firmware is compromised", "What is destroyed stays destroyed"},
		"sign-offline": {"Revocation list births, number 1, issued by birth-root, with 1 certificates", "The charter stays as it is"},
		"enrol":        {"Pipeline p2 may request releases of gw200.", "What others bring", "of pipeline p2 (binding, keys).", "about 1 hour when"},
		"retire":       {"Key old is destroyed.", "Everything in the token of safe work is destroyed."},
	}
	for kind, text := range scripts(t) {
		s, err := Parse(kind, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(s.Explain(), "\n")
		for _, want := range append(says[kind], "Who must be there", "How long it takes", "Who can do what afterwards", "What can go wrong", "Nobody has two roles.") {
			if !strings.Contains(got, want) {
				t.Errorf("%s does not say %q:\n%s", kind, want, got)
			}
		}
		if len(says[kind]) == 0 {
			t.Errorf("nothing is expected of %s", kind)
		}
		for _, never := range []string{"%!", "0 key masters", "  ,"} {
			if strings.Contains(got, never) {
				t.Errorf("%s says %q", kind, never)
			}
		}
	}
}
