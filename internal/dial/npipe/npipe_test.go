package npipe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"testing"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

func TestOnlyWindows(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("this is Windows")
	}
	e, err := endpoint.Parse("npipe:////./pipe/buildkitd")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Scheme().Dial(t.Context(), e)
	var de *dial.Error
	if !errors.As(err, &de) || de.Class != OnlyWindows || de.Heals || len(hint.Of(err)) == 0 {
		t.Errorf("error = %#v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Scheme().Dial(ctx, e); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestExplain(t *testing.T) {
	for _, tc := range []struct {
		err   error
		class dial.Class
		heals bool
	}{
		{&fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}, NoPipe, true},
		{&fs.PathError{Op: "open", Path: "x", Err: fs.ErrPermission}, PipePermission, false},
		{fmt.Errorf("open: %w", context.DeadlineExceeded), NoPipe, true},
		{errors.New("other"), PipeFailed, false},
	} {
		var e *dial.Error
		if err := explain("//./pipe/x", tc.err); !errors.As(err, &e) || e.Class != tc.class || e.Heals != tc.heals || !errors.Is(err, tc.err) {
			t.Errorf("%v: %#v", tc.err, err)
		}
	}
	if err := explain("//./pipe/x", context.Canceled); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
