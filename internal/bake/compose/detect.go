package compose

import (
	"bytes"
	"path/filepath"
	"strings"
)

// Is tells whether a file is a Compose file: by its name where that says so, else
// by what is in it. JSON and HCL are no Compose files under such names.
func Is(name string, data []byte) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".yml", ".yaml":
		return true
	case ".json", ".hcl":
		return false
	}
	return looksLike(data)
}

// looksLike tells whether a text is a mapping that has what every Compose file
// has; HCL is no YAML, or is a text to it.
func looksLike(data []byte) bool {
	if !bytes.Contains(data, []byte("services")) && !bytes.Contains(data, []byte("include")) {
		return false
	}
	docs, err := documents(data)
	if err != nil || len(docs) == 0 {
		return false
	}
	for _, d := range docs {
		if len(d.Content) != 1 {
			return false
		}
		top := d.Content[0]
		for i := 0; i+1 < len(top.Content); i += 2 {
			if key := top.Content[i].Value; key == "services" || key == "include" {
				return true
			}
		}
	}
	return false
}
