package bake

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/bake/eval"
)

// generated is a definition of about n targets, with a matrix of eight in every
// tenth block, functions, inheritance and one group.
func generated(n int) []byte {
	var b strings.Builder
	b.WriteString(`
variable "REGISTRY" { default = "docker.io/acme" }
variable "TAG" { default = "latest" }
variable "LEVELS" {
  type = list(string)
  default = ["a", "b"]
}
function "image" {
  params = [name, tag]
  result = "${REGISTRY}/${name}:${tag}"
}
function "tags" {
  params = [name]
  variadic_params = more
  result = concat([image(name, TAG)], [for m in more : image(name, m)])
}
target "_common" {
  args = {
    GO = "1.22"
    VERSION = TAG
  }
  labels = { "org.opencontainers.image.source" = "https://example.com/${TAG}" }
  platforms = ["linux/amd64", "linux/arm64"]
}
`)
	var names []string
	for i, k := 0, 0; i < n; k++ {
		if k%10 == 0 && i+8 <= n {
			fmt.Fprintf(&b, `
target "m%[1]d" {
  name = "m%[1]d-${os}-${replace(ver, ".", "-")}"
  matrix = {
    os = ["alpine", "debian"]
    ver = ["1.0", "1.1", "2.0", "2.1"]
  }
  inherits = ["_common"]
  context = "img/m%[1]d"
  tags = tags("m%[1]d", os, ver)
  args = {
    OS = os
    VER = upper(ver)
    N = add(%[1]d, 1)
  }
}
`, k)
			names = append(names, fmt.Sprintf("%q", fmt.Sprintf("m%d", k)))
			i += 8
			continue
		}
		parents := `"_common"`
		if k%5 == 2 {
			parents += fmt.Sprintf(`, "t%d"`, k-1)
		}
		fmt.Fprintf(&b, `
target "t%[1]d" {
  inherits = [%[2]s]
  context = "img/t%[1]d"
  dockerfile = "Dockerfile.${%[1]d %% 2 == 0 ? "even" : "odd"}"
  tags = tags("t%[1]d", "x", "v${%[1]d}")
  args = {
    NAME = format("t-%%04d", %[1]d)
    LVL = join(",", LEVELS)
  }
  cache-from = ["type=registry,ref=${image("t%[1]d", "cache")}"]
  output = ["type=image,push=false"]
}
`, k, parents)
		names = append(names, fmt.Sprintf("%q", fmt.Sprintf("t%d", k)))
		i++
	}
	fmt.Fprintf(&b, "\ngroup \"default\" {\n  targets = [%s]\n}\n", strings.Join(names, ", "))
	return []byte(b.String())
}

func printAll(tb testing.TB, data []byte) []byte {
	tb.Helper()
	def, err := eval.Evaluate(context.Background(), eval.Input{Files: []eval.File{{Name: "x.hcl", Data: data, Format: eval.FormatHCL}}})
	if err != nil {
		tb.Fatal(err)
	}
	plan, err := Resolve(def, Selection{})
	if err != nil {
		tb.Fatal(err)
	}
	out, err := plan.JSON()
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func BenchmarkPrint(b *testing.B) {
	for _, n := range []int{20, 200, 2000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			data := generated(n)
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				printAll(b, data)
			}
		})
	}
}
