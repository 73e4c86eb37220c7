package record

import (
	"keyrite/artifact/admission"
	"keyrite/artifact/charter"
	"keyrite/artifact/jcs"
)

// admission takes the entry that admits a token: of a fresh one in token.admit, of
// one that is opened again in safe.open.
func (c *checker) admission(e *Entry, d *Admission) error {
	if module := c.program("module"); module == "" || d.Module.SHA256 != module {
		return bad("%w: another module was admitted than the one that ran", ErrEntry)
	}
	if c.do == "safe.open" {
		return c.admittedBefore(e, d)
	}
	if d.Report == nil {
		if err := checkCases(d); err != nil {
			return err
		}
		return c.advance(d.Safe, safeReady, safeAdmitted, "admission")
	}
	if len(d.Cases) > 0 || d.Envelope != nil || d.From != "" {
		return bad("%w: a token that was attacked here has an admission from elsewhere", ErrEntry)
	}
	if err := c.fits(e, d, d.Report); err != nil {
		return err
	}
	c.admitted[d.Safe] = d.Report
	c.Admissions = append(c.Admissions, *d.Report)
	return c.advance(d.Safe, safeReady, safeAdmitted, "admission")
}

// checkCases judges an entry of before there were reports in records.
func checkCases(d *Admission) error {
	if len(d.Cases) < admission.MinCases {
		return bad("%w: admission with %d cases, at least %d are needed", ErrEntry, len(d.Cases), admission.MinCases)
	}
	seen := map[string]bool{}
	for _, x := range d.Cases {
		if !x.Pass || seen[x.ID] {
			return bad("%w: admission case %.40q failed or stands twice, and the ceremony went on", ErrEntry, x.ID)
		}
		seen[x.ID] = true
	}
	return nil
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

// admittedBefore takes an earlier report. Its signature is checked when the people
// of the vault are known.
func (c *checker) admittedBefore(e *Entry, d *Admission) error {
	r := d.Report
	switch {
	case len(d.Cases) > 0 || (d.Report == nil) == (d.Envelope == nil) || (d.From == "") != (d.Report == nil):
		return bad("%w: the admission of safe %.40q says not where it comes from", ErrEntry, d.Safe)
	case d.Envelope != nil:
		r = &admission.Report{}
		if err := jcs.Unmarshal(d.Envelope.Payload, r); err != nil {
			return err
		}
		c.relied = append(c.relied, d)
	}
	if err := c.fits(e, d, r); err != nil {
		return err
	}
	if c.admitted[d.Safe] != nil {
		return bad("%w: safe %.40q was admitted twice", ErrEntry, d.Safe)
	}
	c.admitted[d.Safe] = r
	c.Admissions = append(c.Admissions, *r)
	return nil
}

// checkAdmissions wants the signature of somebody in the charter under each report
// that came in a file.
func (c *checker) checkAdmissions() error {
	people := &c.Charter.People
	if c.base != nil {
		people = &c.base.People
	}
	for _, d := range c.relied {
		if err := admission.CheckSigner(d.Envelope, people); err != nil {
			return bad("%w: the admission of safe %.40q: %w", ErrRecord, d.Safe, err)
		}
	}
	return nil
}

// keptAdmissions takes the reports that the ceremony hands on.
func (c *checker) keptAdmissions() error {
	path := OutputsDir + "/admissions.json"
	if _, ok := c.outputs[path]; !ok {
		return nil // a record of before there were any
	}
	data, err := readFile(c.fsys, path, admission.MaxKeptBytes)
	if err != nil {
		return err
	}
	k, err := admission.ParseKept(data, c.Open.World)
	if err != nil {
		return bad("%w: %s: %w", ErrRecord, path, err)
	}
	c.Admissions = append(c.Admissions, k.Reports...)
	return nil
}

// admits wants a key that is born in an algorithm that its token was admitted for.
func (c *checker) admits(safe, algorithm string) error {
	r := c.admitted[safe]
	if r == nil {
		return nil // a record of before there were reports in them
	}
	if err := r.CheckAlgorithm(algorithm); err != nil {
		return bad("%w: %w", ErrEntry, err)
	}
	return nil
}
