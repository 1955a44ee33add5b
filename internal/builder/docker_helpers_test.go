package builder

import (
	"testing"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dockerconfig"
	"github.com/berthbuild/berth/internal/remote"
	"github.com/containerd/platforms"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

func dialEnv(config func() (*dockerconfig.Config, error)) dial.Env { return dial.Env{Docker: config} }

// mustTarget is where the only node of a builder is dialled.
func mustTarget(t *testing.T, s *Service, name string) remote.Target {
	t.Helper()
	b, err := s.Find(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	target, err := b.Nodes[0].Target()
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func platformsOf(name string) []ocispecs.Platform {
	return []ocispecs.Platform{platforms.Normalize(platforms.MustParse(name))}
}

func onePlatformOf(name string) *ocispecs.Platform {
	if name == "" {
		return nil
	}
	return &platformsOf(name)[0]
}
