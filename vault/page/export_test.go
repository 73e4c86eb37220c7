package page

// Paths are those of all pages.
func Paths() []string {
	var out []string
	for _, v := range views() {
		out = append(out, v.path)
	}
	return out
}
