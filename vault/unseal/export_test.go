package unseal

// Hold keeps an attempt busy until release is called, as one does whose share is weighed.
func (a *Attempts) Hold(id string) (release func()) {
	a.mu.Lock()
	x := a.list[id]
	a.mu.Unlock()
	x.mu.Lock()
	return x.mu.Unlock
}

// CarriedIsOver is when the time of the carried key is over.
func (a *Attempts) CarriedIsOver() {
	a.mu.Lock()
	c := a.carried
	a.mu.Unlock()
	a.expire(c)
}
