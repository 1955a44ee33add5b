package history

import (
	"path"
	"path/filepath"
	"strings"

	"github.com/berthbuild/berth/internal/gitinfo"
)

// What frontends are told, as far as it is looked at here.
const (
	attrContext    = "context"
	attrFile       = "filename"
	attrTarget     = "target"
	attrSource     = "vcs:source"
	attrRevision   = "vcs:revision"
	attrContextDir = "vcs:localdir:context"
	attrFileDir    = "vcs:localdir:dockerfile"
	attrBuildName  = "build-arg:BUILDKIT_BUILD_NAME"

	defaultFile = "Dockerfile"
)

// Name is what people recognise the build by, as buildx makes it up: the name it
// was given, or where its context or Dockerfile is, with the target in brackets.
// It is empty where nothing of that is known.
func (r *Record) Name() string {
	attrs := r.FrontendAttrs
	if name := attrs[attrBuildName]; name != "" {
		return name
	}
	name := shown(attrs[attrContext])
	if name == "" && attrs[attrContextDir] != "." {
		name = attrs[attrContextDir]
	}
	if name == "" {
		name = placeName(r.localContext(), r.dockerfilePath())
	}
	switch target := attrs[attrTarget]; {
	case name == "" && target != "":
		return target
	case target != "":
		return name + " (" + target + ")"
	case name == "":
		return attrs[attrSource]
	}
	return name
}

// localContext is the folder that was built, absolute and with slashes; empty
// where it is not known, or was none.
func (r *Record) localContext() string {
	if r.Local == nil || r.Local.LocalPath == "-" || isRemote(r.Local.LocalPath) {
		return ""
	}
	return filepath.ToSlash(r.Local.LocalPath)
}

// dockerfilePath is the Dockerfile's, as far as it is known: of this machine, or
// within the repository.
func (r *Record) dockerfilePath() string {
	if r.Local != nil && !isRemote(r.Local.LocalPath) {
		if p := r.Local.DockerfilePath; p != "" && p != "-" && p != defaultFile && !isRemote(p) {
			return filepath.ToSlash(p)
		}
	}
	file := r.FrontendAttrs[attrFile]
	if file == defaultFile {
		file = ""
	}
	if dir := r.FrontendAttrs[attrFileDir]; dir != "" && dir != "." {
		return path.Join(dir, file)
	}
	return file
}

// placeName is the last part of a context's path, or of its Dockerfile's where
// that says more.
func placeName(context, file string) string {
	context = strings.TrimSuffix(context, "/")
	plain := file == "" || file == defaultFile
	if rest, ok := strings.CutSuffix(file, "/"+defaultFile); ok {
		file, plain = rest, true
	}
	switch {
	case file == "" || file == defaultFile || plain && file == context:
		if context == "" {
			return ""
		}
		return path.Base(context)
	case strings.HasPrefix(file, context+"/"):
		return path.Join(path.Base(context), file[len(context)+1:])
	case context == "": // within a repository, or told by nobody
		return file
	case plain:
		return path.Base(file)
	}
	return path.Join(path.Base(path.Dir(file)), path.Base(file))
}

// shown is a source without credentials. Images, which have an @ of their own, stay
// as they are.
func shown(source string) string {
	switch scheme, _, _ := strings.Cut(source, "://"); strings.ToLower(scheme) {
	case "http", "https", "git", "ssh":
		return gitinfo.WithoutCredentials(source)
	}
	return source
}

// isRemote tells what a daemon fetches itself from a folder.
func isRemote(context string) bool {
	return strings.Contains(context, "://") || strings.HasPrefix(context, "git@") || strings.HasPrefix(context, "github.com/")
}
