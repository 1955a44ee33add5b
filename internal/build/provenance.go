package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	"github.com/berthbuild/berth/internal/request"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	provenancetypes "github.com/moby/buildkit/solver/llbsolver/provenance/types"
	"github.com/moby/buildkit/util/grpcerrors"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
)

// ProvenanceDetail is how much of a build's provenance a Result has.
type ProvenanceDetail string

const (
	// NoProvenance asks the daemon for none.
	NoProvenance ProvenanceDetail = ""
	// MinProvenance leaves out the steps, and what the daemon notes besides.
	MinProvenance ProvenanceDetail = "min"
	// MaxProvenance is all that the daemon has recorded.
	MaxProvenance ProvenanceDetail = "max"
)

const (
	// recordBudget is how long the daemon may take for its record of a build.
	recordBudget = 10 * time.Second
	// lateRecord is how long of that is waited for a record that is not there
	// when the build has ended.
	lateRecord = 2 * time.Second
	// maxProvenance bounds one predicate. They grow with the steps of a build;
	// a large one has a few MiB.
	maxProvenance = 64 << 20
)

// What a record's attestations are told apart by.
const (
	predicateType = "in-toto.io/predicate-type"
	slsaPrefix    = "https://slsa.dev/provenance/"
	slsa02        = slsaPrefix + "v0.2"
)

// addProvenance reads the daemon's record of what was just built. A build is
// none the worse for a record that cannot be read; see Result.Missing.
func (p *Part) addProvenance(ctx context.Context, from part, c request.Capabilities, o Options) {
	if o.Provenance == NoProvenance || !c.History {
		return
	}
	step := o.Progress.Step(from.titled("resolving provenance for metadata file"))
	p.Provenance, p.unrecorded = provenance(ctx, from.conn.Client(), p.Ref, o.Provenance)
	if p.unrecorded != nil {
		step.Log(p.unrecorded.Error())
	}
	step.Done(nil) // as an error it would look like the build's
}

// titled is the name of a step of the part, which says whose it is when several
// nodes build.
func (p part) titled(name string) string {
	if p.prefix == "" {
		return name
	}
	return p.prefix + " " + name
}

// provenance is what the daemon recorded of a build's provenance, by platform,
// or under "" for a build that is not split by platforms. It is the record's
// own, and there also when none was attested.
func provenance(ctx context.Context, c *client.Client, ref string, detail ProvenanceDetail) (map[string]json.RawMessage, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, recordBudget, fmt.Errorf("the daemon did not answer within %s", recordBudget))
	defer cancel()
	all, err := recorded(ctx, c, ref, detail)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return all, err
}

func recorded(ctx context.Context, c *client.Client, ref string, detail ProvenanceDetail) (map[string]json.RawMessage, error) {
	rec, err := record(ctx, c, ref)
	switch {
	case grpcerrors.Code(err) == codes.Unimplemented:
		return nil, nil // it is no such daemon, whatever its version says
	case err != nil:
		return nil, err
	}
	results := map[string]*controlapi.BuildResultInfo{}
	if rec.Result != nil {
		results[""] = rec.Result
	}
	for platform, res := range rec.Results {
		results[platform] = res
	}
	store := proxy.NewContentStore(c.ContentClient())
	all := map[string]json.RawMessage{}
	for platform, res := range results {
		for _, d := range res.GetAttestations() {
			if !strings.HasPrefix(d.GetAnnotations()[predicateType], slsaPrefix) {
				continue
			}
			if all[platform], err = predicate(ctx, store, d, detail); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// errNoRecord is a daemon that has forgotten the build, or never remembers any.
var errNoRecord = errors.New("the daemon has no record of the build")

// record finds the record of a build that has just ended.
func record(ctx context.Context, c *client.Client, ref string) (*controlapi.BuildHistoryRecord, error) {
	rec, err := listen(ctx, c, &controlapi.BuildHistoryRequest{Ref: ref, EarlyExit: true})
	if !errors.Is(err, errNoRecord) {
		return rec, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lateRecord, errNoRecord)
	defer cancel()
	rec, err = listen(ctx, c, &controlapi.BuildHistoryRequest{Ref: ref})
	switch {
	case err == nil:
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case grpcerrors.Code(err) == codes.DeadlineExceeded: // the daemon's clock was first
		err = errNoRecord
	}
	return rec, err
}

// listen reads events until the build's end is among them.
func listen(ctx context.Context, c *client.Client, req *controlapi.BuildHistoryRequest) (*controlapi.BuildHistoryRecord, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := c.ControlClient().ListenBuildHistory(ctx, req)
	if err != nil {
		return nil, err
	}
	for {
		ev, err := events.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil, errNoRecord
		case err != nil:
			return nil, err
		case ev.Type == controlapi.BuildHistoryEventType_COMPLETE && ev.Record.GetRef() == req.Ref:
			return ev.Record, nil
		}
	}
}

// predicate reads one provenance in the form that buildx writes, which is that
// of SLSA v0.2 whatever the daemon keeps.
func predicate(ctx context.Context, store content.Store, d *controlapi.Descriptor, detail ProvenanceDetail) (json.RawMessage, error) {
	if d.Size > maxProvenance {
		return nil, fmt.Errorf("the provenance has %d MiB, which is too much", d.Size>>20)
	}
	dgst, err := digest.Parse(d.Digest)
	if err != nil {
		return nil, fmt.Errorf("the daemon's record names a digest that is none: %w", err)
	}
	data, err := content.ReadBlob(ctx, store, ocispecs.Descriptor{MediaType: d.MediaType, Digest: dgst, Size: d.Size})
	if err != nil {
		return nil, err
	}
	return slsa(data, d.Annotations[predicateType], detail)
}

func slsa(data []byte, kind string, detail ProvenanceDetail) (json.RawMessage, error) {
	old := &provenancetypes.ProvenancePredicateSLSA02{}
	if kind == slsa02 {
		if err := json.Unmarshal(data, old); err != nil {
			return nil, fmt.Errorf("the daemon's record: %w", err)
		}
	} else {
		var now provenancetypes.ProvenancePredicateSLSA1
		if err := json.Unmarshal(data, &now); err != nil {
			return nil, fmt.Errorf("the daemon's record: %w", err)
		}
		old = now.ConvertToSLSA02()
	}
	// A proxy's address may have a password in it, and comes out of docker's
	// configuration without anybody having asked for it.
	maps.DeleteFunc(old.Invocation.Parameters.Args, func(key, _ string) bool {
		name, isArg := strings.CutPrefix(key, "build-arg:")
		return isArg && strings.HasSuffix(strings.ToLower(name), "_proxy")
	})
	if detail != MaxProvenance {
		old.BuildConfig, old.Metadata = nil, nil
	}
	return json.Marshal(old)
}
