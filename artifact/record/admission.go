package record

import (
	"keyrite/artifact/admission"
	"keyrite/artifact/charter"
)

// admission takes the entry that admits a token: of a fresh one in token.admit, of
// one that is opened again in safe.open. Who signed the report is checked when the
// people of the vault are known.
func (c *checker) admission(e *Entry, d *Admission) error {
	if module := c.program("module"); module == "" || d.Module.SHA256 != module {
		return bad("%w: another module was admitted than the one that ran", ErrEntry)
	}
	if err := d.Process.check(); err != nil {
		return err
	}
	r, err := admission.Unverified(&d.Envelope)
	if err != nil {
		return err
	}
	if err := c.fits(e, d, r); err != nil {
		return err
	}
	if c.admitted[d.Safe] != nil {
		return bad("%w: safe %.40q was admitted twice", ErrEntry, d.Safe)
	}
	c.admitted[d.Safe] = r
	c.relied = append(c.relied, Line{*e, d})
	if c.do == "safe.open" {
		return nil
	}
	return c.advance(d.Safe, safeReady, safeAdmitted, "admission")
}

// fits wants a report of this safe's token and this module, good when the entry
// was made.
func (c *checker) fits(e *Entry, d *Admission, r *admission.Report) error {
	at, err := charter.ParseTime(e.Time)
	if err != nil {
		return err
	}
	if err := r.CheckTime(c.Open.World, at); err != nil {
		return bad("%w: the admission of safe %.40q does not hold: %w", ErrEntry, d.Safe, err)
	}
	t, ok := c.tokens[d.Safe]
	if !ok || r.Token.Label != t.Label || r.Token.Serial != t.Serial {
		return bad("%w: the admission of safe %.40q is of another token", ErrEntry, d.Safe)
	}
	if r.Module.SHA256 != d.Module.SHA256 {
		return bad("%w: the admission of safe %.40q is of another module", ErrEntry, d.Safe)
	}
	return nil
}

// checkAdmissions wants the signature of somebody in the charter under each report.
func (c *checker) checkAdmissions() error {
	people := &c.Charter.People
	if c.base != nil {
		people = &c.base.People
	}
	for _, l := range c.relied {
		d, ok := l.Data.(*Admission)
		if !ok {
			continue
		}
		x, err := admission.Take(&d.Envelope, people)
		if err != nil {
			return bad("%w: entry %d: the admission of safe %.40q: %w", ErrEntry, l.Seq, d.Safe, err)
		}
		c.Admissions = append(c.Admissions, *x)
	}
	return nil
}

// keptAdmissions takes the reports that the ceremony hands on: signed by people of
// the charter as it left it.
func (c *checker) keptAdmissions() error {
	path := OutputsDir + "/" + AdmissionsFile
	data, err := readFile(c.fsys, path, admission.MaxKeptBytes)
	if err != nil {
		return err
	}
	kept, err := admission.ParseKept(data, c.Open.World, &c.Charter.People)
	if err != nil {
		return bad("%w: %s: %w", ErrRecord, path, err)
	}
	c.Admissions = append(c.Admissions, kept...)
	return nil
}

// admits wants a key that is born in an algorithm that its token was admitted for.
func (c *checker) admits(safe, algorithm string) error {
	r := c.admitted[safe]
	if r == nil {
		return bad("%w: a key is born in safe %.40q, whose token was not admitted", ErrEntry, safe)
	}
	if err := r.CheckAlgorithm(algorithm); err != nil {
		return bad("%w: %w", ErrEntry, err)
	}
	return nil
}
