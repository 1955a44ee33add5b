package cli

import (
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/bake/eval"
)

// A repository without a definition is no error where there is one here.
func TestBakeDefinitionFiles(t *testing.T) {
	const url = "https://example.com/x.git"
	there, here := []eval.File{{Name: "docker-bake.hcl"}}, []eval.File{{Name: "my.hcl"}}
	if _, err := definitionFiles(url, nil, nil); err == nil || !strings.Contains(err.Error(), "couldn't find a bake definition in "+url) {
		t.Error(err)
	}
	if files, err := definitionFiles(url, nil, here); err != nil || len(files) != 1 {
		t.Error(files, err)
	}
	if files, err := definitionFiles(url, there, here); err != nil || len(files) != 2 || files[1].Name != "my.hcl" {
		t.Error(files, err)
	}
}
