package request

import (
	"net/url"
	"path"
	"reflect"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	"github.com/moby/buildkit/util/gitutil"

	"github.com/berthbuild/berth/internal/buildflag"
)

// hasQuery tells whether a Git URL has ?NAME=VALUE in it.
func hasQuery(u string) bool {
	before, _, _ := strings.Cut(u, "#")
	return strings.Contains(before, "?")
}

// gitFragment writes a Git URL as URL#REF:FOLDER, which every frontend and
// every daemon reads. It fails when the URL says more than that.
func gitFragment(u string, ref *dfgitutil.GitRef) (string, bool) {
	before, _, _ := strings.Cut(u, "?")
	fragment := ref.Ref
	if sub := cleanSub(ref.SubDir); sub != "" {
		fragment += ":" + sub
	}
	if strings.Contains(before, "://") {
		fragment = (&url.URL{Fragment: fragment}).EscapedFragment()
	}
	plain := before
	if fragment != "" {
		plain += "#" + fragment
	}
	again, err := buildflag.ParseGit(plain)
	if err != nil || again == nil {
		return "", false
	}
	want := *ref
	want.SubDir, again.SubDir = cleanSub(want.SubDir), cleanSub(again.SubDir)
	return plain, reflect.DeepEqual(want, *again)
}

func cleanSub(dir string) string { return strings.TrimPrefix(path.Join("/", dir), "/") }

// gitInput is a repository as a source of the build graph, for frontends that
// would not understand its URL. BuildKit's own llb.Git is not for that: it
// connects to hosts of ssh from here, to ask for their keys.
func gitInput(ref *dfgitutil.GitRef, name string) llb.State {
	remote := ref.Remote
	if ref.IndistinguishableFromLocal {
		remote = "https://" + remote
	}
	id := remote
	u, err := gitutil.ParseURL(remote)
	if err == nil {
		id = u.Host + path.Join("/", u.Path) // the same for every protocol
	}
	if sub := cleanSub(ref.SubDir); sub != "" {
		id += "#" + ref.Ref + ":" + sub
	} else if ref.Ref != "" {
		id += "#" + ref.Ref
	}
	attrs := map[string]string{
		pb.AttrAuthTokenSecret:  llb.GitAuthTokenKey,
		pb.AttrAuthHeaderSecret: llb.GitAuthHeaderKey,
	}
	needs := map[apicaps.CapID]bool{pb.CapSourceGit: true}
	add := func(on bool, attr, value string, need apicaps.CapID) {
		if on {
			attrs[attr], needs[need] = value, true // a daemon that lacks it refuses the build
		}
	}
	add(true, pb.AttrFullRemoteURL, remote, pb.CapSourceGitFullURL)
	add(err == nil && u.Scheme == gitutil.SSHProtocol, pb.AttrMountSSHSock, "default", pb.CapSourceGitMountSSHSock)
	add(ref.KeepGitDir != nil && *ref.KeepGitDir, pb.AttrKeepGitDir, "true", pb.CapSourceGitKeepDir)
	add(ref.Checksum != "", pb.AttrGitChecksum, ref.Checksum, pb.CapSourceGitChecksum)
	add(ref.Submodules != nil && !*ref.Submodules, pb.AttrGitSkipSubmodules, "true", pb.CapSourceGitSkipSubmodules)
	add(ref.MTime != "", pb.AttrGitMTime, ref.MTime, pb.CapSourceGitMTime)
	add(ref.FetchByCommit, pb.AttrGitFetchByCommit, "true", pb.CapSourceGitFetchByCommit)
	c := llb.Constraints{Metadata: llb.OpMetadata{Caps: needs, Description: map[string]string{"llb.customname": name}}}
	return llb.NewState(llb.NewSource("git://"+id, attrs, c).Output())
}
