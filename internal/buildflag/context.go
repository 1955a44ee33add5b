package buildflag

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/util/gitutil"
	digest "github.com/opencontainers/go-digest"

	"github.com/berthbuild/berth/internal/hint"
)

// ContextKind says where a context comes from.
type ContextKind int

// The kinds. A folder is sent from here, and so is an OCI layout; the others
// are fetched by the daemon.
const (
	ContextFolder ContextKind = iota
	ContextGit                // a Git repository, in any form that BuildKit knows
	ContextHTTP               // a file that is downloaded: a tar archive, a Dockerfile
	ContextImage              // docker-image://
	ContextLayout             // oci-layout://
)

// NamedContext is one --build-context: a further source that a Dockerfile
// names in FROM, COPY --from or RUN --mount=from.
type NamedContext struct {
	Name   string // as BuildKit looks it up: without docker.io/library/ and :latest
	Kind   ContextKind
	Value  string // a folder, the layout's too, as typed; a URL; an image's reference
	Tag    string // of a layout; "" when none was given
	Digest string // of a layout; "" until the tag was looked up
	Sub    string // of an archive that a URL is, a folder in it; no flag says so
}

const contextShape = "write --build-context NAME=FOLDER, NAME=URL, NAME=docker-image://IMAGE or NAME=oci-layout://FOLDER[:TAG][@DIGEST]"

// ParseContexts reads the values of --build-context, in their order. A value
// that looks like a URL is one, even if there is a folder of that name.
func ParseContexts(vals []string) ([]NamedContext, error) {
	var out []NamedContext
	for _, v := range vals {
		c, err := parseContext(v)
		if err != nil {
			return nil, hint.Wrap(err, fmt.Sprintf("--build-context %q", redactPair(v)), contextShape)
		}
		if slices.ContainsFunc(out, func(o NamedContext) bool { return o.Name == c.Name }) {
			return nil, hint.New(fmt.Sprintf("--build-context: the name %q is given twice", c.Name), "give each context a name of its own")
		}
		out = append(out, c)
	}
	return out, nil
}

func parseContext(v string) (NamedContext, error) {
	name, value, ok := strings.Cut(v, "=")
	if !ok {
		return NamedContext{}, fmt.Errorf("invalid context value: %s, expected key=value", RedactURL(v))
	}
	if name == "" {
		return NamedContext{}, hint.New("the name is empty")
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return NamedContext{}, fmt.Errorf("invalid context name %s: %w", name, err)
	}
	c, err := contextSource(value)
	c.Name = strings.TrimSuffix(reference.FamiliarString(named), ":latest")
	return c, err
}

// contextSource tells the kinds of sources apart.
func contextSource(value string) (NamedContext, error) {
	scheme, rest, _ := strings.Cut(value, ":")
	switch {
	case value == "":
		return NamedContext{}, hint.New("the source is empty")
	case scheme == "docker-image" && strings.HasPrefix(rest, "//"):
		return imageContext(rest[2:])
	case scheme == "oci-layout" && strings.HasPrefix(rest, "//"):
		return layoutContext(rest[2:])
	case scheme == "target":
		return NamedContext{}, hint.New("a target is built beside others by bake only",
			"build both by `bake`, or write the target as a stage of the Dockerfile")
	}
	kind, err := RemoteContext(value)
	return NamedContext{Kind: kind, Value: value}, err
}

func imageContext(ref string) (NamedContext, error) {
	if ref == "" {
		return NamedContext{}, hint.New("docker-image:// names no image")
	}
	if _, err := reference.ParseNormalizedNamed(ref); err != nil {
		return NamedContext{}, fmt.Errorf("docker-image://%s: %w", ref, err)
	}
	return NamedContext{Kind: ContextImage, Value: ref}, nil
}

func layoutContext(s string) (NamedContext, error) {
	l, err := ParseLayout(s)
	return NamedContext{Kind: ContextLayout, Value: l.Folder, Tag: l.Tag, Digest: l.Digest}, err
}

// Layout is an image in a folder with an OCI layout.
type Layout struct {
	Folder string
	Tag    string // "" when none was given
	Digest string // "" when none was given
}

// ParseLayout reads what stands behind oci-layout://, which is FOLDER[:TAG][@DIGEST].
// Folders may have colons and at signs in their names, and drives too: a tag has no
// slash after its colon, and a digest begins with the name of its hash.
func ParseLayout(s string) (Layout, error) {
	l := Layout{Folder: s}
	if i := strings.LastIndexByte(s, '@'); i >= 0 && looksLikeDigest(s[i+1:]) {
		l.Folder, l.Digest = s[:i], s[i+1:]
		if _, err := digest.Parse(l.Digest); err != nil {
			return l, fmt.Errorf("oci-layout: the digest %q: %w", l.Digest, err)
		}
	}
	if i := strings.LastIndexByte(l.Folder, ':'); i >= 0 && !strings.ContainsAny(l.Folder[i:], `/\`) {
		l.Folder, l.Tag = l.Folder[:i], l.Folder[i+1:]
		if !wholeTag().MatchString(l.Tag) {
			return l, fmt.Errorf("oci-layout: %q is no tag", l.Tag)
		}
	}
	if l.Folder == "" {
		return l, hint.New("oci-layout:// names no folder")
	}
	return l, nil
}

func looksLikeDigest(s string) bool {
	algorithm, _, ok := strings.Cut(s, ":")
	return ok && slices.Contains([]string{"sha256", "sha384", "sha512"}, algorithm)
}

func wholeTag() *regexp.Regexp {
	return regexp.MustCompile("^(?:" + reference.TagRegexp.String() + ")$")
}

// RemoteContext tells what a context is by its text alone: a Git repository, a
// download, or a folder. The error is that of a URL that is meant for BuildKit
// and that BuildKit could not read.
func RemoteContext(s string) (ContextKind, error) {
	git, err := ParseGit(s)
	switch {
	case err != nil:
		return ContextGit, err
	case git != nil:
		return ContextGit, nil
	case strings.HasPrefix(s, "http://"), strings.HasPrefix(s, "https://"):
		return ContextHTTP, checkHTTP(s)
	}
	return ContextFolder, nil
}

// ParseGit reads the URL of a Git repository: https://….git, git://, ssh://,
// user@host:path and github.com/…, with #REF:FOLDER or ?branch=… and the like.
// It gives nil for anything else.
func ParseGit(s string) (*dfgitutil.GitRef, error) {
	ref, isGit, err := dfgitutil.ParseGitRef(s)
	if !isGit {
		return nil, nil //nolint:nilerr // what is no Git URL is no error
	}
	if err == nil {
		err = checkGit(ref)
	}
	if err != nil {
		return nil, hint.Wrap(err, "Git URL", "write URL#REF:FOLDER, or URL?branch=… with tag=, ref=, subdir=, checksum=")
	}
	return ref, nil
}

// checkGit refuses what Git, or the daemon, would read as something else.
func checkGit(ref *dfgitutil.GitRef) error {
	u, err := gitutil.ParseURL(ref.Remote)
	switch {
	case ref.IndistinguishableFromLocal:
		return nil // github.com/…
	case err != nil:
		return err
	case u.Host == "":
		return hint.New("it names no host")
	case strings.HasPrefix(u.Host, "-"), strings.HasPrefix(ref.Ref, "-"):
		return hint.New("a host or a ref that begins with - could be taken for an option")
	}
	return nil
}

// GitOverSSH tells whether fetching the repository takes an ssh agent.
func GitOverSSH(s string) bool {
	ref, err := ParseGit(s)
	if err != nil || ref == nil {
		return false
	}
	u, err := gitutil.ParseURL(ref.Remote)
	return err == nil && u.Scheme == gitutil.SSHProtocol
}

// GitInside is the URL of a folder of what the Git URL s names: of the same
// repository at the same ref. Nothing leads out of the repository.
func GitInside(s, folder string) (string, error) {
	ref, err := ParseGit(s)
	if err != nil {
		return "", err
	}
	if ref == nil {
		return "", fmt.Errorf("%s is not a Git repository", RedactURL(s))
	}
	sub := strings.TrimPrefix(path.Join("/", ref.SubDir, folder), "/")
	before, fragment, _ := strings.Cut(s, "#")
	base, rawQuery, _ := strings.Cut(before, "?")
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return "", fmt.Errorf("%s: its query cannot be read", RedactURL(s))
	}
	if query.Has("subdir") {
		if query.Del("subdir"); sub != "" {
			query.Set("subdir", sub)
		}
		before, sub = base, ""
		if len(query) > 0 {
			before += "?" + query.Encode()
		}
	}
	inner := ref.Ref
	if rawQuery != "" { // which may have the ref
		inner, _, _ = strings.Cut(fragment, ":")
	}
	if sub != "" {
		inner += ":" + sub
	}
	if inner == "" {
		return before, nil
	}
	if strings.Contains(base, "://") {
		inner = (&url.URL{Fragment: inner}).EscapedFragment()
	}
	return before + "#" + inner, nil
}
