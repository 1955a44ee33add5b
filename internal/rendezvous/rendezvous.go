// Package rendezvous gives each key an order of preference among members, the
// same for everybody who knows the names of the members, without any of them
// speaking to another (rendezvous or highest-random-weight hashing, Thaler and
// Ravishankar 1998).
//
// It is not for load, health or limits: who asks passes over the members that
// are away or full, and takes the next.
//
// Rules: the order of two members depends on the key and on their two names
// only. So a member that goes moves its own keys and no other key, each to what
// was the key's second choice; when it comes back it gets the same keys again;
// and a new member takes its share evenly from all others. The weights are part
// of what berth promises: clients of different versions must agree on them.
package rendezvous

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// Order gives the indices of members, the key's best first. It depends on the
// names alone and not on where they stand in members; those with equal weights
// are ordered by name, and equal names by their place. members is not changed.
// It takes one SHA-256 for each member.
func Order(key string, members []string) []int {
	weights := make([]uint64, len(members))
	order := make([]int, len(members))
	k := sha256.Sum256([]byte(key))
	for i, m := range members {
		weights[i] = weight(k, m)
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(weights[b], weights[a]), cmp.Compare(members[a], members[b]))
	})
	return order
}

// weight is the first eight bytes, big-endian, of SHA-256 over the key's
// SHA-256 and the member. The key is hashed first so that no two pairs run into
// one another ("ab"+"c" and "a"+"bc"). A cryptographic hash costs a microsecond
// at most, mixes names that differ in one digit (the usual kind), and cannot be
// steered by who chooses a key.
func weight(key [sha256.Size]byte, member string) uint64 {
	sum := sha256.Sum256(append(key[:], member...))
	return binary.BigEndian.Uint64(sum[:])
}
