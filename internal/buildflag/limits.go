package buildflag

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/docker/go-units"

	"github.com/berthbuild/berth/internal/hint"
)

// The networks of RUN that --network chooses from. The default one is "".
const (
	NetworkNone = "none"
	NetworkHost = "host"
)

// ParseNetwork reads --network. The default network is "".
func ParseNetwork(s string) (string, error) {
	switch s {
	case "default":
		return "", nil
	case NetworkNone, NetworkHost:
		return s, nil
	case "":
		return "", hint.New("--network is empty", "it is default, none or host")
	}
	return "", hint.New(fmt.Sprintf("--network %s: BuildKit has no such network for RUN", shown(s)), "it is default, none or host")
}

// ParseShmSize reads --shm-size into bytes; 0 leaves the size to the daemon.
func ParseShmSize(s string) (int64, error) {
	n, err := bytesOf(s)
	return n, hint.Wrap(err, "--shm-size "+shown(s), "write a number of bytes, or with a unit: 64m, 1g")
}

// bytesOf reads a size with docker's units. What is too large for a daemon to
// mean is refused, as it is not a number of bytes any more.
func bytesOf(s string) (int64, error) {
	const most = 1 << 60
	n, err := units.RAMInBytes(s)
	switch {
	case s == "":
		return 0, errors.New("it is empty")
	case err != nil:
		return 0, errors.New("it is not a size")
	case n < 0 || n > most:
		return 0, errors.New("it is too large")
	}
	return n, nil
}

// ParseUlimits reads the values of --ulimit, each TYPE=SOFT[:HARD]. Of two for
// one type the last counts, as in docker.
func ParseUlimits(vals []string) ([]Ulimit, error) {
	var out []Ulimit
	for _, v := range vals {
		u, err := units.ParseUlimit(v)
		if v == "" {
			err = errors.New("it is empty")
		}
		if err != nil {
			return nil, hint.Wrap(plainNumber(err), "--ulimit "+shown(v),
				"write --ulimit TYPE=SOFT[:HARD], such as nofile=1024:4096; -1 is unlimited")
		}
		next := Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard}
		if i := slices.IndexFunc(out, func(o Ulimit) bool { return o.Name == next.Name }); i >= 0 {
			out[i] = next
			continue
		}
		out = append(out, next)
	}
	return out, nil
}

// plainNumber says of a number that cannot be read no more than that.
func plainNumber(err error) error {
	var num *strconv.NumError
	if errors.As(err, &num) {
		return fmt.Errorf("%s is not a whole number", shown(num.Num))
	}
	return printable(err)
}

// resourceKeys are the names of --resource, and those that the frontend has.
func resourceKeys() map[string]string {
	return map[string]string{
		"memory": "memory", "memory-swap": "memswap", "cpu-shares": "cpushares", "cpu-period": "cpuperiod",
		"cpu-quota": "cpuquota", "cpuset-cpus": "cpusetcpus", "cpuset-mems": "cpusetmems",
	}
}

// ParseResources reads the values of --resource, each NAME=VALUE. Of two for one
// name the last counts. A limit that is no limit (0, or a quota of -1) is left
// out.
func ParseResources(vals []string) ([]Resource, error) {
	var out []Resource
	for _, v := range vals {
		name, value, _ := strings.Cut(v, "=")
		text, err := resourceValue(name, value, strings.Contains(v, "="))
		if err != nil {
			return nil, hint.Wrap(err, "--resource "+shown(v), "the limits are "+strings.Join(sortedKeys(resourceKeys()), ", ")+
				"; write --resource memory=2g, --resource cpu-quota=50000")
		}
		key := resourceKeys()[name]
		out = slices.DeleteFunc(out, func(r Resource) bool { return r.Key == key })
		if text != "" {
			out = append(out, Resource{Key: key, Value: text})
		}
	}
	return out, nil
}

// resourceValue is the value as the frontend reads it, "" for no limit.
func resourceValue(name, value string, has bool) (string, error) {
	switch _, known := resourceKeys()[name]; {
	case !has:
		return "", errors.New("it is not NAME=VALUE")
	case !known:
		return "", fmt.Errorf("limit %s is not known", shown(name))
	case value == "":
		return "", errors.New("the value is empty")
	}
	switch name {
	case "memory":
		return limit(bytesOf(value))
	case "memory-swap":
		if value == "-1" {
			return value, nil // unlimited
		}
		return limit(bytesOf(value))
	case "cpuset-cpus", "cpuset-mems":
		return value, checkSet(value)
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err == nil && (n < -1 || n < 0 && name != "cpu-quota") {
		err = errors.New("it is negative")
	}
	return limit(max(n, 0), plainNumber(err))
}

func limit(n int64, err error) (string, error) {
	if err != nil || n == 0 {
		return "", err
	}
	return strconv.FormatInt(n, 10), nil
}

// checkSet reads a list of numbers and ranges: 0-3,5.
func checkSet(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(from, 10, 16)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseUint(to, 10, 16)
		}
		if err != nil || b < a {
			return fmt.Errorf("%s is not a list of numbers and ranges, such as 0-3,5", shown(s))
		}
	}
	return nil
}

// ParseCgroupParent reads --cgroup-parent. A path that leaves the daemon's own
// tree again is refused.
func ParseCgroupParent(s string) (string, error) {
	const flag = "--cgroup-parent"
	switch {
	case s == "":
		return "", hint.New(flag+" is empty", "name a cgroup, or leave it out")
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }):
		return "", hint.New(flag+" "+shown(s)+": it has a character that no cgroup's name has", "name a cgroup, such as /builds")
	case slices.Contains(strings.Split(s, "/"), ".."):
		return "", hint.New(flag+" "+shown(s)+`: it has ".." in it`, "name the cgroup itself, such as /builds")
	}
	return s, nil
}

// ParseNoCacheFilter reads the values of --no-cache-filter: stages, with commas
// between them.
func ParseNoCacheFilter(vals []string) ([]string, error) {
	var out []string
	for _, v := range vals {
		for stage := range strings.SplitSeq(v, ",") {
			stage = strings.TrimSpace(stage)
			bad := stage == "" || strings.ContainsFunc(stage, func(r rune) bool { return !isWord(r) })
			if bad {
				return nil, hint.New(fmt.Sprintf("--no-cache-filter %s: %s is not the name of a stage", shown(v), shown(stage)),
					"write --no-cache-filter STAGE,STAGE", "for all stages: --no-cache")
			}
			if !slices.Contains(out, stage) {
				out = append(out, stage)
			}
		}
	}
	return out, nil
}
