// Command berth builds container images on BuildKit daemons that their owners
// run themselves. All of it is in internal/cli.
package main

import (
	"os"

	"github.com/berthbuild/berth/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args)) }
