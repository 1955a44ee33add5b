package rendezvous

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func names(format string, n int) []string {
	s := make([]string, n)
	for i := range s {
		s[i] = fmt.Sprintf(format, i)
	}
	return s
}

// ordered is the names in the key's order.
func ordered(key string, members []string) []string {
	var s []string
	for _, i := range Order(key, members) {
		s = append(s, members[i])
	}
	return s
}

// The order is a promise between clients of different versions: these values
// may not change.
func TestOrderIsFixed(t *testing.T) {
	members := []string{"buildkitd-0", "buildkitd-1", "buildkitd-2", "buildkitd-3"}
	for _, c := range []struct {
		key  string
		want []int
	}{
		{"", []int{1, 3, 0, 2}},
		{"github.com/example/app", []int{2, 3, 1, 0}},
		{"github.com/example/web", []int{0, 2, 3, 1}},
	} {
		if got := Order(c.key, members); !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, want %v", c.key, got, c.want)
		}
	}
}

func TestFewMembers(t *testing.T) {
	if got := Order("key", nil); len(got) != 0 {
		t.Errorf("of none: %v", got)
	}
	if got := Order("key", []string{"one"}); !slices.Equal(got, []int{0}) {
		t.Errorf("of one: %v", got)
	}
	if got := Order("key", []string{"same", "same", "same"}); !slices.Equal(got, []int{0, 1, 2}) {
		t.Errorf("equal names: %v, want them as they stand", got)
	}
}

// Clients list the same members in any order, and each is named once.
func TestOrderOfMembersDoesNotMatter(t *testing.T) {
	members := names("tcp://10.0.0.%d:1234", 50)
	for _, key := range names("project-%d", 100) {
		want := ordered(key, members)
		shuffled := slices.Clone(members)
		rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		before := slices.Clone(shuffled)
		if got := ordered(key, shuffled); !slices.Equal(got, want) {
			t.Fatalf("%s: shuffled %v, want %v", key, got, want)
		}
		if !slices.Equal(shuffled, before) {
			t.Fatal("members was changed")
		}
		slices.Sort(want)
		if all := slices.Sorted(slices.Values(members)); !slices.Equal(want, all) {
			t.Fatalf("%s: not each member once: %v", key, want)
		}
	}
}

// Whoever goes leaves the order of the others as it was, for every key: so only
// its own keys move, and each to what was its second choice. Read backwards: who
// comes back gets the same keys, and a new member takes only what it is best for.
func TestOnlyTheLostMembersShareMoves(t *testing.T) {
	members := names("buildkitd-%d", 20)
	lost := members[7]
	left := slices.Delete(slices.Clone(members), 7, 8)
	moved, heirs := 0, map[string]int{}
	keys := names("key-%d", 5_000)
	for _, key := range keys {
		before, after := ordered(key, members), ordered(key, left)
		if want := slices.DeleteFunc(slices.Clone(before), func(m string) bool { return m == lost }); !slices.Equal(after, want) {
			t.Fatalf("%s: %v without %s, want %v", key, after, lost, want)
		}
		if before[0] == lost {
			moved++
			heirs[after[0]]++
		}
	}
	within(t, "moved keys", moved, len(keys), 1.0/20)
	for _, m := range left {
		within(t, "what "+m+" inherits", heirs[m], moved, 1.0/19)
	}
}

// Each place in the order is as likely for each member, with names and keys of
// every usual kind.
func TestBalance(t *testing.T) {
	for _, c := range []struct {
		members, keys string
	}{
		{"buildkitd-%d", "key-%d"},
		{"tcp://build%d.example.com:1234", "github.com/example/app%d"},
		{"%d", "%d"},
		{"kube-statefulset://buildkit/buildkitd?ordinal=%d&namespace=build", "git@example.com:team/service-%d.git"},
	} {
		const n = 25
		members, keys := names(c.members, n), names(c.keys, 5_000)
		firsts, seconds := make([]int, n), make([]int, n)
		for _, key := range keys {
			order := Order(key, members)
			firsts[order[0]]++
			seconds[order[1]]++
		}
		for i, m := range members {
			within(t, m+" first", firsts[i], len(keys), 1.0/n)
			within(t, m+" second", seconds[i], len(keys), 1.0/n)
		}
	}
}

// within fails when a count of n with probability p is more than five standard
// deviations off, which happens by chance once in 1.7 million.
func within(t *testing.T, what string, count, n int, p float64) {
	t.Helper()
	mean, sd := float64(n)*p, math.Sqrt(float64(n)*p*(1-p))
	if math.Abs(float64(count)-mean) > 5*sd {
		t.Errorf("%s: %d of %d, want %.0f ± %.0f", what, count, n, mean, 5*sd)
	}
}

// Pairs of key and member that read the same one after the other are not
// hashed as the same bytes.
func TestPairsAreApart(t *testing.T) {
	a, b := names("c%d", 30), names("bc%d", 30)
	if slices.Equal(Order("ab", a), Order("a", b)) {
		t.Error("ab+c and a+bc are ordered alike")
	}
}

func BenchmarkOrder(b *testing.B) {
	members := names("buildkitd-%d", 200)
	for b.Loop() {
		Order("github.com/example/app", members)
	}
}
