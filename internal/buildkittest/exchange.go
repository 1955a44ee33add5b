package buildkittest

import (
	"bytes"
	"context"
	"errors"
	neturl "net/url"
	"strconv"

	"github.com/containerd/containerd/v2/core/content"
	sessioncontent "github.com/moby/buildkit/session/content"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/session/sshforward"
	"github.com/moby/buildkit/session/upload"
	"github.com/tonistiigi/fsutil"
	"google.golang.org/grpc/metadata"
)

// SendFile is an exporter that ends in one file or stream (tar, oci, docker):
// the client's export number id gets data.
func (b *Build) SendFile(ctx context.Context, id int, data []byte) error {
	caller, err := b.Session(ctx)
	if err != nil {
		return err
	}
	w, err := filesync.CopyFileWriter(ctx, nil, id, caller)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return errors.Join(err, w.Close())
}

// SendDir is an exporter that ends in a folder (local): the client's export
// number id gets what is in dir.
func (b *Build) SendDir(ctx context.Context, id int, dir string) error {
	caller, err := b.Session(ctx)
	if err != nil {
		return err
	}
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		return err
	}
	return filesync.CopyToCaller(ctx, fs, id, caller, nil)
}

// Stream opens the stream of the client's export number id, for a daemon that sends
// what no honest one does: messages of fsutil's protocol (types.Packet) to a folder,
// or filesync.BytesMessage to a file.
func (b *Build) Stream(ctx context.Context, id int) (filesync.FileSend_DiffCopyClient, error) {
	caller, err := b.Session(ctx)
	if err != nil {
		return nil, err
	}
	ctx = metadata.NewOutgoingContext(caller.Context(ctx), metadata.Pairs("buildkit-attachable-exporter-id", strconv.Itoa(id)))
	return filesync.NewFileSendClient(caller.Conn()).DiffCopy(ctx)
}

// FetchDir copies the client's local folder called name ("context",
// "dockerfile") into dest.
func (b *Build) FetchDir(ctx context.Context, name, dest string) error {
	caller, err := b.Session(ctx)
	if err != nil {
		return err
	}
	return filesync.FSSync(ctx, caller, filesync.FSSendRequestOpt{Name: name, DestDir: dest})
}

// FetchPaths is FetchDir of what the paths lead to, links followed, as a
// Dockerfile's COPY asks for it. include narrows it down.
func (b *Build) FetchPaths(ctx context.Context, name, dest string, follow, include []string) error {
	caller, err := b.Session(ctx)
	if err != nil {
		return err
	}
	return filesync.FSSync(ctx, caller, filesync.FSSendRequestOpt{Name: name, DestDir: dest, FollowPaths: follow, IncludePatterns: include})
}

// Upload asks the client for what it has under the path of a URL
// http://buildkit-session/….
func (b *Build) Upload(ctx context.Context, url string) ([]byte, error) {
	caller, err := b.Session(ctx)
	if err != nil {
		return nil, err
	}
	u, err := neturl.Parse(url)
	if err != nil {
		return nil, err
	}
	up, err := upload.New(ctx, caller, u)
	if err != nil {
		return nil, err
	}
	var data bytes.Buffer
	_, err = up.WriteTo(&data)
	return data.Bytes(), err
}

// Store is the client's content store of that id.
func (b *Build) Store(ctx context.Context, id string) (content.Store, error) {
	caller, err := b.Session(ctx)
	if err != nil {
		return nil, err
	}
	return sessioncontent.NewCallerStore(caller, id), nil
}

// SSH asks whether the client forwards an agent under the id.
func (b *Build) SSH(ctx context.Context, id string) error {
	caller, err := b.Session(ctx)
	if err != nil {
		return err
	}
	return sshforward.CheckSSHID(ctx, caller, id)
}

// Secret asks the client for a secret.
func (b *Build) Secret(ctx context.Context, id string) ([]byte, error) {
	caller, err := b.Session(ctx)
	if err != nil {
		return nil, err
	}
	return secrets.GetSecret(ctx, caller, id)
}
