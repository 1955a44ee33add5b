// Command scanner stands in for a generator of SBOMs: it follows BuildKit's
// protocol for such images, and lists the names of the files that it is shown.
package main

import (
	"encoding/json"
	"io/fs"
	"log"
	"os"
	"path/filepath"
)

func main() {
	source := os.Getenv("BUILDKIT_SCAN_SOURCE")
	var files []map[string]string
	err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, map[string]string{"fileName": path[len(source):]})
		}
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	statement, err := json.Marshal(map[string]any{
		"_type":         "https://in-toto.io/Statement/v0.1",
		"predicateType": "https://spdx.dev/Document",
		"predicate": map[string]any{
			"SPDXID": "SPDXRef-DOCUMENT", "spdxVersion": "SPDX-2.3", "name": "stand-in", "files": files,
			"comment": os.Getenv("BUILDKIT_SCAN_NOTE"),
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	target := filepath.Join(os.Getenv("BUILDKIT_SCAN_DESTINATION"), filepath.Base(source)+".spdx.json")
	if err := os.WriteFile(target, statement, 0o644); err != nil {
		log.Fatal(err)
	}
}
