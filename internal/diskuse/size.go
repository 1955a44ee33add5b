package diskuse

import (
	"fmt"
	"math"

	"github.com/docker/go-units"
)

// ParseSize reads a number of bytes as docker's flags take it: "128mb", "2g",
// "1.5GiB", each in steps of 1024.
func ParseSize(text string) (int64, error) {
	n, err := units.RAMInBytes(text)
	if err != nil {
		return 0, fmt.Errorf("invalid size: '%s'", text)
	}
	if n < 0 || n == math.MaxInt64 {
		return 0, fmt.Errorf("invalid size: '%s' is too large", text)
	}
	return n, nil
}
