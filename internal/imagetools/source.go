package imagetools

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/registry"
)

// Request says what image to make.
type Request struct {
	Files       []string // what was read from files, ahead of the arguments
	Sources     []string
	Tags        []string
	DryRun      bool // it will not be written, so that no tag is needed
	Append      bool // to what the first tag stands for
	PreferIndex bool // also of one image
	Platforms   []ocispecs.Platform
	Annotations []buildflag.Annotation
}

// source is one of the things that the image is made of.
type source struct {
	ref  Location
	desc Descriptor // what is said of it, or all that is known; the digest is empty for ref's
	text string     // as given, for errors
}

// Plan is a request that makes sense.
type Plan struct {
	req     Request
	sources []source
	targets []Location
	repos   []string // of the targets, sorted
}

// NewPlan checks a request. Nobody is contacted.
func NewPlan(req Request) (*Plan, error) {
	switch {
	case len(req.Sources)+len(req.Files) == 0:
		return nil, hint.New("no sources specified", "name images, digests or --file DESCRIPTOR")
	case !req.DryRun && len(req.Tags) == 0:
		return nil, hint.New("can't push with no tags specified, please set --tag or --dry-run", "-t REGISTRY/REPOSITORY:TAG")
	}
	if err := checkAnnotations(req.Annotations); err != nil {
		return nil, err
	}
	p := &Plan{req: req}
	for _, t := range req.Tags {
		l, err := ParseLocation(t)
		if err != nil {
			return nil, hint.Wrap(err, "--tag")
		}
		p.targets = append(p.targets, l)
		if !slices.Contains(p.repos, l.Name()) {
			p.repos = append(p.repos, l.Name())
		}
	}
	slices.Sort(p.repos)
	if err := p.readSources(); err != nil {
		return nil, err
	}
	return p, p.locate()
}

// checkAnnotations refuses those that have no place: the manifests stay what they
// are.
func checkAnnotations(all []buildflag.Annotation) error {
	for _, a := range all {
		switch a.Level {
		case buildflag.OnManifest:
			return hint.New(fmt.Sprintf("--annotation %s: %q annotations are not supported: the manifests stay what they are", a.Key, a.Level),
				"annotate the index: --annotation index:KEY=VALUE", "or its entries: --annotation manifest-descriptor:KEY=VALUE")
		case buildflag.OnIndexDescriptor:
			return hint.New(fmt.Sprintf("--annotation %s: %q annotations are invalid while creating an image: no index lists it", a.Key, a.Level),
				"annotate the index: --annotation index:KEY=VALUE")
		}
	}
	return nil
}

func (p *Plan) readSources() error {
	texts := slices.Concat(p.req.Files, p.req.Sources)
	if p.req.Append && len(p.req.Tags) > 0 {
		texts = slices.Insert(texts, 0, p.req.Tags[0])
	}
	for i, text := range texts {
		fromFile := i >= len(texts)-len(p.req.Files)-len(p.req.Sources) && i < len(texts)-len(p.req.Sources)
		s, err := parseSource(text, fromFile)
		if err != nil {
			return hint.Wrap(err, fmt.Sprintf("failed to parse source %s, valid sources are digests, references and descriptors", shown(text)))
		}
		p.sources = append(p.sources, s)
	}
	return nil
}

// shown is a source in an error; files can be long.
func shown(text string) string {
	const most = 200
	if len(text) > most {
		return fmt.Sprintf("%.*q…", most, text)
	}
	return fmt.Sprintf("%q", text)
}

// parseSource reads a digest, a reference or a descriptor in JSON. A file may also have
// a manifest, which stands for itself.
func parseSource(text string, fromFile bool) (source, error) {
	s := source{text: text}
	trimmed := strings.TrimSpace(text)
	switch {
	case trimmed == "":
		return s, errors.New("it is empty")
	case strings.HasPrefix(trimmed, "{"):
		return s, s.parseJSON([]byte(trimmed), []byte(text), fromFile)
	case strings.HasPrefix(trimmed, "sha256:"), strings.HasPrefix(trimmed, "sha384:"), strings.HasPrefix(trimmed, "sha512:"):
		d, err := parseDigest(trimmed)
		s.desc.Digest = d
		return s, err
	}
	l, err := ParseLocation(trimmed)
	s.ref = l
	return s, err
}

// parseJSON reads a descriptor, or a manifest of which whole is every byte.
func (s *source) parseJSON(text, whole []byte, fromFile bool) error {
	var parsed struct {
		SchemaVersion int `json:"schemaVersion"`
		Descriptor
	}
	if err := json.Unmarshal(text, &parsed); err != nil {
		return err
	}
	if parsed.SchemaVersion != 0 {
		if !fromFile {
			return hint.New(fmt.Sprintf("expected an OCI content descriptor, got a manifest or index (schemaVersion %d)", parsed.SchemaVersion),
				"a manifest is read from a file: --file FILE")
		}
		s.desc = Descriptor{MediaType: registry.DetectMediaType(whole), Digest: digest.FromBytes(whole), Size: int64(len(whole))}
		return nil
	}
	if parsed.Digest == "" {
		return errors.New("invalid descriptor: digest is required")
	}
	s.desc = parsed.Descriptor
	if err := checkDescriptor(s.desc); err != nil {
		return fmt.Errorf("invalid descriptor: %w", err)
	}
	return nil
}

// isPlace tells whether the source says itself where it is.
func (s source) isPlace() bool { return s.ref != Location{} }

// locate finds out in which repository the sources are that only have a digest.
func (p *Plan) locate() error {
	repos := slices.Clone(p.repos)
	var home *Location
	for _, s := range p.sources {
		if !s.isPlace() {
			continue
		}
		if !slices.Contains(repos, s.ref.Name()) {
			repos = append(repos, s.ref.Name())
		}
		if home == nil {
			home = &s.ref
		}
	}
	if len(repos) == 0 {
		return hint.New("no repositories specified, please set a reference in tag or source", "write REGISTRY/REPOSITORY@DIGEST")
	}
	if home == nil {
		home = &p.targets[0]
	}
	for i, s := range p.sources {
		if s.isPlace() {
			continue
		}
		if len(repos) > 1 {
			return hint.New(fmt.Sprintf("multiple repositories specified, cannot infer repository for %s", shown(s.text)), "write REGISTRY/REPOSITORY@DIGEST")
		}
		p.sources[i].ref = home.WithDigest(s.desc.Digest)
	}
	return nil
}

// Name is the value of image.name in the metadata: the repositories that are written
// to.
func (p *Plan) Name() string { return strings.Join(p.repos, ",") }
