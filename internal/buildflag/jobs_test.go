package buildflag

import "testing"

func TestParseJobs(t *testing.T) {
	for in, want := range map[string]Jobs{
		"": {}, "0": {}, "4": {Parallel: 4}, "fail-fast": {}, "mode=fail-fast": {}, "defer-error": {DeferError: true},
		"defer-output,parallel=2": {DeferOutput: true, Parallel: 2}, "parallel=1,defer-error": {DeferError: true, Parallel: 1}, "parallel=3": {Parallel: 3},
	} {
		if got, err := ParseJobs(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"-1", "x", "keep-going", "fail-fast,foo=1", "parallel=x", "parallel=", "parallel=-1", "parallel=2,parallel=3", "fail-fast,defer-error", "2,parallel=3", "fail-fast,", "\"", "99999999999999999999"} {
		if got, err := ParseJobs(in); err == nil {
			t.Errorf("%q: %+v", in, got)
		}
	}
}
