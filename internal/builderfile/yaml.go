package builderfile

import (
	"errors"
	"io"

	"go.yaml.in/yaml/v3"
)

// decode reads the next document; none at all is an error, too.
func decode(d *yaml.Decoder, n *yaml.Node) error {
	err := d.Decode(n)
	if isEOF(err) {
		return errEmpty
	}
	return err
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }
