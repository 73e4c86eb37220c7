package engine

import (
	"context"

	"keyrite/artifact/anchor"
	"keyrite/hsm"
)

// Token is the work token as engines see it. Keys are named as in the charter:
// one that the charter does not know, or that is retired, is refused, and so is
// one whose public half in the token is another.
type Token interface {
	// Signer gives the key in force under the id, and its record.
	Signer(ctx context.Context, id string) (*hsm.Key, *anchor.KeyRecord, error)
	// Random returns 1 to 4,096 bytes of the token's generator.
	Random(ctx context.Context, n int) ([]byte, error)
}
