package paper

import (
	"strings"

	"keyrite/artifact/fault"
)

// anchorsSheet is what the page of the anchors' words shows.
type anchorsSheet struct {
	Title string
	Hash  string
	Words []string
	For   []string
}

// AnchorsSheet renders the sheet that each participant takes home, one page for
// each of people: the 32 words of the anchors as anchor.Anchors.Words gives
// them. title is the ceremony's, world its world, record its id.
func AnchorsSheet(title, world, record, words string, people []string) ([]byte, error) {
	if len(strings.Fields(words)) != len(blanks()) {
		return nil, fault.Errorf(fault.Unexpected, "a sheet of the anchors has %d words, not %d", len(blanks()), len(strings.Fields(words)))
	}
	return anchorsPage(head{Title: "Words of the anchors – " + title, World: world, Footer: "record " + record}, title, words, people)
}

func anchorsPage(h head, title, words string, people []string) ([]byte, error) {
	return renderPage("anchors", page{h, anchorsSheet{Title: title, Words: strings.Fields(words), For: people}}, kitHTML)
}
