package cli

import (
	"fmt"
	"time"
)

// Ago says how long something is past, in whole days of 24 hours: "today", "1 day ago",
// "12 days ago".
func Ago(d time.Duration) string {
	switch days := int(d.Hours() / 24); {
	case days < 1:
		return "today"
	case days == 1:
		return "1 day ago"
	default:
		return fmt.Sprintf("%d days ago", days)
	}
}
