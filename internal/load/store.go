package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/client"
)

// Store is how an engine keeps images.
type Store string

const (
	// Graph is a graph driver: one image each, layers known by their chain IDs.
	Graph Store = "graphdriver"
	// Containerd is containerd's content and snapshots: indexes too, layers known
	// by the digests of their blobs.
	Containerd Store = "containerd"
)

// snapshotterType is the driver-type that an engine with containerd's store tells.
const snapshotterType = "io.containerd.snapshotter."

// Asker is an engine that can be asked what it has. *client.Client implements it.
type Asker interface {
	Engine
	Info(ctx context.Context, o client.InfoOptions) (client.SystemInfoResult, error)
	ClientVersion() string
	ImageInspect(ctx context.Context, image string, o ...client.ImageInspectOption) (client.ImageInspectResult, error)
	ImageList(ctx context.Context, o client.ImageListOptions) (client.ImageListResult, error)
	ImageTag(ctx context.Context, o client.ImageTagOptions) (client.ImageTagResult, error)
}

// Facts are what has to be known of an engine before anything is built for it.
type Facts struct {
	Store Store
	// Checks: the engine tells of an image whether all of it is there. Nothing may
	// be left out without that: one with containerd's store takes half of an image
	// for all of it.
	Checks bool
}

// lookBudget bounds the asking before a build.
const lookBudget = 10 * time.Second

var errSilent = errors.New("no answer within " + lookBudget.String())

// Look asks an engine how it keeps images. One that answers and does not say is
// taken for one with a graph driver that cannot check.
func Look(ctx context.Context, engine Asker) (Facts, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lookBudget, errSilent)
	defer cancel()
	res, err := engine.Info(ctx, client.InfoOptions{})
	switch {
	case err != nil && ctx.Err() != nil:
		return Facts{}, asking(engine, context.Cause(ctx))
	case err != nil && disconnected(err):
		return Facts{}, asking(engine, err)
	case err != nil:
		return Facts{Store: Graph}, nil // a proxy before it may allow little; an archive may be let through
	}
	f := Facts{Store: Graph, Checks: true}
	if slices.ContainsFunc(res.Info.DriverStatus, func(kv [2]string) bool {
		return kv[0] == "driver-type" && strings.HasPrefix(kv[1], snapshotterType)
	}) {
		f = Facts{Store: Containerd, Checks: apiSince(engine.ClientVersion(), 1, 48)}
	}
	return f, nil
}

// apiSince compares a version such as 1.48.
func apiSince(version string, major, minor int) bool {
	a, b, _ := strings.Cut(version, ".")
	gotMajor, err1 := strconv.Atoi(a)
	gotMinor, err2 := strconv.Atoi(b)
	return err1 == nil && err2 == nil && (gotMajor > major || gotMajor == major && gotMinor >= minor)
}

// asking says what was being done.
func asking(engine Engine, err error) error {
	return explainDoing(engine, "asking the Docker engine what it has", err)
}

// Where names an engine for a sentence.
func Where(engine Engine) string {
	if h, ok := engine.(interface{ DaemonHost() string }); ok {
		return fmt.Sprintf("the Docker engine at %s", h.DaemonHost())
	}
	return "the Docker engine"
}
