package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const stream = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: chatter\n"}
{"Action":"pass","Package":"p","Test":"TestQuick","Elapsed":19}
{"Action":"pass","Package":"p","Test":"TestA/part","Elapsed":40}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":41.4}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:1: broken\n"}
{"Action":"fail","Package":"p","Test":"TestB","Elapsed":90}
{"Action":"output","Package":"p","Test":"TestC","Output":"=== RUN   TestC\n"}
{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:1: no dockerd\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"output","Package":"p","Test":"TestD","Output":"cut off\n"}
{"Action":"output","Package":"p","Output":"FAIL\n"}
{"Action":"output","Package":"p","Output":"panic: oh\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
not json
`
	var out strings.Builder
	r := &report{out: &out, output: map[string][]string{}}
	if err := r.read(strings.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	if code := r.finish(true, false); code != 1 {
		t.Errorf("exit code %d", code)
	}
	const want = `    b_test.go:1: broken
panic: oh
not json
cut off
slow: TestB took 90 s
slow: TestA took 41 s
skipped tests: 1
  p TestC: c_test.go:1: no dockerd
FAIL	p	0.1s
3 passed, 1 failed, 1 skipped
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestSkipFailsInCI(t *testing.T) {
	for _, ci := range []bool{false, true} {
		r := &report{out: new(strings.Builder), skipped: []string{"p TestC: no dockerd"}}
		if code := r.finish(false, ci); (code != 0) != ci {
			t.Errorf("CI=%v: exit code %d", ci, code)
		}
	}
}
