package identity

import (
	"time"

	"keyrite/artifact/charter"
)

// JudgeJob is judgeJob for tests that cannot wait for a refusal's time.
func JudgeJob(want *charter.JWT, raw string, now time.Time) error {
	_, err := judgeJob(want, raw, now)
	return err
}
