package build

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/berthbuild/berth/internal/imageindex"
	"github.com/berthbuild/berth/internal/request"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Result is what a build made.
type Result struct {
	Builder string
	Parts   []Part               // one for each node that took part
	Index   *ocispecs.Descriptor // of the joined index, when several nodes pushed
	Names   []string             // under which Index was pushed

	// Warnings are the frontend's, for Metadata; the caller sets those that are
	// wanted there.
	Warnings []client.VertexWarning

	unknown error // why nothing is known of the context's origin
}

// Part is what one node made.
type Part struct {
	Node      string
	Ref       string // the build's id on the daemon
	Platforms []ocispecs.Platform
	Response  map[string]string // as the daemon's exporters answered

	// Provenance is the daemon's record of it by platform, or under "" where it
	// is not split by platforms; nil when it was not asked for.
	Provenance map[string]json.RawMessage

	unrecorded error // why there is no Provenance
}

// MetadataWarnings is the key of what the frontend found. Of a bake it stands
// beside its targets.
const MetadataWarnings = "buildx.build.warnings"

// The keys of the metadata that are not the exporters'.
const (
	metadataRef        = "buildx.build.ref"
	metadataProvenance = "buildx.build.provenance"
)

// Missing says what could not be found out about a build that is otherwise as
// it should be.
func (r *Result) Missing() []error {
	var all []error
	if r.unknown != nil {
		all = append(all, r.unknown)
	}
	for _, p := range r.Parts {
		if p.unrecorded != nil {
			all = append(all, fmt.Errorf("the metadata lacks the provenance of what node %s built: %w", p.Node, p.unrecorded))
		}
	}
	return all
}

// ImageID is what -q and --iidfile give: the image's configuration digest, or
// the manifest's or index's where there is no single one. Empty when no image
// was made.
func (r *Result) ImageID() string {
	if r.Index != nil {
		return r.Index.Digest.String()
	}
	if len(r.Parts) != 1 {
		return ""
	}
	resp := r.Parts[0].Response
	if id := resp[exptypes.ExporterImageConfigDigestKey]; id != "" {
		return id
	}
	return resp[exptypes.ExporterImageDigestKey]
}

// Metadata is the content of a --metadata-file: the exporters' answers, decoded
// where they are JSON, and the build's reference.
func (r *Result) Metadata() map[string]any {
	out := map[string]any{}
	for k, v := range r.response() {
		out[k] = decoded(v)
	}
	for i, p := range r.Parts {
		ref := fmt.Sprintf("%s/%s/%s", r.Builder, p.Node, p.Ref)
		if i == 0 {
			out[metadataRef] = ref
		}
		if len(r.Parts) > 1 {
			for _, platform := range p.Platforms {
				out[metadataRef+"/"+platforms.FormatAll(platform)] = ref
			}
		}
		for platform, predicate := range p.Provenance {
			out[p.provenanceKey(platform, len(r.Parts) > 1)] = predicate
		}
	}
	if len(r.Warnings) > 0 {
		out[MetadataWarnings] = r.Warnings
	}
	if r.Index != nil {
		delete(out, exptypes.ExporterImageConfigDigestKey) // several images have several
		out[exptypes.ExporterImageDigestKey] = r.Index.Digest.String()
		out[exptypes.ExporterImageDescriptorKey] = r.Index
		out[exptypes.ExporterImageNameKey] = strings.Join(r.Names, ",")
	}
	return out
}

// provenanceKey is the key of one platform's provenance. Where several nodes
// built, each has a platform of its own.
func (p Part) provenanceKey(platform string, several bool) string {
	if platform == "" && several && len(p.Platforms) > 0 {
		platform = platforms.FormatAll(p.Platforms[0])
	}
	if platform == "" {
		return metadataProvenance
	}
	return metadataProvenance + "/" + platform
}

// response is what the exporters of all nodes agree on. Each node has its own
// digest, and none of them is the build's.
func (r *Result) response() map[string]string {
	out := map[string]string{}
	for i, p := range r.Parts {
		if i == 0 {
			maps.Copy(out, p.Response)
		}
		maps.DeleteFunc(out, func(k, v string) bool {
			other, ok := p.Response[k]
			return !ok || other != v
		})
	}
	return out
}

// decoded turns base64-wrapped or plain JSON objects into values; everything
// else stays the string that it is.
func decoded(v string) any {
	if raw, err := base64.StdEncoding.DecodeString(v); err == nil {
		if obj, ok := object(raw); ok {
			return obj
		}
	}
	if obj, ok := object([]byte(v)); ok {
		return obj
	}
	return v
}

func object(raw []byte) (json.RawMessage, bool) {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil || len(m) == 0 {
		return nil, false
	}
	return raw, true
}

// joinPushed makes one index out of what several nodes pushed by digest.
func joinPushed(ctx context.Context, req request.Request, res *Result, o Options) error {
	tags := req.PushTags()
	if len(tags) == 0 {
		return nil
	}
	step := o.Progress.Step("[internal] pushing one index for all platforms")
	in := imageindex.Input{Tags: tags, Platforms: req.Platforms, Keychain: o.Keychain, Insecure: req.PushInsecure()}
	repo, _, _ := strings.Cut(tags[0], "@")
	if i := strings.LastIndexByte(repo, ':'); i > strings.LastIndexByte(repo, '/') {
		repo = repo[:i]
	}
	for _, p := range res.Parts {
		in.Images = append(in.Images, imageindex.Image{Ref: repo + "@" + p.Response[exptypes.ExporterImageDigestKey], Node: p.Node})
	}
	desc, err := imageindex.Push(ctx, in)
	step.Done(err)
	if err != nil {
		return err
	}
	res.Index, res.Names = &desc, tags
	return nil
}
