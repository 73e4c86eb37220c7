// Package seal is the vault's store: one bbolt file in which every value is
// sealed, every transaction is one entry of a Merkle log, and whose newest head
// is kept outside the file. It is called by the parts of the vault that keep
// something; it never decides who may read or write, and knows no token.
//
//	s, err := seal.Open(ctx, seal.Config{Dir: dir, Place: place, Head: keeper, ...}, key)
//	n, err := s.Update(ctx, seal.Strict, func(tx *seal.Tx) (entry any, err error) {
//		return audited, tx.Put("kv/data", "line1/plc", value)
//	})
//
// bbolt finds neither bit rot nor an older copy of its file, and can crash the
// process that opens a damaged one (all three tried). So:
//
//   - a value is encrypted with its vault, world, epoch, bucket, key and the
//     number of its transaction as associated data, so that it is readable in
//     its own place only;
//   - the state {set of all values, root of the log} changes with each
//     transaction, so that an older value in its own place is found, too;
//   - the head {size, root} of the log is advanced at a Keeper, which a copy of
//     the file does not carry along, before a Strict update is acknowledged and
//     within a second otherwise; a store behind it is refused;
//   - the file is opened and read through by a process of its own first.
//
// After a write that failed nothing is served any more, since nobody knows what
// the disk has (a second fsync may say OK for what the first one lost).
//
// Names of buckets and keys stand in the file as they are. The key of the store
// is copied by the cipher into memory that Go cannot wipe: who seals a vault
// ends its process.
package seal
