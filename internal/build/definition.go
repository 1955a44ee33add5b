package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/request"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/identity"
)

// Source is files of a Git repository, of an archive that is downloaded, or a
// download that is the one file.
type Source struct {
	URL string
	// Names are the files that are wanted, by paths in it; those of Defaults are
	// read where they are there and nothing is named.
	Names, Defaults []string
	MaxFile         int64 // bytes of one file
	Secrets         []buildflag.Secret
	SSH             []buildflag.SSH
}

// Fetched is what a Source has.
type Fetched struct {
	Files   []FetchedFile
	Archive bool // the URL is an archive
	Single  bool // the URL is the file itself, and there is nothing beside it
}

// FetchedFile is one file of it; its name is the path in it, or the URL.
type FetchedFile struct {
	Name string
	Data []byte
}

// fetchBudget is how long a daemon may take to fetch a definition.
const fetchBudget = 5 * time.Minute

// errFetchBudget is the cause of a context that fetchBudget ended.
var errFetchBudget = fmt.Errorf("not fetched within %v", fetchBudget)

// Fetch has the first node of b fetch a Source, and reads the files there:
// nothing is downloaded to this machine but they. Nothing is built, and no record
// of it is kept.
func Fetch(ctx context.Context, b *builder.Builder, s Source, o Options) (*Fetched, error) {
	in, err := openInputs(request.Request{Secrets: s.Secrets, SSH: s.SSH}, o)
	if err != nil {
		return nil, err
	}
	defer in.close()
	placed, err := place(ctx, b, request.Request{}, o)
	if err != nil {
		return nil, err
	}
	defer placed.close()
	p := part{member: placed.one()}
	state, err := request.Fetched(s.URL, "[internal] load remote bake definition "+buildflag.RedactURL(s.URL))
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, fetchBudget, errFetchBudget)
	defer cancel()
	var out *Fetched
	var refused error
	opt := client.SolveOpt{Ref: identity.NewID(), Internal: true}
	if err := in.apply(&opt); err != nil {
		return nil, err
	}
	_, begun, err := watch(bounded, p, in, o, func(ctx context.Context, statuses chan *client.SolveStatus) (*client.SolveResponse, error) {
		return p.conn.Client().Build(ctx, opt, "", func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
			out, refused = fetch(ctx, c, state, s)
			if refused != nil {
				return nil, refused
			}
			return gateway.NewResult(), nil
		}, statuses)
	})
	switch {
	case err == nil:
		return out, in.failure()
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(context.Cause(bounded), errFetchBudget):
		err = errFetchBudget
	default:
		if refused != nil {
			err = refused // what follows from it says less
		}
		err = explain(ctx, p, in, err, begun, o)
	}
	var told hint.Hinter
	hints := []string{"see whether the daemon reaches it: it is the daemon that fetches the URL, not this machine"}
	if errors.As(err, &told) && len(told.Hints()) > 0 {
		hints = nil // it knows better
	}
	return nil, hint.Wrap(err, fmt.Sprintf("definition %s (node %s of builder %s, %s)", buildflag.RedactURL(s.URL), p.Node.Name, p.Node.Builder, p.Target.Endpoint), hints...)
}

// fetch runs as a frontend of the daemon's.
func fetch(ctx context.Context, c gateway.Client, state llb.State, s Source) (*Fetched, error) {
	kind, err := buildflag.RemoteContext(s.URL)
	if err != nil {
		return nil, err
	}
	ref, err := solveState(ctx, c, state)
	if err != nil {
		return nil, err
	}
	if kind == buildflag.ContextGit {
		files, err := readFiles(ctx, ref, s)
		return &Fetched{Files: files}, err
	}
	head, err := ref.ReadFile(ctx, gateway.ReadRequest{Filename: request.FetchedName, Range: &gateway.FileRange{Length: archiveHead}})
	if err != nil {
		return nil, err
	}
	if !isArchive(head) {
		data, err := readFile(ctx, ref, request.FetchedName, s.MaxFile)
		return &Fetched{Single: true, Files: []FetchedFile{{Name: s.URL, Data: data}}}, err
	}
	if ref, err = solveState(ctx, c, request.Unpacked(state)); err != nil {
		return nil, err
	}
	files, err := readFiles(ctx, ref, s)
	return &Fetched{Archive: true, Files: files}, err
}

func solveState(ctx context.Context, c gateway.Client, state llb.State) (gateway.Reference, error) {
	def, err := state.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	res, err := c.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB(), Evaluate: true})
	if err != nil {
		return nil, err
	}
	ref, err := res.SingleRef()
	if err == nil && ref == nil {
		err = errors.New("it is empty")
	}
	return ref, err
}

// readFiles reads what is named, or the defaults that are there.
func readFiles(ctx context.Context, ref gateway.Reference, s Source) ([]FetchedFile, error) {
	names := s.Names
	if len(names) == 0 {
		entries, err := ref.ReadDir(ctx, gateway.ReadDirRequest{Path: "."})
		if err != nil {
			return nil, err
		}
		there := map[string]bool{}
		for _, e := range entries {
			there[e.GetPath()] = true
		}
		names = slices.DeleteFunc(slices.Clone(s.Defaults), func(name string) bool { return !there[name] })
	}
	var out []FetchedFile
	for _, name := range names {
		data, err := readFile(ctx, ref, name, s.MaxFile)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		out = append(out, FetchedFile{Name: name, Data: data})
	}
	return out, nil
}

// readFile reads a file that is not too large. The daemon resolves symbolic links
// inside of what it has fetched.
func readFile(ctx context.Context, ref gateway.Reference, name string, limit int64) ([]byte, error) {
	data, err := ref.ReadFile(ctx, gateway.ReadRequest{Filename: name, Range: &gateway.FileRange{Length: int(limit) + 1}})
	if err == nil && int64(len(data)) > limit {
		err = hint.New(fmt.Sprintf("%s has more than %d bytes", name, limit))
	}
	return data, err
}

// archiveHead is how much of a file tells whether it is an archive.
const archiveHead = 1024

// isArchive tells whether BuildKit can unpack what begins so: a tar archive,
// plain or compressed.
func isArchive(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b\x08", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		if len(head) >= len(magic) && string(head[:len(magic)]) == magic {
			return true
		}
	}
	const tarMagic, tarAt = "ustar", 257
	return len(head) >= tarAt+len(tarMagic) && string(head[tarAt:tarAt+len(tarMagic)]) == tarMagic
}
