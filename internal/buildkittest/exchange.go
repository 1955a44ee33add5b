package buildkittest

import (
	"context"
	"errors"

	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/session/secrets"
	"github.com/tonistiigi/fsutil"
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

// FetchDir copies the client's local folder called name ("context",
// "dockerfile") into dest.
func (b *Build) FetchDir(ctx context.Context, name, dest string) error {
	caller, err := b.Session(ctx)
	if err != nil {
		return err
	}
	return filesync.FSSync(ctx, caller, filesync.FSSendRequestOpt{Name: name, DestDir: dest})
}

// Secret asks the client for a secret.
func (b *Build) Secret(ctx context.Context, id string) ([]byte, error) {
	caller, err := b.Session(ctx)
	if err != nil {
		return nil, err
	}
	return secrets.GetSecret(ctx, caller, id)
}
