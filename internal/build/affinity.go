package build

import (
	"cmp"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/pool"
	"github.com/berthbuild/berth/internal/request"
)

// affinityKey is what a build is known by on every machine: where its context comes
// from, its Dockerfile's path and its target. What changes from one build to the
// next (a commit, arguments, tags) is no part of it, so that the same daemon gets
// it again and finds what it built before.
func affinityKey(r request.Request, v request.VCS) string {
	file := r.DockerfileName()
	var from string
	switch {
	case v.Source != "":
		from = v.Source + "#" + v.Context
		file = path.Join(cmp.Or(v.Dockerfile, v.Context), file)
	case r.Context.URL != "":
		from = withoutRef(buildflag.RedactURL(r.Context.URL))
	case r.Context.Dir != "":
		from = r.Context.Dir
		if rel, err := filepath.Rel(r.Context.Dir, r.Dockerfile.Dir); err == nil && r.Dockerfile.Dir != "" {
			file = path.Join(filepath.ToSlash(rel), file)
		}
	}
	if r.Dockerfile.URL != "" {
		file = buildflag.RedactURL(r.Dockerfile.URL)
	}
	return strings.Join([]string{from, file, r.Target}, " ")
}

// withoutRef is a Git URL without the commit or branch that it names.
func withoutRef(url string) string {
	base, fragment, _ := strings.Cut(url, "#")
	if _, folder, ok := strings.Cut(fragment, ":"); ok {
		return base + "#:" + folder
	}
	return base
}

// together groups jobs that share a context, or are built upon one another: what
// one daemon has of the one helps the other. The groups, and the jobs in each, are
// in the order of jobs.
func together(jobs []*job) [][]*job {
	group := make([]int, len(jobs)) // by the first job in it
	join := func(a, b int) {
		from, to := max(group[a], group[b]), min(group[a], group[b])
		for i, g := range group {
			if g == from {
				group[i] = to
			}
		}
	}
	context, name := map[string]int{}, map[string]int{}
	for i, j := range jobs {
		group[i] = i
		name[j.target.Name] = i
	}
	for i, j := range jobs {
		if c := cmp.Or(j.req.Context.Dir, j.req.Context.URL); c != "" {
			first, ok := context[c]
			if !ok {
				context[c], first = i, i
			}
			join(i, first)
		}
		for _, other := range j.target.Links {
			if n, ok := name[other]; ok {
				join(i, n)
			}
		}
	}
	var all [][]*job
	at := map[int]int{}
	for i, j := range jobs {
		g, ok := at[group[i]]
		if !ok {
			g = len(all)
			at[group[i]] = g
			all = append(all, nil)
		}
		all[g] = append(all[g], j)
	}
	return all
}

// able is p with the members that have answered, and none of its choices.
func (p *placement) able() *placement {
	out := &placement{policy: p.policy, first: p.first}
	for _, i := range p.tried() {
		if m := p.members[i]; m.answered && m.err == nil && m.conn != nil {
			out.members = append(out.members, m)
		}
	}
	if !slices.ContainsFunc(out.members, func(m *member) bool { return m.Node.Name == p.first }) && len(out.members) > 0 {
		out.first = out.members[0].Node.Name
	}
	return out
}

// spread orders the members for a group of targets out of so many: those come first
// that the key prefers, as long as they have not got more than their share, and a
// quarter, of the whole; or those that have the fewest builds.
func (p *placement) spread(key string, of int) {
	all := make([]pool.Member, len(p.members))
	for i, m := range p.members {
		all[i] = m.Member
	}
	share := (5*of + 4*len(all) - 1) / (4 * max(1, len(all)))
	p.order = pool.Order(p.policy, key, all, func(pool.Member) bool { return false })
	if p.policy == endpoint.PoolFirst {
		return
	}
	slices.SortStableFunc(p.order, func(a, b int) int {
		x, y := p.members[a], p.members[b]
		if p.policy == endpoint.PoolLeastBusy {
			return cmp.Compare(x.active+x.wins, y.active+y.wins)
		}
		return cmp.Compare(over(x, share), over(y, share))
	})
}

func over(m *member, share int) int {
	if m.wins >= share || m.full() {
		return 1
	}
	return 0
}

// spreadText says who builds how many targets.
func (p *placement) spreadText() string {
	var all []string
	for _, m := range p.members {
		if m.wins > 0 {
			all = append(all, fmt.Sprintf("%s (%d)", m.Name, m.wins))
		}
	}
	return strings.Join(all, ", ")
}
