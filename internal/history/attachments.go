package history

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	controlapi "github.com/moby/buildkit/api/services/control"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// predicateType tells a record's attestations apart.
const predicateType = "in-toto.io/predicate-type"

// Attachment is something that hangs on a record: an attestation, or a manifest
// of what was built.
type Attachment struct {
	Digest   string
	Platform string `json:",omitempty"`
	Type     string // the predicate's, or the media type

	desc ocispecs.Descriptor
}

// maxAttachments bounds those of one record.
const maxAttachments = 10_000

// Attachments lists what hangs on the record, by platform. An index is looked
// into for the manifests of platforms; where it cannot be read, the list has less
// and the errors say why.
func (r *Record) Attachments(ctx context.Context) ([]Attachment, []error) {
	var all []Attachment
	var failed []error
	add := func(platform string, info *controlapi.BuildResultInfo) {
		for _, d := range results(info) {
			more, err := r.resultAttachments(ctx, platform, d)
			if err != nil {
				failed = append(failed, r.explain(err))
			}
			all = append(all, more...)
		}
		for _, d := range info.GetAttestations() {
			desc, err := descriptor(d)
			if err != nil {
				failed = append(failed, r.explain(err))
				continue
			}
			kind := d.Annotations[predicateType]
			if kind == "" {
				kind = d.MediaType
			}
			all = append(all, Attachment{Digest: d.Digest, Platform: platform, Type: kind, desc: desc})
		}
	}
	if r.Result != nil {
		add("", r.Result)
	}
	for _, platform := range slices.Sorted(maps.Keys(r.Results)) {
		add(platform, r.Results[platform])
	}
	slices.SortStableFunc(all, func(a, b Attachment) int { return strings.Compare(a.Platform, b.Platform) })
	if len(all) > maxAttachments {
		failed = append(failed, fmt.Errorf("record %s has %d attachments; %d are shown", r.Ref, len(all), maxAttachments))
		all = all[:maxAttachments]
	}
	return all, failed
}

// results are what was built, each once.
func results(info *controlapi.BuildResultInfo) []*controlapi.Descriptor {
	var all []*controlapi.Descriptor
	for _, i := range slices.Sorted(maps.Keys(info.GetResults())) {
		all = append(all, info.Results[i])
	}
	if d := info.GetResultDeprecated(); d != nil && !slices.ContainsFunc(all, func(o *controlapi.Descriptor) bool { return o.GetDigest() == d.Digest }) {
		all = append([]*controlapi.Descriptor{d}, all...)
	}
	return slices.DeleteFunc(all, func(d *controlapi.Descriptor) bool { return d == nil })
}

// resultAttachments is one result, and the manifests in it when it is an index.
func (r *Record) resultAttachments(ctx context.Context, platform string, d *controlapi.Descriptor) ([]Attachment, error) {
	desc, err := descriptor(d)
	if err != nil {
		return nil, err
	}
	all := []Attachment{{Digest: d.Digest, Platform: platform, Type: d.MediaType, desc: desc}}
	if !images.IsIndexType(d.MediaType) {
		return all, nil
	}
	data, err := r.blob(ctx, desc, maxDocument)
	if err != nil {
		return all, err
	}
	var index ocispecs.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return all, fmt.Errorf("%s is no index: %w", d.Digest, err)
	}
	for _, m := range index.Manifests {
		if m.Platform == nil || m.Platform.OS == "unknown" || m.Platform.Architecture == "unknown" {
			continue
		}
		all = append(all, Attachment{
			Digest: m.Digest.String(), Platform: platforms.FormatAll(*m.Platform), Type: m.MediaType, desc: m,
		})
	}
	return all, nil
}

// Short names of types of attachments.
const (
	provenancePrefix = "https://slsa.dev/provenance/"
	spdxType         = "https://spdx.dev/Document"
)

// AttachmentTypes are the short names that Wanted.Type may have.
func AttachmentTypes() []string { return []string{"provenance", "sbom", "index", "manifest", "error"} }

// Wanted chooses an attachment. Empty fields do not matter.
type Wanted struct{ Type, Platform string }

func (w Wanted) match(a Attachment) bool {
	if w.Platform != "" && w.Platform != a.Platform && !samePlatform(w.Platform, a.Platform) {
		return false
	}
	switch w.Type {
	case "", a.Type:
		return true
	case "provenance":
		return strings.HasPrefix(a.Type, provenancePrefix)
	case "sbom":
		return a.Type == spdxType
	case "index":
		return images.IsIndexType(a.Type)
	case "manifest":
		return images.IsManifestType(a.Type)
	}
	return false
}

func samePlatform(want, is string) bool {
	if is == "" {
		return false
	}
	a, err := platforms.Parse(want)
	if err != nil {
		return false
	}
	b, err := platforms.Parse(is)
	return err == nil && platforms.OnlyStrict(a).Match(b)
}

// Attachment reads the first attachment that is wanted. Nothing and no error is
// none.
func (r *Record) Attachment(ctx context.Context, w Wanted) ([]byte, error) {
	all, failed := r.Attachments(ctx)
	for _, a := range all {
		if w.match(a) {
			data, err := r.blob(ctx, a.desc, maxAttachment)
			return data, r.explain(err)
		}
	}
	if len(failed) > 0 {
		return nil, failed[0]
	}
	return nil, nil
}

// Content reads what the record's place has by a digest, whether or not it hangs
// on the record.
func (r *Record) Content(ctx context.Context, dgst string) ([]byte, error) {
	d, err := digest.Parse(dgst)
	if err != nil {
		return nil, fmt.Errorf("invalid digest %q: %w", dgst, err)
	}
	data, err := r.blob(ctx, ocispecs.Descriptor{Digest: d}, maxAttachment)
	if errors.Is(err, ErrGone) || errors.Is(err, errNotInBundle) {
		err = hint.New(fmt.Sprintf("there is nothing with the digest %s", d), "berth history inspect lists what hangs on a record")
	}
	return data, r.explain(err)
}
