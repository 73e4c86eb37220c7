package seal

import "keyrite/artifact/fault"

var (
	// ErrAltered says that a value, the state or the log does not hold.
	ErrAltered = fault.New(fault.Verify, "the store was altered or is damaged")
	// ErrBehind says that the store is older than the head that is kept outside:
	// an older copy was put back.
	ErrBehind = fault.Hint(fault.New(fault.Verify, "the store is older than its head: an older copy was put back, or the last entries were lost"), "put the newest copy of the state folder's store/ back and open it again; where there is none see 'The cosigner, or the newest copy, is lost' in docs/operations/vault.md, or docs/operations/vault-tpm.md")
	// ErrFork says that the head is not on the store's own log.
	ErrFork = fault.New(fault.Verify, "the head is not on this store's log: it belongs to another history")
	// ErrStopped says that a write failed before and nothing is served since.
	ErrStopped = fault.New(fault.Storage, "the store stopped after a failed write; what the disk has is found out at the next start")
	// ErrUnconfirmed says that the update is in the store but its head could not
	// be advanced: it may hold after a restart, and must not be relied on.
	ErrUnconfirmed = fault.New(fault.Unreachable, "the head of the store could not be advanced, so the change is not confirmed")
	// ErrLagging says that the head has been behind for too long, so the update was not
	// made: nothing of it is in the store.
	ErrLagging = fault.New(fault.Unreachable, "the head of the store is behind and cannot be advanced, so nothing is written")
	// ErrKey says that the key is not that of this store.
	ErrKey = fault.New(fault.Verify, "the key does not open this store")
	// ErrNotFound says that there is no such value.
	ErrNotFound = fault.New(fault.Usage, "no such value in the store")
)
