package pool

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/history"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/berthbuild/berth/internal/request"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
)

const (
	// glimpse bounds reading at which step a build is: a daemon sends what there
	// is, and then goes on as long as the build does.
	glimpse = 400 * time.Millisecond
	// measuring bounds asking how large a cache is.
	measuring = 5 * time.Second
	// maxSteps bounds how many steps of one build are told.
	maxSteps = 8
)

// Sight is what was seen of one member.
type Sight struct {
	Member
	Err     error // why it does not answer; nil otherwise
	Version string
	Known   bool    // it says which builds it has
	Builds  []Build // in the order in which they began
	Cache   int64   // its size in bytes; below 0 where it is not known
}

// Build is one that runs.
type Build struct {
	Ref     string
	Name    string // what people know it by; may be empty
	Source  string // the repository that it is from; may be empty
	Started time.Time
	Steps   []string // that run at the moment
}

// Survey looks at all members at once, each within a budget: how it is, what it
// builds, and how large its cache is. The order is that of members. It keeps no
// connections.
func Survey(ctx context.Context, members []Member, schemes dial.Registry, budget time.Duration) []Sight {
	all := make([]Sight, len(members))
	var asking sync.WaitGroup
	for i, m := range members {
		asking.Go(func() { all[i] = look(ctx, m, schemes, budget) })
	}
	asking.Wait()
	return all
}

func look(ctx context.Context, m Member, schemes dial.Registry, budget time.Duration) Sight {
	s := Sight{Member: m, Err: m.Err, Cache: -1}
	if s.Err != nil {
		return s
	}
	c, err := remote.Connect(ctx, m.Target, remote.Config{Schemes: schemes, Budget: budget, Once: true})
	if err != nil {
		s.Err = err
		return s
	}
	defer c.Close() //nolint:errcheck // it only asked
	s.Version = c.Version().Version
	var asking sync.WaitGroup
	asking.Go(func() { s.Cache = cacheSize(ctx, c.Client()) })
	asking.Go(func() {
		if !request.CapabilitiesOf(c.Version()).ActiveBuilds() {
			return
		}
		running, err := Active(ctx, c.Client())
		if err != nil {
			return
		}
		s.Known = true
		s.Builds = make([]Build, len(running))
		var looking sync.WaitGroup
		for i, r := range running {
			looking.Go(func() { s.Builds[i] = r.build(ctx, c.Client()) })
		}
		looking.Wait()
	})
	asking.Wait()
	return s
}

// build is what is told of a running build.
func (r Running) build(ctx context.Context, c *client.Client) Build {
	record := &history.Record{BuildHistoryRecord: r.record}
	return Build{
		Ref: r.Ref, Name: record.Name(), Source: record.Repository(), Started: r.Started, Steps: steps(ctx, c, r.Ref),
	}
}

// steps are those of a build that run.
func steps(ctx context.Context, c *client.Client, ref string) []string {
	ctx, cancel := context.WithTimeout(ctx, glimpse)
	defer cancel()
	status, err := c.ControlClient().Status(ctx, &controlapi.StatusRequest{Ref: ref})
	if err != nil {
		return nil
	}
	var order []string
	running := map[string]string{} // digest → name
	for {
		s, err := status.Recv()
		if err != nil {
			break
		}
		for _, v := range s.Vertexes {
			switch {
			case v.Started != nil && v.Completed == nil:
				if _, ok := running[v.Digest]; !ok {
					order = append(order, v.Digest)
				}
				running[v.Digest] = v.Name
			default:
				delete(running, v.Digest)
			}
		}
	}
	var names []string
	for _, d := range order {
		if name, ok := running[d]; ok && len(names) < maxSteps && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func cacheSize(ctx context.Context, c *client.Client) int64 {
	ctx, cancel := context.WithTimeout(ctx, measuring)
	defer cancel()
	all, err := c.DiskUsage(ctx)
	if err != nil {
		return -1
	}
	var sum int64
	for _, u := range all {
		sum += u.Size
	}
	return sum
}
