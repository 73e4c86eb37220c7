package update

// CutPower makes step decide before each effect whether the power is still on.
func (s *Slots) CutPower(step func(string) error) { s.step = step }

// ParseState is the boot state's reader, for the fuzzer.
var ParseState = parseState

// CutPower makes step decide before each effect of taking a succession whether the
// power is still on.
func (x *Succession) CutPower(step func(string) error) { x.step = step }
