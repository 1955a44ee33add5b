package buildflag

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
)

// Jobs is how several targets are built together: --jobs.
type Jobs struct {
	Parallel    int  // how many at once; 0 is all
	DeferError  bool // a target that fails ends those only that are built upon it
	DeferOutput bool // nothing is written or pushed until all have been built
}

const (
	jobsFailFast    = "fail-fast"
	jobsDeferError  = "defer-error"
	jobsDeferOutput = "defer-output"
)

const jobsShape = "write --jobs N, or --jobs MODE[,parallel=N] with " + jobsFailFast + ", " + jobsDeferError + " or " + jobsDeferOutput

// ParseJobs reads N, or MODE[,parallel=N].
func ParseJobs(s string) (Jobs, error) {
	var j Jobs
	if n, err := strconv.Atoi(s); err == nil {
		j.Parallel = n
		return j, checkParallel(n, s)
	}
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if s == "" {
		return j, nil
	}
	if err != nil {
		return j, hint.Wrap(err, "--jobs", jobsShape)
	}
	seen := map[string]bool{}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			key, value = "mode", f
		}
		if seen[key] {
			return j, hint.New(fmt.Sprintf("duplicate jobs option %q", key), jobsShape)
		}
		seen[key] = true
		if err := j.set(key, value); err != nil {
			return j, err
		}
	}
	return j, nil
}

func (j *Jobs) set(key, value string) error {
	switch key {
	case "mode":
		switch value {
		case jobsFailFast:
		case jobsDeferError:
			j.DeferError = true
		case jobsDeferOutput:
			j.DeferOutput = true
		default:
			return hint.New(fmt.Sprintf("invalid jobs mode %q", value), jobsShape)
		}
	case "parallel":
		n, err := strconv.Atoi(value)
		if err != nil {
			n = -1
		}
		j.Parallel = n
		return checkParallel(n, value)
	default:
		return hint.New(fmt.Sprintf("unknown jobs option %q", key), jobsShape)
	}
	return nil
}

func checkParallel(n int, text string) error {
	if n < 0 {
		return hint.New(fmt.Sprintf("invalid jobs parallel value %q: must be a non-negative integer", text), jobsShape)
	}
	return nil
}
