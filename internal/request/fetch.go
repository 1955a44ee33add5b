package request

import (
	"path"

	"github.com/moby/buildkit/client/llb"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
)

// FetchedName is the name of the one file that Fetched makes of a download.
const FetchedName = "context"

// Fetched is what a daemon fetches of a Git or HTTP URL, as a source of the build
// graph: a repository's files, or one file. title is the step's name.
func Fetched(url, title string) (llb.State, error) {
	kind, err := buildflag.RemoteContext(url)
	if err != nil {
		return llb.State{}, err
	}
	switch kind {
	case buildflag.ContextGit:
		ref, err := buildflag.ParseGit(url)
		if err != nil {
			return llb.State{}, err
		}
		return gitInput(ref, title), nil
	case buildflag.ContextHTTP:
		return llb.HTTP(url, llb.Filename(FetchedName), llb.WithCustomName(title)), nil
	}
	return llb.State{}, hint.New(buildflag.RedactURL(url) + " is no URL")
}

// Unpacked is the content of an archive that Fetched has downloaded.
func Unpacked(archive llb.State) llb.State {
	return llb.Scratch().File(llb.Copy(archive, FetchedName, "/", &llb.CopyInfo{AttemptUnpack: true}))
}

// folderOf is one folder of an archive that is downloaded, as a context.
func folderOf(url, folder string) llb.State {
	archive := llb.HTTP(url, llb.Filename(FetchedName), llb.WithCustomName("[internal] load remote build context "+buildflag.RedactURL(url)))
	return llb.Scratch().File(llb.Copy(Unpacked(archive), path.Join("/", folder), "/", &llb.CopyInfo{CopyDirContentsOnly: true}),
		llb.WithCustomName("[internal] take "+folder+" out of it"))
}
