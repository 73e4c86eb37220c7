package charter_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

func logSigner(name string) charter.LogSigner {
	seed := sha256.Sum256([]byte("NOT SECRET " + name))
	return charter.LogSigner{Key: ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey), Name: name}
}

// trailCases are statements about the audit trail, and what they are worth.
func trailCases() map[string]engineCase {
	out := map[string]engineCase{}
	log := func(name, expect string, edit func(*charter.AuditLog)) {
		l := charter.AuditLog{Cosigners: []charter.LogSigner{logSigner("watch1"), logSigner("watch2")}, Log: logSigner("vault1"), Need: 1, Version: 1}
		edit(&l)
		out["audit-log-"+name] = engineCase{charter.TypeAuditLog, expect, l}
	}
	log("whole", "ok", func(*charter.AuditLog) {})
	log("rehearsal-without-cosigners", "ok", func(l *charter.AuditLog) { l.Cosigners, l.Need = nil, 0 })
	log("needs-more-than-there-are", "verify", func(l *charter.AuditLog) { l.Need = 3 })
	log("needs-fewer-than-none", "verify", func(l *charter.AuditLog) { l.Need = -1 })
	log("no-log", "verify", func(l *charter.AuditLog) { l.Log = charter.LogSigner{} })
	log("short-key", "verify", func(l *charter.AuditLog) { l.Log.Key = l.Log.Key[:31] })
	log("cosigns-itself", "verify", func(l *charter.AuditLog) { l.Cosigners[0].Key = l.Log.Key })
	log("cosigner-under-its-name", "verify", func(l *charter.AuditLog) { l.Cosigners[0].Name = l.Log.Name })
	log("cosigner-twice", "verify", func(l *charter.AuditLog) { l.Cosigners[1] = l.Cosigners[0] })
	log("cosigners-out-of-order", "verify", func(l *charter.AuditLog) { l.Cosigners[0], l.Cosigners[1] = l.Cosigners[1], l.Cosigners[0] })
	log("name-with-a-line", "verify", func(l *charter.AuditLog) { l.Log.Name = "vault1\nx" })
	log("version-0", "verify", func(l *charter.AuditLog) { l.Version = 0 })
	log("version-2-first", "verify", func(l *charter.AuditLog) { l.Version = 2 })

	for name, c := range map[string]struct {
		sink   charter.AuditSink
		expect string
	}{
		"file":              {charter.AuditSink{ID: "copy", Kind: "file"}, "ok"},
		"file-with-a-path":  {charter.AuditSink{ID: "copy", Kind: "file", Address: "/etc/cron.d/x"}, "verify"},
		"file-as-a-path":    {charter.AuditSink{ID: "../copy", Kind: "file"}, "verify"},
		"syslog-name":       {charter.AuditSink{ID: "soc", Kind: "syslog", Address: "log.plant1.example:6514"}, "ok"},
		"syslog-address":    {charter.AuditSink{ID: "soc", Kind: "syslog", Address: "[2001:db8::1]:601"}, "ok"},
		"syslog-no-address": {charter.AuditSink{ID: "soc", Kind: "syslog"}, "verify"},
		"syslog-no-port":    {charter.AuditSink{ID: "soc", Kind: "syslog", Address: "log.plant1.example"}, "verify"},
		"syslog-port-0":     {charter.AuditSink{ID: "soc", Kind: "syslog", Address: "log.plant1.example:0"}, "verify"},
		"syslog-odd-port":   {charter.AuditSink{ID: "soc", Kind: "syslog", Address: "log.plant1.example:0601"}, "verify"},
		"syslog-odd-ip":     {charter.AuditSink{ID: "soc", Kind: "syslog", Address: "[2001:DB8::1]:601"}, "verify"},
		"syslog-with-user":  {charter.AuditSink{ID: "soc", Kind: "syslog", Address: "root@log.example:601"}, "verify"},
		"syslog-no-host":    {charter.AuditSink{ID: "soc", Kind: "syslog", Address: ":601"}, "verify"},
		"another-kind":      {charter.AuditSink{ID: "copy", Kind: "socket"}, "verify"},
		"no-kind":           {charter.AuditSink{ID: "copy"}, "verify"},
		"no-id":             {charter.AuditSink{Kind: "file"}, "verify"},
	} {
		out["audit-sink-"+name] = engineCase{charter.TypeAuditSink, c.expect, c.sink}
	}
	return out
}

// Whose word counts follows the charter, and is nobody's before it says so.
func TestTrailSigners(t *testing.T) {
	v := newVault(t)
	if s := v.refold().TrailSigners(); s.Log.Public != nil || s.Cosigners != nil {
		t.Errorf("signers of a charter that names none: %+v", s)
	}
	first := trailCases()["audit-log-whole"].body
	v.decide(charter.TypeAuditLog, first)
	next := first.(charter.AuditLog)
	next.Version, next.Log, next.Need = 2, logSigner("vault2"), 2
	v.decide(charter.TypeAuditLog, next)
	s := v.refold().TrailSigners()
	if s.Log.Name != "vault2" || s.Need != 2 || len(s.Cosigners) != 2 || s.Vault != v.refold().Vault {
		t.Errorf("in force: %+v", s)
	}
	if err := v.propose(charter.TypeAuditLog, first); fault.ClassOf(err) != fault.Verify {
		t.Errorf("the first again: %v", err)
	}
}

// A sink that was ended takes nothing any more, and its name is not given again.
func TestAuditSinkEnds(t *testing.T) {
	v := newVault(t)
	sink := charter.AuditSink{ID: "copy", Kind: "file"}
	v.decide(charter.TypeAuditSink, sink)
	v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: "copy", Type: charter.TypeAuditSink})
	if n := len(v.refold().Audit.Sinks); n != 0 {
		t.Errorf("%d sinks", n)
	}
	if err := v.propose(charter.TypeAuditSink, sink); fault.ClassOf(err) != fault.Verify {
		t.Errorf("again: %v", err)
	}
}
