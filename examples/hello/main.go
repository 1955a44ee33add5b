// Command hello is the example that `make quickstart` builds into an image: one
// static program, so that the image needs nothing beside it.
//
//	hello              prints a greeting, and the build's note when there is one
//	hello note FILE    writes FILE; the Dockerfile's RUN steps call it
package main

import (
	"fmt"
	"os"
	"runtime"
)

// notePath is where the Dockerfile puts what its RUN step wrote.
const notePath = "/note.txt"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	if len(args) == 2 && args[0] == "note" {
		text := "a RUN step wrote this on " + platform + "\n"
		return os.WriteFile(args[1], []byte(text), 0o644)
	}
	if len(args) != 0 {
		return fmt.Errorf("unknown arguments %q", args)
	}
	fmt.Printf("Hello from an image that berth built, running on %s.\n", platform)
	if note, err := os.ReadFile(notePath); err == nil {
		fmt.Print("Its note: ", string(note))
	}
	return nil
}
