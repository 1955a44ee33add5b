package build

import (
	"os"
	"testing"

	"github.com/berthbuild/berth/internal/remote"
)

func TestMain(m *testing.M) {
	remote.UseBuildKitCodec() // as the program does
	os.Exit(m.Run())
}
