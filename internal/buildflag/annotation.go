package buildflag

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthbuild/berth/internal/hint"
)

// annotationLevels are the words that may stand before an annotation.
func annotationLevels() []AnnotationLevel {
	return []AnnotationLevel{OnManifest, OnIndex, OnManifestDescriptor, OnIndexDescriptor}
}

// OfIndex tells whether the level is about the index of several manifests.
func (l AnnotationLevel) OfIndex() bool { return l == OnIndex || l == OnIndexDescriptor }

// ParseAnnotations reads the values of --annotation: [LEVEL[PLATFORM],…:]KEY=VALUE.
// Without a level, the manifest is meant. One with several levels becomes
// several; a repeated one stays, and the last counts. The platform of an index
// is passed over, as in buildx: an index has none.
func ParseAnnotations(vals []string) ([]Annotation, error) {
	var out []Annotation
	for _, v := range vals {
		some, err := parseAnnotation(v)
		if err != nil {
			return nil, hint.Wrap(err, "--annotation "+shown(v),
				"write --annotation KEY=VALUE, or with a level: --annotation index:KEY=VALUE, --annotation 'manifest[linux/amd64]:KEY=VALUE'")
		}
		out = append(out, some...)
	}
	return out, nil
}

func parseAnnotation(value string) ([]Annotation, error) {
	if value == "" {
		return nil, errors.New("it is empty")
	}
	left, text, ok := strings.Cut(value, "=")
	if !ok {
		return nil, errors.New("it is not KEY=VALUE")
	}
	where, key, ok := strings.Cut(left, ":")
	if !ok {
		where, key = string(OnManifest), left
	}
	switch {
	case key == "":
		return nil, errors.New("the key is empty")
	case strings.ContainsFunc(key, badInKey):
		return nil, errors.New("the key has a space or a character that cannot be printed")
	}
	var out []Annotation
	for level := range strings.SplitSeq(where, ",") {
		a, err := parseLevel(level)
		if err != nil {
			return nil, err
		}
		a.Key, a.Value = key, text
		if !slices.ContainsFunc(out, func(o Annotation) bool { return o.Level == a.Level && samePlatform(o.Platform, a.Platform) }) {
			out = append(out, a)
		}
	}
	return out, nil
}

// parseLevel reads LEVEL or LEVEL[PLATFORM].
func parseLevel(s string) (Annotation, error) {
	level, rest, qualified := strings.Cut(s, "[")
	a := Annotation{Level: AnnotationLevel(level)}
	if !slices.Contains(annotationLevels(), a.Level) {
		return a, fmt.Errorf("level %s is not known: it is manifest, index, manifest-descriptor or index-descriptor", shown(level))
	}
	if !qualified {
		return a, nil
	}
	platform, closed := strings.CutSuffix(rest, "]")
	if !closed || platform == "" || strings.ContainsFunc(platform, badInPlatform) {
		return a, fmt.Errorf("%s is not LEVEL[PLATFORM], as in manifest[linux/arm64]", shown(s))
	}
	p, err := platforms.Parse(platform)
	if err != nil {
		return a, printable(err)
	}
	if p = platforms.Normalize(p); !a.Level.OfIndex() {
		a.Platform = &p
	}
	return a, nil
}

func samePlatform(a, b *ocispecs.Platform) bool {
	if a == nil || b == nil {
		return a == b
	}
	return platforms.Format(*a) == platforms.Format(*b)
}

// badInKey tells the characters that BuildKit's own grammar of exporter
// attributes does not carry: it would pass over the annotation in silence.
func badInKey(r rune) bool {
	return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == unicode.ReplacementChar
}

// badInPlatform leaves out OS versions and wildcards, which BuildKit does not
// read there.
func badInPlatform(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_/-", r)
}
